"""Whole runs of an encoder-decoder, small: what they leave, that they resume, and that processes do not matter."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_minilm.evaluation.translation import translate
from hf_minilm.training.checkpoint import list_checkpoints
from hf_minilm.training.preparation import prepare_data
from hf_minilm.training.pretrain import pretrain
from hf_minilm.training.recipe import load_recipe

SMALL = {
    "model.preset": "vaswani2017",  # dropout and biases, so that every source of randomness takes part
    "model.overrides": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    "data.sequence_length": 96,
    "objective.label_smoothing": 0.1,
    "optimizer.schedule": "noam",
    "training.batch_rows": 4,
    "training.log_every": 1,
    "training.budget": "6steps",
    "training.save_every": "2steps",
    "evaluation.every": "3steps",
    "evaluation.rows": 8,
}
PAIRS = {
    "objective.name": "pairs",
    "data.corpus": "builtin:pairs",
    "data.world_documents": 60,
    "evaluation.translations": 3,
    "evaluation.num_beams": 2,
}
DENOISING = {"objective.name": "denoising", "data.world_documents": 60}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs and the token stores lie."""
    return tmp_path_factory.mktemp("seq2seq")


def settings(folder: Path, name: str, **more: Any) -> list[str]:
    merged = {**SMALL, **more, "output.folder": str(folder / name), "data.cache_folder": str(folder / "cache")}
    return [f"{field}={json.dumps(value)}" for field, value in merged.items()]


def train(folder: Path, name: str, **more: Any) -> Path:
    pretrain(load_recipe(None, settings(folder, name, **more)))
    return folder / name


def start(folder: Path, name: str, *, launcher: tuple[str, ...] = (), **more: Any) -> "subprocess.Popen[str]":
    words = [
        *launcher,
        "-m",
        "hf_minilm.cli.main",
        "pretrain",
        *(f"--set={each}" for each in settings(folder, name, **more)),
    ]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def metrics(folder: Path, name: str) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line[name] for line in lines if name in line]


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    return train(folder, "whole", **PAIRS)


def test_a_run_on_pairs_leaves_a_model_that_translates_and_a_report_that_says_how_well(whole: Path) -> None:
    report = json.loads((whole / "report.json").read_text(encoding="utf-8"))
    assert [(each["num_beams"], each["number"]) for each in report["scores"]] == [(1, 3), (2, 3)]
    assert len(report["translations"]) == 3
    model = AutoModelForSeq2SeqLM.from_pretrained(whole / "model", attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(whole / "model")
    sources = [each["source"] for each in report["translations"]]
    assert translate(model, tokenizer, sources, num_beams=2) == [each["output"] for each in report["translations"]]
    assert model.generation_config.max_new_tokens == 96


def test_a_run_on_pairs_learns(whole: Path) -> None:
    losses = metrics(whole, "held_out_loss")
    assert losses[-1] < losses[0]


def test_a_run_that_is_given_gaps_to_fill_leaves_a_model_that_reads_them(folder: Path) -> None:
    run = train(folder, "denoising", **DENOISING)
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert report["scores"] == []
    assert "Gaps filled in" in (run / "report.txt").read_text(encoding="utf-8")
    assert all("<extra_id_0>" in each["source"] for each in report["translations"])
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    assert len(tokenizer("one <extra_id_0> two")["input_ids"]) == len(tokenizer("one  two")["input_ids"]) + 1


@pytest.mark.parametrize("objective", [PAIRS, DENOISING], ids=["pairs", "denoising"])
def test_a_killed_run_goes_on_to_the_bits_of_an_uninterrupted_one(folder: Path, objective: dict[str, Any]) -> None:
    name = objective["objective.name"]
    uninterrupted = train(folder, f"{name}_uninterrupted", **objective)
    process = start(folder, f"{name}_killed", **objective)
    deadline = time.monotonic() + 200
    while not (folder / f"{name}_killed" / "checkpoints" / "checkpoint-4").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / f"{name}_killed" / "model").exists(), "the run ended before it could be killed"
    assert list_checkpoints(folder / f"{name}_killed" / "checkpoints")
    resumed = start(folder, f"{name}_killed", **objective)
    output, _ = resumed.communicate(timeout=240)
    assert resumed.returncode == 0, output[-2000:]
    assert "resuming after step" in output
    before, after = weights(uninterrupted), weights(folder / f"{name}_killed")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_two_processes_give_the_losses_of_one(folder: Path) -> None:
    # Dropout is drawn by process, so it is off: all else must be the same up to rounding.
    still = {"training.precision": "fp32", "model.overrides": {**SMALL["model.overrides"], "hidden_dropout": 0.0}}
    one = train(folder, "one", **PAIRS, **still, **{"training.micro_batch_rows": 3})
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    launched = start(folder, "two", launcher=launcher, **PAIRS, **still, **{"training.processes": 2})
    output, _ = launched.communicate(timeout=240)
    assert launched.returncode == 0, output[-3000:]
    assert metrics(folder / "two", "loss") == pytest.approx(metrics(one, "loss"), rel=1e-5)


def test_pairs_that_do_not_fit_are_counted_aloud(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = [f"a dog number {number}\tun perro número {number}" for number in range(200)]
    (tmp_path / "pairs.tsv").write_text(
        "\n".join([*lines, f"{' '.join(str(7919 * number) for number in range(90))}\tlargo"]) + "\n", encoding="utf-8"
    )
    train(folder, "own", **{**PAIRS, "data.corpus": str(tmp_path / "pairs.tsv"), "data.world_documents": 20_000})
    assert "left out of the training: 1 pairs longer than data.sequence_length" in capfd.readouterr().err


def test_a_model_of_two_widths_is_named_in_a_recipe(folder: Path) -> None:
    overrides = {**SMALL["model.overrides"], "encoder": {"hidden_size": 48}, "share_embeddings": False}
    run = train(folder, "widths", **{**PAIRS, "model.overrides": overrides})
    config = AutoModelForSeq2SeqLM.from_pretrained(run / "model").config
    assert (config.encoder.hidden_size, config.decoder.hidden_size) == (48, 32)


def test_held_out_pairs_are_spread_over_a_corpus_that_is_sorted(folder: Path, tmp_path: Path) -> None:
    lines = [f"{number:04d}\tnúmero {number}" for number in range(2000)]
    (tmp_path / "sorted.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    overrides = settings(
        folder, "sorted", **{**PAIRS, "data.corpus": str(tmp_path / "sorted.tsv"), "data.world_documents": 20_000}
    )
    data = prepare_data(load_recipe(None, overrides), tmp_path, quiet=True)
    everyone = data.held_out_pairs(10_000)
    chosen = data.held_out_pairs(7)
    assert len(set(chosen)) == 7
    places = [everyone.index(pair) for pair in chosen]
    assert places == [len(everyone) * each // 7 for each in range(7)]
    assert int(chosen[-1][0]) > 1500
