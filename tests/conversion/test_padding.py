"""Ours and the native model agree on rows of any length, padded on either side: compared here without the proof."""

import pytest
import torch
from native_models import CHOICES, config_of
from random_weights import randomise

from hf_minilm.conversion import ARCHITECTURES, from_native

CASES = [(architecture, choice) for architecture, choices in CHOICES.items() for choice in choices]


@pytest.fixture(scope="module")
def pair():
    made = {}

    def build(architecture, choice):
        if (architecture, choice) not in made:
            native = randomise(ARCHITECTURES[architecture].heads[0].native_class(config_of(architecture, choice)))
            made[architecture, choice] = native, from_native(native).model
        return made[architecture, choice]

    return build


def padded(side, pad):
    """Give two rows of tokens, the second one of 5, padded to 9 on a side."""
    ids = torch.randint(6, 67, (2, 9), generator=torch.Generator().manual_seed(4))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    mask = mask if side == "right" else mask.flip(1)
    return {"input_ids": ids.masked_fill(mask == 0, pad), "attention_mask": mask}


def assert_equal(theirs, mine):
    assert theirs.std() > 0.1
    torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(("architecture", "choice"), CASES)
def test_rows_padded_on_the_right_give_the_native_logits(architecture, choice, attention, pair):
    native, ours = pair(architecture, choice)
    for model in (native, ours):
        model.set_attn_implementation(attention)
    inputs = padded("right", native.config.pad_token_id or 0)
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        assert_equal(native(**inputs).logits[real], ours(**inputs).logits[real])


@pytest.mark.parametrize(("architecture", "choice"), CASES)
def test_rows_padded_on_the_left_give_the_native_logits(architecture, choice, pair):
    native, ours = pair(architecture, choice)
    inputs = padded("left", native.config.pad_token_id or 0)
    real = inputs["attention_mask"].bool()
    # RoBERTa's positions begin with the first token, whatever stands before it.
    own = {"position_ids": (real.cumsum(1) - 1).clamp(min=0)} if architecture == "roberta" else {}
    with torch.no_grad():
        assert_equal(native(**inputs).logits[real], ours(**inputs, **own).logits[real])


@pytest.mark.parametrize(
    ("architecture", "choice"), [case for case in CASES if case[0] in ("llama", "mistral", "qwen3")]
)
def test_rotary_positions_agree_beyond_the_declared_length(architecture, choice, pair):
    native, ours = pair(architecture, choice)
    tokens = torch.randint(6, 67, (1, 160), generator=torch.Generator().manual_seed(5))
    assert tokens.shape[1] > 2 * native.config.max_position_embeddings
    with torch.no_grad():
        assert_equal(native(tokens).logits, ours(tokens).logits)
