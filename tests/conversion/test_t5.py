"""T5 becomes ours and comes back: version 1.0 with a tied projection, 1.1 with its own, both with greedy tokens."""

import pytest
import torch
from native_models import assert_same_bits
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration, T5Model

from hf_minilm import MiniLMForConditionalGeneration, MiniLMSeq2SeqConfig
from hf_minilm.conversion import expressible, from_native, save, to_native

SIZES = {
    "vocab_size": 53,
    "d_model": 64,  # its root and that of d_kv are powers of two, by which no bit is lost
    "d_kv": 16,
    "d_ff": 37,
    "num_heads": 3,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 11,
    "decoder_start_token_id": 0,
}
KINDS = {
    "1.0": {},
    "1.1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "gated-silu": {"feed_forward_proj": "gated-silu"},
    "gelu": {"feed_forward_proj": "gelu", "layer_norm_epsilon": 1e-5},
}


@pytest.fixture
def build(randomised):
    def build_t5(model_class: type = T5ForConditionalGeneration, **fields: object) -> nn.Module:
        t5 = randomised(model_class, T5Config(**{**SIZES, **fields}))
        if fields.get("tie_word_embeddings") is False:
            # transformers ties what it builds; a file with both tensors unties it when it is read.
            t5.lm_head.weight = nn.Parameter(torch.randn_like(t5.lm_head.weight) * 0.2)
        return t5

    return build_t5


@pytest.mark.parametrize("kind", KINDS)
def test_every_version_becomes_ours_and_comes_back_with_the_same_bits(kind, build):
    t5 = build(**KINDS[kind])
    converted = from_native(t5)
    assert type(converted.model) is MiniLMForConditionalGeneration
    assert converted.proof.greedy_equal == converted.proof.greedy_tokens * converted.proof.prompts > 0
    back = to_native(converted.model, "t5")
    assert back.proof.greedy_equal == back.proof.greedy_tokens * back.proof.prompts > 0
    assert_same_bits(t5, back.model)
    assert back.model.config.feed_forward_proj == t5.config.feed_forward_proj
    assert back.model.config.scale_decoder_outputs == t5.config.scale_decoder_outputs


def test_the_stacks_without_a_head_are_t5s(build):
    t5 = build(T5Model)
    assert_same_bits(t5, to_native(from_native(t5).model, "t5").model)


@pytest.mark.parametrize("kind", ["1.0", "1.1"])
def test_a_saved_t5_opens_as_ours_and_a_saved_twin_as_t5(kind, build, tmp_path):
    t5 = build(**KINDS[kind])
    t5.save_pretrained(tmp_path / "t5")
    converted = from_native(tmp_path / "t5")
    assert converted.model.config.tie_word_embeddings is (kind == "1.0")
    opened = from_native(T5ForConditionalGeneration.from_pretrained(tmp_path / "t5"))
    assert opened.dropped == []
    assert_same_bits(converted.model, opened.model)
    save(to_native(converted.model, "t5"), tmp_path / "twin")
    assert_same_bits(t5, T5ForConditionalGeneration.from_pretrained(tmp_path / "twin"))


def test_other_sizes_come_back_to_the_last_digit_and_write_the_same(build):
    t5 = build(d_model=28, d_kv=6)
    ours = from_native(t5).model
    for name, tensor in to_native(ours, "t5").model.state_dict().items():
        torch.testing.assert_close(tensor, t5.state_dict()[name], atol=0, rtol=2.5e-7)
    input_ids = torch.randint(2, 53, (3, 19), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(input_ids)
    mask[1, 8:], mask[2, :11] = 0, 0
    inputs = {"input_ids": input_ids, "attention_mask": mask}
    labels = torch.randint(2, 53, (3, 14), generator=torch.Generator().manual_seed(3))
    theirs, mine = (model(**inputs, labels=labels) for model in (t5, ours))
    assert theirs.logits.std() > 0.5
    torch.testing.assert_close(mine.logits, theirs.logits, atol=3e-5, rtol=1e-5)
    torch.testing.assert_close(mine.loss, theirs.loss)
    written = [model.generate(**inputs, max_new_tokens=9, num_beams=2).tolist() for model in (t5, ours)]
    assert written[0] == written[1]


def test_weights_that_a_factor_would_round_are_refused(build):
    t5 = build(d_model=28, d_kv=6).bfloat16()
    with pytest.raises(ValueError, match=r"weights \(torch.bfloat16\) must be float32 to be multiplied by 2.449"):
        from_native(t5)
    t5 = build().bfloat16()
    assert_same_bits(t5, to_native(from_native(t5).model, "t5").model)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"feed_forward_proj": "gated-gelu_new"}, r"feed_forward_proj \(gated-gelu_new\) must be gated-gelu"),
        ({"relative_attention_num_buckets": 9}, r"relative_attention_num_buckets \(9\) must be even"),
    ],
)
def test_what_ours_cannot_express_is_refused(fields, message, build):
    with pytest.raises(ValueError, match=message):
        from_native(build(**fields))


RELATIVE = {
    "position_embedding": "relative_bias",
    "norm": "rms_norm",
    "hidden_act": "gelu_new",
    "vocab_size": 53,
    "eos_token_id": 3,
}


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_model_of_ours_with_t5s_parts_becomes_t5(is_tied, tmp_path):
    config = MiniLMSeq2SeqConfig.preset(
        "modern", "tiny", **RELATIVE, num_hidden_layers=2, max_position_embeddings=64, tie_word_embeddings=is_tied
    )
    torch.manual_seed(0)
    ours = MiniLMForConditionalGeneration(config).eval()
    save(to_native(ours, "t5"), tmp_path / "twin")
    twin = T5ForConditionalGeneration.from_pretrained(tmp_path / "twin").eval()
    input_ids = torch.randint(4, 53, (2, 17), generator=torch.Generator().manual_seed(2))
    theirs, mine = (model(input_ids, labels=input_ids[:, :9].clone()) for model in (twin, ours))
    torch.testing.assert_close(theirs.logits, mine.logits, atol=1e-5, rtol=1e-5)
    assert twin.config.n_positions == 64


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"position_embedding": "rope"}, "encoder.position_embedding (rope) must be relative_bias"),
        ({"norm": "layer_norm"}, "encoder.norm (layer_norm) must be rms_norm"),
        ({"hidden_act": "gelu"}, "encoder.hidden_act (gelu) must be gelu_new"),
        ({"attention_bias": True}, "encoder.attention_bias (True) must be False"),
        ({"share_embeddings": False}, "share_embeddings (False) must be True"),
        ({"decoder": {"intermediate_size": 99}}, "decoder.intermediate_size (99) must be 192"),
        ({"decoder": {"output_bias": True}}, "decoder.output_bias (True) must be False"),
    ],
)
def test_what_t5_cannot_express_is_named_with_the_nearest_value(fields, expected):
    config = MiniLMSeq2SeqConfig.preset("modern", "tiny", **{**RELATIVE, **fields})
    assert expected in map(str, expressible(config, "MiniLMForConditionalGeneration")["t5"])
