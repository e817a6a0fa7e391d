"""A reading holds the weights that eager attention returns, by kind of attention, with the tokens of both sides."""

import pytest
import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, MarianConfig, MarianMTModel

from hf_minilm.inspection import read_text, reading, rollout

TEXT = "La niña comió allí."


def names(tokens):
    return [token.text for token in tokens]


def eager(reader, **inputs):
    """The outputs of an equal model whose attention is the formula and returns its weights."""
    model = type(reader.model)(reader.model.config).eval()
    model.load_state_dict(reader.model.state_dict())
    model.set_attn_implementation("eager")
    with torch.no_grad():
        return model(**inputs, output_attentions=True)


def test_a_reading_of_one_stack_holds_the_weights_of_eager_attention(one_stack):
    (look,) = read_text(one_stack.model, one_stack.tokenizer, TEXT).looks
    expected = torch.cat(eager(one_stack, **one_stack.tokenizer(TEXT, return_tensors="pt")).attentions)
    torch.testing.assert_close(look.weights, expected, atol=2e-6, rtol=1e-4)
    torch.testing.assert_close(look.rollout, rollout(look.weights))
    assert look.queries == look.keys
    is_causal = one_stack.model.config.is_causal
    assert (look.kind, look.stack) == (("masked", "decoder") if is_causal else ("self", "encoder"))
    assert bool((look.weights.triu(1) == 0).all()) == is_causal
    assert look.has_bias == (one_stack.model.config.position_embedding == "alibi")


def test_an_encoder_reads_a_pair_with_its_token_types(encoder):
    (look,) = read_text(encoder.model, encoder.tokenizer, TEXT, second="Una niña.").looks
    inputs = encoder.tokenizer(TEXT, "Una niña.", return_tensors="pt")
    assert inputs["token_type_ids"].max() == 1
    torch.testing.assert_close(look.weights, torch.cat(eager(encoder, **inputs).attentions), atol=2e-6, rtol=1e-4)
    assert names(look.queries).count("[SEP]") == 2


def test_an_encoder_decoder_has_three_kinds_for_the_target_that_is_given(two_stacks):
    source, target = TEXT, "The keys are old."
    looks = read_text(two_stacks.model, two_stacks.tokenizer, source, second=target).looks
    assert [(look.kind, look.stack) for look in looks] == [
        ("self", "encoder"),
        ("masked", "decoder"),
        ("cross", "decoder"),
    ]
    written = two_stacks.tokenizer(target)["input_ids"]
    read = torch.tensor([[two_stacks.model.config.decoder_start_token_id, *written[:-1]]])
    inputs = two_stacks.tokenizer(source, return_tensors="pt")
    outputs = eager(two_stacks, **inputs, decoder_input_ids=read)
    for look, kind in zip(looks, ("encoder_attentions", "decoder_attentions", "cross_attentions"), strict=True):
        torch.testing.assert_close(look.weights, torch.cat(outputs[kind]), atol=2e-6, rtol=1e-4)
    encoder, decoder, cross = looks
    assert names(cross.keys) == names(encoder.queries)
    assert names(cross.queries) == [*names(decoder.queries)[1:], "</s>"]
    shares = decoder.rollout.sum(-1) + cross.rollout.sum(-1)
    torch.testing.assert_close(shares, torch.ones_like(shares))


def test_an_encoder_decoder_writes_the_target_itself_where_none_is_given(two_stacks):
    looks = read_text(two_stacks.model, two_stacks.tokenizer, TEXT).looks
    inputs = two_stacks.tokenizer(TEXT, return_tensors="pt")
    written = two_stacks.model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=63)
    assert looks[2].weights.shape[2] == written.shape[1] - 1 == len(looks[2].queries)


