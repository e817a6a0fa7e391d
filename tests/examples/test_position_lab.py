"""The position lab trains with each scheme, measures the same tokens at every length, and writes what it found."""

import json
import random
import runpy
import sys
from pathlib import Path

import pytest
import torch

from hf_minilm.data.world import World

SCRIPT = Path(__file__).parents[2] / "examples" / "position_lab.py"


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
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_MINILM_CACHE", str(tmp_path / "cache"))
    output = tmp_path / "lab"
    settings = f"--corpus {corpus} --budget 2steps --vocab-size 300 --schemes rope alibi --output {output}"
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *settings.split()])
    names = runpy.run_path(str(SCRIPT), run_name="__main__")
    losses = json.loads((output / "losses.json").read_text(encoding="utf-8"))
    assert {objective: list(schemes) for objective, schemes in losses.items()} == {
        "masked": ["rope", "alibi"],
        "causal": ["rope", "alibi"],
    }
    assert list(losses["masked"]["rope"]) == ["128", "256", "512", "1024"]
    assert all(0 < loss < 12 for schemes in losses.values() for by in schemes.values() for loss in by.values())
    assert (output / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert (output / "table.md").read_text(encoding="utf-8").count("| `alibi` |") == 2
    assert "| causal | `rope` |" in capsys.readouterr().out
    # Nothing that a window of 128 could not predict is asked for, whatever the window.
    spans = names["held_out_spans"](
        str(corpus), names["AutoTokenizer"].from_pretrained(output / "causal_rope" / "model")
    )
    assert spans.shape[1] == 1024
    assert spans.dtype == torch.int64
