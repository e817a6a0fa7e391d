"""What the suite asks of a model tester: a tiny configuration, and inputs of the odd sizes that its own testers use."""

from typing import Any

import torch
from transformers_suite.test_modeling_common import ids_tensor, random_attention_mask

from hf_minilm import MiniLMConfig, MiniLMForCausalLM, MiniLMModel
from hf_minilm.model.configuration_minilm import PRESETS
from hf_minilm.model.positions import POSITION_SCHEMES

SIZES = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 37,
}

CHOICES = {"qk_norm": True, "output_bias": True, "feed_forward_bias": True}
"""Fields of a position scheme's architecture that bring parameters which the defaults do without."""

WITHOUT_DROPOUT = {"hidden_dropout": 0.0, "attention_dropout": 0.0}
"""For presets that have dropout: the suite compares losses in training, over processes that draw differently."""

SCHEME_FIELDS: dict[str, dict[str, Any]] = {"rope": {"partial_rotary_factor": 0.5}}
"""Fields of a position scheme beside its name: what it needs, or what the suite tests only where it is given."""

ARCHITECTURES: dict[str, dict[str, Any]] = {
    **{
        f"{scheme} positions": {**CHOICES, "position_embedding": scheme, **SCHEME_FIELDS.get(scheme, {})}
        for scheme in POSITION_SCHEMES
    },
    "sliding attention": {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 3},
    **{f"{preset} preset": {**fields, **WITHOUT_DROPOUT} for preset, fields in PRESETS.items()},
}
"""What is tested: every position scheme of the registry, layers that see a window, and every preset as it stands but
for its size and dropout."""


class MiniLMModelTester:
    """Makes configurations and inputs of one architecture."""

    base_model_class = MiniLMModel
    causal_lm_class = MiniLMForCausalLM

    def __init__(self, parent: Any, fields: dict[str, Any]) -> None:
        self.parent = parent
        self.fields = {**fields, **SIZES}
        self.batch_size, self.seq_length = 13, 7
        self.num_choices = 4
        self.is_training = True
        for name, size in SIZES.items():
            setattr(self, name, size)

    def get_config(self) -> MiniLMConfig:
        """Build the configuration; each call gives another object."""
        return MiniLMConfig(**self.fields)

    def prepare_config_and_inputs_for_common(self) -> tuple[MiniLMConfig, dict[str, torch.Tensor]]:
        """Give the configuration, and random tokens, segments and padding."""
        config, shape = self.get_config(), [self.batch_size, self.seq_length]
        inputs = {
            "input_ids": ids_tensor(shape, config.vocab_size),
            "token_type_ids": ids_tensor(shape, max(config.type_vocab_size, 1)),
            "attention_mask": random_attention_mask(shape),
        }
        return config, inputs
