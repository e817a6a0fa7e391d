"""The example that classifies texts fine-tunes a saved model, on records of one's own and on those that it makes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from hf_minilm import MiniLMConfig, MiniLMForPreTraining
from hf_minilm.data.tokenizer import train_tokenizer
from hf_minilm.data.world import World

SCRIPT = Path(__file__).parents[2] / "examples" / "classify_texts.py"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer(World().documents(60), kind="wordpiece", vocab_size="auto")
    torch.manual_seed(0)
    MiniLMForPreTraining(MiniLMConfig.preset("modern", "tiny", vocab_size=len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def accuracies(folder: Path, *words: object) -> list[float]:
    """Run the script in a folder; the accuracy that it prints, and that of the commonest class, in percent."""
    finished = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words)],
        cwd=folder,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    return [float(share) for share in re.findall(r"([\d.]+)%", finished.stdout.strip().splitlines()[-1])]


def test_two_languages_are_told_apart(model_folder: Path, tmp_path: Path) -> None:
    stories = World(seed=1).documents(300)
    records = [{"text": story.text, "label": story.source.split(":")[1]} for story in stories]
    path = tmp_path / "records.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    found, commonest = accuracies(
        tmp_path, model_folder, path, "--epochs", 6, "--learning-rate", 2e-3, "--output", "out"
    )
    assert commonest < 65
    assert found > 95
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.id2label == {0: "en", 1: "es"}


def test_without_records_the_topics_of_stories_are_learnt_even_from_initial_weights(
    model_folder: Path, tmp_path: Path
) -> None:
    found, commonest = accuracies(tmp_path, model_folder, "--untrained", "--epochs", 1, "--learning-rate", 2e-3)
    assert found > 2 * commonest
