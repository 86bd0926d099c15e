"""The CUDA kit on its own: what befalls a cell, the time, going on, the report, the wheels."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import records, zoo
from benchmarks.counters import requested_above
from benchmarks.cuda import machine, report, states, wheels
from benchmarks.cuda.__main__ import parts_of
from benchmarks.cuda.install import lacking, package_of, usable
from benchmarks.cuda.needs import needs_of
from benchmarks.cuda.parts import (
    BENCH_METHODS,
    BENCH_NUMBERS,
    EXACT_SETTINGS,
    jobs_of,
)
from benchmarks.cuda.run import PARTS, Options, run, run_part
from benchmarks.own_process import child_environment

KIT = "tests.benchmarks.kit_jobs"


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    monkeypatch.setenv("KIT_RUNS", str(tmp_path / "runs"))
    jobs = f"{KIT}:troubled"
    return Options("cpu", ("tests",), tmp_path / "out", limit_s=120, jobs=jobs)


def states_of(options: Options) -> dict[str, str]:
    rows = records.load(options.out, "tests.jsonl")
    return {key: row["status"] for key, row in rows.items()}


def runs(tmp_path: Path) -> list[str]:
    return (tmp_path / "runs").read_text().split()


def test_a_cell_that_fails_or_kills_its_process_is_a_row(options: Options, tmp_path: Path) -> None:
    said: list[str] = []
    assert run(options, said.append) == 1
    assert states_of(options) == {
        "first": "ok",
        "fails": "failed",
        "kills": "failed",
        "missing": "unavailable",
        "last": "ok",
    }
    rows = records.load(options.out, "tests.jsonl")
    assert "illegal memory access" in rows["fails"]["reason"]
    assert "ended with 7" in rows["kills"]["reason"]
    assert "no_such_package" in rows["missing"]["reason"]
    assert any("illegal memory access" in line for line in said)

    about = json.loads((options.out / "machine.json").read_text())
    assert about["torch"]
    assert about["sources"] == machine.sources_digest()

    # Nothing is left to do, so nothing is run; failed cells are run again when asked to.
    assert run(options, said.append) == 1
    assert runs(tmp_path) == ["first", "last"]
    run(replace(options, retry=True), said.append)
    assert states_of(options)["fails"] == "failed"
    assert runs(tmp_path) == ["first", "last"]


def test_a_run_out_of_time_goes_on_where_it_stopped(options: Options, tmp_path: Path) -> None:
    options.out.mkdir()
    hanging = replace(options, jobs=f"{KIT}:hanging")

    def go(chosen: Options, seconds: float) -> None:
        end = time.time() + seconds
        run_part("tests", chosen, child_environment(1), end, lambda _line: None)

    go(hanging, 5)
    assert states_of(options) == {"first": "ok", "hangs": "cut off", "last": "waiting"}
    rows = list(records.load(options.out, "tests.jsonl").values())
    assert "- last: not reached in the time" in report.said_of(rows)[1]

    go(replace(hanging, cell_limit_s=2), 60)
    assert states_of(options) == {"first": "ok", "hangs": "failed", "last": "ok"}
    assert runs(tmp_path) == ["first", "hangs", "hangs", "last"]


def test_an_unusable_device_is_left_for_a_new_process(options: Options) -> None:
    options.out.mkdir()
    said: list[str] = []
    end = time.time() + 60
    chosen = replace(options, jobs=f"{KIT}:sticky")
    run_part("tests", chosen, child_environment(1), end, said.append)
    assert states_of(options) == {"poison": "failed", "last": "ok"}
    assert (options.out / "tests.log").read_text().count("== tests") == 2
    assert states.is_sticky("RuntimeError: CUBLAS_STATUS_EXECUTION_FAILED")
    assert not states.is_sticky("OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB")


def test_rows_of_other_sources_are_set_aside(options: Options, tmp_path: Path) -> None:
    options.out.mkdir()
    (options.out / "machine.json").write_text(json.dumps({"sources": "others"}))
    records.append(options.out, {"key": "first", "part": "tests", "status": "ok"}, "tests.jsonl")
    run(options, lambda _line: None)
    assert runs(tmp_path) == ["first", "last"]
    assert list(records.load(options.out / "earlier-1", "tests.jsonl")) == ["first"]


EXACT = {
    "key": "gpt2|float32|0.5",
    "part": "exactness",
    "status": "ok",
    "bitwise": True,
    "budget_bytes": 100,
    "planned_peak_bytes": 90,
    "measured_peak_bytes": 96,
    "requested_peak_bytes": 90,
    "reference": "eager",
    "comparison": {"relative_error": 0.0},
    "wall_s": 1.0,
}


def test_judgement_of_rows() -> None:
    other = {**EXACT, "bitwise": False, "comparison": {"relative_error": 1e-3}}
    assert states.judged(EXACT) == "good"
    assert states.judged({**EXACT, "measured_peak_bytes": 101}) == "over the budget"
    assert states.judged(other) == "other bits"
    # Where eager differs from itself, so may the step, by a few times as much.
    assert states.judged({**other, "eager_repeats": False, "eager_error": 5e-4}) == "good"
    assert states.judged({**other, "eager_repeats": False, "eager_error": 1e-5}) == "other bits"
    step = {"status": "ok", "method": "fxremat", "verdict": "wrong", "facts": {}, "peak_bytes": 1}
    assert states.judged(step) == "wrong gradients"
    assert states.judged({**step, "equals_aot_eager": True}) == "good"
    assert states.judged({**step, "aot_eager_error": 1e-3, "eager_error": 1e-3}) == "good"
    assert states.judged({**step, "method": "torch-budget"}) == "good"


def test_report_names_what_is_bad() -> None:
    about = {
        "device": "cuda",
        "device_name": "Some GPU",
        "capability": "9.0",
        "driver": "1.2",
        "total_memory_bytes": 80 << 30,
        "torch": "2.11.0",
        "cuda": "13.0",
        "cudnn": 91900,
        "versions": {"python": "3.12.3"},
        "commit": "abc",
        "sources": "def",
        "command": ["run"],
        "allocator": {},
    }
    over = {**EXACT, "key": "vgg|float32|0.5", "measured_peak_bytes": 101}
    test = {"key": "t.py::test_x", "status": "failed", "reason": "AssertionError: no", "wall_s": 1}
    text = report.report(about, {"tests": [test], "exactness": [EXACT, over], "bench": []})
    assert "Some GPU, capability 9.0, driver 1.2, 80.0 GiB" in text
    assert "**vgg float32 0.5: over the budget**" in text
    assert "AssertionError: no" in text
    assert "nothing was run" in text


def test_cells_on_cuda_are_the_promised_ones() -> None:
    """Six models at four budgets, two of which need only torch; the peers beside eager."""
    exactness = jobs_of("exactness", "cuda")
    assert len(exactness) == 24
    assert len({job.group for job in exactness}) == 6
    assert len({job.group for job in exactness if not job.needs}) == 2
    assert needs_of("unet") == ("diffusers",)
    assert {name for name, _ in BENCH_METHODS} == {
        "eager",
        "checkpoint-block",
        "torch-budget",
        "fxremat",
    }
    parts = [part for part in PARTS if part != "tests"]
    keys = [(part, job.key) for part in parts for job in jobs_of(part, "cuda")]
    assert len(keys) == len(set(keys))


def test_sizes_on_cuda_are_numbers_that_the_models_have() -> None:
    for setting in EXACT_SETTINGS:
        assert set(setting.numbers) <= set(zoo.get(setting.model).sizes["cuda"])
    numbers = {s.model: s.numbers for s in EXACT_SETTINGS}
    assert all(numbers[model] == own for model, own in BENCH_NUMBERS.items())


def test_requests_count_above_the_level_at_entry() -> None:
    """By the allocator's own counters; None where nothing counts requests."""
    before = {"requested_bytes.all.current": 1000, "requested_bytes.all.peak": 1500}
    after = {"requested_bytes.all.current": 1000, "requested_bytes.all.peak": 1700}
    assert requested_above(before, after) == 700
    assert requested_above({}, {}) is None


