"""The demo: GPT-2 learns a real text twice at once, untouched and in half of the step memory.

Both models take every step side by side, from the same weights, batch and random state; after
each step the losses, all gradients and the random state are compared bit for bit. Run it with
`make demo` or `python -m benchmarks.demo`.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import Tensor, nn

from benchmarks.measure import Step, check_measurement, same, step_peak, step_timeline
from benchmarks.plots import measured_timelines
from benchmarks.records import environment
from benchmarks.zoo import Batch, Case, get

TEXT = Path(__file__).parent / "data" / "founding_documents.txt"
MEBI = 1 << 20


@dataclass(frozen=True)
class Learner:
    """A model in training."""

    name: str
    step: Step
    optimizer: torch.optim.Optimizer


@dataclass(frozen=True)
class Round:
    """One training step of both models: what it took and whether it left the same."""

    loss: float
    times_s: tuple[float, float]
    loss_same: bool
    gradients_same: bool
    rng_same: bool


@dataclass(frozen=True)
class Outcome:
    """All rounds and both measured peaks."""

    rounds: tuple[Round, ...]
    peaks_bytes: tuple[int, int]
    budget_bytes: int
    compile_s: float


def text_batches(text: str, batch: int, length: int, seed: int) -> Callable[[int], Batch]:
    """Step i's batch: byte tokens of random stretches of the text."""
    data = torch.tensor(list(text.encode("ascii")))

    def sample(index: int) -> Batch:
        generator = torch.Generator().manual_seed(1_000_003 * seed + index)
        starts = torch.randint(len(data) - length, (batch,), generator=generator)
        return (torch.stack([data[s : s + length] for s in starts.tolist()]),)

    return sample


def gradients(module: nn.Module) -> list[Tensor | None]:
    return [p.grad for p in module.parameters()]


def take_step(learner: Learner, batch: Batch, state: Tensor) -> tuple[Tensor, float, Tensor]:
    """Forward and backward from a random state: the loss, the seconds, the state it leaves."""
    torch.set_rng_state(state)
    learner.step.clear()
    start = time.perf_counter()
    loss = learner.step.run(batch)
    seconds = time.perf_counter() - start
    return loss, seconds, torch.get_rng_state()


def play_round(pair: tuple[Learner, Learner], batch: Batch, state: Tensor) -> tuple[Round, Tensor]:
    """One step of both, compared before either optimizer moves."""
    (loss, first_s, after), (other, second_s, other_after) = (
        take_step(learner, batch, state) for learner in pair
    )
    mine, theirs = (gradients(learner.step.module) for learner in pair)
    outcome = Round(
        loss=loss.item(),
        times_s=(first_s, second_s),
        loss_same=same(loss, other),
        gradients_same=all(same(a, b) for a, b in zip(mine, theirs, strict=True)),
        rng_same=torch.equal(after, other_after),
    )
    for learner in pair:
        learner.optimizer.step()
    return outcome, after


