"""One module for each format of the original files: bytes in, rows and rejected rows out."""
