"""A small English world, a tokenizer with a token a word and one that divides words, and tiny models."""

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import MarianConfig, MarianMTModel, T5Config, T5ForConditionalGeneration

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


@pytest.fixture(scope="session")
def translation_tokenizer(world):
    """Add an end token to each text, and no begin token, as encoder-decoders read them."""
    tokenizer = train_tokenizer(world.documents(300), kind="bytelevel_bpe", vocab_size=400)
    template = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", tokenizer.eos_token_id)])
    tokenizer.backend_tokenizer.post_processor = template
    return tokenizer


@pytest.fixture
def tiny_seq2seq(translation_tokenizer):
    """Build a random encoder-decoder of transformers: its outputs depend on what it reads, and only some end early."""

    def build(model_class=T5ForConditionalGeneration):
        torch.manual_seed(7 if model_class is MarianMTModel else 4)
        special = {
            "vocab_size": len(translation_tokenizer),
            "pad_token_id": translation_tokenizer.pad_token_id,
            "eos_token_id": translation_tokenizer.eos_token_id,
            "decoder_start_token_id": translation_tokenizer.pad_token_id,
        }
        if model_class is MarianMTModel:
            layers = {f"{side}_{what}": 1 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")}
            sizes = {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "init_std": 1.0}
            # A Marian of its own accord makes the end token the last one of an output that reaches its bound.
            model = model_class(MarianConfig(**special, **layers, **sizes, forced_eos_token_id=None)).eval()
            model.final_logits_bias[0, translation_tokenizer.eos_token_id] = 5.0
            return model
        sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "initializer_factor": 3.0}
        return model_class(T5Config(**special, **sizes, tie_word_embeddings=False)).eval()

    return build


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
