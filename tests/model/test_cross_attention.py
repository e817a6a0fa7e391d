"""The attention class with keys and values of another text."""

import pytest
import torch
from transformers import DynamicCache, EncoderDecoderCache

from hf_minilm.model.attention import Attention


@pytest.fixture
def attend(make_config):
    def build(implementation: str) -> Attention:
        torch.manual_seed(5)
        config = make_config(is_causal=True)
        config._attn_implementation = implementation
        return Attention(config, 0, is_cross=True).eval()

    return build


@pytest.fixture
def texts() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, 5, 24, generator=generator), torch.randn(2, 8, 24, generator=generator)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_every_token_of_the_other_text_is_seen_whatever_the_direction(attend, texts, implementation):
    own, other = texts
    attention = attend(implementation)
    before, _ = attention(own, encoder_hidden_states=other)
    for place in range(8):
        changed = other.clone()
        changed[:, place] += 1
        assert (attention(own, encoder_hidden_states=changed)[0] - before).abs().amax(dim=(0, 2)).gt(1e-6).all()


def test_the_outputs_are_those_of_torchs_own_cross_attention(attend, texts):
    own, other = texts
    ours = attend("eager")
    theirs = torch.nn.MultiheadAttention(24, 4, bias=False, batch_first=True).eval()
    with torch.no_grad():
        # Two query heads share a key and value head, whose rows torch's module wants written twice.
        twice = [
            weight.view(2, 6, 24).repeat_interleave(2, dim=0).flatten(0, 1)
            for weight in (ours.key.weight, ours.value.weight)
        ]
        theirs.in_proj_weight.copy_(torch.cat((ours.query.weight, *twice)))
        theirs.out_proj.weight.copy_(ours.output.weight)
        expected, weights = theirs(own, other, other, average_attn_weights=False)
        outputs, alphas = ours(own, encoder_hidden_states=other)
    torch.testing.assert_close(outputs, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alphas, weights, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_keys_and_values_of_the_other_text_are_computed_once(attend, texts, implementation):
    own, other = texts
    attention = attend(implementation)
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    whole, _ = attention(own, encoder_hidden_states=other)
    pieces = []
    for number, piece in enumerate(own.split([2, 1, 2], dim=1)):
        # What is given later is not looked at: the cache holds what was given first.
        pieces.append(attention(piece, encoder_hidden_states=other * (number == 0), past_key_values=cache)[0])
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=1e-5, rtol=1e-5)
