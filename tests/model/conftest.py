"""Small odd-sized models with weights large enough that attention is far from uniform."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from hf_minilm import MiniLMConfig

VOCAB_SIZE = 61


@pytest.fixture
def make_config() -> Callable[..., MiniLMConfig]:
    def make(**overrides: Any) -> MiniLMConfig:
        fields = {
            "vocab_size": VOCAB_SIZE,
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 37,
            "max_position_embeddings": 41,
            "initializer_range": 0.3,
        }
        return MiniLMConfig(**{**fields, **overrides})

    return make


@pytest.fixture
def make_model(make_config: Callable[..., MiniLMConfig]) -> Callable[..., nn.Module]:
    """Build a class in evaluation mode; equal arguments but `attention` give equal weights."""

    def make(model_class: type, *, attention: str = "eager", seed: int = 3, **overrides: Any) -> nn.Module:
        torch.manual_seed(seed)
        model = model_class(make_config(**overrides))
        model.set_attn_implementation(attention)
        return model.eval()

    return make


@pytest.fixture
def draw_tokens() -> Callable[..., torch.Tensor]:
    def draw(*shape: int, seed: int = 11) -> torch.Tensor:
        return torch.randint(1, VOCAB_SIZE, shape, generator=torch.Generator().manual_seed(seed))

    return draw


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Whatever a test draws without a generator of its own, it draws again."""
    torch.manual_seed(0)
