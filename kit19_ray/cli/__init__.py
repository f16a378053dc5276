"""The command line: `main` runs it, `stages`, `tasks` and `cluster` hold the verbs. Importing it loads nothing."""
