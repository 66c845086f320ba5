"""Settings of every test run."""

import torch
from hypothesis import settings

# The same examples in every run, and no deadline: hosts are busy, and time is not what we test.
settings.register_profile("autocompress", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("autocompress")

# Tiny models run faster on one thread, and far faster where other work wants the cores.
torch.set_num_threads(1)
