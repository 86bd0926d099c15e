"""How an operation may be recomputed, if at all.

A recomputed node must give the same bits again and do nothing else. Most ops do as they are.
Random ops do when they replay the generator's state (`rng`); the functional BatchNorm does in the
form that leaves the running statistics alone. Everything else that has an effect, reads memory
that changes, or is not deterministic runs once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import cast

import torch
from torch import fx

from fxremat.graph import Form, JointGraph, Mode, Operation, Storage
from fxremat.kernel import Kernel
from fxremat.nodes import (
    argument_of,
    inner_graphs,
    is_collective,
    is_effect,
    is_number_of_data,
    is_op,
    op_name,
    tensors_of,
    traced_value,
    written_by_kernel,
)

aten = torch.ops.aten


# Results that depend on the order in which threads add up (on CUDA), or on uninitialised memory.
_NONDETERMINISTIC = frozenset(
    {
        "index_add",
        "index_put",
        "_unsafe_index_put",
        "index_reduce",
        "scatter_add",
        "scatter_reduce",
        "put",
        "cumsum",
        "histc",
        "bincount",
        "kthvalue",
        "median",
        "embedding_dense_backward",
        "_embedding_bag",
        "_embedding_bag_dense_backward",
        "grid_sampler_2d_backward",
        "grid_sampler_3d_backward",
        "_adaptive_avg_pool2d_backward",
        "_adaptive_avg_pool3d_backward",
        "adaptive_max_pool2d_backward",
        "avg_pool3d_backward",
        "max_pool2d_with_indices_backward",
        "max_pool3d_with_indices_backward",
        "fractional_max_pool2d_backward",
        "upsample_bilinear2d_backward",
        "upsample_bicubic2d_backward",
        "upsample_linear1d_backward",
        "upsample_trilinear3d_backward",
        "reflection_pad1d_backward",
        "reflection_pad2d_backward",
        "reflection_pad3d_backward",
        "replication_pad1d_backward",
        "replication_pad2d_backward",
        "replication_pad3d_backward",
        "nll_loss2d_forward",
        "_ctc_loss_backward",
        "_scaled_dot_product_efficient_attention_backward",
        "_scaled_dot_product_flash_attention_backward",
        "_scaled_dot_product_cudnn_attention_backward",
        "_flash_attention_backward",
        "_efficient_attention_backward",
        "convolution_backward",
    }
)
_UNINITIALISED = frozenset({"empty", "empty_like", "empty_strided", "new_empty"})
# Tagged as random; with a dropout probability of 0 nothing is drawn.
_DRAWS_BY_DROPOUT_P = frozenset(
    {
        "_scaled_dot_product_attention_math",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_efficient_attention_backward",
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_cudnn_attention_backward",
        "_scaled_dot_product_fused_attention_overrideable",
        "_flash_attention_forward",
        "_efficient_attention_forward",
        "_cudnn_attention_forward",
        "_cudnn_attention_backward",
    }
)
# Tagged as random; where this argument is False nothing is drawn.
_DRAWS_IN_TRAINING = {
    "native_dropout": "train",
    "rrelu_with_noise_functional": "training",
}
# `fxremat.loop` in a traced function: its forward, where it draws and where not, and its backward.
LOOPS = frozenset({"loop", "loop_that_draws", "loop_backward"})
_BATCH_NORMS = (aten._native_batch_norm_legit_functional.default,)


def is_random(node: fx.Node) -> bool:
    """Whether a node draws from a generator: every op tagged so, unless it is known not to.

    A node with graphs inside does where one of their nodes does.
    """
    if any(is_random(inner) for graph in inner_graphs(node) for inner in graph.graph.nodes):
        return True
    if isinstance(node.target, Kernel):
        return node.target.draws
    if not is_tagged_random(node.target):
        return False
    return not draws_nothing(op_name(node.target), lambda name: argument_of(node, name))


def is_tagged_random(target: object) -> bool:
    """Whether an op is one of those that may draw from a generator."""
    return is_op(target) and torch.Tag.nondeterministic_seeded in target.tags


def why_not_repeatable(name: str, device_type: str) -> str:
    """Why an op of that name may give other bits when it runs again; empty where it may not."""
    if name in _UNINITIALISED:
        return "uninitialised memory"
    if name in _NONDETERMINISTIC and (device_type != "cpu" or name in ("bincount", "histc")):
        return "not deterministic"
    return ""


def draws_nothing(name: str, argument: Callable[[str], object]) -> bool:
    """Whether an op tagged as random draws nothing, given what `argument` says of its arguments.

    Only named arguments of named ops are believed: `bernoulli.p` and `native_dropout` draw at any
    probability, 0 and 1 too.
    """
    if name in _DRAWS_BY_DROPOUT_P:
        return argument("dropout_p") == 0
    if name in _DRAWS_IN_TRAINING:
        return argument(_DRAWS_IN_TRAINING[name]) is False
    return False


def generator_device(joint: JointGraph, node: fx.Node) -> torch.device | None:
    """The device whose generator a random node draws from; None where it can't be told."""
    if isinstance(node.target, Kernel):
        return tensors_of(node)[0].device
    device = node.kwargs.get("device")
    if device is not None:
        return torch.device(cast("str | torch.device", device))
    for arg in joint.tensor_args(node):
        return joint.storage_of[arg].device
    return None


