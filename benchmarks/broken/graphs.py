"""Graphs and points: neighbourhoods that the data has, or that scipy finds."""

# scipy has no types.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Mapping

import torch
from scipy.spatial import KDTree  # pyright: ignore[reportMissingTypeStubs]
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from benchmarks.broken.step import BrokenStep
from benchmarks.zoo import Batch, Workload

_CLASSES = 8


class GraphConvolution(nn.Module):
    """Sums over neighbours, normed by degrees; every node is its own neighbour once."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width_in, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        loops = edges[0] == edges[1]
        if loops.any():
            edges = edges[:, ~loops]
        itself = torch.arange(len(x)).expand(2, -1)
        source, target = torch.cat([edges, itself], dim=1)
        degree = x.new_zeros(len(x)).index_add(0, target, x.new_ones(len(target)))
        weight = degree[source].rsqrt() * degree[target].rsqrt()
        x = self.linear(x)
        passed = x[source] * weight[:, None]
        return self.norm(torch.zeros_like(x).index_add(0, target, passed))


class GraphNetwork(nn.Module):
    def __init__(self, n: Mapping[str, int]) -> None:
        super().__init__()
        width = n["width"]
        self.first = GraphConvolution(16, width)
        self.layers = nn.ModuleList(GraphConvolution(width, width) for _ in range(n["layers"]))
        self.dropout = nn.Dropout(0.2)
        self.last = nn.Linear(width, _CLASSES)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        x = F.relu(self.first(x, edges))
        for layer in self.layers:
            x = x + self.dropout(F.relu(layer(x, edges)))
        return self.last(x)


def node_loss(model: nn.Module, x: Tensor, edges: Tensor, classes: Tensor) -> Tensor:
    return F.cross_entropy(model(x, edges), classes)


def network(n: Mapping[str, int]) -> Workload:
    def sample(generator: Generator) -> Batch:
        x = torch.randn(n["nodes"], 16, generator=generator)
        edges = torch.randint(n["nodes"], (2, 4 * n["nodes"]), generator=generator)
        edges[1, :3] = edges[0, :3]  # some loops, how many depends on the rest
        return x, edges, torch.randint(_CLASSES, (n["nodes"],), generator=generator)

    return Workload(GraphNetwork(n), sample, node_loss)


def neighbours(points: Tensor, count: int) -> Tensor:
    """The nearest points of each point, by scipy's tree."""
    found = [KDTree(cloud).query(cloud, k=count)[1] for cloud in points.detach().numpy()]
    return torch.stack([torch.from_numpy(each) for each in found])


class EdgeConvolution(nn.Module):
    """The largest of a network of each point and its neighbours, which are found anew."""

    def __init__(self, width_in: int, width: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.network = nn.Sequential(
            nn.Linear(2 * width_in, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        near = neighbours(x, self.count)
        clouds = torch.arange(len(x))[:, None, None]
        away = x[clouds, near] - x[:, :, None]
        both = torch.cat([x[:, :, None].expand_as(away), away], dim=-1)
        return self.network(both).amax(2)


class PointNetwork(nn.Module):
    def __init__(self, n: Mapping[str, int]) -> None:
        super().__init__()
        width = n["width"]
        self.layers = nn.Sequential(
            EdgeConvolution(3, width, n["near"]), EdgeConvolution(width, width, n["near"])
        )
        self.last = nn.Linear(width, _CLASSES)

    def forward(self, points: Tensor) -> Tensor:
        return self.last(self.layers(points).amax(1))


def cloud_loss(model: nn.Module, points: Tensor, classes: Tensor) -> Tensor:
    return F.cross_entropy(model(points), classes)


def clouds(n: Mapping[str, int]) -> Workload:
    def sample(generator: Generator) -> Batch:
        points = torch.randn(n["batch"], n["points"], 3, generator=generator)
        return points, torch.randint(_CLASSES, (n["batch"],), generator=generator)

    return Workload(PointNetwork(n), sample, cloud_loss)


STEPS = (
    BrokenStep(
        "gcn-self-loops",
        "a graph network in plain torch",
        {
            "tiny": {"layers": 1, "width": 16, "nodes": 32},
            "bench": {"layers": 3, "width": 64, "nodes": 1500},
        },
        network,
        cause="a branch on whether the graph has loops, in every layer",
    ),
    BrokenStep(
        "point-clouds",
        "a dynamic graph network of points in plain torch",
        {
            "tiny": {"width": 16, "points": 32, "near": 4, "batch": 2},
            "bench": {"width": 48, "points": 256, "near": 12, "batch": 4},
        },
        clouds,
        cause="neighbours by scipy's KDTree in the middle of every layer",
    ),
)
