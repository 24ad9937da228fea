"""The measure behind every proof, against hand computation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fastvit.numerics import compare


def test_by_hand() -> None:
    result = compare(torch.tensor([[1.0, 4.0], [3.0, 0.0]]), np.array([[1.0, 3.0], [0.0, 3.0]]))
    assert result.max_abs == 3.0
    assert result.relative == 0.75
    assert result.cosine == pytest.approx(13 / math.sqrt(26 * 19))
    assert result.top1 == 0.5


def test_nested_outputs_take_the_worst() -> None:
    a = {"maps": [torch.ones(2, 2, 2), 100 * torch.ones(1)]}
    b = {"maps": [1.5 * torch.ones(2, 2, 2), 101 * torch.ones(1)]}
    result = compare(a, b)
    assert (result.max_abs, result.relative, result.top1) == (1.0, 0.5, None)


def test_outputs_that_a_model_leaves_out() -> None:
    assert compare((torch.ones(1), None), (torch.ones(1), None)).max_abs == 0


def test_nan_does_not_hide() -> None:
    result = compare([torch.zeros(1), torch.ones(1)], [torch.tensor([math.nan]), torch.ones(1)])
    assert math.isnan(result.max_abs)
    assert math.isnan(result.relative)


@pytest.mark.parametrize("other", [torch.zeros(2), [torch.zeros(3), torch.zeros(1)]])
def test_other_structure_is_an_error(other: object) -> None:
    with pytest.raises(ValueError):
        compare(torch.zeros(3), other)
