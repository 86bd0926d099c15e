"""The sweep's sources: those that are asked for, of which a library may not be installed."""

from __future__ import annotations

from benchmarks.sweep.sources import names

OWN = {"made-up": "tests.benchmarks.made_up_models"}


def test_a_source_whose_library_is_not_installed_is_left_out_and_said() -> None:
    said: list[str] = []
    found = names({"not-there": "a_library_that_is_not_installed", **OWN}, said.append)
    assert found == names(OWN)
    assert said == ["not-there is left out: a_library_that_is_not_installed is not installed"]
