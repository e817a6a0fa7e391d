"""The example that reads two texts together classifies them, or predicts a number."""

import json
import re
from pathlib import Path

import compare_sentences
from transformers import AutoModelForSequenceClassification

SCRIPT = Path(compare_sentences.__file__)


def test_a_number_is_learnt_from_pairs_of_a_file(encoder: Path, tmp_path: Path, run_script) -> None:
    others = ("the key is old.", "the dogs bark.")
    pairs = [{"text": others[0], "text_pair": others[number % 2], "label": 5.0 * (number % 2)} for number in range(160)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    options = ("--regression", "--epochs", 8, "--learning-rate", 4e-3, "--batch-size", 16, "--output", tmp_path / "out")
    code, printed, errors = run_script(encoder, tmp_path / "pairs.jsonl", *options)
    assert code == 0, errors
    assert float(re.search(r"Pearson correlation ([\d.]+)", printed).group(1)) > 0.9
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert (model.config.num_labels, model.config.problem_type) == (1, "regression")


def test_claims_on_stories_are_classified_where_no_file_is_given(encoder: Path, tmp_path: Path, run_script) -> None:
    code, printed, errors = run_script(encoder, "--limit", 60, "--epochs", 1, "--output", tmp_path / "out")
    assert code == 0, errors
    assert re.search(r"accuracy [\d.]+ \(.*\); Matthews correlation -?[\d.]+ .*; always the commonest class", printed)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.id2label == {0: "false", 1: "true"}


def test_a_field_that_is_absent_is_one_line_and_exit_code_2(encoder: Path, tmp_path: Path, run_script) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"text": "a", "label": 1}\n', encoding="utf-8")
    code, printed, errors = run_script(encoder, tmp_path / "pairs.jsonl")
    assert (code, printed) == (2, "")
    assert errors.strip().splitlines()[-1].startswith("compare_sentences: ")
    assert "field text_pair (absent) must be there" in errors
