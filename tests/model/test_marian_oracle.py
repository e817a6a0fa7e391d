"""Equality with transformers' own Marian, whose random weights are copied into ours: Marian in our words."""

import pytest
import torch
from transformers import MarianConfig, MarianMTModel

from hf_minilm import MiniLMForConditionalGeneration, MiniLMSeq2SeqConfig

MARIAN_NAMES = {
    "model.shared.": "model.encoder.embeddings.tokens.",
    "embed_tokens": "embeddings.tokens",
    "self_attn_layer_norm": "attention_norm",
    "encoder_attn_layer_norm": "cross_attention_norm",
    "final_layer_norm": "feed_forward_norm",
    "self_attn.": "attention.",
    "encoder_attn.": "cross_attention.",
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "out_proj": "output",
    "fc1": "feed_forward.up",
    "fc2": "feed_forward.down",
}
"""Pieces of Marian's names and ours, replaced in this order."""

SIZES = {
    "vocab_size": 53,
    "d_model": 24,
    "encoder_layers": 3,
    "encoder_ffn_dim": 37,
    "encoder_attention_heads": 3,
    "decoder_layers": 2,
    "decoder_ffn_dim": 41,
    "decoder_attention_heads": 4,
    "max_position_embeddings": 32,
}
IDS = {"pad_token_id": 52, "decoder_start_token_id": 52, "eos_token_id": 0, "forced_eos_token_id": None}
VOCABULARIES = {"one": {}, "two": {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 59}}


def config_from_marian(theirs: MarianConfig) -> MiniLMSeq2SeqConfig:
    """Say in our words what Marian is: Vaswani et al. 2017 with biases and another activation."""
    common = {
        "hidden_size": theirs.d_model,
        "max_position_embeddings": theirs.max_position_embeddings,
        "position_embedding": "sinusoidal",
        "norm_placement": "post",
        "norm_eps": 1e-5,
        "norm_bias": True,
        "feed_forward": "plain",
        "feed_forward_bias": True,
        "attention_bias": True,
        "hidden_act": theirs.activation_function,
        "hidden_dropout": theirs.dropout,
        "attention_dropout": theirs.attention_dropout,
        "scale_embeddings": theirs.scale_embedding,
        "output_bias": True,
        "pad_token_id": theirs.pad_token_id,
    }
    encoder, decoder = (
        {
            "num_hidden_layers": getattr(theirs, f"{stack}_layers"),
            "num_attention_heads": getattr(theirs, f"{stack}_attention_heads"),
            "intermediate_size": getattr(theirs, f"{stack}_ffn_dim"),
        }
        for stack in ("encoder", "decoder")
    )
    return MiniLMSeq2SeqConfig(
        encoder={**common, **encoder, "vocab_size": theirs.vocab_size},
        decoder={**common, **decoder, "vocab_size": theirs.decoder_vocab_size},
        share_embeddings=theirs.share_encoder_decoder_embeddings,
        tie_word_embeddings=theirs.tie_word_embeddings,
        pad_token_id=theirs.pad_token_id,
        eos_token_id=theirs.eos_token_id,
        decoder_start_token_id=theirs.decoder_start_token_id,
    )


def in_our_order(name: str, weight: torch.Tensor, *, inner: bool) -> torch.Tensor:
    """Interleave the hidden features of one of Marian's weights, which holds all sines before all cosines.

    Residual sums, layer norms and projections do not care about the order, if all have the same.

    Args:
        name: Our name of the weight.
        weight: The weight, or its gradient.
        inner: Whether the hidden features are the inputs of a projection, and not its outputs.
    """
    order = torch.arange(weight.shape[-1 if inner else 0]).view(2, -1).T.flatten()
    return weight[..., order] if inner else weight[order]


def from_marian_weight(name: str, weight: torch.Tensor) -> tuple[str, torch.Tensor]:
    """Name one of Marian's weights (or its gradient) as ours is named, and order its features as ours are."""
    for theirs, ours in MARIAN_NAMES.items():
        name = name.replace(theirs, ours)
    reads_hidden = any(part in name for part in ("tokens.", "lm_head.", "query.w", "key.w", "value.w", "up.w"))
    writes_hidden = any(part in name for part in ("_norm.", "output.", "down."))
    if reads_hidden or writes_hidden:
        weight = in_our_order(name, weight, inner=reads_hidden)
    return name, weight


