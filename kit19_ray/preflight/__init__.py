"""`kit19 plan`: what a config would do, what it needs and what is missing. Reads, never writes; neither Ray nor torch.

sizes      a model's sizes and its number of parameters           pure
memory     bytes of one train worker, and what would make it fit  pure
stages     each stage's output, state and needs                   reads the root and the sources
preflight  the whole plan
show       as text
"""
