"""Every model of the zoo traces as one graph, and is the same from the same seed."""

from __future__ import annotations

import copy

import pytest
import torch

from benchmarks import zoo
from benchmarks.measure import Step, compare
from benchmarks.zoo.chain import NotAChain
from tests.numerics import test_models

# Those that are trained by plans trace as one graph there.
TRACED = [name for name in zoo.CASES if name not in test_models.CASES]
# Layers and time steps that are alike are traced alike. T5's later layers share the first one's
# position biases.
FEWER = {
    **{name: {"layers": 1} for name in ("bert-sdpa", "llama-eager", "llama-sdpa", "mamba")},
    **{name: {"layers": 1} for name in ("vit-eager", "vit-sdpa")},
    "lstm64": {"steps": 3},
}


@pytest.mark.parametrize("name", TRACED)
def test_traces_as_one_graph(name: str) -> None:
    workload = zoo.get(name).make("tiny", **FEWER.get(name, {}))
    eager = workload.step_module()
    traced = copy.deepcopy(eager)
    compiled = torch.compile(traced, backend="aot_eager", fullgraph=True, dynamic=False)
    outcome = compare(Step(eager, eager), Step(traced, compiled), workload.batch, steps=2)
    assert outcome.relative_error < 1e-5
    assert outcome.rng_equal


@pytest.mark.parametrize("name", ["gpt2-eager", "lstm64"])
def test_one_seed_one_model(name: str) -> None:
    first, second = (zoo.get(name).make("tiny", seed=3) for _ in range(2))
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(first.batch(5), second.batch(5), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.batch(5)[0], first.batch(6)[0])


@pytest.mark.parametrize("name", zoo.CASES)
def test_grouping_blocks_changes_nothing(name: str) -> None:
    workload = zoo.get(name).make("tiny")
    plain = workload.step_module()
    grouped = copy.deepcopy(plain)
    try:
        segments = workload.segments(grouped.model, 2)
    except NotAChain:
        pytest.skip("the blocks are no chain")
    assert segments
    assert compare(Step(plain, plain), Step(grouped, grouped), workload.batch, steps=2).equal


def test_unknown_names_say_what_there_is() -> None:
    with pytest.raises(ValueError, match="gpt2-eager"):
        zoo.get("gpt3")
    with pytest.raises(ValueError, match="tiny"):
        zoo.get("gpt2-eager").make("huge")
    with pytest.raises(ValueError, match="length"):
        zoo.get("gpt2-eager").make("tiny", sequence=4)