def mutated_placeholders(joint: JointGraph, nodes: Iterable[fx.Node]) -> frozenset[fx.Node]:
    """The inputs that these nodes of the graph write to (BatchNorm's running statistics)."""
    nodes = tuple(nodes)
    return frozenset(
        joint.storage_of[node.args[0]].maker
        for node in nodes
        if node.target is aten.copy_.default and isinstance(node.args[0], fx.Node)
    ) | frozenset(joint.storage_of[arg].maker for node in nodes for arg in written_by_kernel(node))


def is_batch_norm_with_statistics(node: fx.Node) -> bool:
    """Whether a node is a BatchNorm in training mode that also returns new running statistics."""
    return node.target in _BATCH_NORMS and node.args[5] is True


def classify(joint: JointGraph, kept: Mapping[Operation, str] | None = None) -> JointGraph:
    """The graph with the mode in which each operation may be recomputed.

    Those that are `kept` run once, for the reason there.
    """
    reasons = kept or {}
    mutated = mutated_placeholders(joint, joint.nodes)
    outputs = {joint.storage_of[n] for n in (*joint.forward_outputs, *joint.gradients)}
    lent = _lent(joint)

    def mode(operation: Operation) -> Mode:
        if operation in reasons:
            return Mode(Form.NEVER, reasons[operation])
        modes = [_mode(joint, node, mutated, outputs, lent) for node in operation.nodes]
        # A unit of several nodes reruns as it ran first, or never.
        odd = next((each for each in modes if each.form is not Form.AS_IS), None)
        if len(modes) == 1 or odd is None or odd.form is Form.NEVER:
            return odd or modes[0]
        return Mode(Form.NEVER, "part of it reruns otherwise than it ran first")

    return joint.with_operations([replace(o, mode=mode(o)) for o in joint.operations])


def _copies_whole_input(node: fx.Node) -> bool:
    """Whether a node is what AOTAutograd begins with for an input that the function changes.

    That input gets its new value after the forward, where no graph says so. A copy of the user's
    of an input that nothing else reads looks the same, and counts as one.
    """
    if node.target is not aten.clone.default or node.kwargs or len(node.args) != 1:
        return False
    (source,) = node.args
    return isinstance(source, fx.Node) and source.op == "placeholder" and len(source.users) == 1


def _lent(joint: JointGraph) -> set[Storage]:
    """What goes in or comes out that other code of the step may change, as it may in eager.

    Outputs, and inputs that are no parameters or buffers, that the backward doesn't read. Were they
    kept for a recomputation, autograd would refuse the backward once one was changed in place.
    """
    if joint.memory.holds_outputs:
        return set()
    read = {s for op in joint.backward for node in op.nodes for s in joint.storages_read(node)}
    inputs = joint.module.graph.find_nodes(op="placeholder")
    static = {inputs[index] for index in joint.static_lifetime_input_indices}
    given = [
        node
        for node in inputs
        if node not in static
        and node not in joint.tangents
        and node in joint.storage_of
        and traced_value(node).dtype.is_floating_point
    ]
    return {joint.storage_of[node] for node in (*joint.forward_outputs, *given)} - read


def _mode(
    joint: JointGraph,
    node: fx.Node,
    mutated: Iterable[fx.Node],
    outputs: set[Storage],
    lent: set[Storage],
) -> Mode:
    def never(reason: str) -> Mode:
        return Mode(Form.NEVER, reason)

    target = node.target
    if is_collective(node):
        return never("communicates with other ranks")
    if is_effect(node):
        return never("has an effect")
    if is_number_of_data(node):
        return never("a number that depends on the data")
    if isinstance(target, Kernel):
        if target.once:
            return never(target.once)
        if any(s.maker in mutated for s in joint.storages_read(node)):
            return never("reads a buffer that the step updates")
        made = joint.made_by.get(node, ())
        if all(storage in outputs for storage in made):
            return never("makes an output of the step")
        # Its reruns make the others; what becomes an output is made once more, and dropped.
        return Mode(Form.REPLAY_RNG if target.draws else Form.AS_IS)
    if not is_op(target):
        return never("has graphs inside")
    if target.namespace not in ("aten", "prims", "fxremat"):
        return never("custom op: not known to be deterministic and free of effects")
    if _copies_whole_input(node):
        return never("copies an input that is changed once forward has run")
    name = op_name(target)
    if name in LOOPS:
        return never("a loop: what it keeps is chosen instead")
    varies = why_not_repeatable(name, joint.device.type)
    if varies:
        return never(varies)
    if name in ("index_put", "_unsafe_index_put") and argument_of(node, "accumulate"):
        return never("adds up in the order of the threads")
    made = joint.made_by.get(node, ())
    reads_mutated = any(s.maker in mutated for s in joint.storages_read(node))
    if is_batch_norm_with_statistics(node):
        normalised = [s for s in made if s.position < 3]
        if any(s in outputs for s in normalised):
            return never("makes an output of the step")
        return Mode(Form.BATCH_NORM)
    if reads_mutated:
        return never("reads a buffer that the step updates")
    if any(storage in outputs for storage in made):
        return never("makes an output of the step")
    if any(storage in lent for storage in joint.storages_read(node)):
        return never("reads what other code of the step may change")
    if argument_of(node, "generator") is not None:
        return never("draws from a generator of the user's")
    if is_random(node):
        if generator_device(joint, node) is None:
            return never("random, on a device that can't be told")
        return Mode(Form.REPLAY_RNG)
    return Mode(Form.AS_IS)
