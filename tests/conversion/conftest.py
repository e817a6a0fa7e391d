"""What the tests of conversion share: native models, every weight of which has a value of its own."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def randomised() -> Callable[..., PreTrainedModel]:
    """Build a native class with weights so large that attention is far from even; norms and biases are random too."""

    def build(model_class: type, config: Any, **arguments: Any) -> PreTrainedModel:
        model = model_class(config, **arguments).eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)
        return model

    return build
