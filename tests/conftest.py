"""Settings of every test run."""

from hypothesis import settings

# The same examples in every run, and no deadline: hosts are busy, and time is not what we test.
settings.register_profile("autocompress", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("autocompress")
