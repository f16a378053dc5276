"""The tasks: what a task file says, its templates, and Korean particles; the files are in definitions/."""
