"""What a row must pass to become an example."""
