"""What the fork server does before anything else: imported there, by name, and nowhere else.

Responsible for: numeric libraries that do not spin. OpenBLAS's threads look for work in a loop for
2^26 ticks of the processor before they sleep, 25 ms and more, also when the library was only just
loaded: on the processor that the consumer's process needs at that moment, and later on the one that
another worker needs. 2^20 ticks are below half a millisecond.

Rule: this module imports nothing that could load such a library; who has set the variable has
decided.
"""

import os

os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")
