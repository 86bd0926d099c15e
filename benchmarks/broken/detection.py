"""Object detection by sets: Hungarian matching by scipy between the forward and the loss."""

# scipy has no types.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from scipy.optimize import linear_sum_assignment  # pyright: ignore[reportMissingTypeStubs]
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from benchmarks.broken.step import BrokenStep, from_transformers
from benchmarks.zoo import Batch, Workload
from benchmarks.zoo.case import images

_CLASSES = 8
_COUNTS = (4, 2, 3, 1)  # objects in each picture, in turn


def sample(generator: Generator, n: Mapping[str, int]) -> Batch:
    """Pictures, and of each four objects: their classes and boxes."""
    pictures = images(generator, n["batch"], 3, n["side"])
    classes = torch.randint(_CLASSES, (n["batch"], max(_COUNTS)), generator=generator)
    centers = 0.3 + 0.4 * torch.rand(n["batch"], max(_COUNTS), 2, generator=generator)
    extents = 0.1 + 0.3 * torch.rand(n["batch"], max(_COUNTS), 2, generator=generator)
    return pictures, classes, torch.cat([centers, extents], dim=-1)


def objects(classes: Tensor, boxes: Tensor) -> list[dict[str, Tensor]]:
    """The objects of each picture, as transformers takes them."""
    counts = [_COUNTS[i % len(_COUNTS)] for i in range(len(classes))]
    return [
        {"class_labels": kind[:count], "boxes": box[:count]}
        for kind, box, count in zip(classes, boxes, counts, strict=True)
    ]


def loss(model: nn.Module, pictures: Tensor, classes: Tensor, boxes: Tensor) -> Tensor:
    return model(pixel_values=pictures, labels=objects(classes, boxes)).loss


def detr(n: Mapping[str, int]) -> Workload:
    backbone = from_transformers("ResNetConfig")(
        embedding_size=16,
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage4"],
    )
    config = from_transformers("DetrConfig")(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
        num_labels=_CLASSES,
        num_queries=n["queries"],
        d_model=n["width"],
        encoder_layers=n["layers"],
        decoder_layers=n["layers"],
        encoder_ffn_dim=4 * n["width"],
        decoder_ffn_dim=4 * n["width"],
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        auxiliary_loss=True,
    )
    model = from_transformers("DetrForObjectDetection")(config)
    return Workload(model, lambda generator: sample(generator, n), loss)


def rt_detr(n: Mapping[str, int]) -> Workload:
    backbone = from_transformers("RTDetrResNetConfig")(
        embedding_size=16,
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = from_transformers("RTDetrConfig")(
        backbone_config=backbone,
        freeze_backbone_batch_norms=False,
        num_labels=_CLASSES,
        num_queries=n["queries"],
        num_denoising=2 * n["queries"],
        d_model=n["width"],
        encoder_hidden_dim=n["width"],
        encoder_in_channels=[32, 48, 64],
        decoder_in_channels=[n["width"]] * 3,
        encoder_layers=1,
        decoder_layers=n["layers"],
        encoder_ffn_dim=2 * n["width"],
        decoder_ffn_dim=2 * n["width"],
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        dropout=0.1,
    )
    model = from_transformers("RTDetrForObjectDetection")(config)
    return Workload(model, lambda generator: sample(generator, n), loss)


class SetPredictor(nn.Module):
    """Slots that attend to a convolutional map; each slot names a class and a box."""

    def __init__(self, n: Mapping[str, int]) -> None:
        super().__init__()
        width = n["width"]
        self.map = nn.Sequential(
            nn.Conv2d(3, width, 5, stride=2, padding=2),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.slots = nn.Parameter(torch.randn(n["queries"], width))
        layer = nn.TransformerDecoderLayer(width, 4, 4 * width, dropout=0.1, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, n["layers"])
        self.heads = nn.Linear(width, _CLASSES + 1 + 4)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        places = self.map(pictures).flatten(2).transpose(1, 2)
        slots = self.decoder(self.slots.expand(len(pictures), -1, -1), places)
        classes, boxes = self.heads(slots).split([_CLASSES + 1, 4], dim=-1)
        return classes, boxes.sigmoid()


def matched(costs: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
    """The cheapest pairs of slots and objects in each picture, by scipy."""
    pairs = (linear_sum_assignment(cost) for cost in costs.detach().numpy())
    return [(torch.from_numpy(slot), torch.from_numpy(item)) for slot, item in pairs]


def set_loss(model: nn.Module, pictures: Tensor, classes: Tensor, boxes: Tensor) -> Tensor:
    named, placed = model(pictures)
    likely = torch.gather(named.softmax(-1), 2, classes[:, None].expand(-1, named.shape[1], -1))
    pairs = matched(torch.cdist(placed, boxes, p=1) - likely)
    targets = torch.full(named.shape[:2], _CLASSES)
    distance = placed.new_zeros(())
    for i, (slot, item) in enumerate(pairs):
        targets[i, slot] = classes[i, item]
        distance = distance + F.l1_loss(placed[i, slot], boxes[i, item])
    return F.cross_entropy(named.flatten(0, 1), targets.flatten()) + distance / len(pairs)


def set_predictor(n: Mapping[str, int]) -> Workload:
    return Workload(SetPredictor(n), lambda generator: sample(generator, n), set_loss)


_TINY = {"layers": 1, "width": 32, "side": 64, "batch": 2, "queries": 6}

STEPS = (
    BrokenStep(
        "detr",
        "transformers DetrForObjectDetection",
        {
            "tiny": _TINY,
            "bench": {**_TINY, "layers": 3, "width": 64, "side": 288, "batch": 3, "queries": 32},
        },
        detr,
        cause="`if not isfinite().all()` in every layer, Hungarian matching by scipy for each",
    ),
    BrokenStep(
        "rt-detr",
        "transformers RTDetrForObjectDetection",
        {"tiny": _TINY, "bench": {**_TINY, "layers": 2, "side": 128, "queries": 16}},
        rt_detr,
        cause="noisy boxes by nonzero, checks in every layer, Hungarian matching by scipy",
    ),
    BrokenStep(
        "set-prediction",
        "a set predictor in plain torch",
        {"tiny": _TINY, "bench": {**_TINY, "layers": 3, "width": 64, "side": 96, "batch": 4}},
        set_predictor,
        cause="numpy arrays given to scipy's linear_sum_assignment between model and loss",
    ),
)
