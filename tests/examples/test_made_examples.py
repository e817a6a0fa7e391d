"""The labelled examples that are made of stories are what they are said to be."""

import made_examples
import pytest

from hf_minilm.data.world import World, text_of

FIELDS = ("text", "text_pair")
MAKERS = (
    *("topics", "named", "functions", "questions", "claims"),
    *("similar", "translations", "instructions", "other_stories"),
)
NAMES = {name for machine in World().machines.values() for names in machine.parameters.values() for name in names}


@pytest.mark.parametrize("maker", MAKERS)
def test_as_many_are_made_as_asked_for_and_the_first_are_the_same(maker: str) -> None:
    make = getattr(made_examples, maker)
    assert len(make(31)) == 31
    assert make(31)[:7] == make(7)


def test_answers_stand_where_they_are_said_to_and_some_questions_have_none() -> None:
    records = made_examples.questions(400)
    for record in records:
        for text, start in zip(record["answers"]["text"], record["answers"]["answer_start"], strict=True):
            assert record["context"][start : start + len(text)] == text
    silent = [record for record in records if not record["answers"]["text"]]
    assert 5 < len(silent) < 100
    assert {record["id"] for record in records} == {str(number) for number in range(400)}


def test_a_question_that_names_a_giver_has_an_answer_if_and_only_if_the_story_says_so() -> None:
    asked = {True: 0, False: 0}
    for record in made_examples.questions(400):
        words = [word.strip("?¿") for word in record["question"].split()]
        giver = next((word for word in words if word in NAMES), None)
        if giver is not None:
            verb = next(word for verbs in made_examples.GIVING.values() for word in verbs if word in words)
            said = any(f"{giver} {between}{verb} " in record["context"] for between in ("le ", ""))
            assert said == bool(record["answers"]["text"])
            asked[said] += 1
    assert min(asked.values()) > 10


def test_a_claim_is_true_if_and_only_if_the_story_says_it() -> None:
    records = made_examples.claims(200)
    for record in records:
        assert (record["text_pair"] in record["text"]) == (record["label"] == "true")
    assert {record["label"] for record in records} == {"true", "false"}


def test_similarity_is_the_share_of_units_that_two_texts_have_in_common() -> None:
    records = made_examples.similar(60)
    assert {round(record["label"], 2) for record in records} == {0, 1.67, 3.33, 5}
    for record in records:
        first, second = (sorted(part.strip() for part in record[field].split(".")) for field in FIELDS)
        assert (first == second) == (record["label"] == 5)


def test_every_person_is_tagged_and_one_place_in_each_story() -> None:
    for record in made_examples.named(40):
        tagged = {word for word, tag in zip(record["tokens"], record["tags"], strict=True) if tag == "B-PER"}
        assert tagged == NAMES & set(record["tokens"])
        assert (record["tags"].count("B-LOC"), record["tags"].count("I-LOC")) == (1, 1)
        assert record["tags"].index("I-LOC") == record["tags"].index("B-LOC") + 1


def test_functions_are_the_grammars_own() -> None:
    for (_, story), record in zip(made_examples.stories(20), made_examples.functions(20), strict=True):
        assert text_of(record["tokens"]) == text_of(story.words)
        heads = [word for word, role in zip(story.words, story.roles, strict=True) if role.startswith("head")]
        assert [w for w, tag in zip(record["tokens"], record["tags"], strict=True) if tag == "head"] == heads
