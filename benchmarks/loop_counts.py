"""Loops in numbers: evaluations beside Mixed checkpointing's, online schedules, a long loop.

python -m benchmarks.loop_counts [--out DIR]

Mixed checkpointing's counts are those that its implementation in `checkpoint_schedules` executes;
they are left out where that isn't installed, which is said. The ratios of online schedules are to
the optimum of the known length, for 20 steps and more. The long loop has 100,000 tiny steps.
"""

from __future__ import annotations

import argparse
import functools
import time
from pathlib import Path
from typing import Any

import torch

import fxremat
from benchmarks import records
from fxremat_solvers.loops.binomial import evaluations
from fxremat_solvers.loops.online import Keeper
from fxremat_solvers.loops.tapes import tape_table

OUT = Path("benchmarks/results/loops/counts")
UNITS = (5, 10, 20, 40, 60)
SLOTS = (5, 10, 20, 40, 70, 100)


def by_mixed(steps: int, units: int) -> int | None:
    """What Mixed checkpointing executes; None where it isn't installed."""
    try:
        import checkpoint_schedules as theirs
    except ImportError:
        print("checkpoint_schedules isn't installed, and left out")
        return None
    actions = theirs.MixedCheckpointSchedule(steps, units)
    return int(sum(a.n1 - a.n0 for a in actions if isinstance(a, theirs.Forward)))


def mixed(steps: int, units: int) -> dict[str, Any]:
    """Evaluations where a tape is as large as a state; a loop's first state takes no room."""
    return {
        "key": f"mixed/{steps}/{units}",
        "steps": steps,
        "units": units,
        "mixed": by_mixed(steps, units),
        "tapes": tape_table(steps, units, 1, 1).evaluations,
        "tapes_beside_the_first_state": tape_table(steps, units + 1, 1, 1).evaluations,
        "binomial": evaluations(steps, units),
    }


def online(slots: int, most: int) -> dict[str, Any]:
    """Ratios to the optimum of the known length, for every length to 1,000, then every 59th."""
    best = functools.cache(evaluations)
    keeper, ratios = Keeper(slots), list[float]()
    for steps in range(1, most + 1):
        if steps > 1:
            keeper.keep(steps - 1)
        if steps >= 20 and (steps < 1000 or steps % 59 == 0):
            states = keeper.states()
            gaps = [b - a for a, b in zip(states, [*states[1:], steps], strict=True)]
            total = steps + sum(best(gap, slots - k) for k, gap in enumerate(gaps))
            ratios.append(total / best(steps, slots))
    return {
        "key": f"online/{most}/{slots}",
        "slots": slots,
        "steps": most,
        "worst": max(ratios),
        "mean": sum(ratios) / len(ratios),
    }


def long(steps: int, slots: int) -> dict[str, Any]:
    """A loop of tiny steps and its reversal: peak and processor time."""
    weight = torch.rand(8, requires_grad=True)

    def run(steps: int) -> None:
        final = fxremat.loop(
            lambda y, _: torch.sin(y * weight), torch.ones(8), steps=steps, slots=slots
        )
        torch.autograd.grad(final.sum(), [weight])

    run(100)
    peak = fxremat.measure_peak(lambda: run(1000)).peak_bytes
    begin = time.process_time()
    run(steps)
    return {
        "key": f"long/{steps}/{slots}",
        "steps": steps,
        "slots": slots,
        "evaluations": evaluations(steps, slots),
        "seconds": time.process_time() - begin,
        "peak_bytes_of_1000": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    rows = [mixed(1000, units) for units in UNITS]
    rows += [online(slots, 20_000) for slots in SLOTS]
    rows.append(long(100_000, 100))
    for row in rows:
        print(row)
        records.append(out, {"status": "ok", **row, **records.environment(torch.get_num_threads())})
    records.compact(out)


if __name__ == "__main__":
    main()
