"""A whole step on CUDA, held against the allocator: planned again where it took more than allowed.

CUDA's caching allocator hands a cached block out whole where at most 1 MiB of it would be left
(`memory_model`), and counts all of it. How much that makes depends on what was freed before, so no
plan can know it beforehand. The first steps are measured, by the allocator's own counters; where
one took more than the budget, the rest is taken off, and the step is planned within what is left.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass

import torch

from fxremat.measure.recorder import counters_are_kept
from fxremat.step.part import Watch

_LOG = logging.getLogger("fxremat")

# How often a step is planned again. Each plan leaves other rests.
_TRIES = 3
# So many steps in a row are to be within the budget: what is cached changes from step to step.
_ENOUGH = 3
# The first step makes what libraries keep from then on, such as cuBLAS's workspace.
_FIRST = 1


@dataclass(eq=False)
class AllocatorCheck:
    """Measures the steps of one graph, from its second on, until some are within the budget.

    `planned_bytes` is the peak of the plan that runs. Measuring resets torch's peak statistics.
    """

    device: torch.device
    budget_bytes: int
    planned_bytes: int
    tries: int = 0
    done: bool = False
    _calls: int = 0
    _start: int = 0
    _rest: int = 0
    _most: int = 0
    _kept: int = 0

    def begins(self, watch: Watch) -> None:
        """A step begins, which runs by the plan; it ends where its backward has run."""
        self._calls += 1
        if self.done or self._calls <= _FIRST or counters_are_kept():
            return
        torch.cuda.reset_peak_memory_stats(self.device)
        self._start = torch.cuda.memory_allocated(self.device)
        watch.backward_ran = self._ended

    def _ended(self) -> None:
        self.note(torch.cuda.max_memory_allocated(self.device) - self._start)

    def note(self, measured: int) -> None:
        """The bytes that a step took."""
        if measured <= self.budget_bytes:
            self._kept += 1
            self.done = self._kept == _ENOUGH
            return
        self._rest = max(self._most, measured - self.planned_bytes)
        if self.tries == _TRIES:
            self.give_up()

    @property
    def within_bytes(self) -> int | None:
        """What the step is to be planned within, for its rest to fit as well; None for nothing."""
        if self.done or self._rest <= 0:
            return None
        # Another plan's rests may be larger: a quarter more is left, half as much again each try.
        return self.budget_bytes - self._rest * (5 + 2 * self.tries) // 4

    def planned_again(self, planned_bytes: int) -> None:
        """Another plan runs from now on."""
        _LOG.info(
            "CUDA's allocator handed out %s B more than was asked of it: the step was planned "
            "again, at %s B instead of %s",
            f"{self._rest:,}",
            f"{planned_bytes:,}",
            f"{self.planned_bytes:,}",
        )
        self.planned_bytes = planned_bytes
        self.tries += 1
        self._most = max(self._most, self._rest)
        self._rest = self._kept = 0

    def give_up(self) -> None:
        """Say that the budget isn't kept."""
        self.done = True
        warnings.warn(
            f"a step takes {self.planned_bytes + self._rest:,} B by the allocator's count, where "
            f"{self.planned_bytes:,} were asked of it, under a budget of {self.budget_bytes:,}: "
            "CUDA's allocator hands cached blocks out whole where at most 1 MiB would be left, or "
            "code around the model held more. PYTORCH_ALLOC_CONF=expandable_segments:True splits "
            "blocks finer; or give a lower budget",
            stacklevel=2,
        )
