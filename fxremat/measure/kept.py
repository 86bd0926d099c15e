"""What earlier processes measured of ops, on disk: one document for each way a machine is set up.

Processes that write at the same time may lose each other's profiles, which are then measured again.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable

import msgspec
import torch

from fxremat.cache import store
from fxremat.cache.keys import hashed, surroundings
from fxremat.measure.profiles import Layout, OpProfile, OpProfiles

_KIND = "ops"
# How many ops a document has; then those make room that were measured the longest ago.
_MOST = 20_000


class _Layout(msgspec.Struct, array_like=True):
    shape: tuple[int, ...]
    dtype: str
    stride: tuple[int, ...]
    offset: int
    storage_bytes: int


class _Profile(msgspec.Struct, array_like=True):
    output_bytes: tuple[int | None, ...]
    workspace_bytes: int
    layouts: tuple[_Layout | None, ...]
    seconds: float | None
    given_up: bool


_Document = dict[str, _Profile]


def recall(signatures: Iterable[str], device: torch.device, known: OpProfiles) -> None:
    """Add to `known` what an earlier process measured of these ops."""
    wanted = tuple(signatures)
    if not wanted:
        return
    found = _read(device)
    for signature in wanted:
        profile = found.get(hashed(signature))
        if profile is None:
            continue
        known.by_signature[signature] = OpProfile(
            output_bytes=profile.output_bytes,
            workspace_bytes=profile.workspace_bytes,
            layouts=tuple(map(_layout, profile.layouts)),
            seconds=profile.seconds,
        )
        if profile.given_up:
            known.given_up.add(signature)


def keep(
    known: OpProfiles, signatures: Iterable[str], device: torch.device, *, were_timed: bool
) -> None:
    """Leave later processes what is known of these ops."""
    if store.folder() is None:
        return
    document = _read(device)
    for signature in signatures:
        profile = known.by_signature.get(signature)
        if profile is not None:
            document.pop(hashed(signature), None)
            document[hashed(signature)] = _Profile(
                output_bytes=profile.output_bytes,
                workspace_bytes=profile.workspace_bytes,
                layouts=tuple(map(_written, profile.layouts)),
                seconds=profile.seconds,
                given_up=were_timed and profile.seconds is None,
            )
    newest = itertools.islice(document.items(), max(0, len(document) - _MOST), None)
    store.write(_KIND, hashed(surroundings(device)), msgspec.json.encode(dict(newest)))


def _read(device: torch.device) -> _Document:
    return store.read(_KIND, hashed(surroundings(device)), _parse) or {}


def _parse(text: bytes) -> _Document:
    document = msgspec.json.decode(text, type=_Document)
    for profile in document.values():
        for layout in profile.layouts:
            if layout is not None:
                _dtype(layout.dtype)
    return document


def _layout(layout: _Layout | None) -> Layout | None:
    if layout is None:
        return None
    dtype = _dtype(layout.dtype)
    return Layout(layout.shape, dtype, layout.stride, layout.offset, layout.storage_bytes)


def _written(layout: Layout | None) -> _Layout | None:
    if layout is None:
        return None
    dtype = str(layout.dtype).removeprefix("torch.")
    return _Layout(layout.shape, dtype, layout.stride, layout.offset, layout.storage_bytes)


@functools.cache
def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"there is no type {name}")
    return dtype
