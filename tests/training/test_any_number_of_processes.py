"""With `training.gradient_parts` a run has the same bits on any number of processes, and may change it on the way."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from forked_runs import Leg, rewound

from hf_minilm.data.world import World

HERE = Path(__file__).parent
SETTINGS: dict[str, Any] = {
    "data.sequence_length": 32,
    "model.preset": "bert",  # with dropout
    "model.overrides": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    "training.batch_rows": 8,
    "training.gradient_parts": 4,
    "training.log_every": 1,
    "training.budget": "6steps",
    "training.save_every": "2steps",
    "training.keep_last": 9,
    "training.compile": "no",
    "evaluation.every": "2steps",
    "evaluation.rows": 24,
}


def leg(folder: Path, processes: int, settings: dict[str, Any]) -> Leg:
    merged = {"data.corpus": str(folder.parent / "stories.jsonl"), **SETTINGS, **settings, "output.folder": str(folder)}
    return {
        "processes": processes,
        "words": ["pretrain", *(f"--set={key}={json.dumps(value)}" for key, value in merged.items())],
    }


def results(folder: Path) -> tuple[str, list[dict[str, float]]]:
    """Give the weights' checksum, and what was logged but for what the clock decides."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    timed = {"seconds", "tokens_per_second", "waiting_share"}
    logged = [{name: value for name, value in line.items() if name not in timed} for line in lines]
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest(), logged


@pytest.mark.parametrize(
    "settings",
    [
        {"training.precision": "bf16"},
        pytest.param({"training.precision": "fp32", "optimizer.name": "adamw"}, marks=pytest.mark.slow),
        pytest.param({"training.precision": "fp32", "training.micro_batch_rows": 1}, marks=pytest.mark.slow),
        pytest.param({"training.precision": "fp32", "objective.name": "causal"}, marks=pytest.mark.slow),
    ],
    ids=lambda settings: ", ".join(map(str, settings.values())),
)
def test_one_two_and_four_processes_and_all_in_turn_give_the_same_bits(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    if "objective.name" in settings:
        settings = {**settings, "model.preset": "gpt2"}
    lines = [json.dumps({"text": document.text}) for document in World(("es", "en")).documents(100)]
    (tmp_path / "stories.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    one, two, turns = (tmp_path / name for name in ("one", "two", "turns"))
    legs = [
        leg(one, 0, settings),
        leg(two, 2, settings),
        leg(turns, 2, settings),
        rewound(turns, 2, keep="first"),
        leg(turns, 1, settings),
        rewound(turns, 4, keep="second"),
        leg(turns, 4, settings),
    ]
    done = subprocess.run(
        [sys.executable, str(HERE / "forked_runs.py"), json.dumps(legs)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_MINILM_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resuming after step 4" in done.stderr
    assert "processes: 4, threads: 1 (before: processes: 1, threads: 1)" in done.stderr
    assert results(two) == results(one)
    assert results(turns) == results(one)
