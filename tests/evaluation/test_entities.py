"""Entities: what conlleval's rules make of each scheme, and what seqeval finds."""

import itertools

import pytest

from hf_minilm.evaluation.entities import are_entity_tags, find_entities

SCHEMES = {
    "IOB1": ["I-PER", "I-PER", "B-PER", "O", "I-LOC", "I-PER"],
    "IOB2": ["B-PER", "I-PER", "B-PER", "O", "B-LOC", "B-PER"],
    "BIOES": ["B-PER", "E-PER", "S-PER", "O", "S-LOC", "S-PER"],
}


@pytest.mark.parametrize("tags", SCHEMES.values(), ids=SCHEMES)
def test_one_reading_of_three_schemes(tags):
    assert find_entities(tags) == [("PER", 0, 2), ("PER", 2, 3), ("LOC", 4, 5), ("PER", 5, 6)]


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        ([], []),
        (["O", "O"], []),
        (["I-A"], [("A", 0, 1)]),
        (["B-A", "I-B"], [("A", 0, 1), ("B", 1, 2)]),
        (["E-A", "I-A"], [("A", 0, 1), ("A", 1, 2)]),
        (["I-A", "E-A", "E-A"], [("A", 0, 2), ("A", 2, 3)]),
        (["B-X-Y", "I-X-Y"], [("X-Y", 0, 2)]),
    ],
)
def test_what_begins_and_ends_an_entity_where_the_scheme_is_broken(tags, entities):
    assert find_entities(tags) == entities


def test_every_short_sequence_of_tags_is_read_as_seqeval_reads_it():
    reader = pytest.importorskip("seqeval.metrics.sequence_labeling", reason="seqeval is not installed").get_entities
    tags = ["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in "AB")]
    for sentence in itertools.product(tags, repeat=4):
        theirs = [(kind, start, last + 1) for kind, start, last in reader(list(sentence))]
        assert find_entities(sentence) == theirs


@pytest.mark.parametrize("tag", ["PER", "X-PER", "B", "O-PER", ""])
def test_a_tag_of_no_scheme_is_refused(tag):
    with pytest.raises(ValueError, match=r"tag \(.*\) must be O, or B, I, E or S with a type"):
        find_entities(["O", tag])


def test_parts_of_speech_are_not_taken_for_entities():
    assert are_entity_tags(["O", "B-PER"])
    assert not are_entity_tags(["NOUN", "ADP", "O"])
    assert not are_entity_tags(["O", "O"])
