"""Scores of texts: against sums that are written out, a reading a token."""

import math

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, RobertaConfig, RobertaForMaskedLM

from hf_minilm import MiniLMForCausalLM, MiniLMForMaskedLM, MiniLMForPreTraining
from hf_minilm.evaluation.text_scores import TextScorer, both_directions, longest_text

TEXT = "The children sleep."


def native(model_class, tokenizer):
    torch.manual_seed(1)
    size = len(tokenizer)
    if model_class is BertForMaskedLM:
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        return BertForMaskedLM(BertConfig(vocab_size=size, initializer_range=0.5, **sizes)).eval()
    return GPT2LMHeadModel(GPT2Config(vocab_size=size, n_embd=16, n_layer=1, n_head=2, initializer_range=0.5)).eval()


def log_probability(model, ids, position, target):
    with torch.no_grad():
        output = model(input_ids=torch.tensor([ids]))
    logits = output.prediction_logits if hasattr(output, "prediction_logits") else output.logits
    return logits[0, position].double().log_softmax(-1)[target].item()


def words_of(tokenizer, text):
    """The places of each word's tokens, by what the tokenizer divides at: white space and punctuation."""
    ids = tokenizer(text)["input_ids"]
    words = []
    for place, token in enumerate(tokenizer.convert_ids_to_tokens(ids)):
        if token in ("[CLS]", "[SEP]"):
            continue
        if token.startswith("##"):
            words[-1].append(place)
        else:
            words.append([place])
    return ids, words


@pytest.mark.parametrize("model_class", [MiniLMForMaskedLM, MiniLMForPreTraining, BertForMaskedLM])
def test_a_masked_model_hides_each_token_and_what_follows_it_in_its_word(tiny_model, piece_tokenizer, model_class):
    build = native if model_class is BertForMaskedLM else tiny_model
    model = build(model_class, piece_tokenizer)
    ids, words = words_of(piece_tokenizer, TEXT)
    assert max(map(len, words)) > 2
    expected = 0.0
    for word in words:
        for place in word:
            masked = list(ids)
            for later in word[word.index(place) :]:
                masked[later] = piece_tokenizer.mask_token_id
            expected += log_probability(model, masked, place, ids[place])
    (score,) = TextScorer(model, piece_tokenizer).score([TEXT])
    assert score.nats == pytest.approx(expected, abs=1e-4)
    assert list(score.tokens) == ids[1:-1]


@pytest.mark.parametrize("model_class", [MiniLMForCausalLM, GPT2LMHeadModel])
def test_a_causal_model_reads_from_the_begin_token_on(tiny_model, byte_tokenizer, model_class):
    build = native if model_class is GPT2LMHeadModel else tiny_model
    model = build(model_class, byte_tokenizer)
    ids = [byte_tokenizer.bos_token_id, *byte_tokenizer(TEXT, add_special_tokens=False)["input_ids"]]
    expected = sum(log_probability(model, ids[:at], at - 1, ids[at]) for at in range(1, len(ids)))
    (score,) = TextScorer(model, byte_tokenizer).score([TEXT])
    assert score.nats == pytest.approx(expected, abs=1e-4)


def test_hybrid_scores_add_up_those_of_both_directions_of_one_set_of_weights(tiny_model, piece_tokenizer):
    masked = tiny_model(MiniLMForMaskedLM, piece_tokenizer, prediction_transform=False)
    same, causal = both_directions(masked)
    assert same is masked
    assert isinstance(causal, MiniLMForCausalLM)
    assert torch.equal(causal.lm_head.weight, masked.lm_head.weight)
    parts = [TextScorer(model, piece_tokenizer).score([TEXT])[0].nats for model in (masked, causal)]
    assert parts[0] != pytest.approx(parts[1])
    for model in (masked, causal):
        (score,) = TextScorer(model, piece_tokenizer, scoring="hybrid").score([TEXT])
        assert score.nats == pytest.approx(math.fsum(parts), abs=1e-5)


def test_weights_that_serve_one_direction_only_are_refused(tiny_model, piece_tokenizer):
    causal = tiny_model(MiniLMForCausalLM, piece_tokenizer, prediction_transform=True)
    with pytest.raises(ValueError, match=r"weights of the model \(no transform.* must serve masked and causal"):
        TextScorer(causal, piece_tokenizer, scoring="hybrid")
    with pytest.raises(ValueError, match="must be a language model of this package for hybrid scoring"):
        TextScorer(native(BertForMaskedLM, piece_tokenizer), piece_tokenizer, scoring="hybrid")


