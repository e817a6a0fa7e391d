"""ModernBERT and its decoder become ours and come back with the same bits: heads, windows, angles, and refusals."""

import pytest
import torch
from native_models import assert_same_bits
from transformers import (
    ModernBertConfig,
    ModernBertDecoderConfig,
    ModernBertDecoderForCausalLM,
    ModernBertForMaskedLM,
)

from hf_minilm import MiniLMConfig, MiniLMForMaskedLM, MiniLMForPreTraining
from hf_minilm.conversion import ARCHITECTURES, expressible, from_native, save, to_native

HEADS = {head.native: head for head in ARCHITECTURES["modernbert"].heads}
IDS = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 1)
SIZES = {
    "vocab_size": 67,
    "hidden_size": 36,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "intermediate_size": 53,
    "max_position_embeddings": 61,
    "local_attention": 6,  # rows of the proof are longer
    "pad_token_id": 0,
    "num_labels": 3,
    **IDS,
}
BIASES = dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), True)
CHOICES = {
    "as it is": {},
    "full attention alone": {"layer_types": ["full_attention"] * 4},
    "windows alone": {"layer_types": ["sliding_attention"] * 4},
    "the usual window": {"local_attention": 128},
    "biases": {**BIASES, "decoder_bias": False},
    "a projection of its own": {"tie_word_embeddings": False},
    "another activation": {"hidden_activation": "silu", "classifier_activation": "silu"},
    "the mean": {"classifier_pooling": "mean"},
    "scaled angles": {
        "rope_parameters": {
            "full_attention": {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0},
            "sliding_attention": {"rope_type": "linear", "rope_theta": 100.0, "factor": 2.0},
        }
    },
    "the same angles": {
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 500.0} for kind in ("full_attention", "sliding_attention")
        }
    },
}


def config_of(**fields: object) -> ModernBertConfig:
    return ModernBertConfig(**{**SIZES, **fields})


@pytest.mark.parametrize("native_class", HEADS)
def test_every_head_becomes_ours_and_comes_back_with_the_same_bits(native_class, randomised):
    head = HEADS[native_class]
    native = randomised(head.native_class, config_of(num_labels=head.needs.get("num_labels", 3)))
    ours = from_native(native).model
    assert type(ours).__name__ == head.ours
    back = to_native(ours, "modernbert").model
    assert type(back) is type(native)
    assert_same_bits(native, back)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("native_class", ["ModernBertForMaskedLM", "ModernBertForSequenceClassification"])
def test_whatever_modernbert_may_be_comes_back_with_the_same_bits_and_fields(choice, native_class, randomised):
    native = randomised(HEADS[native_class].native_class, config_of(**CHOICES[choice]))
    converted = from_native(native)
    back = to_native(converted.model, "modernbert").model
    assert_same_bits(native, back)
    for name in ("layer_types", "rope_parameters", "local_attention", "classifier_pooling", *BIASES):
        assert getattr(back.config, name) == getattr(native.config, name)


DECODER_CHOICES = {
    "as it is": {},
    "biases": {**BIASES, "decoder_bias": False, "tie_word_embeddings": False},
    "full attention alone": {"layer_types": ["full_attention"] * 4, "hidden_activation": "gelu"},
}


@pytest.mark.parametrize("choice", DECODER_CHOICES)
@pytest.mark.parametrize("head", ARCHITECTURES["modernbert-decoder"].heads, ids=lambda head: head.native)
def test_the_decoder_becomes_ours_and_comes_back_with_the_same_bits(choice, head, randomised):
    native = randomised(head.native_class, ModernBertDecoderConfig(**{**SIZES, **DECODER_CHOICES[choice]}))
    converted = from_native(native)
    assert type(converted.model).__name__ == head.ours
    back = to_native(converted.model, "modernbert-decoder").model
    assert type(back) is type(native)
    assert_same_bits(native, back)


