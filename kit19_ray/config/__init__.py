"""The config tree: its schema, how it is loaded from YAML, overrides and the environment, and its reference."""
