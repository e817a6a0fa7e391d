"""Weights of which no two are the same, so that none can be taken for another."""

from typing import TypeVar

import torch

Model = TypeVar("Model", bound=torch.nn.Module)


def randomise(model: Model) -> Model:
    """Give every weight a value of its own, norms and biases too, so large that attention is far from even."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return model.eval()
