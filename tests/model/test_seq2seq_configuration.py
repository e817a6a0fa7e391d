import json

import pytest
import torch

from hf_minilm import MiniLMConfig, MiniLMForConditionalGeneration, MiniLMSeq2SeqConfig
from hf_minilm.model.configuration_minilm import SIZES
from hf_minilm.model.configuration_minilm_seq2seq import SEQ2SEQ_PRESETS

SMALL = {"vocab_size": 61, "hidden_size": 24, "num_attention_heads": 4, "num_hidden_layers": 2}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"share_embedings": True}, "share_embedings must be a field of MiniLMSeq2SeqConfig; the nearest is share_emb"),
        ({"decoder": {"hiden_size": 24}}, "hiden_size must be a field of MiniLMConfig; the nearest is hidden_size"),
        ({"hidden_size": 24}, r"hidden_size must be given to a stack, as encoder=\{...\} and decoder=\{...\}"),
        ({"norm_bias": True}, "norm_bias must be given to a stack"),
        ({"encoder": {"is_causal": True}}, r"encoder.is_causal \(True\) must be False; leave it out"),
        ({"decoder": {"is_causal": False}}, r"decoder.is_causal \(False\) must be True; leave it out"),
        ({"encoder": {"vocab_size": 60}}, r"encoder.vocab_size \(60\) must be decoder.vocab_size \(32000\)"),
        (
            {"encoder": {"hidden_size": 24}},
            r"encoder.hidden_size \(24\) must be decoder.hidden_size \(256\)",
        ),
        ({"encoder": {"cross_attention_hidden_size": 24}}, r"encoder.cross_attention_hidden_size \(24\) must be None"),
    ],
)
def test_what_contradicts_itself_is_refused_in_one_line(fields, message):
    with pytest.raises(ValueError, match=message) as refused:
        MiniLMSeq2SeqConfig(**fields)
    assert "\n" not in str(refused.value)


def test_a_stack_is_a_configuration_or_its_fields():
    with pytest.raises(TypeError, match=r"a stack \(61\) must be a MiniLMConfig or a dictionary of its fields"):
        MiniLMSeq2SeqConfig(encoder=61)
    given = MiniLMConfig(**SMALL, type_vocab_size=0, prediction_transform=False)
    before = given.to_dict()
    by_object, by_fields = (
        MiniLMSeq2SeqConfig(encoder=given, decoder=given),
        MiniLMSeq2SeqConfig(encoder=SMALL, decoder=SMALL),
    )
    assert by_object.to_dict() == by_fields.to_dict()
    assert given.to_dict() == before


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("bert", "mini", r"preset \(bert\) must be one of vaswani2017"),
        ("modern", "huge", r"size \(huge\) must"),
    ],
)
def test_an_unknown_preset_or_size_is_refused(name, size, message):
    with pytest.raises(ValueError, match=message):
        MiniLMSeq2SeqConfig.preset(name, size)


def test_the_direction_and_the_width_of_the_source_are_written_into_the_stacks():
    config = MiniLMSeq2SeqConfig(encoder=SMALL, decoder={**SMALL, "hidden_size": 16}, share_embeddings=False)
    assert (config.encoder.is_causal, config.decoder.is_causal) == (False, True)
    assert (config.encoder.cross_attention_hidden_size, config.decoder.cross_attention_hidden_size) == (None, 24)
    assert (config.hidden_size, config.vocab_size, config.num_hidden_layers) == (16, 61, 2)


@pytest.mark.parametrize(
    ("ids", "start"),
    [
        ({}, 0),
        ({"pad_token_id": 5}, 5),
        ({"bos_token_id": 7}, 7),
        ({"bos_token_id": 7, "decoder_start_token_id": 9}, 9),
    ],
)
def test_the_decoder_starts_with_the_first_token_of_a_text_or_else_with_padding(ids, start):
    assert MiniLMSeq2SeqConfig(**ids).decoder_start_token_id == start


def test_the_padding_token_of_the_whole_is_that_of_a_stack_that_names_none():
    config = MiniLMSeq2SeqConfig(encoder=SMALL, decoder={**SMALL, "pad_token_id": None}, pad_token_id=60)
    assert (config.encoder.pad_token_id, config.decoder.pad_token_id) == (60, None)
    model = MiniLMForConditionalGeneration(config)
    assert model.model.encoder.embeddings.tokens.padding_idx == 60
    assert model.model.decoder.embeddings.tokens.padding_idx is None


def test_a_saved_configuration_opens_as_it_was(tmp_path):
    config = MiniLMSeq2SeqConfig(
        encoder={**SMALL, "pad_token_id": 0, "type_vocab_size": 2},
        decoder={**SMALL, "position_embedding": "alibi", "layer_types": ["sliding_attention"] * 2, "sliding_window": 3},
        pad_token_id=5,
        eos_token_id=[1, 2],
        tie_word_embeddings=False,
    )
    config.save_pretrained(tmp_path)
    opened = MiniLMSeq2SeqConfig.from_pretrained(tmp_path)
    differences = {key for key, value in config.to_dict().items() if opened.to_dict()[key] != value}
    assert differences <= {"transformers_version", "_name_or_path"}


def test_a_saved_configuration_opens_whatever_another_library_has_put_into_it(tmp_path):
    config = MiniLMSeq2SeqConfig(encoder=SMALL, decoder=SMALL)
    config.save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    fields["encoder"]["hiden_size"], fields["norm_bias"] = 25, True
    (tmp_path / "config.json").write_text(json.dumps(fields))
    opened = MiniLMSeq2SeqConfig.from_pretrained(tmp_path)
    assert (opened.encoder.hidden_size, opened.encoder.norm_bias) == (24, False)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", SEQ2SEQ_PRESETS)
def test_every_preset_builds_in_every_size(name, size):
    config = MiniLMSeq2SeqConfig.preset(name, size, vocab_size=61, decoder={"num_hidden_layers": 1}, eos_token_id=3)
    for stack, layers in ((config.encoder, SIZES[size]["num_hidden_layers"]), (config.decoder, 1)):
        assert (stack.num_hidden_layers, stack.hidden_size) == (layers, SIZES[size]["hidden_size"])
        assert (stack.vocab_size, stack.eos_token_id, stack.type_vocab_size) == (61, 3, 0)
    with torch.device("meta"):
        model = MiniLMForConditionalGeneration(config)
    assert len(model.model.encoder.layers) == SIZES[size]["num_hidden_layers"]


def test_the_transformer_of_2017_has_the_number_of_weights_that_its_equations_have():
    config = MiniLMSeq2SeqConfig.preset("vaswani2017", "small", vocab_size=37000, num_hidden_layers=6)
    with torch.device("meta"):
        model = MiniLMForConditionalGeneration(config)
    width, inner = 512, 2048
    attention, norm = 4 * width**2, 2 * width
    feed_forward = 2 * width * inner + inner + width
    encoder, decoder = attention + feed_forward + 2 * norm, 2 * attention + feed_forward + 3 * norm
    # 63 million: table 3 says 65 for the base model, whose vocabulary is "about 37000".
    assert model.num_parameters() == 37000 * width + 6 * (encoder + decoder) == 63_045_632


def test_fields_of_both_stacks_and_of_either_override_a_preset():
    config = MiniLMSeq2SeqConfig.preset(
        "modern", "tiny", vocab_size=61, norm="rms_norm", encoder={"qk_norm": True}, share_embeddings=False
    )
    assert (config.encoder.norm, config.decoder.norm) == ("rms_norm", "rms_norm")
    assert (config.encoder.qk_norm, config.decoder.qk_norm, config.share_embeddings) == (True, False, False)
