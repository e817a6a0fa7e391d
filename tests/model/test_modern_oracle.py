"""Equality with transformers' own ModernBERT and Llama, whose random weights are copied into the presets named so."""

import pytest
import torch
from random_weights import randomise
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    ModernBertForQuestionAnswering,
    ModernBertForSequenceClassification,
    ModernBertForTokenClassification,
)

from hf_minilm import (
    MiniLMConfig,
    MiniLMForCausalLM,
    MiniLMForMaskedLM,
    MiniLMForQuestionAnswering,
    MiniLMForSequenceClassification,
    MiniLMForTokenClassification,
)

NAMES = {
    "embeddings.tok_embeddings": "embeddings.tokens",
    "final_norm": "norm",
    "attn_norm": "attention_norm",
    "mlp_norm": "feed_forward_norm",
    "attn.Wo": "attention.output",
    "mlp.Wo": "feed_forward.down",
    "head.dense": "transform.dense",
    "head.norm": "transform.norm",
    "decoder": "lm_head",
}
"""Pieces of ModernBERT's names and ours."""

LLAMA_NAMES = {
    "embed_tokens": "embeddings.tokens",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "feed_forward_norm",
    "self_attn.q_proj": "attention.query",
    "self_attn.k_proj": "attention.key",
    "self_attn.v_proj": "attention.value",
    "self_attn.o_proj": "attention.output",
    "mlp.gate_proj": "feed_forward.gate",
    "mlp.up_proj": "feed_forward.up",
    "mlp.down_proj": "feed_forward.down",
}
"""Pieces of Llama's names and ours."""

FUSED = {
    "attn.Wqkv": ("attention.query", "attention.key", "attention.value"),
    "mlp.Wi": ("feed_forward.gate", "feed_forward.up"),
}
"""Projections that ModernBERT keeps as one, and ours."""

SIZES = {"vocab_size": 67, "hidden_size": 36, "num_hidden_layers": 3, "num_attention_heads": 3}
INNER = {"intermediate_size": 53, "max_position_embeddings": 29}
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def renamed(name: str, names: dict[str, str]) -> str:
    for theirs, ours in names.items():
        name = name.replace(theirs, ours)
    return name


def modernbert_weights(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename ModernBERT's weights and take the joined projections apart."""
    ours = {}
    for name, weight in weights.items():
        fused = next((each for each in FUSED if each in name), None)
        if fused is None:
            ours[renamed(name, NAMES)] = weight
            continue
        for part, piece in zip(FUSED[fused], weight.chunk(len(FUSED[fused])), strict=True):
            ours[name.replace(fused, part)] = piece
    return ours


def modernbert_pair(their_class: type, our_class: type, *, attention: str, **fields: object) -> tuple:
    """Build a class of ModernBERT with random weights, and ours of the preset with the same."""
    full = {"rope_type": "default", "rope_theta": 10_000.0}
    theirs = their_class(
        ModernBertConfig(
            **SIZES,
            **INNER,
            **fields,
            layer_types=["full_attention"] * 3,
            rope_parameters={"full_attention": full, "sliding_attention": dict(full)},
            decoder_bias=False,
            attn_implementation=attention,
            **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0),
        )
    ).eval()
    randomise(theirs)
    config = MiniLMConfig.preset("modern", "tiny", **SIZES, **INNER, **fields, attn_implementation=attention)
    ours = our_class(config).eval()
    names = modernbert_weights(theirs.state_dict())
    if our_class is MiniLMForQuestionAnswering:
        names = {name.replace("classifier", "qa_outputs"): weight for name, weight in names.items()}
    ours.load_state_dict(names)
    return theirs, ours


def padded_inputs() -> dict[str, torch.Tensor]:
    input_ids = torch.randint(1, 67, (3, 13), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(input_ids)
    mask[1, 9:], mask[2, 4:] = 0, 0
    return {"input_ids": input_ids, "attention_mask": mask}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_modern_preset_with_modernberts_weights_is_modernbert(attention):
    theirs, ours = modernbert_pair(ModernBertForMaskedLM, MiniLMForMaskedLM, attention=attention)
    inputs = padded_inputs()
    mask = inputs["attention_mask"]
    inputs["labels"] = inputs["input_ids"].masked_fill((torch.arange(13) % 3 != 1) | (mask == 0), -100)
    expected, found = theirs(**inputs), ours(**inputs)
    torch.testing.assert_close(found.logits[mask.bool()], expected.logits[mask.bool()], **TOLERANCE)
    torch.testing.assert_close(found.loss, expected.loss)
    assert expected.logits.std() > 0.5
    expected.loss.backward()
    found.loss.backward()
    gradients = modernbert_weights({name: parameter.grad for name, parameter in theirs.named_parameters()})
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("their_class", "our_class", "outputs"),
    [
        (ModernBertForSequenceClassification, MiniLMForSequenceClassification, ["logits"]),
        (ModernBertForTokenClassification, MiniLMForTokenClassification, ["logits"]),
        (ModernBertForQuestionAnswering, MiniLMForQuestionAnswering, ["start_logits", "end_logits"]),
    ],
)
@pytest.mark.parametrize("pooling", [("cls", "first"), ("mean", "mean")])
def test_the_modern_presets_classifiers_are_those_of_modernbert(their_class, our_class, outputs, pooling):
    labels = 2 if our_class is MiniLMForQuestionAnswering else 3
    theirs, ours = modernbert_pair(their_class, our_class, attention="sdpa", num_labels=labels)
    theirs.config.classifier_pooling, ours.pooling = pooling
    inputs = padded_inputs()
    expected, found = theirs(**inputs), ours(**inputs)
    real = inputs["attention_mask"].bool()
    for name in outputs:
        is_of_texts = our_class is MiniLMForSequenceClassification
        mine, their = (each[name] if is_of_texts else each[name][real] for each in (found, expected))
        torch.testing.assert_close(mine, their, **TOLERANCE)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_modern_decoder_preset_with_llamas_weights_is_llama(attention):
    theirs = LlamaForCausalLM(
        LlamaConfig(
            **SIZES,
            **INNER,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
            pad_token_id=0,
            attn_implementation=attention,
        )
    ).eval()
    randomise(theirs)
    config = MiniLMConfig.preset("modern_decoder", "tiny", **SIZES, **INNER, attn_implementation=attention)
    ours = MiniLMForCausalLM(config).eval()
    ours.load_state_dict({renamed(name, LLAMA_NAMES): weight for name, weight in theirs.state_dict().items()})
    input_ids = torch.randint(1, 67, (3, 13), generator=torch.Generator().manual_seed(2))
    expected, found = theirs(input_ids, labels=input_ids), ours(input_ids, labels=input_ids)
    torch.testing.assert_close(found.logits, expected.logits, **TOLERANCE)
    torch.testing.assert_close(found.loss, expected.loss)
    assert expected.logits.std() > 0.5
    expected.loss.backward()
    found.loss.backward()
    gradients = {renamed(name, LLAMA_NAMES): parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=1e-4)
