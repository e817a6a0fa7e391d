"""Marian becomes ours and comes back with the same bits, though its hidden features stand in another order."""

import pytest
import torch
from native_models import assert_same_bits
from torch import nn
from transformers import MarianConfig, MarianModel, MarianMTModel

from hf_minilm import MiniLMForConditionalGeneration, MiniLMSeq2SeqConfig
from hf_minilm.conversion import expressible, from_native, save, to_native

SIZES = {
    "vocab_size": 53,
    "d_model": 24,
    "encoder_layers": 3,
    "encoder_ffn_dim": 37,
    "encoder_attention_heads": 3,
    "decoder_layers": 2,
    "decoder_ffn_dim": 41,
    "decoder_attention_heads": 4,
    "max_position_embeddings": 48,
    "pad_token_id": 52,
    "decoder_start_token_id": 52,
    "eos_token_id": 0,
    "forced_eos_token_id": None,
}
KINDS = {
    "one vocabulary": {},
    "scaled embeddings": {"scale_embedding": True, "activation_function": "swish"},
    "two vocabularies": {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 59},
    "a projection of its own": {
        "share_encoder_decoder_embeddings": False,
        "tie_word_embeddings": False,
        "decoder_vocab_size": 59,
    },
}


@pytest.fixture
def build(randomised):
    def build_marian(model_class: type = MarianMTModel, **fields: object) -> nn.Module:
        marian = randomised(model_class, MarianConfig(**{**SIZES, **fields}))
        with torch.no_grad():
            for stack in (marian.get_encoder(), marian.get_decoder()):
                stack.embed_positions.weight.copy_(stack.embed_positions.create_weight())
            if model_class is MarianMTModel:
                marian.final_logits_bias.normal_(std=0.3, generator=torch.Generator().manual_seed(4))
        return marian

    return build_marian


@pytest.mark.parametrize("kind", KINDS)
def test_marian_becomes_ours_and_comes_back_with_the_same_bits(kind, build):
    marian = build(**KINDS[kind])
    converted = from_native(marian)
    assert type(converted.model) is MiniLMForConditionalGeneration
    assert converted.proof.greedy_equal == converted.proof.greedy_tokens * converted.proof.prompts > 0
    back = to_native(converted.model, "marian")
    assert back.proof.greedy_equal == back.proof.greedy_tokens * back.proof.prompts > 0
    assert_same_bits(marian, back.model)
    assert back.model.final_logits_bias.std() > 0.1


def test_a_marian_of_a_model_shares_nothing_with_it(build):
    ours = from_native(build()).model
    marian = to_native(ours, "marian").model
    before = {name: tensor.clone() for name, tensor in marian.state_dict().items()}
    with torch.no_grad():
        for tensor in ours.state_dict().values():
            tensor.add_(1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in marian.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("is_saved", [False, True], ids=["in memory", "saved"])
def test_marian_in_half_precision_comes_back_with_the_same_bits_and_computes(dtype, is_saved, build, tmp_path):
    marian = build().to(dtype)
    before = {name: tensor.clone() for name, tensor in marian.state_dict().items()}
    marian.save_pretrained(tmp_path / "marian")
    converted = from_native(tmp_path / "marian" if is_saved else marian)
    assert all(torch.equal(tensor, before[name]) for name, tensor in marian.state_dict().items())
    assert {tensor.dtype for tensor in converted.model.state_dict().values()} == {dtype}
    back = to_native(converted.model, "marian").model
    assert {tensor.dtype for tensor in back.state_dict().values()} == {dtype}
    assert_same_bits(marian, back)
    inputs = torch.randint(1, 52, (2, 11), generator=torch.Generator().manual_seed(2))
    theirs, mine = (model(inputs, decoder_input_ids=inputs[:, :7]).logits for model in (marian, back))
    assert torch.equal(theirs, mine)


def test_the_stacks_without_a_head_are_marians(build):
    marian = build(MarianModel)
    assert_same_bits(marian, to_native(from_native(marian).model, "marian").model)


def test_a_saved_marian_opens_as_ours_and_a_saved_twin_as_marian(build, tmp_path):
    marian = build()
    marian.save_pretrained(tmp_path / "marian")
    save(to_native(from_native(tmp_path / "marian").model, "marian"), tmp_path / "twin")
    assert_same_bits(marian, MarianMTModel.from_pretrained(tmp_path / "twin"))


def test_padded_sources_are_read_and_beams_written_as_marian_does(build):
    marian = build(scale_embedding=True)
    ours = from_native(marian).model
    input_ids = torch.randint(1, 52, (3, 19), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(input_ids)
    mask[1, 8:], mask[2, :11] = 0, 0
    inputs = {"input_ids": input_ids, "attention_mask": mask}
    labels = torch.randint(1, 52, (3, 14), generator=torch.Generator().manual_seed(3))
    theirs, mine = (model(**inputs, labels=labels) for model in (marian, ours))
    assert theirs.logits.std() > 0.5
    torch.testing.assert_close(mine.logits, theirs.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mine.loss, theirs.loss)
    written = [model.generate(**inputs, max_new_tokens=9, num_beams=2).tolist() for model in (marian, ours)]
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tie_word_embeddings": False}, r"share_encoder_decoder_embeddings \(True\) must be False"),
        ({"d_model": 27, "decoder_attention_heads": 3}, r"hidden_size \(27\) must be even for sinusoidal positions"),
    ],
)
def test_what_ours_cannot_express_is_refused(fields, message, build):
    with pytest.raises(ValueError, match=message):
        from_native(build(**fields))


AS_MARIAN = {
    "norm_eps": 1e-5,
    "attention_bias": True,
    "output_bias": True,
    "vocab_size": 53,
    "eos_token_id": 3,
    "num_hidden_layers": 2,
}


def test_a_model_of_ours_with_marians_parts_becomes_marian(tmp_path):
    torch.manual_seed(0)
    config = MiniLMSeq2SeqConfig.preset("vaswani2017", "tiny", **AS_MARIAN)
    ours = MiniLMForConditionalGeneration(config).eval()
    save(to_native(ours, "marian"), tmp_path / "twin")
    twin = MarianMTModel.from_pretrained(tmp_path / "twin").eval()
    input_ids = torch.randint(4, 53, (2, 17), generator=torch.Generator().manual_seed(2))
    decoder_input_ids = input_ids[:, :9]
    theirs, mine = (model(input_ids, decoder_input_ids=decoder_input_ids).logits for model in (twin, ours))
    torch.testing.assert_close(theirs, mine, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"position_embedding": "rope"}, "encoder.position_embedding (rope) must be sinusoidal"),
        ({"norm_eps": 1e-6}, "encoder.norm_eps (1e-06) must be 1e-05"),
        ({"attention_bias": False}, "decoder.attention_bias (False) must be True"),
        ({"output_bias": False}, "decoder.output_bias (False) must be True"),
        ({"tie_word_embeddings": False}, "share_embeddings (True) must be False"),
        ({"decoder": {"hidden_act": "gelu"}}, "decoder.hidden_act (gelu) must be relu"),
    ],
)
def test_what_marian_cannot_express_is_named_with_the_nearest_value(fields, expected):
    config = MiniLMSeq2SeqConfig.preset("vaswani2017", "tiny", **{**AS_MARIAN, **fields})
    assert expected in map(str, expressible(config, "MiniLMForConditionalGeneration")["marian"])
