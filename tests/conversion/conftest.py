"""What the tests of conversion share: they import from this folder."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from random_weights import randomise
from transformers import PreTrainedModel

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def randomised() -> Callable[..., PreTrainedModel]:
    """Build a native class whose weights all have a value of their own."""

    def build(model_class: type, config: Any, **arguments: Any) -> PreTrainedModel:
        return randomise(model_class(config, **arguments))

    return build
