"""DDP on two ranks: the same gradients to the bit, within the budget, by one plan.

The ranks' times are made to differ, so that their plans would, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

import fxremat
from examples import ddp as ddp_example
from fxremat import torch_hooks
from fxremat.frontend.backend import Backend
from fxremat.frontend.compiled import compiled_of
from fxremat.frontend.entry_point import fxremat as entry_point
from fxremat.measure import profile_ops
from fxremat.step.tracker import StepTracker
from tests.integrations.ranks import on_two_ranks

if not dist.is_available():
    pytest.skip("torch was built without torch.distributed", allow_module_level=True)

BYTES = 88_000
SMALL_BUCKETS = 0.006  # MB, so that two blocks are two buckets


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(16, 64), nn.Linear(64, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = nn.functional.gelu(self.up(x))
        return x + nn.functional.dropout(self.down(hidden), 0.1)


class Net(nn.Module):
    """Two blocks, a BatchNorm, and a layer that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block())
        self.norm = nn.BatchNorm1d(16)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.blocks(x)).square().mean()


def net() -> nn.Module:
    torch.manual_seed(0)
    return Net()


def wrapped(model: nn.Module, **options: Any) -> nn.Module:
    options = options or {"find_unused_parameters": True}
    return DistributedDataParallel(model, **options)


def train(
    model: Callable[..., Any], ddp: nn.Module, *, accumulate: bool = False
) -> list[torch.Tensor | None]:
    """All gradients, then parameters, buffers and the random state after three steps."""
    torch.manual_seed(7 + dist.get_rank())
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.1)
    found: list[torch.Tensor | None] = []
    for _ in range(3):
        for last in (False, True) if accumulate else (True,):
            with nullcontext() if last else ddp.no_sync():  # type: ignore[operator]
                model(torch.randn(64, 16)).backward()
        found += [None if p.grad is None else p.grad.clone() for p in ddp.parameters()]
        optimizer.step()
        optimizer.zero_grad()
    return [*found, *(t.clone() for t in ddp.state_dict().values()), torch.get_rng_state()]


def peak(model: Callable[..., Any]) -> int:
    x = torch.randn(64, 16)
    return fxremat.measure_peak(lambda: model(x).backward()).peak_bytes


def schedules(backend: Backend) -> list[Any]:
    """Of all that is planned: graphs, and the calls of steps."""
    graphs = [graph.plan.schedule.ops for graph in backend.history.graphs]
    if backend.tracker is None:
        return graphs
    plans = [kind.plan for kind in backend.tracker.kinds]
    return [*graphs, *([p.schedule.ops for p in plan.plans] for plan in plans if plan is not None)]


def same(ours: list[torch.Tensor | None], theirs: list[torch.Tensor | None]) -> bool:
    pairs = list(zip(ours, theirs, strict=True))
    return all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


def optimize_first(solver: str, **options: Any) -> dict[str, Any]:
    plain = wrapped(net(), **options)
    optimized = fxremat.optimize(net(), budget=BYTES, preset="brief", solver=solver)
    ddp = wrapped(optimized, **options)
    backend = compiled_of(optimized).backend
    return {
        "same": same(train(ddp, ddp), train(plain, plain)),
        "peak": peak(ddp),
        "peak without": peak(plain),
        "recomputes": any(
            len(graph.plan.schedule) > len(graph.plan.problem.ops)
            for graph in backend.history.graphs
        ),
        "graphs": len(backend.history.graphs),
        "order": order_in_backward(ddp),
        "schedules": schedules(backend),
    }


def order_in_backward(ddp: Any) -> list[str]:
    """Which part's backward begins, and which bucket is reduced, one after the other."""
    seen: list[str] = []
    begins = StepTracker._backward_begins

    def part_begins(tracker: StepTracker, call: Any, gradients: Any) -> None:
        seen.append("part")
        begins(tracker, call, gradients)

    # DDP takes no hook whose annotations are text.
    ddp.register_comm_hook(
        seen, lambda log, bucket: (log.append("bucket"), allreduce_hook(None, bucket))[1]
    )
    StepTracker._backward_begins = part_begins
    ddp(torch.randn(64, 16)).backward()
    StepTracker._backward_begins = begins
    return seen


