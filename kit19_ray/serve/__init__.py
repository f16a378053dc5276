"""Export -> OpenAI-compatible HTTP on Ray Serve."""