@pytest.mark.parametrize(
    ("model_class", "config", "kinds"),
    [
        (BertModel, BertConfig(vocab_size=600, hidden_size=16, num_attention_heads=2, num_hidden_layers=1), ["self"]),
        (
            LlamaModel,
            LlamaConfig(
                vocab_size=600,
                hidden_size=16,
                intermediate_size=8,
                num_attention_heads=2,
                num_key_value_heads=1,
                num_hidden_layers=1,
            ),
            ["masked"],
        ),
        (
            MarianMTModel,
            MarianConfig(
                vocab_size=600,
                d_model=16,
                encoder_layers=1,
                decoder_layers=1,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=8,
                decoder_ffn_dim=8,
                pad_token_id=0,
                eos_token_id=2,
                decoder_start_token_id=1,
                forced_eos_token_id=None,
            ),
            ["self", "masked", "cross"],
        ),
    ],
)
def test_models_of_transformers_are_read_too(model_class, config, kinds, two_stacks):
    torch.manual_seed(0)
    looks = read_text(model_class(config).eval(), two_stacks.tokenizer, TEXT, second=None).looks
    assert [look.kind for look in looks] == kinds
    for look in looks:
        assert look.weights.shape == (1, 2, len(look.queries), len(look.keys))


def test_the_facts_say_what_the_model_is(one_stack):
    facts = dict(read_text(one_stack.model, one_stack.tokenizer, TEXT, name="mine").facts)
    assert (facts["layers"], facts["heads"], facts["head size D"]) == ("2", "4", "8")
    assert facts["parameters"] == f"{one_stack.model.num_parameters():,}"
    assert facts["positions"].startswith(f"{one_stack.model.config.position_embedding}. ")


def test_a_text_of_more_tokens_than_the_model_reads_is_refused_with_both_numbers(one_stack):
    length = len(one_stack.tokenizer(TEXT * 30)["input_ids"])
    message = (
        rf"^text \({length} tokens\) must have 1 to 64 tokens, which are as many as the model reads; give a shorter"
    )
    with pytest.raises(ValueError, match=message):
        read_text(one_stack.model, one_stack.tokenizer, TEXT * 30)


def test_maps_that_would_not_fit_into_a_page_are_refused(encoder, monkeypatch):
    monkeypatch.setattr(reading, "MOST_WEIGHTS", 2 * 6 * 5**2)
    with pytest.raises(
        ValueError, match=r"must have 1 to 5 tokens, which are as many as a page with 12 maps can hold;"
    ):
        read_text(encoder.model, encoder.tokenizer, TEXT)


def test_a_target_that_is_too_long_is_refused(two_stacks):
    with pytest.raises(ValueError, match=r"^second text \(\d+ tokens\) must have 1 to 64 tokens"):
        read_text(two_stacks.model, two_stacks.tokenizer, TEXT, second=TEXT * 30)


def test_an_empty_text_is_refused_where_it_has_no_token(two_stacks):
    backend = two_stacks.tokenizer.backend_tokenizer
    framing, backend.post_processor = backend.post_processor, None
    try:
        with pytest.raises(ValueError, match=r"^text \(0 tokens\) must have 1 to 64 tokens, .*; give some words\.$"):
            read_text(two_stacks.model, two_stacks.tokenizer, "")
    finally:
        backend.post_processor = framing


def test_a_tokenizer_of_another_model_is_refused(encoder):
    config = BertConfig(vocab_size=9, hidden_size=16, num_attention_heads=2, num_hidden_layers=1)
    with pytest.raises(ValueError, match=r"^token id \(\d+\) must be below the model's vocabulary \(9\); "):
        read_text(BertModel(config).eval(), encoder.tokenizer, TEXT)


def test_a_second_text_is_for_an_encoder_and_not_for_a_decoder(one_stack):
    if not one_stack.model.config.is_causal:
        assert len(read_text(one_stack.model, one_stack.tokenizer, TEXT, second=TEXT).looks) == 1
        return
    with pytest.raises(ValueError, match=r"^second text \(given\) must be for an encoder or an encoder-decoder"):
        read_text(one_stack.model, one_stack.tokenizer, TEXT, second=TEXT)


def test_a_model_whose_weights_are_not_finite_is_refused(encoder):
    model = type(encoder.model)(encoder.model.config).eval()
    with torch.no_grad():
        model.model.layers[0].attention.query.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"^attention weights \(NaN or infinite\) must be finite; "):
        read_text(model, encoder.tokenizer, TEXT)
