"""Generated problems, for tests and benchmarks."""

from fxremat_solvers.testing.layered import chain, dag, layered, layered_network
from fxremat_solvers.testing.networks import resnet, transformer, unet, vgg
from fxremat_solvers.testing.unrolled import ode

__all__ = [
    "chain",
    "dag",
    "layered",
    "layered_network",
    "ode",
    "resnet",
    "transformer",
    "unet",
    "vgg",
]
