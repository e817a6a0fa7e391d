"""Layers that see a window of the text, mixed with layers that see all of it."""

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from hf_minilm import MiniLMForCausalLM, MiniLMModel

SLIDING = {"layer_types": ["sliding_attention", "sliding_attention"], "sliding_window": 3}
MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 3}


def moved(model: torch.nn.Module, input_ids: torch.Tensor, place: int) -> list[int]:
    """Say which outputs a change of one token moves."""
    changed = input_ids.clone()
    changed[:, place] = changed[:, place] % 60 + 1
    difference = (model(input_ids).last_hidden_state - model(changed).last_hidden_state).abs().amax(dim=(0, 2))
    return (difference > 1e-6).nonzero().flatten().tolist()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("is_causal", "expected"),
    # Two layers: causal, each looks at itself and two more; bidirectional, at three more on either side.
    [(True, [5, 6, 7, 8, 9]), (False, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])],
)
def test_a_token_moves_what_its_windows_reach_and_nothing_else(make_model, draw_tokens, attention, is_causal, expected):
    model = make_model(MiniLMModel, attention=attention, is_causal=is_causal, **SLIDING)
    assert moved(model, draw_tokens(1, 17), 5) == expected


def test_a_full_layer_carries_a_token_beyond_the_window(make_model, draw_tokens):
    model = make_model(MiniLMModel, is_causal=True, **MIXED)
    assert moved(model, draw_tokens(1, 14), 5) == list(range(5, 14))


@pytest.mark.parametrize("scheme", ["rope", "alibi", "relative_bias"])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("layers", [SLIDING, MIXED], ids=["sliding", "mixed"])
def test_a_packed_sequence_slides_as_if_it_stood_alone(make_model, draw_tokens, layers, is_causal, scheme):
    outputs = []
    for attention in ("eager", "sdpa"):
        model = make_model(MiniLMModel, attention=attention, is_causal=is_causal, position_embedding=scheme, **layers)
        tokens = draw_tokens(1, 16)
        packed = model(tokens, position_ids=torch.tensor([[*range(7), *range(9)]])).last_hidden_state
        alone = torch.cat([model(part).last_hidden_state for part in tokens.split([7, 9], dim=1)], dim=1)
        torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)
        outputs.append(packed)
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scheme", ["rope", "alibi", "relative_bias", "learned"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
@torch.no_grad()
def test_generation_with_sliding_caches_is_that_without_any(make_model, draw_tokens, attention, scheme, cache):
    fields = {**MIXED, "position_embedding": scheme, "tie_word_embeddings": False, "bos_token_id": 1}
    model = make_model(MiniLMForCausalLM, attention=attention, **fields)
    prompt = draw_tokens(2, 9)
    mask = torch.ones_like(prompt)
    mask[0, :2] = 0
    common = {"attention_mask": mask, "max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(prompt, **common, use_cache=False)
    implementation = {"cache_implementation": "static"} if cache == "static" else {}
    assert model.generate(prompt, **common, **implementation, disable_compile=True).tolist() == expected.tolist()


@torch.no_grad()
def test_a_sliding_decoder_equals_mistral(make_model, draw_tokens):
    sizes = {"vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    theirs = MistralForCausalLM(
        MistralConfig(
            **sizes,
            num_key_value_heads=2,
            intermediate_size=37,
            sliding_window=3,
            initializer_range=0.3,
            rms_norm_eps=1e-5,
            attn_implementation="eager",
        )
    ).eval()
    ours = make_model(
        MiniLMForCausalLM,
        **SLIDING,
        norm="rms_norm",
        hidden_act="silu",
        type_vocab_size=0,
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": theirs.config.rope_parameters["rope_theta"]},
    )
    names = {
        "embed_tokens": "embeddings.tokens",
        "self_attn.q_proj": "attention.query",
        "self_attn.k_proj": "attention.key",
        "self_attn.v_proj": "attention.value",
        "self_attn.o_proj": "attention.output",
        "mlp.gate_proj": "feed_forward.gate",
        "mlp.up_proj": "feed_forward.up",
        "mlp.down_proj": "feed_forward.down",
        "input_layernorm": "attention_norm",
        "post_attention_layernorm": "feed_forward_norm",
    }
    state = {}
    for name, tensor in theirs.state_dict().items():
        for old, new in names.items():
            name = name.replace(old, new)
        state[name] = tensor
    ours.load_state_dict(state)
    tokens = draw_tokens(2, 13)
    torch.testing.assert_close(ours(tokens).logits, theirs(tokens).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layer_types": ["full_attention"]}, r"layer_types \(1 of them\) must name one for each"),
        ({"layer_types": ["full_attention", "half"]}, r"layer_types \(half\) must be of full_attention"),
        ({"layer_types": MIXED["layer_types"]}, r"sliding_window \(None\) must be given"),
        ({"sliding_window": 4}, r"sliding_window \(4\) must be given with sliding_attention"),
        ({**MIXED, "sliding_window": 0}, r"sliding_window \(0\) must be at least 1"),
    ],
)
def test_a_window_and_its_layers_come_together_or_not_at_all(make_config, fields, message):
    with pytest.raises(ValueError, match=message):
        make_config(**fields)
