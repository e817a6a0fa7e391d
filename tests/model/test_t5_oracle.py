"""Equality with transformers' own T5, whose random weights are copied into ours: T5 in our configuration's words."""

import pytest
import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from hf_minilm import MiniLMForConditionalGeneration, MiniLMSeq2SeqConfig

T5_NAMES = {
    "shared.": "model.encoder.embeddings.tokens.",
    "encoder.block.": "model.encoder.layers.",
    "decoder.block.": "model.decoder.layers.",
    "encoder.final_layer_norm": "model.encoder.norm",
    "decoder.final_layer_norm": "model.decoder.norm",
    "layer.0.layer_norm": "attention_norm",
    "layer.0.SelfAttention.relative_attention_bias": "positions.table",
    "layer.0.SelfAttention.": "attention.",
    "layer.1.EncDecAttention.": "cross_attention.",
    "layer.1.DenseReluDense.": "feed_forward.",
    "layer.2.DenseReluDense.": "feed_forward.",
    "layer.2.layer_norm": "feed_forward_norm",
    "attention.q.": "attention.query.",
    "attention.k.": "attention.key.",
    "attention.v.": "attention.value.",
    "attention.o.": "attention.output.",
    "feed_forward.wi_0.": "feed_forward.gate.",
    "feed_forward.wi_1.": "feed_forward.up.",
    "feed_forward.wi.": "feed_forward.up.",
    "feed_forward.wo.": "feed_forward.down.",
    "layers.0.positions": "positions",
}
"""Pieces of T5's names and ours, replaced in this order."""

SIZES = {"vocab_size": 53, "d_model": 28, "d_kv": 6, "d_ff": 37, "num_heads": 3, "num_layers": 3}
BUCKETS = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 11}
VERSIONS = {"1.0": {}, "1.1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}}


def config_from_t5(theirs: T5Config, *, is_tied: bool) -> MiniLMSeq2SeqConfig:
    """Say in our words what T5 is (Raffel et al. 2020, arXiv:1910.10683, section 2.1)."""
    common = {
        "vocab_size": theirs.vocab_size,
        "hidden_size": theirs.d_model,
        "num_attention_heads": theirs.num_heads,
        "head_dim": theirs.d_kv,
        "intermediate_size": theirs.d_ff,
        "position_embedding": "relative_bias",
        "relative_attention_num_buckets": theirs.relative_attention_num_buckets,
        "relative_attention_max_distance": theirs.relative_attention_max_distance,
        "norm": "rms_norm",
        "norm_eps": theirs.layer_norm_epsilon,
        "feed_forward": "gated" if theirs.is_gated_act else "plain",
        "hidden_act": theirs.dense_act_fn,
        "hidden_dropout": theirs.dropout_rate,
        "attention_dropout": theirs.dropout_rate,
        "pad_token_id": None,  # T5 trains its padding token's vector, which begins every target
    }
    return MiniLMSeq2SeqConfig(
        encoder={**common, "num_hidden_layers": theirs.num_layers},
        decoder={**common, "num_hidden_layers": theirs.num_decoder_layers},
        tie_word_embeddings=is_tied,
        pad_token_id=theirs.pad_token_id,
        eos_token_id=theirs.eos_token_id,
        decoder_start_token_id=theirs.decoder_start_token_id,
    )


def place_of_t5_weight(name: str, config: T5Config) -> tuple[str, float]:
    """Name one of T5's weights as ours is named, and give the factor by which ours is larger.

    T5 does not divide scores by sqrt(d_kv), so the queries are multiplied by it; and its version 1.0 multiplies what
    goes into the tied output projection by d_model^-0.5, which the decoder's last norm takes over.
    """
    # The feed-forward is the encoder's second sub-layer and the decoder's third.
    second = "feed_forward_norm" if name.startswith("encoder") else "cross_attention_norm"
    name = name.replace("layer.1.layer_norm", second)
    for theirs, ours in T5_NAMES.items():
        name = name.replace(theirs, ours)
    if name.endswith("attention.query.weight"):
        return name, config.d_kv**0.5
    if name == "model.decoder.norm.weight" and config.scale_decoder_outputs:
        return name, config.d_model**-0.5
    return name, 1.0


def from_t5(t5: T5ForConditionalGeneration) -> MiniLMForConditionalGeneration:
    """Build our model with T5's weights."""
    is_tied = t5.lm_head.weight is t5.shared.weight
    ours = MiniLMForConditionalGeneration(config_from_t5(t5.config, is_tied=is_tied))
    weights = {}
    for theirs, weight in t5.named_parameters():
        name, factor = place_of_t5_weight(theirs, t5.config)
        weights[name] = weight * factor
    missing, unexpected = ours.load_state_dict(weights, strict=False)
    assert unexpected == []
    # Tied ones only.
    assert set(missing) <= {"model.decoder.embeddings.tokens.weight", "lm_head.weight"}
    ours.generation_config = t5.generation_config
    return ours.eval()


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["eager", "sdpa"])
def pair(version, request) -> tuple[nn.Module, nn.Module]:
    config = T5Config(**SIZES, **BUCKETS, **VERSIONS[version], num_decoder_layers=2, decoder_start_token_id=0)
    config._attn_implementation = "eager"
    torch.manual_seed(1)
    t5 = T5ForConditionalGeneration(config).eval()
    if version == "1.1":
        # transformers ties what it builds; the published weights of version 1.1 untie it when they are loaded.
        t5.lm_head.weight = nn.Parameter(torch.randn_like(t5.lm_head.weight) * 0.2)
    with torch.no_grad():
        for name, parameter in t5.named_parameters():
            parameter.add_(torch.randn_like(parameter) * (0.5 if "relative" in name else 0.15))
    ours = from_t5(t5)
    ours.set_attn_implementation(request.param)
    return t5, ours


