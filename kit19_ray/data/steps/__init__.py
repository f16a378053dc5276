"""The bodies of the pipeline's steps: each makes what is missing of one kind, for all tasks side by side.

A step's Ray tasks stand at its module's end: the shared argument first, then the item.
"""
