"""Every private torch API that planning Inductor's kernels stands on, and nothing else.

Inductor's own classes of lines become `Line`s here: what the rest of the package sees are texts,
names of buffers and layouts. `tests/fxremat/test_inductor_hooks.py` fails loudly when one changes.
"""

from fxremat.inductor_hooks.compile import (
    compile_pair,
    configuration,
    copy_aligned,
    make_inductor_backend,
    missing_compiler,
    reinterpret,
)
from fxremat.inductor_hooks.host import (
    Moment,
    as_autograd_orders,
    be_partitioner,
    configured_by,
    copy_graph,
    generate_pair,
    merge_equal_nodes,
    min_cut,
    replay_pair,
)
from fxremat.inductor_hooks.lines import (
    ALIGNMENT,
    Kind,
    Layout,
    Line,
    Pair,
    Wrapper,
    is_seed_on_cpu,
)

__all__ = [
    "ALIGNMENT",
    "Kind",
    "Layout",
    "Line",
    "Moment",
    "Pair",
    "Wrapper",
    "as_autograd_orders",
    "be_partitioner",
    "compile_pair",
    "configuration",
    "configured_by",
    "copy_aligned",
    "copy_graph",
    "generate_pair",
    "is_seed_on_cpu",
    "make_inductor_backend",
    "merge_equal_nodes",
    "min_cut",
    "missing_compiler",
    "reinterpret",
    "replay_pair",
]
