"""Typed errors of the solver package. Each says what is wrong, where, and what to do instead."""


class SolverError(Exception):
    """Base class of every error raised by `fxremat_solvers`."""


class ProblemFormatError(SolverError, ValueError):
    """A problem is malformed. The message names the field, e.g. ``ops[3].inputs[0]``."""


class ScheduleError(SolverError, ValueError):
    """A schedule can't be executed: a missing input, a missing op, or a forbidden recomputation."""


class SeveralRerunsError(SolverError, ValueError):
    """An op may be rerun in several ways. The format can say so; no solver chooses yet."""


class UnknownSolverError(SolverError, ValueError):
    """No solver of that name exists."""


class ArgumentError(SolverError, ValueError):
    """An option, a time limit or a number of points that means nothing."""


class BudgetError(SolverError, ValueError):
    """A budget in bytes is not a positive integer."""
