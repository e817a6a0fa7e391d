"""The rate of matrix products, and what is left out where a type is slow."""

import pytest
import torch

from hf_minilm.benchmark import matrix_rate


@pytest.mark.parametrize(("rate", "measured"), [(1e12, 3), (1e9, 2), (1e6, 1)])
def test_products_that_would_take_seconds_are_left_out(monkeypatch: pytest.MonkeyPatch, rate, measured):
    asked = []
    monkeypatch.setattr(matrix_rate, "product_rate", lambda shape, *_, **__: asked.append(shape) or rate + len(asked))
    shapes = [(64, 64, 64), (512, 512, 512), (4096, 1024, 4096)]
    assert matrix_rate.best_rate(shapes, torch.bfloat16, device=torch.device("cpu")) == rate + measured
    assert asked == shapes[:measured]


def test_a_rate_is_that_of_the_fastest_product():
    rate = matrix_rate.best_rate([(64, 32, 16)], torch.float32, device=torch.device("cpu"))
    assert 1e6 < rate < 1e15
