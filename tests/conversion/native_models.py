"""Small odd-sized native models of every architecture, head and choice that a configuration has."""

from typing import Any

import torch
import transformers

from hf_minilm.conversion import ARCHITECTURES

TINY = {"vocab_size": 67, "num_hidden_layers": 3}
ENCODER = {**TINY, "hidden_size": 36, "num_attention_heads": 3, "intermediate_size": 53, "max_position_embeddings": 37}
DECODER = {
    **TINY,
    "hidden_size": 36,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 53,
    "max_position_embeddings": 71,
    "pad_token_id": 3,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {
    **{"vocab_size": 67, "n_layer": 3, "n_embd": 36, "n_head": 3, "n_inner": 53, "n_positions": 71},
    **{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3},
}
ROPE = {"rope_theta": 5000.0, "factor": 4.0}
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}

CHOICES: dict[str, dict[str, dict[str, Any]]] = {
    "bert": {
        "plain": ENCODER,
        "relu, untied, one segment": {
            **ENCODER,
            **{"hidden_act": "relu", "tie_word_embeddings": False, "type_vocab_size": 1, "layer_norm_eps": 1e-7},
        },
    },
    "roberta": {
        "plain": {**ENCODER, "type_vocab_size": 1, "layer_norm_eps": 1e-5},
        "untied, another padding token": {**ENCODER, "tie_word_embeddings": False, "pad_token_id": 5},
    },
    "gpt2": {
        "plain": GPT2,
        "untied, four times as wide, no padding token": {
            **{**GPT2, "n_inner": None, "pad_token_id": None},
            **{"tie_word_embeddings": False, "activation_function": "gelu", "layer_norm_epsilon": 1e-6},
        },
    },
    "llama": {
        "grouped heads": DECODER,
        "tied, biases, heads of their own size, llama3": {
            **DECODER,
            **{"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "head_dim": 10},
            "rope_parameters": {"rope_type": "llama3", **ROPE, **LLAMA3},
        },
        "one key head, linear": {
            **DECODER,
            **{"num_key_value_heads": 1, "rope_parameters": {"rope_type": "linear", **ROPE}, "pad_token_id": None},
        },
        "yarn": {**DECODER, "rope_parameters": {"rope_type": "yarn", **ROPE}},
        "dynamic": {**DECODER, "rope_parameters": {"rope_type": "dynamic", **ROPE}},
    },
    "mistral": {
        "window": {**DECODER, "sliding_window": 5},
        "no window, tied": {**DECODER, "sliding_window": None, "tie_word_embeddings": True, "head_dim": 8},
    },
    "qwen3": {
        "grouped heads": {**DECODER, "head_dim": 8},
        "windows in some layers, biases": {
            **DECODER,
            **{"head_dim": 10, "attention_bias": True, "use_sliding_window": True, "sliding_window": 5},
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    },
}
"""For each architecture, its configuration's fields for every choice that changes what is computed."""

CASES = [
    (architecture, choice, head.native)
    for architecture, choices in CHOICES.items()
    for choice in choices
    for head in ARCHITECTURES[architecture].heads
]


def config_of(architecture: str, choice: str, **fields: Any) -> transformers.PreTrainedConfig:
    return ARCHITECTURES[architecture].config_class(**CHOICES[architecture][choice], **fields)


def assert_same_bits(model: torch.nn.Module, other: torch.nn.Module) -> None:
    mine, theirs = model.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
