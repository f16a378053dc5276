"""The objects the operator makes: RayJobs, RayServices, their pods, and how they are named."""
