"""The files that stages leave for one another, each format with its one reader and its one writer."""
