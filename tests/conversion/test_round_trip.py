"""A native model becomes ours, computes the same, and comes back with the same bits and the same configuration."""

import pytest
import torch
from native_models import CASES, config_of

from hf_minilm.conversion import ARCHITECTURES, from_native, to_native

NOT_COMPARED = {"architectures", "dtype", "transformers_version", "_name_or_path"}


def fields_of(config):
    return {name: value for name, value in config.to_dict().items() if name not in NOT_COMPARED}


def what_is_read(model):
    """Give the tensors that a native model reads: not RoBERTa's first positions, nor a bias beside an untied one."""
    tensors = dict(model.state_dict())
    for name in ("cls.predictions", "lm_head"):
        if not model.config.tie_word_embeddings and f"{name}.decoder.bias" in tensors:
            del tensors[f"{name}.bias"]
    if model.config.model_type == "roberta":
        table = next(name for name in tensors if name.endswith("position_embeddings.weight"))
        tensors[table] = tensors[table][model.config.pad_token_id + 1 :]
    return tensors


@pytest.mark.parametrize(("architecture", "choice", "native_class"), CASES)
def test_a_native_model_comes_back_with_the_same_bits_and_fields(architecture, choice, native_class, randomised):
    head = ARCHITECTURES[architecture].head_of_native(native_class)
    native = randomised(head.native_class, config_of(architecture, choice), **head.arguments)
    there = from_native(native)
    back = to_native(there.model, architecture)
    assert type(there.model).__name__ == head.ours
    assert type(back.model) is type(native)
    before, after = what_is_read(native), what_is_read(back.model)
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert fields_of(native.config) == fields_of(back.model.config)
