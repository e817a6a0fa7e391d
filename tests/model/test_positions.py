import math

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
from transformers.models.t5.modeling_t5 import T5Attention

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


SCALINGS = {
    "linear": {"factor": 3.0},
    "dynamic": {"factor": 2.5},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 24},
    "yarn with its own ends": {"factor": 3.0, "beta_fast": 5.0, "beta_slow": 0.5, "truncate": False},
    "yarn with a factor of its own": {"factor": 3.0, "attention_factor": 0.7},
    "yarn as in DeepSeek": {"factor": 8.0, "mscale": 0.7, "mscale_all_dim": 1.1},
    "llama3": {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 33},
}


@pytest.mark.parametrize("share", [None, 0.5])
@pytest.mark.parametrize("longest", [12, 100])
@pytest.mark.parametrize("name", SCALINGS)
def test_every_scaling_turns_by_the_angles_that_transformers_computes(make_config, name, longest, share):
    parameters = {"rope_type": name.split()[0], "rope_theta": 700.0, **SCALINGS[name]}
    sizes = {"hidden_size": 96, "num_attention_heads": 4, "max_position_embeddings": 41}
    config = make_config(**sizes, rope_parameters=dict(parameters), partial_rotary_factor=share)
    theirs = LlamaConfig(**sizes, head_dim=24, rope_parameters={**parameters, "partial_rotary_factor": share or 1.0})
    frequencies, factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](theirs, torch.device("cpu"), seq_len=longest + 1)
    positions = torch.tensor([[0, 5, longest]])
    angles = positions[0, :, None] * frequencies
    cosine, sine = build_positions(config).rotation(positions)
    assert cosine.shape == (1, 1, 3, 12 if share else 24)
    torch.testing.assert_close(cosine[0, 0], angles.cos().repeat(1, 2) * factor, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sine[0, 0], angles.sin().repeat(1, 2) * factor, atol=1e-5, rtol=1e-5)


def test_features_beyond_the_turned_share_are_left_as_they_are(make_config):
    config = make_config(hidden_size=96, partial_rotary_factor=0.25)
    features = torch.randn(2, 4, 9, 24, generator=torch.Generator().manual_seed(2))
    turned = rotate(features, build_positions(config).rotation(torch.arange(9)[None]))
    assert torch.equal(turned[..., 6:], features[..., 6:])
    assert (turned[:, :, 1:, :6] != features[:, :, 1:, :6]).all()


def test_sliding_layers_may_turn_by_a_theta_of_their_own(make_config):
    config = make_config(
        layer_types=["full_attention", "sliding_attention"],
        sliding_window=3,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 900.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
        },
    )
    scheme, positions = build_positions(config), torch.tensor([[4]])
    for layer_type, theta in (("full_attention", 900.0), ("sliding_attention", 10.0)):
        cosine, _ = scheme.rotation(positions, layer_type)
        torch.testing.assert_close(cosine.flatten()[:3], angles_of(positions, 6, theta=theta).flatten().cos())


@pytest.mark.parametrize("num_heads", [1, 2, 3, 6, 8, 12, 20])
def test_linear_biases_have_the_slopes_of_bloom(make_config, num_heads):
    config = make_config(
        hidden_size=60 * num_heads,
        num_attention_heads=num_heads,
        num_key_value_heads=1,
        position_embedding="alibi",
        is_causal=True,
    )
    positions = torch.arange(7)[None]
    biases = build_positions(config).added_to_scores(positions, positions)[0]  # [H, T, S]
    # Bloom adds slope x key position: the same to a softmax, as a query's own position is common to all its keys.
    theirs = build_alibi_tensor(torch.ones(1, 7), num_heads, torch.float32)
    torch.testing.assert_close(biases - biases[:, :, :1], theirs.expand(-1, 7, -1))


def test_linear_biases_are_symmetric_where_attention_looks_both_ways(make_config):
    scheme = build_positions(make_config(position_embedding="alibi"))
    biases = scheme.added_to_scores(torch.arange(9)[None], torch.arange(9)[None])
    assert torch.equal(biases, biases.transpose(-1, -2))
    assert biases[0, 0, 4].tolist() == [-0.25 * abs(4 - key) for key in range(9)]


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (8, 20), (6, 9)])
def test_distances_fall_into_the_buckets_of_t5(make_config, is_causal, num_buckets, max_distance):
    config = make_config(
        position_embedding="relative_bias",
        is_causal=is_causal,
        relative_attention_num_buckets=num_buckets,
        relative_attention_max_distance=max_distance,
    )
    distances = torch.arange(-300, 301)
    theirs = T5Attention._relative_position_bucket(
        distances, bidirectional=not is_causal, num_buckets=num_buckets, max_distance=max_distance
    )
    assert torch.equal(build_positions(config).buckets(distances), theirs)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("scheme", ["alibi", "relative_bias"])
def test_biases_depend_on_the_distance_and_the_head_alone(make_config, scheme, is_causal):
    torch.manual_seed(0)
    scheme = build_positions(make_config(position_embedding=scheme, is_causal=is_causal))
    near, far = (
        scheme.added_to_scores(torch.arange(9)[None] + start, torch.arange(9)[None] + start) for start in (0, 77)
    )
    torch.testing.assert_close(near, far)
    for distance in range(-8, 9):
        diagonal = near[0].diagonal(distance, dim1=1, dim2=2)
        torch.testing.assert_close(diagonal, diagonal[:, :1].expand_as(diagonal))
    assert (near[0, 0] - near[0, 1]).abs().max() > 0


@pytest.mark.parametrize("scheme", ["learned", "sinusoidal", "rope", "relative_bias"])
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


@pytest.mark.parametrize("scheme", ["none", "sinusoidal", "rope", "alibi", "relative_bias"])
def test_schemes_without_a_table_take_sequences_longer_than_declared(make_model, draw_tokens, scheme):
    outputs = make_model(MiniLMModel, position_embedding=scheme)(draw_tokens(1, 60)).last_hidden_state
    assert outputs.isfinite().all()


def test_an_unknown_scheme_is_refused_with_the_nearest_name(make_config):
    with pytest.raises(
        ValueError, match=r"position_embedding \(sinusoid\) must be one of .* the nearest is sinusoidal"
    ):
        build_positions(make_config(position_embedding="sinusoid"))


def test_the_registry_holds_the_six_schemes():
    assert list(POSITION_SCHEMES) == ["none", "learned", "sinusoidal", "rope", "alibi", "relative_bias"]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("scheme", POSITION_SCHEMES)
def test_a_direction_that_a_call_asks_for_is_that_of_the_same_weights_opened_with_it(
    make_model, draw_tokens, tmp_path, scheme, is_causal, attention
):
    model = make_model(MiniLMModel, attention=attention, position_embedding=scheme, is_causal=not is_causal)
    model.save_pretrained(tmp_path)
    opened = MiniLMModel.from_pretrained(tmp_path, is_causal=is_causal, attn_implementation=attention)
    # Longer than the distances that each have a bucket of their own.
    tokens, before = draw_tokens(2, 33), model(draw_tokens(2, 33), use_cache=False).last_hidden_state
    asked = model(tokens, is_causal=is_causal, use_cache=False).last_hidden_state
    torch.testing.assert_close(asked, opened(tokens, use_cache=False).last_hidden_state, atol=1e-6, rtol=1e-5)
    assert (asked - before).abs().max() > 0.01
    assert torch.equal(model(tokens, use_cache=False).last_hidden_state, before)
