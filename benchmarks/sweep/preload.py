"""Imports what most models need, once, in the process that theirs are forked of. Runs nothing."""

from __future__ import annotations

import contextlib
import importlib

from benchmarks.sweep.one import declare_torchvision

_MODULES = (
    *("torch._dynamo", "torch._functorch.aot_autograd", "fxremat_solvers"),
    *("transformers.modeling_utils", "diffusers.models.modeling_utils", "timm"),
)

declare_torchvision()
for name in _MODULES:
    with contextlib.suppress(Exception):  # the models that need it say why it fails
        importlib.import_module(name)
