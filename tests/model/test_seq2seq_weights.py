"""The encoder-decoder's weights: which are one, saved and reopened, resized, and joined from two models."""

import re

import pytest
import torch
import transformers
from torch import nn
from transformers import AutoModel, AutoModelForSeq2SeqLM

from hf_minilm import (
    MiniLMForCausalLM,
    MiniLMForConditionalGeneration,
    MiniLMForMaskedLM,
    MiniLMModel,
    MiniLMSeq2SeqConfig,
    MiniLMSeq2SeqModel,
)

NARROW = {"hidden_size": 20, "num_attention_heads": 5, "num_key_value_heads": 1, "num_hidden_layers": 3}
TYING = [(True, True), (True, False), (False, True), (False, False)]
"""share_embeddings and tie_word_embeddings."""
ENCODER, DECODER, OUTPUT = "model.encoder.embeddings.tokens", "model.decoder.embeddings.tokens", "lm_head"


@pytest.fixture
def build(make_config):
    def make(model_class=MiniLMForConditionalGeneration, *, encoder=None, decoder=None, seed=3, **fields) -> nn.Module:
        stacks = {"encoder": make_config(**(encoder or {})), "decoder": make_config(**(decoder or {}))}
        torch.manual_seed(seed)
        return model_class(MiniLMSeq2SeqConfig(**stacks, **fields)).eval()

    return make


def groups_of_one(model: nn.Module) -> list[set[str]]:
    """Group the three matrices over the vocabulary by the parameter that they are."""
    groups: dict[int, set[str]] = {}
    for name in (ENCODER, DECODER, OUTPUT):
        groups.setdefault(id(model.get_submodule(name).weight), set()).add(name)
    return list(groups.values())


EXPECTED_GROUPS = {
    (True, True): [{ENCODER, DECODER, OUTPUT}],
    (True, False): [{ENCODER, DECODER}, {OUTPUT}],
    (False, True): [{ENCODER}, {DECODER, OUTPUT}],
    (False, False): [{ENCODER}, {DECODER}, {OUTPUT}],
}


@pytest.mark.parametrize("tying", TYING)
def test_the_configuration_says_which_weights_are_one(build, tmp_path, tying):
    share, tie = tying
    model = build(share_embeddings=share, tie_word_embeddings=tie)
    assert groups_of_one(model) == EXPECTED_GROUPS[tying]
    separate = build(share_embeddings=False, tie_word_embeddings=False)
    saved = (3 - len(EXPECTED_GROUPS[tying])) * 61 * 24
    assert model.num_parameters() == separate.num_parameters() - saved
    assert sum(parameter.numel() for parameter in model.parameters()) == model.num_parameters()


@pytest.mark.parametrize("tying", TYING)
def test_a_saved_model_opens_with_the_same_weights_and_ties_through_either_class(build, draw_tokens, tmp_path, tying):
    model = build(share_embeddings=tying[0], tie_word_embeddings=tying[1], decoder={"position_embedding": "alibi"})
    model.save_pretrained(tmp_path)
    opened, information = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(opened) is MiniLMForConditionalGeneration
    assert not any(information.values())
    assert groups_of_one(opened) == EXPECTED_GROUPS[tying]
    for name, weight in model.state_dict().items():
        assert torch.equal(opened.state_dict()[name], weight), name
    given = {"input_ids": draw_tokens(2, 7), "decoder_input_ids": draw_tokens(2, 5, seed=5)}
    assert torch.equal(opened(**given).logits, model(**given).logits)

    body = AutoModel.from_pretrained(tmp_path)
    assert type(body) is MiniLMSeq2SeqModel
    assert (body.encoder.embeddings.tokens.weight is body.decoder.embeddings.tokens.weight) == tying[0]
    assert torch.equal(body(**given).last_hidden_state, model.model(**given).last_hidden_state)


@pytest.mark.parametrize("share", [True, False])
def test_a_body_saved_alone_opens_alone_and_under_a_head(build, draw_tokens, tmp_path, share):
    body = build(MiniLMSeq2SeqModel, share_embeddings=share)
    body.save_pretrained(tmp_path)
    given = {"input_ids": draw_tokens(2, 7), "decoder_input_ids": draw_tokens(2, 5, seed=5)}
    expected = body(**given).last_hidden_state
    for opened in (AutoModel.from_pretrained(tmp_path), AutoModelForSeq2SeqLM.from_pretrained(tmp_path).model):
        assert torch.equal(opened(**given).last_hidden_state, expected)
        assert (opened.encoder.embeddings.tokens.weight is opened.decoder.embeddings.tokens.weight) == share


