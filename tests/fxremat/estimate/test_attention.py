"""Which kernel a GPU would pick, as torch's own rules have it."""

from __future__ import annotations

import pytest
import torch

from fxremat.estimate.attention import kernel_of


def heads(count: int = 4, size: int = 64, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(2, count, 8, size, dtype=dtype, device="meta")


MASK = torch.empty(8, 8, device="meta")


@pytest.mark.parametrize(
    ("query", "key", "mask", "grouped", "kernel"),
    [
        (heads(), heads(), None, False, "flash"),
        (heads(size=60), heads(size=60), None, False, "flash"),  # padded
        (heads(8), heads(2), None, True, "flash"),
        (heads(), heads(), MASK, False, "efficient"),
        (heads(8), heads(2), MASK, True, "math"),
        (heads(size=512), heads(size=512), None, False, "efficient"),
        (heads(dtype=torch.float32), heads(dtype=torch.float32), None, False, "efficient"),
        (heads(dtype=torch.float64), heads(dtype=torch.float64), None, False, "math"),
        (heads(size=60), heads(size=60), MASK, False, "math"),
        (heads()[0], heads()[0], None, False, "math"),
    ],
)
def test_the_kernel_is_the_one_that_takes_the_arguments(
    query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, grouped: bool, kernel: str
) -> None:
    assert kernel_of(query, key, key, mask, grouped) == kernel
