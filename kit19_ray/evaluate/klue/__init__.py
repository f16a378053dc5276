"""KLUE's two tasks of the paper as task files of lm-evaluation-harness, which has none."""
