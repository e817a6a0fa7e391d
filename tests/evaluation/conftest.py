"""A small English world, a tokenizer with a token a word and one that divides words, and tiny models."""

import pytest
import torch

from hf_minilm import MiniLMConfig
from hf_minilm.data.tokenizer import train_tokenizer
from hf_minilm.data.world import World


@pytest.fixture(scope="session")
def world():
    return World(("en",))


@pytest.fixture(scope="session")
def word_tokenizer(world):
    return train_tokenizer(world.documents(1500), kind="wordpiece", vocab_size="auto")


@pytest.fixture(scope="session")
def piece_tokenizer(world):
    return train_tokenizer(world.documents(100), kind="wordpiece", vocab_size=150)


@pytest.fixture(scope="session")
def byte_tokenizer(world):
    return train_tokenizer(world.documents(300), kind="bytelevel_bpe", vocab_size=700)


@pytest.fixture
def tiny_model():
    """Build a random model of one layer that puts a bias on each token of the vocabulary."""

    def build(model_class, tokenizer, **overrides):
        torch.manual_seed(3)
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 256}
        special = {
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        }
        config = MiniLMConfig(vocab_size=len(tokenizer), output_bias=True, **sizes, **special, **overrides)
        return model_class(config).eval()

    return build


@pytest.fixture
def uniform_model(tiny_model):
    """Build a model that gives each token the same probability, whatever it reads."""

    def build(model_class, tokenizer):
        model = tiny_model(model_class, tokenizer)
        torch.nn.init.zeros_(model.lm_head.weight)
        torch.nn.init.zeros_(model.lm_head.bias)
        return model

    return build