@pytest.mark.parametrize("tying", TYING)
def test_a_training_step_leaves_one_what_was_one(build, draw_tokens, tmp_path, tying):
    build(share_embeddings=tying[0], tie_word_embeddings=tying[1]).save_pretrained(tmp_path)
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).train()
    before = {name: model.get_submodule(name).weight.detach().clone() for name in (ENCODER, DECODER, OUTPUT)}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(draw_tokens(2, 7), labels=draw_tokens(2, 5, seed=5)).loss.backward()
    optimizer.step()
    assert groups_of_one(model) == EXPECTED_GROUPS[tying]
    for name, weight in before.items():
        assert not torch.equal(model.get_submodule(name).weight, weight)


@pytest.mark.parametrize("number", [67, 53])
@pytest.mark.parametrize("tie", [True, False])
def test_the_vocabulary_is_resized_everywhere_at_once(build, draw_tokens, tmp_path, tie, number):
    model = build(tie_word_embeddings=tie, decoder={"output_bias": True})
    given = {"input_ids": draw_tokens(2, 7) % 50, "decoder_input_ids": draw_tokens(2, 5, seed=5) % 50}
    kept = min(number, 61)
    expected = model(**given).logits[..., :kept].detach()
    model.resize_token_embeddings(number)
    assert groups_of_one(model) == EXPECTED_GROUPS[True, tie]
    sizes = {model.config.vocab_size, model.config.encoder.vocab_size, model.config.decoder.vocab_size}
    assert sizes == {number, model.lm_head.out_features, model.get_input_embeddings().num_embeddings}
    torch.testing.assert_close(model(**given).logits[..., :kept], expected)
    model.save_pretrained(tmp_path)
    opened = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert torch.equal(opened(**given).logits, model(**given).logits)
    model(**given, labels=given["decoder_input_ids"]).loss.backward()


def test_two_vocabularies_are_not_resized_at_once(build):
    with pytest.raises(ValueError, match=r"share_embeddings \(False\) must be True to resize the vocabulary"):
        build(share_embeddings=False).resize_token_embeddings(70)


def test_stacks_of_different_vocabularies_widths_and_padding_tokens_save_and_open(build, draw_tokens, tmp_path):
    fields = {"decoder": {**NARROW, "vocab_size": 47, "pad_token_id": 4}, "share_embeddings": False, "pad_token_id": 4}
    model = build(**fields)
    model.save_pretrained(tmp_path)
    opened = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert opened.model.encoder.embeddings.tokens.padding_idx == 0
    assert opened.model.decoder.embeddings.tokens.padding_idx == 4
    given = {"input_ids": draw_tokens(2, 7), "decoder_input_ids": draw_tokens(2, 5, seed=5) % 47}
    assert torch.equal(opened(**given).logits, model(**given).logits)
    assert opened(**given).logits.shape == (2, 5, 47)


def test_projections_into_the_residual_sum_start_smaller_by_the_number_of_sub_layers(build):
    model = build(MiniLMSeq2SeqModel, encoder={"hidden_size": 96}, decoder={"hidden_size": 96})
    for stack, sub_layers in ((model.encoder, 4), (model.decoder, 6)):
        layer = stack.layers[0]
        assert layer.attention.query.weight.std().item() == pytest.approx(0.3, rel=0.1)
        for projection in (layer.attention.output, layer.feed_forward.down):
            assert projection.weight.std().item() == pytest.approx(0.3 / sub_layers**0.5, rel=0.1)
    assert model.decoder.layers[1].cross_attention.output.weight.std().item() == pytest.approx(0.3 / 6**0.5, rel=0.1)


@pytest.fixture
def warnings(monkeypatch) -> list[str]:
    messages: list[str] = []
    logger = transformers.utils.logging.get_logger("hf_minilm.model.modeling_minilm_seq2seq")
    monkeypatch.setattr(logger, "warning", messages.append)
    return messages


@pytest.fixture
def apart(make_model) -> tuple[nn.Module, nn.Module]:
    """A masked encoder with segments and a causal decoder, of two vocabularies and widths."""
    encoder = make_model(MiniLMForMaskedLM, vocab_size=50, type_vocab_size=2, position_embedding="alibi")
    return encoder, make_model(MiniLMForCausalLM, vocab_size=70, **NARROW, pad_token_id=2, eos_token_id=3, seed=4)


