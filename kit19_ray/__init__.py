"""Build KIT-19, fine-tune on it, measure it and serve it, on Ray."""

__version__ = "0.1.0"
