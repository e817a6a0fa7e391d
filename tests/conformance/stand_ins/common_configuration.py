"""A value other than the default for every field that all transformers configurations share."""

from dataclasses import fields

from transformers import PreTrainedConfig

config_common_kwargs = {
    "architectures": ["MiniLMModel"],
    "output_hidden_states": True,
    "output_attentions": True,
    "return_dict": False,
    "dtype": "float16",
    "chunk_size_feed_forward": 3,
    "is_encoder_decoder": True,
    "id2label": {0: "far", 1: "near", 2: "here"},
    "label2id": {"far": 0, "near": 1, "here": 2},
    "problem_type": "regression",
}

_WRITTEN_BY_SAVING = {"transformers_version"}
_FORGOTTEN = {field.name for field in fields(PreTrainedConfig)} - set(config_common_kwargs) - _WRITTEN_BY_SAVING
if _FORGOTTEN:
    raise ValueError(f"config_common_kwargs must give a value for {', '.join(sorted(_FORGOTTEN))}.")
