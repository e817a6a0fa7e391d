"""The example that classifies texts fine-tunes a saved model, on records of one's own and on those that it makes."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from hf_minilm import MiniLMConfig, MiniLMForPreTraining
from hf_minilm.data.tokenizer import train_tokenizer
from hf_minilm.data.world import World

SCRIPT = Path(__file__).parents[2] / "examples" / "classify_texts.py"

pytestmark = [
    # The script's Trainer looks for an accelerator, and torch remarks that there is none.
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning"),
]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer(World().documents(60), kind="wordpiece", vocab_size="auto")
    torch.manual_seed(0)
    MiniLMForPreTraining(MiniLMConfig.preset("modern", "tiny", vocab_size=len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def accuracies(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run the script; the accuracy that it prints, and that of the commonest class, in percent."""

    def run(*words: object) -> list[float]:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, words)])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        last_line = capsys.readouterr().out.strip().splitlines()[-1]
        return [float(share) for share in re.findall(r"([\d.]+)%", last_line)]

    return run


def test_records_that_one_word_tells_apart_are_told_apart(model_folder: Path, tmp_path: Path, accuracies) -> None:
    stories = [document.text for document in World(seed=1).documents(300)]
    records = [{"text": text.partition(". ")[2], "label": "es" if " el " in text else "en"} for text in stories]
    path = tmp_path / "records.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    found, commonest = accuracies(model_folder, path, "--epochs", 4, "--output", tmp_path / "out")
    assert commonest < 65
    assert found > 95
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.id2label == {0: "en", 1: "es"}


def test_without_records_the_topics_of_stories_are_learnt_even_from_initial_weights(
    model_folder: Path, tmp_path: Path, accuracies
) -> None:
    found, commonest = accuracies(model_folder, "--untrained", "--epochs", 1, "--output", tmp_path / "out")
    assert found > 2 * commonest
