"""The example that answers questions: windows, places and the best spans are those of a search through all."""

import json
import re
from itertools import product
from pathlib import Path

import answer_questions
import datasets
import made_examples
import numpy as np
import pytest
from answer_questions import Span, answer, best_spans, places_of, read_squad, windows
from fine_tune import open_tokenizer
from transformers import AutoModelForQuestionAnswering

SCRIPT = Path(answer_questions.__file__)


def batch(records: list[dict]) -> dict[str, list]:
    return {name: [record[name] for record in records] for name in records[0]}


@pytest.mark.parametrize("max_length", [48, 256])
def test_every_answer_is_found_by_its_characters_in_a_window_that_holds_it(encoder: Path, max_length: int) -> None:
    records = made_examples.questions(60)
    encoded = windows(batch(records), open_tokenizer(encoder), max_length, 16)
    contexts = {record["id"]: record["context"] for record in records}
    found: dict[str, set[str]] = {record["id"]: set() for record in records}
    rows = zip(
        encoded["example"], encoded["offset_mapping"], encoded["start_positions"], encoded["end_positions"], strict=True
    )
    for name, offsets, first, last in rows:
        if last > 0:
            found[name].add(contexts[name][offsets[first][0] : offsets[last][1]])
    assert found == {record["id"]: set(record["answers"]["text"]) for record in records}
    assert (len(encoded["example"]) > len(records)) == (max_length == 48)
    assert max(map(len, encoded["input_ids"])) <= max_length


def test_a_question_that_nearly_fills_a_window_leaves_fewer_tokens_to_share_or_is_refused(encoder: Path) -> None:
    records = made_examples.questions(2)
    tokenizer = open_tokenizer(encoder)
    length = 3 + max(len(tokenizer.tokenize(record["question"])) for record in records)
    encoded = windows(batch(records), tokenizer, length + 2, 64)
    assert max(map(len, encoded["input_ids"])) == length + 2
    covered = {tuple(offset) for offsets in encoded["offset_mapping"] for offset in offsets if offset}
    wanted = {tuple(each) for record in records for each in _offsets(tokenizer, record["context"])}
    assert covered == wanted
    with pytest.raises(ValueError, match=rf"max_length \({length + 1}\) must be at least {length + 2}; a question"):
        windows(batch(records), tokenizer, length + 1, 64)


def _offsets(tokenizer, context: str) -> list:
    return tokenizer(context, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]


def test_a_window_with_half_of_an_answer_has_none() -> None:
    answers = {"text": ["the fair"], "answer_start": [10]}
    offsets = [None, (7, 9), (10, 13), (14, 18), (19, 22)]
    assert places_of(answers, offsets) == (2, 3)
    assert places_of(answers, offsets[:3]) == (0, 0)
    assert places_of(answers, [None, None, *offsets[3:]]) == (0, 0)
    assert places_of({"text": [], "answer_start": []}, offsets) == (0, 0)


def test_the_best_spans_are_those_of_a_search_through_all() -> None:
    generator = np.random.default_rng(1)
    context = "abcdefghijklmnopqrst"
    offsets = [None, None, None, *((place, place + 1) for place in range(20))]
    starts, ends = generator.normal(size=(2, 30))  # the last 7 are padding
    spans = sorted(best_spans(starts, ends, offsets, context, number=23, longest=5), key=lambda span: -span.score)
    pairs = [(i, j) for i, j in product(range(3, 23), repeat=2) if i <= j < i + 5]
    best = sorted(pairs, key=lambda pair: -(starts[pair[0]] + ends[pair[1]]))
    assert [span.text for span in spans] == [context[i - 3 : j - 2] for i, j in best]
    assert spans[0].score == pytest.approx(starts[best[0][0]] + ends[best[0][1]])


def test_windows_compete_and_silence_wins_only_if_it_may_and_is_likelier_everywhere() -> None:
    examples = datasets.Dataset.from_list([{"id": "q", "context": "ab"}])
    encoded = {"offset_mapping": [[None, (0, 1)], [None, (1, 2)]], "example": ["q", "q"]}
    logits = np.array([[2.0, 1.0], [0.5, 1.5]])
    loud = answer((logits, logits), encoded, examples, number=2, may_be_silent=True)["q"]
    assert loud == [Span("b", 3.0), Span("a", 2.0)]
    logits[1, 0] = 2.5
    assert answer((logits, logits), encoded, examples, number=2, may_be_silent=True)["q"][0] == Span("", 4.0)
    assert answer((logits, logits), encoded, examples, number=2, may_be_silent=False)["q"][0] == Span("b", 3.0)


def as_squad(records: list[dict]) -> dict:
    """Write records as SQuAD 2.0 does."""
    names = ("text", "answer_start")
    answers = [
        [dict(zip(names, pair, strict=True)) for pair in zip(*(record["answers"][name] for name in names), strict=True)]
        for record in records
    ]
    return {
        "data": [
            {
                "paragraphs": [
                    {
                        "context": record["context"],
                        "qas": [{"id": record["id"], "question": record["question"], "answers": own}],
                    }
                    for record, own in zip(records, answers, strict=True)
                ]
            }
        ]
    }


def test_squads_files_are_read_and_a_model_answers_from_them(encoder: Path, tmp_path: Path, run_script) -> None:
    records = made_examples.questions(60)
    (tmp_path / "squad.json").write_text(json.dumps(as_squad(records)), encoding="utf-8")
    assert read_squad(str(tmp_path / "squad.json")) == records
    options = ("--max-length", 64, "--stride", 16, "--epochs", 1, "--output", tmp_path / "out")
    code, printed, errors = run_script(encoder, tmp_path / "squad.json", *options)
    assert code == 0, errors
    assert re.search(r"exact match [\d.]+ \(.*\); F1 of words [\d.]+ \(.*\); 6 held-out questions", printed)
    assert printed.count("  right: ") == 3
    assert AutoModelForQuestionAnswering.from_pretrained(tmp_path / "out").config.num_labels == 2


def test_a_file_of_another_form_is_one_line_and_exit_code_2(encoder: Path, tmp_path: Path, run_script) -> None:
    (tmp_path / "squad.json").write_text('{"data": [{"title": "A"}]}', encoding="utf-8")
    code, printed, errors = run_script(encoder, tmp_path / "squad.json")
    assert (code, printed, errors.count("\n")) == (2, "", 1)
    assert re.match(r"answer_questions: file \(.*squad.json\) must be JSON as SQuAD's", errors)


@pytest.mark.slow
def test_questions_on_stories_are_learnt(encoder: Path, tmp_path: Path, run_script) -> None:
    options = ("--limit", 3000, "--epochs", 6, "--learning-rate", 3e-3, "--output", tmp_path / "out")
    _, printed, _ = run_script(encoder, *options)
    assert float(re.search(r"exact match ([\d.]+)", printed).group(1)) > 0.4
