"""What a step held while it ran: levels of memory at the begin and end of all of its parts' calls.

Peak while a part runs = what is held outside of the parts (by uncompiled code, the user, autograd)
+ the saved bytes of the calls before it that wait for their backward + what the part takes itself.
The first is measured once, under known plans; the others follow from any plans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from fxremat.measure.recorder import Levels
from fxremat.step.parts import Outputs, PartPlan


class Kind(StrEnum):
    """What goes on from a mark to the next one."""

    OUTSIDE = "outside of the parts"
    FORWARD = "forward"
    BACKWARD = "backward"
    APART = "no part of the step"


@dataclass(frozen=True)
class Mark:
    """Where the step stands: `call` runs, and those in `waiting` have run and hold their residuals.

    Of each the outputs are named that were alive when no plan kept them: others hold those. A
    backward that `keeps` its graph frees none of its residuals.
    """

    kind: Kind
    call: int
    alive: Outputs
    waiting: Mapping[int, Outputs]
    keeps: bool = False


@dataclass(frozen=True)
class Moment:
    """A stretch of the step: what it takes under any plans of its calls.

    `outside_bytes` are held outside of the parts; `handed_over` are bytes of tangents among them,
    which the backward that runs frees.
    """

    mark: Mark
    outside_bytes: int
    handed_over: int

    def load(self, call: int, plan: PartPlan) -> int:
        """What one call takes here under a plan; 0 where it has no part in this moment."""
        mark = self.mark
        if call == mark.call and mark.kind is Kind.FORWARD:
            return plan.forward_bytes
        if call == mark.call and mark.kind is Kind.BACKWARD:
            return plan.backward_peak(mark.alive, self.handed_over, keeps=mark.keeps)
        return plan.saved_bytes(mark.waiting[call]) if call in mark.waiting else 0

    def bytes_under(self, plans: Sequence[PartPlan]) -> int:
        """What the step takes here under a plan for each call."""
        calls = {*self.mark.waiting, *([self.mark.call] if self.mark.call >= 0 else [])}
        return self.outside_bytes + sum(self.load(call, plans[call]) for call in calls)


def moments_of(
    marks: Sequence[Mark],
    levels: Levels,
    plans: Sequence[PartPlan],
    handed_over: Mapping[int, int],
) -> tuple[Moment, ...]:
    """The stretches of a step that ran under the given plans, each a call's.

    Where a part took more than its plan says, the difference counts as held outside. Stretches
    outside of the parts with the same calls waiting are one, whatever was between them.
    """
    found: list[Moment] = []
    for mark, level, peak in zip(marks, levels.at_mark, levels.peak_after, strict=True):
        if mark.kind is Kind.APART:
            continue
        handed = handed_over.get(mark.call, 0) if mark.kind is Kind.BACKWARD else 0
        inside = Moment(mark, 0, handed).bytes_under(plans)
        if mark.kind is Kind.OUTSIDE:
            outside = peak - inside
        else:
            held = sum(plans[call].saved_bytes(alive) for call, alive in mark.waiting.items())
            if mark.kind is Kind.BACKWARD:
                held += plans[mark.call].saved_bytes(mark.alive)
            outside = max(level - held, peak - inside)
        if found and mark.kind is Kind.OUTSIDE and _goes_on(found[-1].mark, mark):
            found[-1] = _together(found[-1], Moment(mark, outside, handed))
        else:
            found.append(Moment(mark, outside, handed))
    return tuple(found)


def _together(before: Moment, after: Moment) -> Moment:
    """One stretch outside of the parts: the most that is held, and what is alive throughout."""
    alive = after.mark.waiting
    waiting = {call: outputs & alive[call] for call, outputs in before.mark.waiting.items()}
    outside = max(before.outside_bytes, after.outside_bytes)
    return Moment(replace(before.mark, waiting=waiting), outside, 0)


def _goes_on(before: Mark, mark: Mark) -> bool:
    return before.kind is Kind.OUTSIDE and before.waiting.keys() == mark.waiting.keys()


def corrected(first: Sequence[Moment], again: Sequence[Moment]) -> tuple[Moment, ...]:
    """The moments of a step that was recorded twice: what is held outside is the larger figure."""
    return tuple(
        replace(old, outside_bytes=max(old.outside_bytes, new.outside_bytes))
        for old, new in zip(first, again, strict=True)
    )