def test_a_scoring_that_is_not_the_models_is_refused(tiny_model, piece_tokenizer, byte_tokenizer):
    model = tiny_model(MiniLMForMaskedLM, piece_tokenizer)
    with pytest.raises(ValueError, match=r"scoring \(causal\) must be masked for a MiniLMForMaskedLM"):
        TextScorer(model, piece_tokenizer, scoring="causal")
    with pytest.raises(ValueError, match=r"scoring \(best\) must be one of auto, masked, causal, hybrid"):
        TextScorer(model, piece_tokenizer, scoring="best")
    with pytest.raises(ValueError, match=r"mask token \(None\) must exist for masked scoring"):
        TextScorer(tiny_model(MiniLMForMaskedLM, byte_tokenizer), byte_tokenizer)


def test_positions_that_begin_after_the_padding_tokens_are_not_counted(piece_tokenizer):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    size = len(piece_tokenizer)
    roberta = RobertaForMaskedLM(RobertaConfig(vocab_size=size, max_position_embeddings=10, pad_token_id=0, **sizes))
    assert longest_text(roberta, piece_tokenizer) == 9
    fits, too_long = "a a a a a a a", "a a a a a a a a"
    scores = TextScorer(roberta, piece_tokenizer).score([fits, too_long])
    assert len(scores[0].tokens) == 7
    assert scores[1] is None


def test_an_unknown_word_is_read_and_not_asked_for(tiny_model, piece_tokenizer):
    model = tiny_model(MiniLMForMaskedLM, piece_tokenizer)
    ids = piece_tokenizer("a \u2603")["input_ids"]
    assert ids[2] == piece_tokenizer.unk_token_id
    (score,) = TextScorer(model, piece_tokenizer).score(["a \u2603"])
    assert score.tokens == (ids[1],)
    masked = [ids[0], piece_tokenizer.mask_token_id, *ids[2:]]
    assert score.nats == pytest.approx(log_probability(model, masked, 1, ids[1]), abs=1e-5)


def test_a_special_token_that_a_text_spells_out_is_text(tiny_model, piece_tokenizer):
    (score,) = TextScorer(tiny_model(MiniLMForMaskedLM, piece_tokenizer), piece_tokenizer).score(["a [MASK]"])
    assert piece_tokenizer.mask_token_id not in score.tokens


def test_texts_that_cannot_be_read_have_no_score_and_the_others_keep_theirs(tiny_model, piece_tokenizer):
    model = tiny_model(MiniLMForMaskedLM, piece_tokenizer)
    scorer = TextScorer(model, piece_tokenizer)
    (alone,) = scorer.score([TEXT])
    scores = scorer.score(["", TEXT, "the " * 300])
    assert scores[0] is scores[2] is None
    assert scores[1].nats == pytest.approx(alone.nats, abs=1e-5)


def test_the_same_words_in_another_order_tie_under_a_model_that_looks_at_none(uniform_model, word_tokenizer):
    model = uniform_model(MiniLMForMaskedLM, word_tokenizer)
    with torch.no_grad():
        model.lm_head.bias.normal_()
    one, other = TextScorer(model, word_tokenizer).score(["Ana sees the old dog .", "the dog sees old Ana ."])
    assert one.nats == other.nats


def test_a_word_in_single_characters_or_without_a_token_is_not_intact(tiny_model, piece_tokenizer):
    scorer = TextScorer(tiny_model(MiniLMForMaskedLM, piece_tokenizer), piece_tokenizer)
    vocabulary = piece_tokenizer.get_vocab()
    assert "the" in vocabulary
    assert "x" in vocabulary
    assert "##x" in vocabulary
    known, letters, unknown, short = scorer.score(["the the.", "the xx", "the 漢", "x the"])
    assert known.is_intact
    assert short.is_intact
    assert not letters.is_intact
    assert not unknown.is_intact


def test_a_space_before_a_byte_level_word_is_no_character_of_it(tiny_model, byte_tokenizer):
    scorer = TextScorer(tiny_model(MiniLMForCausalLM, byte_tokenizer), byte_tokenizer)
    assert byte_tokenizer.tokenize(" %") == ["Ġ", "%"]
    spaced, letters, bytes_of_one = scorer.score(["the house %", "the xqx", "the 漢"])
    assert spaced.is_intact
    assert not letters.is_intact
    assert not bytes_of_one.is_intact
