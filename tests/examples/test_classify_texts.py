"""The example that classifies texts fine-tunes a saved model, on records of one's own and on those that it makes."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import classify_texts
import pytest
from transformers import AutoModelForSequenceClassification

from hf_minilm.data.world import World

SCRIPT = Path(classify_texts.__file__)


@pytest.fixture
def accuracies(run_script) -> Callable[..., tuple[float, float]]:
    """Run the script; the accuracy that it prints, and that of the commonest class."""

    def run(*words: object) -> tuple[float, float]:
        code, printed, errors = run_script(*words)
        assert code == 0, errors
        found = re.search(r"accuracy ([\d.]+) .*commonest class ([\d.]+)", printed)
        return float(found.group(1)), float(found.group(2))

    return run


def test_two_languages_are_told_apart(encoder: Path, tmp_path: Path, accuracies) -> None:
    stories = World(seed=1).documents(300)
    records = [{"text": story.text, "label": story.source.split(":")[1]} for story in stories]
    path = tmp_path / "records.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    options = ("--epochs", 6, "--learning-rate", 4e-3, "--output", tmp_path / "out")
    found, commonest = accuracies(encoder, path, *options)
    assert commonest < 0.65
    assert found > 0.95
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.id2label == {0: "en", 1: "es"}


def test_without_records_the_topics_of_stories_are_learnt_even_from_initial_weights(
    encoder: Path, tmp_path: Path, accuracies
) -> None:
    options = ("--limit", 1000, "--epochs", 3, "--learning-rate", 4e-3, "--output", tmp_path / "out")
    found, commonest = accuracies(encoder, "--untrained", *options)
    assert found > 2 * commonest
