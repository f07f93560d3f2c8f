"""The command line `vcinr`."""

import os

# The context prior multiplies small matrices: OpenBLAS's threads wait for each other for longer than they work. NumPy reads this
# variable when it is first imported, so no module may import NumPy before this one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
