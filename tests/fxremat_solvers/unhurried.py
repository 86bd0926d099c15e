"""`solve` with time enough on any machine: its plans then depend on their seed alone."""

from __future__ import annotations

import functools

import fxremat_solvers

solve = functools.partial(fxremat_solvers.solve, time_limit_s=300.0)
