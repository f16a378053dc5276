"""KitRun -> RayJob data -> RayJob train -> RayJob evaluate -> gate -> RayService."""