@pytest.fixture(params=["models", "folders", "body and folder"])
def joined(request, apart, tmp_path, warnings) -> MiniLMForConditionalGeneration:
    encoder, decoder = apart
    encoder.save_pretrained(tmp_path / "encoder")
    decoder.save_pretrained(tmp_path / "decoder")
    given = {
        "models": (encoder, decoder),
        "folders": (str(tmp_path / "encoder"), str(tmp_path / "decoder")),
        "body and folder": (encoder.model, str(tmp_path / "decoder")),
    }
    return MiniLMForConditionalGeneration.from_encoder_decoder(*given[request.param])


@torch.no_grad()
def test_a_joined_model_has_the_weights_of_both_and_new_ones_for_cross_attention_alone(
    apart, joined, warnings, draw_tokens
):
    encoder, decoder = apart
    source = draw_tokens(2, 7) % 50
    types = (source > 25).long()
    expected = encoder.model(source, token_type_ids=types).last_hidden_state
    joined.set_attn_implementation("eager")  # as both were
    assert torch.equal(joined.get_encoder()(source, token_type_ids=types).last_hidden_state, expected)
    ours, theirs = joined.model.decoder.state_dict(), decoder.model.state_dict()
    new = {name for name in ours if name not in theirs}
    assert new == {name for name in ours if "cross_attention" in name}
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.items())
    assert torch.equal(joined.lm_head.weight, decoder.lm_head.weight)
    assert joined.lm_head.weight is joined.model.decoder.embeddings.tokens.weight
    numbers = sum(ours[name].numel() for name in new)
    assert len(warnings) == 1
    assert re.fullmatch(
        rf"cross-attention is new and must be trained: {len(new)} weights \({numbers:,} numbers\) of "
        r"MiniLMForConditionalGeneration, model.decoder.layers.0.cross_attention\S+ to "
        r"model.decoder.layers.2.cross_attention\S+\.",
        warnings[0],
    )


@torch.no_grad()
def test_without_what_cross_attention_adds_a_joined_decoder_writes_what_it_wrote(apart, joined, draw_tokens):
    source, target = draw_tokens(2, 7) % 50, draw_tokens(2, 9, seed=5)
    for layer in joined.model.decoder.layers:
        layer.cross_attention.output.weight.zero_()
    found = joined(source, decoder_input_ids=target).logits
    torch.testing.assert_close(found, apart[1](target).logits, atol=1e-5, rtol=1e-5)


def test_joining_leaves_the_originals_as_they_were(make_model, draw_tokens, warnings):
    models = make_model(MiniLMModel, is_causal=True), make_model(MiniLMForCausalLM, output_bias=True)
    before = [(model.config.to_dict(), {n: w.clone() for n, w in model.state_dict().items()}) for model in models]
    joined = MiniLMForConditionalGeneration.from_encoder_decoder(*models).train()
    joined(draw_tokens(2, 7), labels=draw_tokens(2, 5, seed=5)).loss.backward()
    torch.optim.SGD(joined.parameters(), lr=1.0).step()
    assert joined.config.encoder.is_causal is False
    for model, (fields, weights) in zip(models, before, strict=True):
        assert model.config.to_dict() == fields
        assert all(torch.equal(model.state_dict()[name], weight) for name, weight in weights.items())
        assert all(parameter.grad is None for parameter in model.parameters())


def test_a_joined_model_saves_and_opens(joined, draw_tokens, tmp_path):
    joined.save_pretrained(tmp_path / "joined")
    opened = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "joined")
    assert (opened.config.pad_token_id, opened.config.eos_token_id, opened.config.decoder_start_token_id) == (2, 3, 2)
    given = {"input_ids": draw_tokens(2, 7) % 50, "decoder_input_ids": draw_tokens(2, 5, seed=5)}
    assert torch.equal(opened(**given).logits, joined(**given).logits)
    common = {"input_ids": given["input_ids"], "do_sample": False, "max_new_tokens": 5}
    assert opened.generate(**common).tolist() == joined.generate(**common).tolist()


@pytest.mark.parametrize("model_class", [MiniLMModel, MiniLMForMaskedLM])
def test_a_decoder_without_a_causal_head_is_refused(make_model, model_class):
    with pytest.raises(ValueError, match=rf"decoder \({model_class.__name__}\) must be a MiniLMForCausalLM; give one"):
        MiniLMForConditionalGeneration.from_encoder_decoder(make_model(MiniLMModel), make_model(model_class))


def test_a_decoder_with_a_layer_before_its_vocabulary_is_refused(make_model):
    decoder = make_model(MiniLMForCausalLM, causal_transform=True)
    with pytest.raises(ValueError, match=r"causal_transform \(True\) of the decoder must be False"):
        MiniLMForConditionalGeneration.from_encoder_decoder(make_model(MiniLMModel), decoder)
