import math

import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from hf_minilm import MiniLMForMaskedLM, MiniLMModel
from hf_minilm.model.positions import POSITION_SCHEMES, angles_of, build_positions, rotate


def test_sinusoids_equal_the_formula_of_the_paper_computed_by_loops(make_config):
    scheme = build_positions(make_config(position_embedding="sinusoidal"))
    waves = scheme.added_to_embeddings(torch.tensor([[0, 1, 7, 40, 900]]))
    for row, position in enumerate((0, 1, 7, 40, 900)):
        for pair in range(12):
            angle = position / 10000 ** (2 * pair / 24)
            assert waves[0, row, 2 * pair] == pytest.approx(math.sin(angle), abs=1e-4)
            assert waves[0, row, 2 * pair + 1] == pytest.approx(math.cos(angle), abs=1e-4)


def test_rotary_scores_depend_only_on_the_distance(make_config):
    scheme = build_positions(make_config())
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(6, generator=generator).expand(1, 1, 30, 6) for _ in range(2))
    rotation = scheme.rotation(torch.arange(30)[None])
    scores = (rotate(query, rotation) @ rotate(key, rotation).transpose(-1, -2))[0, 0]
    for distance in range(-29, 30):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=2e-5, rtol=0)
    assert scores[0].std() > 0.1


def test_position_zero_is_not_turned_and_turning_keeps_lengths(make_config):
    scheme = build_positions(make_config())
    features = torch.randn(2, 4, 9, 6, generator=torch.Generator().manual_seed(2))
    turned = rotate(features, scheme.rotation(torch.arange(9)[None]))
    assert torch.equal(turned[:, :, 0], features[:, :, 0])
    torch.testing.assert_close(turned.norm(dim=-1), features.norm(dim=-1))


def test_rotary_positions_equal_those_of_llama(make_config):
    generator = torch.Generator().manual_seed(4)
    query, key = torch.randn(2, 4, 13, 6, generator=generator), torch.randn(2, 2, 13, 6, generator=generator)
    config = make_config(rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    rotation = build_positions(config).rotation(torch.arange(13)[None])
    frequencies = torch.tensor([500.0 ** (-2 * pair / 6) for pair in range(3)])
    angles = (torch.arange(13)[:, None] * frequencies).repeat(1, 2)[None]
    expected = apply_rotary_pos_emb(query, key, angles.cos(), angles.sin())
    for ours, theirs in zip((rotate(query, rotation), rotate(key, rotation)), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


def test_angles_stay_exact_when_the_model_is_cast_to_bfloat16(make_model):
    model = make_model(MiniLMModel).to(torch.bfloat16)
    cosine, _ = model.positions.rotation(torch.tensor([[1001]]))
    assert cosine.dtype == torch.float32
    assert cosine[0, 0, 0, 0].item() == pytest.approx(math.cos(1001.0), abs=1e-4)


def test_angles_are_position_times_a_geometric_progression():
    angles = angles_of(torch.tensor([[3]]), 4, theta=100.0)
    torch.testing.assert_close(angles, torch.tensor([[[3.0, 0.3]]]))


@pytest.mark.parametrize("scheme", ["learned", "sinusoidal", "rope"])
def test_every_scheme_but_none_tells_the_order_of_the_tokens(make_model, draw_tokens, scheme):
    input_ids = draw_tokens(1, 8)
    for name in (scheme, "none"):
        model = make_model(MiniLMModel, position_embedding=name)
        forward = model(input_ids).last_hidden_state
        backward = model(input_ids.flip(1)).last_hidden_state.flip(1)
        difference = (forward - backward).abs().max()
        assert difference < 1e-5 if name == "none" else difference > 1e-2


def test_a_sequence_longer_than_the_learned_table_is_refused_in_one_line(make_model, draw_tokens):
    model = make_model(MiniLMForMaskedLM, position_embedding="learned")
    model(draw_tokens(1, 41))
    message = r"sequence length \(42\) must not exceed max_position_embeddings \(41\); shorten the sequence"
    with pytest.raises(ValueError, match=message) as caught:
        model(draw_tokens(1, 42))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["none", "sinusoidal", "rope"])
def test_schemes_without_a_table_take_sequences_longer_than_declared(make_model, draw_tokens, scheme):
    outputs = make_model(MiniLMModel, position_embedding=scheme)(draw_tokens(1, 60)).last_hidden_state
    assert outputs.isfinite().all()


def test_an_unknown_scheme_is_refused_with_the_nearest_name(make_config):
    with pytest.raises(
        ValueError, match=r"position_embedding \(sinusoid\) must be one of .* the nearest is sinusoidal"
    ):
        build_positions(make_config(position_embedding="sinusoid"))


def test_the_registry_holds_the_four_schemes():
    assert list(POSITION_SCHEMES) == ["none", "learned", "sinusoidal", "rope"]
