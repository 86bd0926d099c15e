"""Generated problems, for tests and benchmarks."""

from fxremat_solvers.testing.layered import chain, dag, layered, layered_network
from fxremat_solvers.testing.networks import resnet, transformer, unet, vgg

__all__ = ["chain", "dag", "layered", "layered_network", "resnet", "transformer", "unet", "vgg"]