def test_the_decoder_writes_what_modernberts_writes(randomised):
    native = randomised(ModernBertDecoderForCausalLM, ModernBertDecoderConfig(**SIZES))
    ours = from_native(native).model
    assert ours.config.causal_transform
    input_ids = torch.randint(2, 67, (2, 11), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(input_ids)
    mask[1, :5] = 0
    inputs = {"input_ids": input_ids, "attention_mask": mask, "max_new_tokens": 25, "min_new_tokens": 25}
    theirs, mine = (model.generate(**inputs, do_sample=False)[:, 11:].tolist() for model in (native, ours))
    assert mine == theirs
    assert len(set(theirs[0])) > 3


def test_a_causal_model_without_the_transform_is_refused_as_modernberts_decoder():
    config = MiniLMConfig.preset("modern", "tiny", is_causal=True, bos_token_id=1)
    refused = expressible(config, "MiniLMForCausalLM")["modernbert-decoder"]
    assert [str(obstacle) for obstacle in refused] == ["causal_transform (False) must be True"]
    config.bos_token_id = None
    refused = expressible(config, "MiniLMForCausalLM")["modernbert-decoder"]
    assert "bos_token_id (None) must be 0" in map(str, refused)


def test_windows_and_padding_are_those_of_modernbert(randomised):
    native = randomised(ModernBertForMaskedLM, config_of())
    ours = from_native(native).model
    assert (ours.config.sliding_window, ours.config.layer_types.count("sliding_attention")) == (3, 2)
    input_ids = torch.randint(1, 67, (2, 29), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(input_ids)
    mask[0, 20:], mask[1, :4] = 0, 0
    theirs, mine = (model(input_ids, attention_mask=mask).logits[mask.bool()] for model in (native, ours))
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    assert theirs.std() > 0.5
    wider = from_native(randomised(ModernBertForMaskedLM, config_of(local_attention=8))).model
    assert not torch.allclose(wider(input_ids, attention_mask=mask).logits[mask.bool()], theirs, atol=1e-2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"local_attention": 9}, r"local_attention \(9\) must be 8"),
        ({"classifier_activation": "relu"}, r"classifier_activation \(relu\) must be gelu"),
        ({"mlp_bias": True}, r"classifier_bias \(False\) must be True"),
        ({"rope_parameters": {"full_attention": {"partial_rotary_factor": 0.5}}}, "rope_parameters .* must be"),
    ],
)
def test_what_ours_cannot_express_is_refused_with_the_nearest_value(fields, message, randomised):
    native = randomised(ModernBertForMaskedLM, config_of(**fields))
    with pytest.raises(ValueError, match=message) as caught:
        from_native(native)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"embedding_norm": False, "first_attention_norm": True}, r"embedding_norm \(False\) must be True"),
        ({"first_attention_norm": True}, r"first_attention_norm \(True\) must be False"),
        ({"type_vocab_size": 2}, r"type_vocab_size \(2\) must be 0"),
        ({"num_key_value_heads": 1}, r"num_key_value_heads \(1\) must be 3"),
        ({"head_dim": 8}, r"head_dim \(8\) must be 12"),
        ({"qk_norm": True}, r"qk_norm \(True\) must be False"),
        ({"partial_rotary_factor": 0.5}, r"partial_rotary_factor \(0.5\) must be None"),
        ({"position_embedding": "alibi"}, r"position_embedding \(alibi\) must be rope"),
        ({"norm": "rms_norm"}, r"norm \(rms_norm\) must be layer_norm"),
        ({"prediction_transform": False}, r"prediction_transform \(False\) must be True"),
    ],
)
def test_what_modernbert_cannot_express_is_refused_with_the_nearest_value(fields, message):
    sizes = {"vocab_size": 67, "hidden_size": 36, "num_attention_heads": 3, "num_hidden_layers": 2}
    model = MiniLMForMaskedLM(MiniLMConfig.preset("modern", "tiny", **sizes, **fields))
    with pytest.raises(ValueError, match=message):
        to_native(model, "modernbert")


def test_a_classifier_without_the_transform_is_refused_and_a_masked_head_does_not_mind():
    config = MiniLMConfig.preset("modern", "tiny", classifier_transform=False)
    refused = expressible(config, "MiniLMForSequenceClassification")["modernbert"]
    assert [str(obstacle) for obstacle in refused] == ["classifier_transform (False) must be True"]
    assert expressible(config, "MiniLMForMaskedLM")["modernbert"] == []


def test_of_a_pre_trained_model_the_order_of_sentences_is_left_out_and_said(tmp_path):
    sizes = {"vocab_size": 67, "hidden_size": 36, "num_attention_heads": 3, "num_hidden_layers": 2}
    ours = MiniLMForPreTraining(MiniLMConfig.preset("modern", "tiny", **sizes)).eval()
    converted = to_native(ours, "modernbert")
    assert type(converted.model) is ModernBertForMaskedLM
    assert any("next_sentence.weight" in line and "pooler.dense.weight" in line for line in converted.dropped)
    save(converted, tmp_path / "twin")
    again = from_native(tmp_path / "twin").model
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, ours.state_dict()[name])
