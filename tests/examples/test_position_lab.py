"""The position lab trains with each scheme, measures the same tokens at every length, and writes what it found."""

import json
import random
from pathlib import Path

import position_lab
import pytest
import torch
from transformers import AutoTokenizer

from hf_minilm.data.world import World

SCRIPT = Path(position_lab.__file__)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Long documents: fifty stories each."""
    stories = [document.text for document in World(["en"]).documents(1200)]
    random.Random(0).shuffle(stories)
    lines = [json.dumps({"text": "\n\n".join(stories[start : start + 50])}) for start in range(0, 1200, 50)]
    path = tmp_path / "long.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_the_lab_writes_a_loss_for_each_scheme_and_length(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_script
) -> None:
    monkeypatch.setenv("HF_MINILM_CACHE", str(tmp_path / "cache"))
    output = tmp_path / "lab"
    settings = f"--corpus {corpus} --budget 2steps --vocab-size 300 --schemes rope alibi --output {output}"
    code, printed, errors = run_script(*settings.split())
    assert code == 0, errors
    losses = json.loads((output / "losses.json").read_text(encoding="utf-8"))
    assert {objective: list(schemes) for objective, schemes in losses.items()} == {
        "masked": ["rope", "alibi"],
        "causal": ["rope", "alibi"],
    }
    assert list(losses["masked"]["rope"]) == ["128", "256", "512", "1024"]
    assert all(0 < loss < 12 for schemes in losses.values() for by in schemes.values() for loss in by.values())
    assert (output / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert (output / "table.md").read_text(encoding="utf-8").count("| `alibi` |") == 2
    assert "| causal | `rope` |" in printed
    # Nothing that a window of 128 could not predict is asked for, whatever the window.
    tokenizer = AutoTokenizer.from_pretrained(output / "causal_rope" / "model")
    spans = position_lab.held_out_spans(str(corpus), tokenizer)
    assert spans.shape[1] == 1024
    assert spans.dtype == torch.int64


def test_a_corpus_that_is_absent_is_one_line_and_exit_code_2(tmp_path: Path, run_script) -> None:
    code, printed, errors = run_script("--corpus", tmp_path / "nowhere.txt", "--output", tmp_path / "lab")
    assert (code, printed) == (2, "")
    assert errors.startswith("position_lab: ")
    assert "nowhere.txt" in errors
    assert errors.count("\n") == 1
