"""`kit19 drill`: a small real training on the user's cluster, and what becomes of it when something happens to it.

    sample_data  ->  faults (in the workers)  ->  drills (what is done, what must come of it)  ->  measure  ->  table

Beside the stages, and above none of them but train: nothing in the stages knows that there are drills.
"""
