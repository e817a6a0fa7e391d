"""Where sentences begin and end, in Spanish and English."""

import itertools
import random

import pytest

from hf_minilm.data.document import Document, split_sentences


def sentences(paragraph: str) -> list[str]:
    return [paragraph[begin:end] for begin, end in split_sentences(paragraph)]


@pytest.mark.parametrize(
    "expected",
    [
        ["The cat slept.", "It was late!", "Was it?", "Yes."],
        ["Llegó tarde.", "¿Quién era?", "¡Nadie!", "—No lo sé."],
        ["La Sra. García leyó la pág. 12 del libro.", "Después durmió."],
        ["J. L. Borges wrote 3.14 pages about Dr. Smith.", "They were short."],
        ["—¡Ven aquí! —dijo ella.", "Nadie respondió."],
        ["He said no.", "She left."],
        ["Esperó… y esperó.", "Nada."],
        ["1. Open the door.", "2. Close it."],
    ],
)
def test_a_paragraph_is_split_where_its_sentences_end(expected: list[str]) -> None:
    assert sentences(" ".join(expected)) == expected


def test_the_spans_cover_all_that_is_not_white_space_and_do_not_overlap() -> None:
    generator = random.Random(7)
    for length in range(0, 120, 7):
        paragraph = "".join(generator.choices("aAñÑ1 .!?…\n\t\"'”»)(¿¡—", k=length))
        spans = split_sentences(paragraph)
        assert all(begin < end for begin, end in spans)
        assert all(left[1] <= right[0] for left, right in itertools.pairwise(spans))
        covered = {place for begin, end in spans for place in range(begin, end)}
        assert all(place in covered for place, character in enumerate(paragraph) if not character.isspace())
        assert all(paragraph[begin:end] == paragraph[begin:end].strip() for begin, end in spans)


def test_the_text_of_a_document_is_its_paragraphs_a_line_each() -> None:
    assert Document(("One.", "Two."), "here:1").text == "One.\nTwo."
    assert split_sentences(" \n ") == []
