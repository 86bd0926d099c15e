"""How far an estimate can be trusted: which parts are modelled, and what is left out."""

from __future__ import annotations

from fxremat.estimate.device import DeviceSpec
from fxremat.lower.lowering import Lowering
from fxremat.nodes import depends_on_data, is_op, op_name


def notes_on(
    lowering: Lowering,
    spec: DeviceSpec,
    *,
    waits_for_python: bool,
    has_line: bool,
    is_real: bool,
    has_module: bool,
    at_most: int | None = None,
) -> tuple[str, ...]:
    """What to know of the figures of one estimate."""
    graph = lowering.graph
    nodes = list(graph.nodes)
    notes: list[str] = []
    if spec.is_measured:
        notes.append(
            "Bytes are those that optimize plans with here: each op was run by itself for its "
            "workspace. Times are the roofline's, of ceilings measured now."
        )
    else:
        notes.append(
            f"Nothing was measured. Sizes of tensors are exact for the traced ops. Times are a "
            f"roofline at {spec.product_share:.0%} of the peak of products and "
            f"{spec.traffic_share:.0%} of the bandwidth ({spec.source}): their ratios are worth "
            "more than their sums."
        )
        if waits_for_python:
            notes.append(
                f"The step waits for Python, which takes {1e6 * spec.dispatch_s:.0f} us an op, "
                "longer than the kernels do: extra times are of kernels, and may be hidden or not."
            )
        convolutions = sum(op_name(node.target).startswith("convolution") for node in nodes)
        if convolutions:
            notes.append(
                f"The workspaces of {convolutions} convolutions are chosen on the device, and "
                "come on top."
            )
        notes.append(
            "Ops are those of a CPU's trace, but for attention and what autocast keeps in float32."
        )
    if spec.kind == "cuda":
        notes.append(
            "The allocator may hand out up to 1 MiB more for a large tensor, unless "
            "expandable_segments is on. What fragments isn't counted."
        )
    custom = {
        str(node.target)
        for node in nodes
        if is_op(node.target) and node.target.namespace not in ("aten", "prims", "fxremat")
    }
    if custom:
        names = ", ".join(sorted(custom)[:3])
        notes.append(f"What custom ops take beside their results isn't known: {names}.")
    if any(depends_on_data(node) for node in graph.made_by):
        notes.append("Sizes that depend on the data are the largest that they can be.")
    if not has_line:
        notes.append(
            "Other batch sizes are not answered: the inputs have no common first dimension, or "
            "the step runs other ops at another size."
        )
    if at_most is not None:
        notes.append(
            f"Batch sizes are looked for up to {at_most:,}: larger ones fit, too. Ask for them by "
            "batch_sizes."
        )
    if not has_module:
        notes.append(
            "The model is a function: which parameters it reads isn't known, so that they and the "
            "optimizer's state aren't counted."
        )
    if is_real:
        notes.append(
            "The factory's model was allocated: it is a function, or can't be made on the meta "
            "device."
        )
    notes.append("Plans are quick ones; optimize searches longer, and no plan is below the bound.")
    return tuple(notes)
