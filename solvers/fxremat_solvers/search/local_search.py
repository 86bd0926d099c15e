"""Local search: annealing over edits of a schedule, several runs, the best one polished.

After FastSA (NeurIPS 2023, simulated annealing over computation sequences),
but on the exact oracle and with wider edits. An edit drops a value between two uses and computes
it again, makers of dead inputs included; undoes a recomputation and whatever only served it;
undoes one and drops something else where memory then runs out; or moves a step, alone or with
what is in its way, which changes the order of the ops. Bytes above the budget have a price that
rises through the run, so that the path from one feasible schedule to a better one may lead through
infeasible ones.

Work is counted in edits: the same problem, budget and seed give the same schedule. The edits
run in compiled code (`kernel`); without it there is no local search.
Limits: a run gives no bound, and plans that need dozens of coordinated changes are not found.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from fxremat_solvers.model.incumbent import Candidate, best, by_peak, candidate
from fxremat_solvers.model.problem import RematProblem
from fxremat_solvers.search.kernel import Annealing, Kernel, kernel
from fxremat_solvers.search.parallel import side_by_side


@dataclass(frozen=True)
class Recipe:
    """How one run goes: temperatures in mean op costs, prices in mean op costs per mean value."""

    temperature: tuple[float, float]
    price: tuple[float, float]
    swap: float = 1.0


# Runs take turns: cool and cheap is best at high budgets, hot and dear where little fits, many
# swaps on graphs with few sizes. Measured on the generated graphs at 0.25 to 0.8 of the peak: no
# recipe wins everywhere, and on one graph runs of one recipe end closer together than recipes do.
_RECIPES = (
    Recipe(temperature=(0.3, 0.003), price=(0.003, 0.5)),
    Recipe(temperature=(3.0, 0.01), price=(0.03, 5.0)),
    Recipe(temperature=(0.3, 0.003), price=(0.003, 0.5), swap=4.0),
    Recipe(temperature=(1.0, 0.01), price=(0.03, 5.0)),
)
# For the lowest peak. Measured on the joint graphs of five models: no single one of these is within
# 10 % of the best on all of them.
HOT = Recipe(temperature=(3.0, 0.03), price=(1.0, 30.0))
DEAR = Recipe(temperature=(0.3, 0.01), price=(10.0, 100.0))
STEADY = Recipe(temperature=(0.3, 0.01), price=(1.0, 30.0))
# Where little fits: bytes stay dear and steps small. Measured at the floors of five joint graphs:
# runs from one start end up to ten per cent of the step apart, so more of them pay, not longer.
TIGHT = (
    Recipe(temperature=(0.3, 0.003), price=(0.3, 5.0)),
    Recipe(temperature=(0.3, 0.01), price=(0.3, 5.0)),
    Recipe(temperature=(0.1, 0.003), price=(0.3, 5.0)),
    Recipe(temperature=(0.3, 0.003), price=(0.1, 5.0)),
)
# Where a graph is larger some get stuck so: that of Mamba at its floor ended two points lower when
# bytes were cheap and steps large at first, for twice as many edits; transformers' did not.
WARM = (Recipe(temperature=(1.0, 0.01), price=(0.03, 5.0)),)
# Of thousands of ops more get stuck. From greedy's plan of an unrolled LSTM at its floor 2,500,000
# edits led to 25.7 to 26.2 per cent of a step in three runs, 4,000,000 by TIGHT's first to 28.8 and
# 31.5. It starts where the rounds began: from what those found a hot run got less far.
HOT_SWAPS = (Recipe(temperature=(3.0, 0.003), price=(0.03, 5.0), swap=4.0),)
# From the best plan on: cold, so that most of what it holds stays. Of ten such runs from the best
# of several restarts three improved it (median of six low budgets); of TIGHT's, twice as long, two.
COLD = (
    Recipe(temperature=(0.1, 0.003), price=(0.3, 5.0)),
    Recipe(temperature=(0.05, 0.003), price=(2.0, 5.0)),
    Recipe(temperature=(0.02, 0.003), price=(0.3, 5.0)),
    Recipe(temperature=(0.008, 0.003), price=(2.0, 5.0)),
)
# Where waves are long, every second one takes others.
MORE_COLD = (
    *COLD,
    Recipe(temperature=(0.05, 0.003), price=(0.3, 5.0)),
    Recipe(temperature=(0.003, 0.001), price=(2.0, 5.0)),
    Recipe(temperature=(0.1, 0.003), price=(2.0, 5.0)),
    Recipe(temperature=(0.008, 0.003), price=(0.3, 5.0)),
)
_POLISH = Recipe(temperature=(0.03, 0.003), price=(0.003, 0.5))


@dataclass(frozen=True)
class Batch:
    """Annealing runs of `edits` each: starts and recipes in turn."""

    starts: Sequence[Candidate]
    recipes: Sequence[Recipe]
    edits: int
    runs: int
    seed: int


@dataclass(frozen=True)
class Search:
    """What a search needs besides its budget: the problem, when it stops, and on how many threads.

    By default on as many as there are processors.
    """

    problem: RematProblem
    deadline: float
    threads: int | None = None

    @cached_property
    def kernel(self) -> Kernel:
        """What anneals."""
        return kernel(self.problem)

    @cached_property
    def units(self) -> tuple[float, float]:
        """What temperatures and prices follow: the mean cost of ops and the mean bytes of values.

        Of those that have any.
        """
        costs = [op.cost for op in self.problem.ops if op.cost > 0]
        sizes = [value.nbytes for value in self.problem.values if value.nbytes > 0]
        return sum(costs) / max(1, len(costs)) or 1.0, sum(sizes) / max(1, len(sizes)) or 1.0


def cheapest(
    search: Search,
    starts: Sequence[Candidate],
    budget_bytes: int,
    *,
    edits: int,
    runs: int,
    seed: int,
    recipe: int = 0,
) -> Candidate:
    """The best of the starts and of `runs` annealing runs from them; `edits` in all.

    The runs take recipes in turn, from number `recipe` on.
    """
    hot = max(1, 2 * edits // (3 * runs))
    recipes = [*_RECIPES[recipe:], *_RECIPES[:recipe]]
    found = [*starts, *annealed(search, budget_bytes, Batch(starts, recipes, hot, runs, seed))]
    first = best(found, budget_bytes)
    cold = max(1, edits // 3)
    found.append(_anneal(search, first, budget_bytes, cold, seed * 1009 + runs, _POLISH))
    return best(found, budget_bytes)


def annealed(search: Search, budget_bytes: int, *batches: Batch) -> list[Candidate]:
    """What the annealing runs of all batches end with: side by side, begun in this order."""

    def anneal(batch: Batch, run: int) -> Candidate:
        # Every start meets every recipe before one of them comes again.
        shift = run // len(batch.recipes) if len(batch.recipes) > 1 else 0
        start = batch.starts[(run + shift) % len(batch.starts)]
        recipe = batch.recipes[run % len(batch.recipes)]
        seed = batch.seed * 1009 + run
        return _anneal(search, start, budget_bytes, batch.edits, seed, recipe)

    return side_by_side(
        [partial(anneal, batch, run) for batch in batches for run in range(batch.runs)],
        search.threads,
    )


def descended(
    search: Search,
    start: Candidate,
    budget_bytes: int,
    recipes: Sequence[Recipe],
    *,
    edits: int,
    waves: int,
    seed: int,
) -> Candidate:
    """The best of `waves` of four cold runs of `edits` each; a wave starts from the best so far.

    Waves take the recipes in turn, four at a time.
    """
    for wave in range(waves):
        first = 4 * wave % len(recipes)
        four = recipes[first : first + 4]
        wave_of = Batch([start], four, edits, runs=4, seed=seed * waves + wave)
        tried = annealed(search, budget_bytes, wave_of)
        start = best([start, *tried], budget_bytes)
    return start


def lowest(search: Search, start: Candidate, recipe: Recipe, *, edits: int, seed: int) -> Candidate:
    """The schedule of lowest peak found from `start`, whatever it costs."""
    budget = start.peak_bytes
    found = _anneal(search, start, budget, edits, seed, recipe, lower_the_peak=True)
    return min(start, found, key=by_peak)


def _anneal(
    search: Search,
    start: Candidate,
    budget_bytes: int,
    edits: int,
    seed: int,
    recipe: Recipe,
    *,
    lower_the_peak: bool = False,
) -> Candidate:
    cost, nbytes = search.units
    price = cost / nbytes
    run = Annealing(
        edits=edits,
        temperature=(recipe.temperature[0] * cost, recipe.temperature[1] * cost),
        price=(recipe.price[0] * price, recipe.price[1] * price),
        time_limit_s=max(0.0, search.deadline - time.monotonic()),
        swap=recipe.swap,
        lower_the_peak=lower_the_peak,
    )
    ops = search.kernel.anneal(start.ops, budget_bytes, run, seed)
    return candidate(search.problem, ops, "local_search")
