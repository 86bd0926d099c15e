"""Padded batches: few plans, the model's own loss, and the original's bits on the same batch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import fxremat
from tests.fxremat.frontend.test_history import graphs_of
from tests.numerics.steps import assert_same, run_steps

VALUES = {"input_ids": 7, "attention_mask": 0, "labels": -100}


def batch(length: int, rows: int = 2) -> dict[str, torch.Tensor]:
    ids = torch.randint(50, (rows, length))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


def gpt2(dropout: float) -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"n_layer": 1, "n_embd": 16, "n_head": 2, "vocab_size": 50, "n_positions": 64}
    rates = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), dropout)
    tokens = {"bos_token_id": 0, "eos_token_id": 0}
    config = transformers.GPT2Config(**sizes, **rates, **tokens, use_cache=False)
    return transformers.GPT2LMHeadModel(config)


def test_tensors_are_padded_at_their_ends() -> None:
    given = batch(13) | {"weight": torch.ones(2), "name": "first"}
    padded = fxremat.pad_to_multiple(given, 8, values=VALUES)
    for name, value in VALUES.items():
        assert padded[name].shape == (2, 16)
        assert padded[name].dtype == given[name].dtype
        assert torch.equal(padded[name][:, :13], given[name])
        assert (padded[name][:, 13:] == value).all()
    assert padded["weight"] is given["weight"]
    assert padded["name"] == "first"
    assert given["input_ids"].shape == (2, 13), "the batch is as it was"


def test_any_dimension_and_what_is_padded_already() -> None:
    frames = {"frames": torch.ones(2, 3, 6, 5), "mask": torch.ones(2, 1, 6, 1, dtype=torch.bool)}
    for dim in (2, -2):
        padded = fxremat.pad_to_multiple(frames, 4, values={"frames": 0.5, "mask": 0}, dim=dim)
        assert padded["frames"].shape == (2, 3, 8, 5)
        assert (padded["frames"][:, :, 6:] == 0.5).all()
        assert not padded["mask"][:, :, 6:].any()
    same = fxremat.pad_to_multiple(frames, 3, values={"frames": 0.0, "mask": 0}, dim=2)
    assert all(torch.equal(same[name], frames[name]) for name in frames)
    assert all(same[name] is not frames[name] for name in frames)


@pytest.mark.parametrize(
    ("multiple", "values", "message"),
    [
        (0, VALUES, "multiple is 0"),
        (8, {**VALUES, "token_type_ids": 0}, "'token_type_ids' is not in the batch"),
        (8, {"input_ids": 0}, "'attention_mask' has the length that is padded, 13"),
        (8, {**VALUES, "text": 0}, r"'text' is a list of shape \(\)"),
        (8, {**VALUES, "other": 0}, "several lengths"),
        (8, {}, "there are none"),
        (8, {**VALUES, "labels": 0.5}, "int64, which can't hold the value 0.5"),
        (8, {**VALUES, "attention_mask": float("nan")}, "can't hold the value nan"),
    ],
)
def test_what_is_wrong_is_said(multiple: int, values: dict[str, float], message: str) -> None:
    given = batch(13) | {"text": ["a"], "other": torch.ones(2, 5)}
    with pytest.raises(fxremat.OptionError, match=message):
        fxremat.pad_to_multiple(given, multiple, values=values)


def test_none_leaves_a_tensor_as_it_is() -> None:
    given = batch(13)
    padded = fxremat.pad_to_multiple(given, 8, values={**VALUES, "labels": None})
    assert padded["labels"] is given["labels"]


def test_gpt2_has_a_plan_a_bucket_and_the_same_bits_on_the_padded_batch() -> None:
    lengths = (30, 27, 14, 25, 11, 32)
    batches = [fxremat.pad_to_multiple(batch(n), 16, values=VALUES) for n in lengths]
    untouched = gpt2(dropout=0.1)
    own = copy.deepcopy(untouched)
    optimized = fxremat.optimize(own, budget=0.6, cost="flops", preset="brief")

    def by(model: Any) -> Any:
        return lambda given: model(**given).loss

    arguments = [(each,) for each in batches]
    expected = run_steps(untouched, by(untouched), arguments)
    assert_same(expected, run_steps(own, by(optimized), arguments))
    assert len(graphs_of(optimized)) == len({-(-n // 16) for n in lengths}) == 2


def test_padding_changes_no_loss_of_a_model_that_masks() -> None:
    model = gpt2(dropout=0.0)
    optimized = fxremat.optimize(copy.deepcopy(model), budget=0.6, cost="flops", preset="brief")
    given = batch(13)
    found: list[list[torch.Tensor]] = []
    for net, inputs in (
        (model, given),
        (optimized, fxremat.pad_to_multiple(given, 16, values=VALUES)),
    ):
        net.zero_grad()
        loss = net(**inputs).loss
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in net.parameters())])
    for expected, padded in zip(*found, strict=True):
        torch.testing.assert_close(padded, expected, rtol=1e-4, atol=1e-6)
