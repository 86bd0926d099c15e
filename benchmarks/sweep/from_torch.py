"""torch's own modules, and a few small networks that are made of what the other sources lack."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from benchmarks.sweep.parts import first_tensor, integers, normal, seeded, workload
from benchmarks.zoo import Workload

_BATCH, _LENGTH, _WIDTH = 8, 32, 32


def names() -> list[str]:
    return list(MODELS)


def make(name: str) -> Workload:
    return MODELS[name]()


class Sequence(nn.Module):
    """A module over a sequence between two linear layers."""

    def __init__(self, inner: nn.Module, width: int = _WIDTH) -> None:
        super().__init__()
        self.first = nn.Linear(_WIDTH, _WIDTH)
        self.inner = inner
        self.last = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        found = self.inner(torch.nn.functional.gelu(self.first(x)))
        return self.last(first_tensor(found))


class Attention(nn.Module):
    """`nn.MultiheadAttention` whose weights are used, too."""

    def __init__(self, *, weights: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(_WIDTH, 4, dropout=0.1, batch_first=True)
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        out, weights = self.attention(x, x, x, need_weights=self.weights)
        return out if weights is None else out + weights.sum(-1, keepdim=True)


class Transformer(nn.Module):
    def __init__(self, *, norm_first: bool) -> None:
        super().__init__()
        self.inner = nn.Transformer(
            _WIDTH, 4, 2, 2, 64, dropout=0.1, batch_first=True, norm_first=norm_first
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x[:, : _LENGTH // 2])


def sequence(inner: Callable[[], nn.Module], width: int = _WIDTH) -> Callable[[], Workload]:
    """Trained to predict one number a step of the sequence."""

    def made() -> Workload:
        model = seeded(lambda: Sequence(inner(), width))
        return workload(model, {"x": normal(_BATCH, _LENGTH, _WIDTH)}, _squares)

    return made


def _squares(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    return model(inputs["x"]).square().mean()


def pictures(inner: Callable[[], nn.Module], side: int = 32) -> Callable[[], Workload]:
    """Trained to tell ten classes of pictures."""

    def made() -> Workload:
        inputs = {"image": normal(4, 3, side, side), "label": integers(0, 10, 4)}
        return workload(seeded(inner), inputs, _cross_entropy)

    return made


def _cross_entropy(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(inputs["image"]), inputs["label"])


class Transposed(nn.Module):
    """A batch-first sequence turned for modules that want channels second."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.transpose(1, 2)).transpose(1, 2)


def _layer(norm_first: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(
        _WIDTH, 4, 64, dropout=0.1, batch_first=True, norm_first=norm_first, activation="gelu"
    )
    return nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)


def _norms() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.InstanceNorm2d(16, affine=True, track_running_stats=True),
        nn.PReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=4),
        nn.GroupNorm(4, 16),
        nn.Hardswish(),
        nn.Dropout2d(0.1),
        nn.PixelShuffle(2),
        nn.Conv2d(4, 16, 3, stride=2, padding=1),
        nn.LocalResponseNorm(3),
        nn.RReLU(),
        nn.FractionalMaxPool2d(2, output_ratio=0.5),
        nn.ConvTranspose2d(16, 8, 2, stride=2),
        nn.BatchNorm2d(8),
        nn.AlphaDropout(0.1),
        nn.SELU(),
        nn.AdaptiveMaxPool2d(4),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def _upsampling() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.Mish(),
        nn.Upsample(scale_factor=0.5, mode="bicubic"),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.Softplus(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


def _one_dimension() -> nn.Module:
    return Transposed(
        nn.Sequential(
            nn.Conv1d(_WIDTH, 64, 5, padding=2),
            nn.BatchNorm1d(64),
            nn.GLU(dim=1),
            nn.Dropout1d(0.1),
            nn.Conv1d(32, _WIDTH, 3, padding=2, dilation=2),
            nn.LeakyReLU(),
            nn.MaxPool1d(2),
            nn.Upsample(scale_factor=2, mode="linear"),
        )
    )


def _volumes() -> Workload:
    model = seeded(
        lambda: nn.Sequential(
            nn.Conv3d(2, 8, 3, padding=1),
            nn.BatchNorm3d(8),
            nn.ReLU(),
            nn.MaxPool3d(2),
            nn.Conv3d(8, 16, 3, padding=1),
            nn.Dropout3d(0.1),
            nn.ELU(),
            nn.AvgPool3d(2),
            nn.ConvTranspose3d(16, 4, 2, stride=2),
        )
    )
    return workload(model, {"x": normal(2, 2, 16, 16, 16)}, _squares)


MODELS: Mapping[str, Callable[[], Workload]] = {
    "TransformerEncoder": sequence(lambda: _layer(norm_first=False)),
    "TransformerEncoder-norm-first": sequence(lambda: _layer(norm_first=True)),
    "Transformer": sequence(lambda: Transformer(norm_first=False)),
    "Transformer-norm-first": sequence(lambda: Transformer(norm_first=True)),
    "MultiheadAttention": sequence(lambda: Attention(weights=False)),
    "MultiheadAttention-weights": sequence(lambda: Attention(weights=True)),
    "RNN": sequence(lambda: nn.RNN(_WIDTH, 16, 2, batch_first=True, dropout=0.1), 16),
    "GRU": sequence(lambda: nn.GRU(_WIDTH, 16, 1, batch_first=True), 16),
    "GRU-dropout": sequence(lambda: nn.GRU(_WIDTH, 16, 2, batch_first=True, dropout=0.1), 16),
    "LSTM": sequence(lambda: nn.LSTM(_WIDTH, 16, 2, batch_first=True, dropout=0.1), 16),
    "norms": pictures(_norms),
    "upsampling": pictures(_upsampling),
    "one-dimension": sequence(_one_dimension),
    "volumes": _volumes,
}
