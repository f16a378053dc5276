"""The original data files: where they are, whether they are whole, and how each format is read.

1. `catalog.load_catalog()` gives what `catalog.yaml` says of each source.
2. `files.locate(...)` finds a source's files below a prefix.
3. `files.verify_sha256(file, opener)` compares a file with its known hash.
4. `source.read(file)` streams one file as `Raw` records and `Reject`s.
"""
