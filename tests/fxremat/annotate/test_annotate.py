"""Costs and memory of single ops: measured, modelled, and with nothing of the user's touched."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fxremat
from fxremat.annotate.annotate import node_costs, roofline_seconds, same_operations
from fxremat.annotate.flops import node_bytes_moved, node_flops
from fxremat.graph import Cost, JointGraph
from fxremat.measure.device_ceilings import Ceilings
from fxremat.measure.profile_ops import OpProfiles
from fxremat.nodes import op_name
from tests.numerics.steps import plan_of


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.relu(self.linear(x))
        h = F.gelu(h * 0.5)
        return F.mse_loss(torch.softmax(h, -1), x)


@pytest.fixture(scope="module")
def joint() -> JointGraph:
    model = fxremat.optimize(Mixed(), budget=1.0, example_inputs=torch.randn(4096, 64))
    return plan_of(model).graph


def by_name(joint: JointGraph, cost: str) -> dict[str, Cost]:
    found = node_costs(joint, cost, OpProfiles())
    return {op_name(node.target): taken for node, taken in found.items()}


def test_flops_and_bytes(joint: JointGraph) -> None:
    nodes = {op_name(node.target): node for node in joint.nodes}
    assert node_flops(nodes["addmm"]) == 2 * 4096 * 64 * 64
    assert node_flops(nodes["gelu"]) > node_flops(nodes["relu"]) == 4096 * 64
    assert node_bytes_moved(nodes["relu"]) == 2 * 4 * 4096 * 64


def test_a_gelu_is_dearer_than_a_relu(joint: JointGraph) -> None:
    counted = by_name(joint, "flops")
    assert counted["gelu"].seconds > counted["relu"].seconds
    assert counted["gelu"].seconds_from == "flops"
    # What is measured depends on the machine and on how busy it is.
    measured = by_name(joint, "measured")
    assert all(a.seconds > 0 for name, a in measured.items() if name in ("gelu", "relu", "addmm"))
    assert measured["gelu"].seconds_from == "measured"
    # With ceilings of its own: those measured on a busy machine may have both bound by memory.
    ceilings = Ceilings(100e9, vector_flops_per_s=20e9, bytes_per_s=10e9, launch_s=3e-6)
    nodes = {op_name(node.target): node for node in joint.nodes}
    assert roofline_seconds(nodes["gelu"], ceilings) > roofline_seconds(nodes["relu"], ceilings)
    assert by_name(joint, "roofline")["gelu"].seconds_from == "roofline"


def test_blocks_behind_outputs_and_workspaces_are_measured(joint: JointGraph) -> None:
    annotations = by_name(joint, "flops")
    # The scalar of mse_loss lies in a block as large as its input.
    assert list(annotations["mse_loss"].made_bytes.values()) == [4 * 4096 * 64]
    # A Python number becomes a tensor for the time of a multiplication.
    assert 0 < annotations["mul"].workspace_bytes <= 16
    assert annotations["relu"].workspace_bytes == 0
    assert all(a.workspace_measured for a in annotations.values())


def test_known_ops_are_not_run_again(joint: JointGraph) -> None:
    profiles = OpProfiles()
    first = node_costs(joint, "measured", profiles)
    assert node_costs(joint, "measured", profiles) == first


def test_generators_are_left_alone() -> None:
    state = torch.get_rng_state()
    x = torch.ones(64, 64, requires_grad=True)
    fxremat.optimize(lambda x: F.dropout(x * 3, 0.5).sum(), budget=1.0, example_inputs=x)
    assert torch.equal(state, torch.get_rng_state())


def joint_of(rows: int) -> JointGraph:
    example = torch.randn(rows, 64)
    return plan_of(
        fxremat.optimize(Mixed(), budget=1.0, example_inputs=example, cost="flops")
    ).graph


def test_times_of_another_size_are_scaled_and_sizes_are_not(joint: JointGraph) -> None:
    profiles = OpProfiles()
    node_costs(joint, "measured", profiles)
    small = joint_of(1024)
    assert same_operations(small, joint)
    scaled = node_costs(small, "measured", profiles, like=joint)
    exact = node_costs(small, "flops", OpProfiles())
    sources = {cost.seconds_from for cost in scaled.values()}
    assert "scaled" in sources, "nothing of that size was timed"
    assert sources <= {"scaled", "measured", "roofline"}
    large = node_costs(joint, "measured", profiles)
    for (node, cost), twin in zip(scaled.items(), large.values(), strict=True):
        assert cost.workspace_bytes == exact[node].workspace_bytes
        assert cost.made_bytes == exact[node].made_bytes
        if cost.seconds_from == "scaled":
            assert twin.seconds / 5 < cost.seconds < twin.seconds


def test_graphs_of_other_operations_are_not_the_same(joint: JointGraph) -> None:
    example = torch.randn(4096, 64)
    other = fxremat.optimize(
        lambda x: F.gelu(x).sum(), budget=1.0, example_inputs=example.requires_grad_(), cost="flops"
    )
    assert not same_operations(plan_of(other).graph, joint)
