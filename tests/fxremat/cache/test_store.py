"""The cache's folder: what is written is read, and what can't be is done without, said once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fxremat.cache import store

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FXREMAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "_said", set())
    folder = store.folder()
    assert folder is not None
    return folder


def test_what_is_written_is_read_and_cleared(place: Path) -> None:
    assert store.read("things", "a", json.loads) is None
    store.write("things", "a", b'{"x": 1}')
    store.write("things", "a", b'{"x": 2}')
    assert store.read("things", "a", json.loads) == {"x": 2}
    assert [path.name for path in place.glob("*/*")] == ["a.json"], "nothing half written is left"
    (place / "things" / "mine.txt").write_text("kept")
    assert store.clear() == 1
    assert [path.name for path in store.documents()] == ["mine.txt"]


def test_old_documents_make_room(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_MOST", 8)
    for number in range(12):
        store.write("things", str(number), b"1")
        assert len(store.documents()) <= 8
    assert store.read("things", "11", json.loads) == 1
    assert place.is_dir()


@pytest.mark.usefixtures("place")
def test_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FXREMAT_CACHE", "off")
    store.write("things", "a", b"1")
    assert store.read("things", "a", json.loads) is None
    assert not list(tmp_path.iterdir())


def test_a_damaged_document_is_said_once(place: Path) -> None:
    store.write("things", "a", b"{")
    with pytest.warns(UserWarning, match=r"a\.json can't be read"):
        assert store.read("things", "a", json.loads) is None
    assert store.read("things", "a", json.loads) is None, "no warning: those are errors here"
    store.write("things", "a", b"1")
    assert store.read("things", "a", json.loads) == 1
    assert place.is_dir()


def test_an_unwritable_place_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FXREMAT_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(store, "_said", set())
    assert store.read("things", "a", json.loads) is None
    with pytest.warns(UserWarning, match="can't be written to"):
        store.write("things", "a", b"1")
    store.write("things", "b", b"1")
