"""Small odd-sized native models whose weights are large enough that attention is far from uniform."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

VOCAB_SIZE = 67


@pytest.fixture
def randomised() -> Callable[..., PreTrainedModel]:
    """Build a native class, every weight of it with a value of its own: norms and biases too."""

    def build(model_class: type, config: Any, **arguments: Any) -> PreTrainedModel:
        model = model_class(config, **arguments).eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)
        return model

    return build