def test_parts_by_name() -> None:
    assert parts_of("bench,tests") == ("tests", "bench")
    assert parts_of("") == PARTS


def test_wheels_that_are_installed() -> None:
    carried = ["highspy", "pulp", "numba", "llvmlite", "rich"]
    there = {"highspy": "1.16.0", "pulp": "3.3.2", "llvmlite": "0.44.0", "rich": "14.0.0"}
    # highspy is too new; numba takes the llvmlite along that it was made for.
    assert lacking(carried, there) == ["highspy", "llvmlite", "numba"]
    assert package_of(Path("a/PuLP-3.3.2-py3-none-any.whl")) == "pulp"
    found = usable(["rich", "no_such_package"], Path("nowhere"))
    assert list(found) == ["rich"]


def test_a_group_has_nothing_that_an_earlier_one_has(tmp_path: Path) -> None:
    for group, name in (("core", "rich-15"), ("diffusers", "rich-14"), ("diffusers", "zipp-4")):
        (tmp_path / group).mkdir(exist_ok=True)
        (tmp_path / group / f"{name}-py3-none-any.whl").write_bytes(b"12")
    wheels.without_repeats(tmp_path)
    assert wheels.sizes(tmp_path) == {
        "core": {"rich-15-py3-none-any.whl": 2},
        "diffusers": {"zipp-4-py3-none-any.whl": 2},
    }
    assert "core: 0.0 MiB in 1 wheels" in wheels.table(wheels.sizes(tmp_path))
