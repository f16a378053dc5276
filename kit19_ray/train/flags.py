"""What a step may be asked to do besides training, as bits that the ranks put together.

Apart from the agreement on them, so that the driver, which asks, loads no torch.
"""

SAVE, STOP, FAILED, DRAINING, REPORT, ENOUGH = 1, 2, 4, 8, 16, 32
BITS = 6
