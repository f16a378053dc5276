"""The operator at work: what it observes, what it decides (pure) and what it does."""
