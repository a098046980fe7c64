"""From video files to features."""

import os

# MKL's matrix products otherwise add up in an order that depends on the number of threads: on a Xeon, 832 -> 128
# channels differed by 5e-7 between one thread and two. In strict mode they are the same, and as fast (measured on I3D).
# MKL reads this at its first product, so it must be set before any network runs.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
