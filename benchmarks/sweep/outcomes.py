"""How a model can come out of the sweep."""

from __future__ import annotations

OK = "ok"
NOT_BUILT = "not built"
FAILS_IN_TORCH = "fails in torch"
REFUSED_BY_DYNAMO = "refused by Dynamo"
REFUSED = "refused by fxremat"
WRONG = "wrong"
OVER = "over"
CRASH = "crash"
SLOW = "slow"

# In the order of the table. What isn't built says nothing about fxremat and doesn't count.
ALL = (
    OK,
    REFUSED_BY_DYNAMO,
    FAILS_IN_TORCH,
    REFUSED,
    WRONG,
    OVER,
    CRASH,
    SLOW,
    NOT_BUILT,
)
