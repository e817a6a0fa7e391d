"""Minimal pairs of sentences: models whose answers are known beforehand."""

import pytest
import torch

from hf_minilm import MiniLMForCausalLM, MiniLMForMaskedLM
from hf_minilm.evaluation.pair_files import SentencePair
from hf_minilm.evaluation.sentence_pairs import evaluate_pairs, words_of
from hf_minilm.evaluation.text_scores import TextScorer

PAIRS = [
    SentencePair("number", "The keys are old.", "The keys is old."),
    SentencePair("number", "The key is old.", "The key are old."),
    SentencePair("number", "The dogs are old.", "The dogs is old."),
    SentencePair("order", "Ana sees the dog.", "Ana the dog sees."),
]


@pytest.mark.parametrize("model_class", [MiniLMForMaskedLM, MiniLMForCausalLM])
def test_a_constant_model_scores_exactly_one_half(uniform_model, word_tokenizer, byte_tokenizer, model_class):
    tokenizer = byte_tokenizer if model_class is MiniLMForCausalLM else word_tokenizer
    scorer = TextScorer(uniform_model(model_class, tokenizer), tokenizer)
    pairs = [pair for pair in PAIRS if len(tokenizer(pair.good).input_ids) == len(tokenizer(pair.bad).input_ids)]
    assert len(pairs) > 2
    measured = evaluate_pairs(scorer, pairs, seed=0)
    assert {figure.value for name, figure in measured.figures.items() if "accuracy" in name} == {0.5}
    assert measured.num_ties == measured.num_pairs == len(pairs)


def test_paradigms_weigh_the_same_in_the_macro_average_and_pairs_in_the_other(uniform_model, word_tokenizer):
    model = uniform_model(MiniLMForMaskedLM, word_tokenizer)
    with torch.no_grad():
        model.lm_head.bias[word_tokenizer.convert_tokens_to_ids("are")] = 2.0
    figures = evaluate_pairs(TextScorer(model, word_tokenizer), PAIRS, seed=0).figures
    # It always prefers "are", and the words of the last pair are the same.
    assert figures["accuracy/number"].value == pytest.approx(2 / 3)
    assert figures["accuracy/order"].value == 0.5
    assert figures["macro_accuracy"].value == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert figures["accuracy"].value == pytest.approx(2.5 / 4)
    assert next(iter(figures)) == "macro_accuracy"
    assert figures["macro_accuracy"].low <= figures["macro_accuracy"].value <= figures["macro_accuracy"].high


def test_accuracies_are_those_of_scores_compared_pair_by_pair(tiny_model, piece_tokenizer):
    scorer = TextScorer(tiny_model(MiniLMForMaskedLM, piece_tokenizer), piece_tokenizer)
    won = [scorer.score([pair.good])[0].nats > scorer.score([pair.bad])[0].nats for pair in PAIRS]
    figures = evaluate_pairs(scorer, PAIRS, seed=0).figures
    assert figures["accuracy"].value == sum(won) / 4
    assert figures["accuracy"].n == 4


def test_pairs_of_words_that_the_training_text_did_not_have_are_told_apart(uniform_model, word_tokenizer):
    scorer = TextScorer(uniform_model(MiniLMForMaskedLM, word_tokenizer), word_tokenizer)
    known = words_of("the keys, are; Is OLD")
    figures = evaluate_pairs(scorer, PAIRS, seed=0, known_words=known).figures
    assert figures["known_pairs"].value == 1 / 4
    assert figures["macro_accuracy/known"].n == 1
    without = evaluate_pairs(scorer, PAIRS, seed=0, known_words=frozenset()).figures
    assert without["known_pairs"].value == 0.0
    assert "macro_accuracy/known" not in without


def test_pairs_whose_words_the_tokenizer_takes_apart_are_counted(uniform_model, word_tokenizer):
    scorer = TextScorer(uniform_model(MiniLMForMaskedLM, word_tokenizer), word_tokenizer)
    in_pieces = SentencePair("number", "The keyboards are old.", "The keyboards is old.")
    in_characters = SentencePair("number", "The eae are old.", "The eae is old.")
    assert evaluate_pairs(scorer, PAIRS, seed=0).figures["intact_pairs"].value == 1.0
    assert evaluate_pairs(scorer, [*PAIRS, in_pieces, in_characters], seed=0).figures["intact_pairs"].value == 5 / 6


def test_a_limit_takes_the_first_pairs_of_each_paradigm(uniform_model, word_tokenizer):
    scorer = TextScorer(uniform_model(MiniLMForMaskedLM, word_tokenizer), word_tokenizer)
    figures = evaluate_pairs(scorer, PAIRS, seed=0, limit=2).figures
    assert (figures["accuracy/number"].n, figures["accuracy/order"].n) == (2, 1)


def test_pairs_that_cannot_be_read_are_left_out_and_counted(uniform_model, word_tokenizer):
    scorer = TextScorer(uniform_model(MiniLMForMaskedLM, word_tokenizer), word_tokenizer)
    long = SentencePair("number", "The keys " * 200, "The key " * 200)
    measured = evaluate_pairs(scorer, [*PAIRS, long], seed=0)
    assert (measured.num_pairs, measured.num_left_out) == (4, 1)
    with pytest.raises(ValueError, match=r"minimal pairs that the model can read \(0 of 1\) must be at least 1"):
        evaluate_pairs(scorer, [long], seed=0)
