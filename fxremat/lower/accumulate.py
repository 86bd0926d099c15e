"""What the autograd engine allocates after backward to put gradients into ``.grad``.

`AccumulateGrad` takes a gradient tensor over as it is, with two exceptions, in which it copies
(torch/csrc/autograd/functions/accumulate_grad.h): the same tensor is the gradient of several
parameters, which can't share it; or its strides are not its parameter's (the gradient layout
contract, utils/grad_layout_contract.h), as those of an expanded or a permuted gradient.

The engine does not say in which order it accumulates, so the most that any order needs is counted;
that is exact where the gradients that copies replace are of one size. Gradients that are added to
an earlier ``.grad`` need no more than they take themselves.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import fx

from fxremat import torch_hooks
from fxremat.graph import JointGraph
from fxremat.memory_model import allocated_bytes
from fxremat.nodes import traced_value

_BLOCK = 60 * 60  # elements


def accumulated_bytes(joint: JointGraph) -> int:
    """Bytes that accumulation takes beyond all that is live when backward ends; 0 if no copies."""
    parameters_of: dict[fx.Node, list[torch.Tensor]] = {}
    for gradient, parameter in _gradients(joint):
        parameters_of.setdefault(gradient, []).append(parameter)
    holders = Counter(joint.storage_of[node] for node in parameters_of)
    kept = {joint.storage_of[node] for node in (*joint.forward_outputs, *joint.scalar_tangents)}
    grown = 0
    replaced = [0]
    buffers = [0]
    for node, parameters in parameters_of.items():
        fits = all(_obeys_layout(traced_value(node), parameter) for parameter in parameters)
        # The last of several takes the tensor itself, if its strides are right.
        copies = len(parameters) - (1 if fits else 0)
        # numel(), as nbytes fails on sizes that were symbols before they were fixed.
        nbytes = int(parameters[0].numel()) * parameters[0].element_size()
        copied = copies * allocated_bytes(nbytes, joint.device)
        storage = joint.storage_of[node]
        alone = holders[storage] == 1 and not storage.resident and storage not in kept
        freed = storage.nbytes if not fits and alone else 0
        grown += max(0, copied - freed)
        replaced.append(freed)
        if not fits:
            buffers.append(_buffer_bytes(traced_value(node), joint.device))
    return grown + max(replaced) + max(buffers)


def _gradients(joint: JointGraph) -> list[tuple[fx.Node, torch.Tensor]]:
    """Each gradient that is on the step's device, with what it is the gradient of."""
    nodes = joint.module.graph.find_nodes(op="placeholder")
    primals = [node for node in nodes if torch_hooks.is_primal(node)]
    _, gradients, _, _ = torch_hooks.joint_outputs(joint.module, joint.num_fwd_outputs)
    # The tokens that order effects come first among the inputs, and have no gradients.
    primals = primals[max(0, len(primals) - len(gradients)) :]
    return [
        (gradient, traced_value(primal))
        for primal, gradient in zip(primals, gradients, strict=False)
        if isinstance(gradient, fx.Node)
        and gradient in joint.storage_of
        and joint.storage_of[gradient].device.type == joint.device.type
    ]


def _obeys_layout(gradient: torch.Tensor, parameter: torch.Tensor) -> bool:
    """Whether the engine keeps a gradient's strides: `obeys_layout_contract`."""
    if not _is_dense(parameter):
        return gradient.is_contiguous()
    return all(
        mine == its if size != 1 else mine != 0
        for size, mine, its in zip(
            gradient.shape, gradient.stride(), parameter.stride(), strict=True
        )
    )


def _buffer_bytes(gradient: torch.Tensor, device: torch.device) -> int:
    """What the CPU's kernel takes to copy a transposed matrix: one block (aten/.../Copy.cpp)."""
    transposed = gradient.dim() == 2 and gradient.t().is_contiguous()
    large = gradient.numel() >= _BLOCK
    on_cpu = device.type == "cpu"
    return _BLOCK * gradient.element_size() if transposed and large and on_cpu else 0


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether the elements fill a block without gaps or overlaps, in some order of dimensions."""
    expected = 1
    sizes = [(stride, size) for size, stride in zip(tensor.shape, tensor.stride(), strict=True)]
    for stride, size in sorted(sizes):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True