@pytest.fixture
def sources() -> dict[str, torch.Tensor]:
    """Three sources of 13, 8 and 3 tokens, longer than the last single bucket and than the largest distance."""
    input_ids = torch.randint(2, 53, (3, 13), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(input_ids)
    mask[1, 8:], mask[2, 3:] = 0, 0
    return {"input_ids": input_ids * mask, "attention_mask": mask}


@pytest.fixture
def labels() -> torch.Tensor:
    labels = torch.randint(2, 53, (3, 16), generator=torch.Generator().manual_seed(3))
    labels[0, 15:], labels[1, 5:], labels[2, 11:] = -100, -100, -100
    return labels


def test_with_t5s_weights_our_model_is_t5(pair, sources, labels):
    t5, ours = pair
    assert torch.equal(ours.prepare_decoder_input_ids_from_labels(labels), t5._shift_right(labels))
    theirs, mine = t5(**sources, labels=labels), ours(**sources, labels=labels)
    assert theirs.logits.std() > 0.5
    torch.testing.assert_close(mine.logits, theirs.logits, atol=3e-5, rtol=1e-5)
    torch.testing.assert_close(mine.loss, theirs.loss)
    real = sources["attention_mask"].bool()
    encoded, expected = mine.encoder_last_hidden_state[real], theirs.encoder_last_hidden_state[real]
    torch.testing.assert_close(encoded, expected, atol=3e-5, rtol=1e-5)


def test_padded_targets_are_masked_as_t5_masks_them(pair, sources, labels):
    t5, ours = pair
    counted = labels != -100
    # Padding on the left, where a causal model would see it.
    decoder_input_ids, mask = labels.masked_fill(~counted, 0).flip(1), counted.long().flip(1)
    given = {**sources, "decoder_input_ids": decoder_input_ids, "decoder_attention_mask": mask}
    theirs, mine = t5(**given).logits[mask.bool()], ours(**given).logits[mask.bool()]
    torch.testing.assert_close(mine, theirs, atol=3e-5, rtol=1e-5)


def test_every_gradient_equals_that_of_t5(pair, sources, labels):
    t5, ours = pair
    t5(**sources, labels=labels).loss.backward()
    ours(**sources, labels=labels).loss.backward()
    seen = set()
    for theirs, parameter in t5.named_parameters():
        name, factor = place_of_t5_weight(theirs, t5.config)
        seen.add(name)
        mine = ours.get_parameter(name).grad * factor
        torch.testing.assert_close(mine, parameter.grad, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    assert seen == {name for name, _ in ours.named_parameters()}


@pytest.mark.parametrize("num_beams", [1, 3])
@torch.no_grad()
def test_generate_writes_what_t5_writes(pair, sources, num_beams):
    t5, ours = pair
    # Many tokens end a text, so that the texts are of several lengths; and random models love to repeat themselves.
    ends = {"eos_token_id": list(range(2, 53, 5)), "no_repeat_ngram_size": 2}
    common = {**sources, **ends, "num_beams": num_beams, "do_sample": False, "max_new_tokens": 14}
    theirs = t5.generate(**common)
    assert len(set(theirs.flatten().tolist())) > 5
    ended = torch.isin(theirs[:, 1:], torch.tensor(ends["eos_token_id"]))
    assert len(set(ended.int().argmax(dim=1).tolist())) > 1
    for settings in ({}, {"use_cache": False}, {"cache_implementation": "static", "disable_compile": True}):
        assert ours.generate(**common, **settings).tolist() == theirs.tolist()