def compile_wrapped() -> dict[str, Any]:
    small_buckets = {"bucket_cap_mb": SMALL_BUCKETS, "find_unused_parameters": True}
    plain, ddp = (wrapped(net(), **small_buckets) for _ in range(2))
    options = {"budget": BYTES, "solver": "greedy"}
    compiled = torch.compile(ddp, backend="fxremat", options=options)
    found = train(compiled, ddp, accumulate=True)
    _, backend = list(entry_point._backends.values())[-1]
    assert backend.tracker is not None
    return {
        "same": same(found, train(plain, plain, accumulate=True)),
        "peak": peak(compiled),
        "graphs": len(backend.history.graphs),
        "kinds": [kind.plan is not None for kind in backend.tracker.kinds],
        "schedules": schedules(backend),
    }


def further_shapes() -> list[Any]:
    """The plans of a second shape, at once, and well; ranks meet the shapes in another order."""
    optimized = fxremat.optimize(net(), budget=0.75, preset="brief")
    backend = compiled_of(optimized).backend
    shapes = (64, 32) if dist.get_rank() == 0 else (32, 64)
    largest = fxremat.optimize(net(), budget=1.0, example_inputs=torch.randn(64, 16))
    plan = compiled_of(largest).backend.history.graphs[0].plan
    backend.history.largest_step_bytes = plan.baseline_peak_bytes
    for rows in shapes:
        optimized(torch.randn(rows, 16)).backward()
        # The other rank comes by later or earlier.
        dist.barrier()
    return sorted((g.input_shapes, g.plan.schedule.ops) for g in backend.history.graphs)


def on_a_rank(rank: int) -> dict[str, Any]:
    def invented_seconds(op: Any, _device: object) -> float:
        digest = hashlib.sha256(f"{rank} {op.target}".encode()).digest()
        return 1e-5 * (1 + digest[0])

    profile_ops._Op.seconds = invented_seconds  # type: ignore[method-assign]
    small_buckets = {"bucket_cap_mb": SMALL_BUCKETS, "find_unused_parameters": True}
    found: dict[str, Any] = {"whole": optimize_first("auto")}
    shared_store = torch_hooks.shared_store
    torch_hooks.shared_store = lambda: None
    found["not agreed"] = optimize_first("auto", static_graph=True)
    torch_hooks.shared_store = shared_store
    found["shapes"] = further_shapes()
    for budget in (None, 0.7):
        model = ddp_example.build(budget)
        peaks = ddp_example.train(model)
        found["example", budget] = (list(model.state_dict().values()), peaks)
    # From here on DDP has small buckets, so that it splits what Dynamo traced.
    dist._DEFAULT_FIRST_BUCKET_BYTES = 6_000
    found["split"] = optimize_first("greedy", **small_buckets)
    found["compiled"] = compile_wrapped()
    return found


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    return on_two_ranks(on_a_rank, folder)


@pytest.mark.parametrize("case", ["whole", "not agreed", "split"])
def test_optimize_first_then_wrap(ranks: Any, case: str) -> None:
    for rank in ranks:
        found = rank[case]
        assert found["same"]
        assert found["recomputes"]
        assert found["peak"] <= BYTES < found["peak without"]


def test_a_graph_that_ddp_splits_is_traced_once(ranks: Any) -> None:
    assert ranks[0]["whole"]["graphs"] == 1
    assert ranks[0]["split"]["graphs"] == 2


def test_a_bucket_is_reduced_before_the_parts_that_come_later(ranks: Any) -> None:
    assert ranks[0]["whole"]["order"] == ["bucket"]
    assert ranks[0]["split"]["order"][:3] == ["part", "bucket", "part"]


def test_compile_what_is_wrapped(ranks: Any) -> None:
    for rank in ranks:
        found = rank["compiled"]
        assert found["same"]
        assert found["peak"] <= BYTES
        assert found["graphs"] > 1
        assert found["kinds"] == [True, True], "the first batch of a step, and the second"


@pytest.mark.parametrize("case", ["whole", "split", "compiled"])
def test_all_ranks_follow_one_plan(ranks: Any, case: str) -> None:
    first, second = (rank[case]["schedules"] for rank in ranks)
    assert first
    assert first == second


def test_left_alone_they_would_not(ranks: Any) -> None:
    first, second = (rank["not agreed"]["schedules"] for rank in ranks)
    assert first != second


def test_ranks_agree_on_shapes_that_come_at_other_times(ranks: Any) -> None:
    first, second = (rank["shapes"] for rank in ranks)
    assert len(first) == 2
    assert first == second


def test_the_example_trains_the_same_within_its_budget(ranks: Any) -> None:
    for rank in ranks:
        plain, peaks_without = rank["example", None]
        state, peaks = rank["example", 0.7]
        assert all(map(torch.equal, state, plain))
        assert max(peaks) <= 0.7 * peaks_without[-1]
