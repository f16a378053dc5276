"""Looking without building: the tasks, one task, rows before a build, the difference of two builds."""
