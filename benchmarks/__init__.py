"""Benchmarks and the demo: real models, measured the same way by every method."""

import os

# The profiler, which the memory is measured with, writes banners to stderr at its default level.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
# Every row says what planning takes where nothing is known yet.
os.environ.setdefault("FXREMAT_CACHE", "off")