def train(
    pair: tuple[Learner, Learner],
    batches: Callable[[int], Batch],
    steps: int,
    seed: int,
    console: Console,
) -> tuple[Round, ...]:
    """All rounds, under a progress bar."""
    torch.manual_seed(seed)
    state = torch.get_rng_state()
    rounds: list[Round] = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("loss {task.fields[loss]:.3f}  gradients {task.fields[verdict]}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("training", total=steps, loss=float("nan"), verdict="-")
        for i in range(steps):
            outcome, state = play_round(pair, batches(i), state)
            rounds.append(outcome)
            verdict = "identical" if all(r.gradients_same for r in rounds) else "DIFFERENT"
            progress.update(task, advance=1, loss=outcome.loss, verdict=verdict)
    return tuple(rounds)


def learner(name: str, module: nn.Module, call: Callable[..., Any]) -> Learner:
    return Learner(name, Step(module, call), torch.optim.AdamW(module.parameters(), lr=1e-3))


def results(outcome: Outcome, names: tuple[str, str]) -> Table:
    """The table at the end."""
    rounds = outcome.rounds
    times = [statistics.median(r.times_s[k] for r in rounds[2:] or rounds) for k in (0, 1)]
    ratio = statistics.median(r.times_s[1] / r.times_s[0] for r in rounds[2:] or rounds)
    peaks = outcome.peaks_bytes

    def verdict(flags: list[bool]) -> str:
        equal = sum(flags)
        colour = "green" if equal == len(flags) else "red"
        return f"[{colour}]identical in {equal} of {len(flags)} steps[/{colour}]"

    table = Table(title=f"GPT-2, {len(rounds)} training steps", title_justify="left")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    table.add_row("budget", "-", f"{outcome.budget_bytes / MEBI:.1f} MiB")
    table.add_row(
        "step memory, measured peak",
        f"{peaks[0] / MEBI:.1f} MiB",
        f"{peaks[1] / MEBI:.1f} MiB ({peaks[1] / peaks[0]:.1%})",
    )
    table.add_row("step time, median", f"{times[0]:.3f} s", f"{times[1]:.3f} s ({ratio:.2f}x)")
    table.add_row("compile and plan, once", "-", f"{outcome.compile_s:.1f} s")
    table.add_row("loss, first and last", f"{rounds[0].loss:.3f}, {rounds[-1].loss:.3f}", "")
    table.add_row("loss", "", verdict([r.loss_same for r in rounds]))
    table.add_row("all gradients, bit for bit", "", verdict([r.gradients_same for r in rounds]))
    table.add_row("random state after the step", "", verdict([r.rng_same for r in rounds]))
    return table


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=__doc__)
    parser.add_argument("--steps", type=int, default=40, help="training steps of each model")
    parser.add_argument(
        "--fraction", type=float, default=0.5, help="budget as a share of the measured step memory"
    )
    parser.add_argument(
        "--threads", type=int, default=1, help="one is the steadiest on a machine that is shared"
    )
    parser.add_argument("--out", type=Path, default=Path("demo-output"))
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> int:
    """Runs the demo; the exit status says whether everything held."""
    import fxremat

    args = arguments()
    torch.set_num_threads(args.threads)
    console = Console()
    check_measurement()
    batch_size, length = 4, 256
    case: Case = get("gpt2-eager")
    workload = case.make(
        "bench", args.seed, layers=4, vocabulary=128, batch=batch_size, length=length
    )
    batches = text_batches(TEXT.read_text("ascii"), batch_size, length, args.seed)
    untouched = workload.step_module()
    trained = copy.deepcopy(untouched)
    millions = sum(p.numel() for p in untouched.parameters()) / 1e6
    console.print(
        f"GPT-2 from a configuration, random weights ({millions:.1f} M parameters, dropout on), "
        f"reading {TEXT.name}"
    )

    plain = learner("untouched", untouched, untouched)
    plain.step.run(batches(0))  # the first step of a process allocates more than the others
    peak = step_peak(plain.step, batches(0))
    budget = int(args.fraction * peak)
    console.print(f"its step memory, measured: {peak / MEBI:.1f} MiB")
    console.print(f"planning for {budget / MEBI:.1f} MiB ...")
    start = time.perf_counter()
    optimized = fxremat.optimize(trained, budget=budget, example_inputs=batches(0))
    compile_s = time.perf_counter() - start
    small = learner("fxremat", trained, optimized)
    small.step.run(batches(0))
    small_peak = step_peak(small.step, batches(0))

    rounds = train((plain, small), batches, args.steps, args.seed, console)
    outcome = Outcome(rounds, (peak, small_peak), budget, compile_s)
    console.print(results(outcome, (plain.name, small.name)))
    timelines = {who.name: step_timeline(who.step, batches(0)) for who in (plain, small)}
    saved = [measured_timelines(args.out / "measured.png", timelines, budget)]
    fxremat.explain(optimized).plot(args.out / "planned.png")
    saved.append(args.out / "planned.png")
    figures = {**asdict(outcome), "command": "python -m benchmarks.demo", **vars(args)}
    record = json.dumps(figures | environment(args.threads), indent=1, default=str)
    (args.out / "results.json").write_text(record + "\n")
    console.print("memory through the step: " + ", ".join(map(str, saved)))

    exact = all(r.loss_same and r.gradients_same and r.rng_same for r in rounds)
    if small_peak > budget:
        console.print("[red]the measured peak is over the budget[/red]")
    if not exact:
        console.print("[red]some step differs from the untouched model's[/red]")
    return 0 if exact and small_peak <= budget else 1


if __name__ == "__main__":
    raise SystemExit(main())
