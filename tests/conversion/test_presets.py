"""Every recommended architecture is exactly a native one: its twin computes the same."""

from typing import Any

import pytest
import torch

import hf_minilm
from hf_minilm import MiniLMConfig
from hf_minilm.conversion import expressible, save, to_native
from hf_minilm.model.configuration_minilm import PRESETS, SIZES

TWINS = {
    "modern": ("modernbert", "MiniLMForMaskedLM"),
    "modern_decoder": ("llama", "MiniLMForCausalLM"),
    "bert": ("bert", "MiniLMForMaskedLM"),
    "gpt2": ("gpt2", "MiniLMForCausalLM"),
}
"""What each preset is, and with which of our heads."""


def small(preset: str, size: str, **fields: Any) -> MiniLMConfig:
    """Give a preset with a size's heads and half of its layers, and narrow heads."""
    shape = SIZES[size]
    width = {"hidden_size": 8 * shape["num_attention_heads"], "num_hidden_layers": shape["num_hidden_layers"] // 2}
    return MiniLMConfig.preset(preset, size, **{"vocab_size": 67, "max_position_embeddings": 40, **width, **fields})


def test_every_preset_has_a_twin():
    assert TWINS.keys() == PRESETS.keys()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("preset", TWINS)
def test_a_preset_is_expressible_as_its_twin_which_computes_the_same(preset, size, tmp_path):
    twin, head = TWINS[preset]
    # Larger weights, so that attention is far from even.
    config = small(preset, size, initializer_range=0.2)
    assert expressible(config, head)[twin] == []
    torch.manual_seed(0)
    ours = getattr(hf_minilm, head)(config).eval()
    converted = to_native(ours, twin)
    save(converted, tmp_path / "twin")
    native = type(converted.model).from_pretrained(tmp_path / "twin").eval()
    input_ids = torch.randint(1, 67, (3, 23), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(input_ids)
    mask[1, 15:], mask[2, 6:] = 0, 0
    theirs, mine = (model(input_ids, attention_mask=mask).logits[mask.bool()] for model in (native, ours))
    torch.testing.assert_close(theirs, mine, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("task", ["SequenceClassification", "TokenClassification", "QuestionAnswering"])
@pytest.mark.parametrize("preset", ["modern", "modern_decoder", "bert"])
def test_a_classifier_of_a_preset_is_its_twins(preset, task):
    twin, head = TWINS[preset][0], f"MiniLMFor{task}"
    ours = getattr(hf_minilm, head)(small(preset, "tiny", num_labels=2)).eval()
    assert type(to_native(ours, twin).model).__name__.endswith(f"For{task}")
