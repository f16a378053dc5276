"""What every room may use: the console, the Ray session, hashes."""
