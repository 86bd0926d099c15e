"""Language models and a tagger: vocabularies, experts and lengths that the data chooses."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.broken.step import BrokenStep, from_transformers, whole
from benchmarks.zoo import Batch, Workload
from benchmarks.zoo.case import tokens


def longformer_loss(model: nn.Module, ids: Tensor, attended: Tensor, targets: Tensor) -> Tensor:
    return model(input_ids=ids, global_attention_mask=attended, labels=targets).loss


def longformer(n: Mapping[str, int]) -> Workload:
    config = from_transformers("LongformerConfig")(
        vocab_size=n["vocabulary"],
        hidden_size=n["width"],
        num_hidden_layers=n["layers"],
        num_attention_heads=4,
        intermediate_size=4 * n["width"],
        max_position_embeddings=n["length"] + 2,
        attention_window=n["window"],
    )

    def sample(generator: Generator) -> Batch:
        ids = 3 + tokens(generator, n["batch"], n["length"], n["vocabulary"] - 3)
        attended = torch.zeros_like(ids)
        attended[:, 0] = 1
        targets = torch.where(torch.rand(ids.shape, generator=generator) < 0.15, ids, -100)
        return ids, attended, targets

    return Workload(from_transformers("LongformerForMaskedLM")(config), sample, longformer_loss)


def mixtral_loss(model: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    return model(input_ids=ids, attention_mask=mask, labels=ids, output_router_logits=True).loss


def mixtral(n: Mapping[str, int]) -> Workload:
    config = from_transformers("MixtralConfig")(
        vocab_size=n["vocabulary"],
        hidden_size=n["width"],
        num_hidden_layers=n["layers"],
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=2 * n["width"],
        num_local_experts=n["experts"],
        max_position_embeddings=n["length"],
        attention_dropout=0.1,
        router_jitter_noise=0.01,
        use_cache=False,
        experts_implementation="eager",
    )

    def sample(generator: Generator) -> Batch:
        ids = tokens(generator, n["batch"], n["length"], n["vocabulary"])
        mask = torch.ones_like(ids)
        mask[0, -n["length"] // 4 :] = 0
        return ids, mask

    return Workload(from_transformers("MixtralForCausalLM")(config), sample, mixtral_loss)


class GatedConvolution(nn.Module):
    """A causal convolution whose second half gates its first, added to what came in."""

    def __init__(self, width: int, kernel: int = 4) -> None:
        super().__init__()
        self.past = kernel - 1
        self.convolution = nn.Conv1d(width, 2 * width, kernel)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(F.glu(self.convolution(F.pad(x, (self.past, 0))), dim=1))


class AdaptiveLanguageModel(nn.Module):
    """A gated convolutional language model under an adaptive softmax over frequent and rare words.

    torch's module looks which words of each cluster are in the batch, and passes over empty ones.
    """

    def __init__(self, n: Mapping[str, int]) -> None:
        super().__init__()
        words, width = n["vocabulary"], n["width"]
        self.words = nn.Embedding(words, width)
        self.layers = nn.Sequential(*(GatedConvolution(width) for _ in range(n["layers"])))
        cutoffs = [words // 8, words // 2]
        self.softmax = nn.AdaptiveLogSoftmaxWithLoss(width, words, cutoffs, div_value=2.0)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.layers(self.words(ids[:, :-1]).transpose(1, 2)).transpose(1, 2)
        return self.softmax(x.flatten(0, 1), ids[:, 1:].flatten()).loss


def adaptive(n: Mapping[str, int]) -> Workload:
    def sample(generator: Generator) -> Batch:
        # Rare words are rare: a square of a uniform number prefers the first ones.
        even = torch.rand(n["batch"], n["length"] + 1, generator=generator)
        return ((even.square() * n["vocabulary"]).long(),)

    return Workload(AdaptiveLanguageModel(n), sample, whole)


class Tagger(nn.Module):
    """Sentences of different lengths through a packed bidirectional LSTM, a tag for each word."""

    def __init__(self, n: Mapping[str, int]) -> None:
        super().__init__()
        width = n["width"]
        self.words = nn.Embedding(n["vocabulary"], width)
        self.before = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(0.1))
        self.lstm = nn.LSTM(
            2 * width, width, n["layers"], batch_first=True, bidirectional=True, dropout=0.1
        )
        self.after = nn.Sequential(
            nn.Linear(2 * width, 4 * width), nn.GELU(), nn.Dropout(0.1), nn.Linear(4 * width, 16)
        )

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        x = self.before(self.words(ids))
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        x, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.after(x)


def tagger_loss(model: nn.Module, ids: Tensor, lengths: Tensor, tags: Tensor) -> Tensor:
    return F.cross_entropy(model(ids, lengths).flatten(0, 1), tags.flatten())


def tagger(n: Mapping[str, int]) -> Workload:
    def sample(generator: Generator) -> Batch:
        ids = tokens(generator, n["batch"], n["length"], n["vocabulary"])
        lengths = torch.randint(n["length"] // 2, n["length"], (n["batch"],), generator=generator)
        lengths[0] = n["length"]
        within = torch.arange(n["length"]) < lengths[:, None]
        return ids, lengths, torch.where(within, ids % 16, -100)

    return Workload(Tagger(n), sample, tagger_loss)


class Mentions(nn.Module):
    """Pools every marked mention of a text by a loop over where `nonzero` finds their starts."""

    def __init__(self, n: Mapping[str, int]) -> None:
        super().__init__()
        width = n["width"]
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.1, batch_first=True)
        self.words = nn.Embedding(n["vocabulary"], width)
        self.encoder = nn.TransformerEncoder(layer, n["layers"], enable_nested_tensor=False)
        self.pooled = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(0.1))
        self.kinds = nn.Linear(4 * width, 8)

    def forward(self, ids: Tensor, starts: Tensor) -> Tensor:
        x = self.encoder(self.words(ids))
        pooled: list[Tensor] = []
        for row, column in starts.nonzero():
            pooled += [x[row, int(column) : int(column) + 4].mean(0)]
        return self.kinds(self.pooled(torch.stack(pooled)))


def mentions_loss(model: nn.Module, ids: Tensor, starts: Tensor, kinds: Tensor) -> Tensor:
    return F.cross_entropy(model(ids, starts), kinds)


def mentions(n: Mapping[str, int]) -> Workload:
    def sample(generator: Generator) -> Batch:
        ids = tokens(generator, n["batch"], n["length"], n["vocabulary"])
        starts = torch.zeros(n["batch"], n["length"], dtype=torch.bool)
        places = torch.randperm(n["length"] - 4, generator=generator)[: n["mentions"]]
        starts[:, places] = True
        kinds = torch.randint(8, (n["batch"] * n["mentions"],), generator=generator)
        return ids, starts, kinds

    return Workload(Mentions(n), sample, mentions_loss)


STEPS = (
    BrokenStep(
        "longformer",
        "transformers LongformerForMaskedLM",
        {
            "tiny": {
                **{"layers": 1, "width": 32, "vocabulary": 64, "batch": 2, "length": 32},
                "window": 8,
            },
            "bench": {
                **{"layers": 2, "width": 64, "vocabulary": 512, "batch": 2, "length": 256},
                "window": 32,
            },
        },
        longformer,
        cause="a branch on whether any token attends globally, by item(), and where by nonzero",
    ),
    BrokenStep(
        "mixtral-router",
        "transformers MixtralForCausalLM",
        {
            "tiny": {
                **{"layers": 1, "width": 32, "vocabulary": 64, "batch": 2, "length": 16},
                "experts": 4,
            },
            "bench": {
                **{"layers": 3, "width": 128, "vocabulary": 512, "batch": 4, "length": 128},
                "experts": 4,
            },
        },
        mixtral,
        cause="a loop over nonzero: the experts that got tokens; locks around what layers return",
    ),
    BrokenStep(
        "adaptive-softmax",
        "torch nn.AdaptiveLogSoftmaxWithLoss under gated convolutions",
        {
            "tiny": {"layers": 1, "width": 32, "vocabulary": 128, "batch": 2, "length": 16},
            "bench": {"layers": 4, "width": 96, "vocabulary": 2048, "batch": 8, "length": 128},
        },
        adaptive,
        cause="each cluster's words by nonzero, and a branch on whether there are any",
    ),
    BrokenStep(
        "packed-lstm",
        "torch nn.LSTM over a packed sequence",
        {
            "tiny": {"layers": 1, "width": 16, "vocabulary": 64, "batch": 2, "length": 12},
            "bench": {"layers": 2, "width": 96, "vocabulary": 512, "batch": 16, "length": 64},
        },
        tagger,
        cause="nn.LSTM and packed sequences, which Dynamo doesn't trace",
    ),
    BrokenStep(
        "mentions",
        "torch nn.TransformerEncoder and pooled spans",
        {
            "tiny": {
                **{"layers": 1, "width": 32, "vocabulary": 64, "batch": 2, "length": 16},
                "mentions": 2,
            },
            "bench": {
                **{"layers": 3, "width": 96, "vocabulary": 512, "batch": 4, "length": 128},
                "mentions": 5,
            },
        },
        mentions,
        cause="a Python loop over the result of nonzero",
    ),
)
