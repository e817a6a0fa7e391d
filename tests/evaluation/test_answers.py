"""Answers: cases computed by hand from the rules of SQuAD, and what MLQA adds to them."""

import pytest

from hf_minilm.evaluation.answers import exact_match, normalise_answer, token_f1


@pytest.mark.parametrize(
    ("answer", "right", "is_exact", "shared_words"),
    [
        ("The old town", "an old Town!", 1.0, 1.0),
        ("town, old", "old town", 0.0, 1.0),
        ("the towns", "town", 0.0, 0.0),
        ("the old town hall", "old hall", 0.0, 4 / 5),
        ("New York New York", "New York", 0.0, 2 / 3),
        ("1,200 km", "1200 KM", 1.0, 1.0),
        ("theatre", "atre", 0.0, 0.0),
        ("a", "the", 1.0, 0.0),  # nothing is left of either, and SQuAD's F1 of two empty answers is 0
    ],
)
def test_english_answers_score_as_in_squad(answer, right, is_exact, shared_words):
    assert exact_match(answer, [right], language="en") == is_exact
    assert token_f1(answer, [right], language="en") == pytest.approx(shared_words)


def test_the_best_of_several_right_answers_counts():
    assert token_f1("red house", ["house by the lake", "red house"], language="en") == 1.0
    assert token_f1("red house", ["house by the lake"], language="en") == pytest.approx(2 / 5)


@pytest.mark.parametrize(
    ("language", "answer", "normalised"),
    [
        ("en", "«The» house – of A. Smith", "house of smith"),
        ("es", "¿El perro de la casa?", "perro de casa"),
        ("es", "the", "the"),
        ("de", "Des Hauses, das Dach", "hauses dach"),
        ("hi", "the", "the"),
    ],
)
def test_articles_are_those_of_the_language_and_punctuation_is_unicodes(language, answer, normalised):
    assert normalise_answer(answer, language=language) == normalised


def test_a_language_without_articles_on_record_is_refused():
    with pytest.raises(ValueError, match=r"language \(xx\) must be one of en, es, de, hi"):
        normalise_answer("a", language="xx")
