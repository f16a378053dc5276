"""`kit19 submit`, `status` and `stop`: a verb as a job on a Ray cluster, as a RayJob or as a KitRun."""