def from_marian(marian: MarianMTModel) -> MiniLMForConditionalGeneration:
    """Build our model with Marian's weights."""
    ours = MiniLMForConditionalGeneration(config_from_marian(marian.config))
    named = [(name, weight) for name, weight in marian.named_parameters() if "embed_positions" not in name]
    weights = dict(from_marian_weight(name, weight) for name, weight in named)
    weights["lm_head.bias"] = marian.final_logits_bias[0]
    missing, unexpected = ours.load_state_dict(weights, strict=False)
    assert unexpected == []
    # Tied ones only.
    assert set(missing) <= {"model.decoder.embeddings.tokens.weight", "lm_head.weight"}
    ours.generation_config = marian.generation_config
    return ours.eval()


@pytest.fixture(params=VOCABULARIES)
def marian(request: pytest.FixtureRequest) -> MarianMTModel:
    torch.manual_seed(1)
    fields = {**SIZES, **IDS, **VOCABULARIES[request.param]}
    model = MarianMTModel(MarianConfig(**fields, activation_function="swish", scale_embedding=True)).eval()
    with torch.no_grad():
        model.final_logits_bias.normal_(std=0.3)
        for name, parameter in model.named_parameters():
            if "embed_positions" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


@pytest.fixture(params=["eager", "sdpa"])
def ours(marian, request) -> MiniLMForConditionalGeneration:
    model = from_marian(marian)
    model.set_attn_implementation(request.param)
    return model


@pytest.fixture
def sources() -> dict[str, torch.Tensor]:
    """Three sources of 13, 8 and 3 tokens."""
    input_ids = torch.randint(1, 52, (3, 13), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(input_ids)
    mask[1, 8:], mask[2, 3:] = 0, 0
    return {"input_ids": input_ids.masked_fill(mask == 0, 52), "attention_mask": mask}


@pytest.fixture
def labels() -> torch.Tensor:
    labels = torch.randint(1, 52, (3, 11), generator=torch.Generator().manual_seed(3))
    labels[0, 10:], labels[1, 5:], labels[2, 7:] = -100, -100, -100
    return labels


def test_with_marians_weights_our_model_is_marian(marian, ours, sources, labels):
    theirs, mine = marian(**sources, labels=labels), ours(**sources, labels=labels)
    assert theirs.logits.std() > 0.5
    torch.testing.assert_close(mine.logits, theirs.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mine.loss, theirs.loss)
    real = sources["attention_mask"].bool()
    order = torch.arange(24).view(2, -1).T.flatten()
    encoded, expected = mine.encoder_last_hidden_state[real], theirs.encoder_last_hidden_state[real][:, order]
    torch.testing.assert_close(encoded, expected, atol=1e-5, rtol=1e-5)


def test_padded_targets_are_masked_as_marian_masks_them(marian, ours, sources, labels):
    counted = labels != -100
    # Padding on the left, where a causal model would see it.
    decoder_input_ids, mask = labels.masked_fill(~counted, 52).flip(1), counted.long().flip(1)
    given = {**sources, "decoder_input_ids": decoder_input_ids, "decoder_attention_mask": mask}
    theirs, mine = marian(**given).logits[mask.bool()], ours(**given).logits[mask.bool()]
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_every_gradient_equals_that_of_marian(marian, ours, sources, labels):
    marian(**sources, labels=labels).loss.backward()
    ours(**sources, labels=labels).loss.backward()
    named = {name: parameter.grad for name, parameter in marian.named_parameters() if "embed_positions" not in name}
    gradients = dict(from_marian_weight(name, gradient) for name, gradient in named.items())
    # Marian's bias of the logits is not trained.
    assert {*gradients, "lm_head.bias"} == {name for name, _ in ours.named_parameters()}
    for name, gradient in gradients.items():
        mine = ours.get_parameter(name).grad
        torch.testing.assert_close(mine, gradient, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("num_beams", [1, 3])
@torch.no_grad()
def test_generate_writes_what_marian_writes(marian, ours, sources, num_beams):
    # Many tokens end a text, so that the texts are of several lengths; and random models love to repeat themselves.
    ends = {"eos_token_id": list(range(0, 52, 6)), "no_repeat_ngram_size": 2}
    common = {**sources, **ends, "num_beams": num_beams, "do_sample": False, "max_new_tokens": 14}
    theirs = marian.generate(**common)
    assert len(set(theirs.flatten().tolist())) > 5
    ended = torch.isin(theirs[:, 1:], torch.tensor(ends["eos_token_id"]))
    assert len(set(ended.int().argmax(dim=1).tolist())) > 1
    for settings in ({}, {"use_cache": False}, {"cache_implementation": "static", "disable_compile": True}):
        assert ours.generate(**common, **settings).tolist() == theirs.tolist()
