"""One thread a process: the models of the tests are so small that threads cost more than they bring."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
