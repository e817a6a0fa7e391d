"""Whole runs, small: resumed ones against uninterrupted ones, two processes against one."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from hf_minilm.data.world import World

SMALL = {
    "data.sequence_length": "64",
    "model.preset": "bert",  # dropout and biases, so that every source of randomness takes part
    "model.size": "tiny",
    "training.batch_rows": "6",
    "training.log_every": "1",
    "training.budget": "8steps",
    "training.save_every": "2steps",
    "evaluation.every": "4steps",
    "evaluation.rows": "8",
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for run folders, with the corpus that they train on."""
    folder = tmp_path_factory.mktemp("runs")
    lines = [json.dumps({"text": document.text}) for document in World(("es", "en")).documents(150)]
    (folder / "stories.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def command(folder: Path, *, module: bool = False, **settings: str) -> list[str]:
    merged = {**SMALL, **{name.replace("__", "."): value for name, value in settings.items()}}
    places = {"data.corpus": str(folder.parent / "stories.jsonl"), "output.folder": str(folder)}
    sets = [f"--set={name}={value}" for name, value in {**merged, **places}.items()]
    entry = ["-m", "hf_minilm.cli.main"] if module else [sys.executable, "-m", "hf_minilm.cli.main"]
    return [*entry, "pretrain", *sets]


def environment(cache: Path, *, cuda: bool = False) -> dict[str, str]:
    devices = {} if cuda else {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return {**os.environ, "HF_MINILM_CACHE": str(cache), "HF_HUB_OFFLINE": "1", **devices}


def run(words: list[str], cache: Path, *, cuda: bool = False) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        env=environment(cache, cuda=cuda),
        capture_output=True,
        text=True,
        timeout=240,
        stdin=subprocess.DEVNULL,
    )


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()


def logged(folder: Path, name: str) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line[name] for line in lines if name in line]


def losses(folder: Path) -> list[float]:
    return logged(folder, "total_loss")


@pytest.fixture(scope="module")
def whole(runs: Path, cache: Path) -> Path:
    folder = runs / "whole"
    finished = run(command(folder), cache)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return folder


def test_whoever_may_read_the_configuration_may_read_the_weights_and_the_moments(whole: Path) -> None:
    files = list(whole.rglob("*.safetensors"))
    assert {path.name for path in files} == {"model.safetensors", "optimizer.safetensors"}
    for path in files:
        assert path.stat().st_mode == path.with_name("config.json").stat().st_mode


def test_the_share_of_the_time_spent_waiting_for_data_is_logged(whole: Path) -> None:
    shares = logged(whole, "waiting_share")
    assert len(shares) == 8
    assert all(0 < share < 1 for share in shares)


def test_a_killed_run_goes_on_to_the_bits_of_an_uninterrupted_one(whole: Path, runs: Path, cache: Path) -> None:
    folder = runs / "killed"
    process = subprocess.Popen(
        command(folder), env=environment(cache), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 200
    while not (folder / "checkpoints" / "checkpoint-4").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "model").exists(), "the run ended before it could be killed"
    resumed = run(command(folder), cache)
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert "resuming after step" in resumed.stderr
    assert resumed.stderr.count("native twins: ") == 1
    assert weights(folder) == weights(whole)
    assert losses(folder) == losses(whole)


def test_a_stopped_run_is_saved_and_says_which_signal_it_was(whole: Path, runs: Path, cache: Path) -> None:
    folder = runs / "stopped"
    process = subprocess.Popen(
        command(folder), env=environment(cache), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    deadline = time.monotonic() + 200
    while not (folder / "checkpoints" / "checkpoint-2").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "the same command goes on" in output
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    last_step = max(json.loads(line)["step"] for line in lines)
    again = run(command(folder), cache)
    assert again.returncode == 0
    assert f"resuming after step {last_step}" in again.stderr
    assert weights(folder) == weights(whole)


def test_two_processes_give_the_losses_of_one(runs: Path, cache: Path) -> None:
    # Dropout is drawn by process, so it is off: all else must be the same up to rounding, of which Muon's iterations in
    # bf16 would make more.
    still = {
        "optimizer__name": "adamw",
        "optimizer__learning_rate": "2e-3",
        "model__overrides.hidden_dropout": "0.0",
        "model__overrides.attention_dropout": "0.0",
        "training__precision": "fp32",
    }
    one, two = runs / "one", runs / "two"
    assert run(command(one, **still, training__micro_batch_rows="2"), cache).returncode == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    launched = run([*launcher, *command(two, module=True, **still, training__processes="2")], cache)
    assert launched.returncode == 0, launched.stderr[-3000:]
    assert launched.stderr.count("native twins: ") == 1  # of two processes, one says it
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (one, two))
    for name, tensor in first.items():
        assert second[name].sub(tensor).abs().max() < 2e-4, name


def test_a_number_of_processes_that_is_not_the_one_asked_for_stops_at_once(runs: Path, cache: Path) -> None:
    stopped = run(command(runs / "alone", training__processes="2"), cache)
    assert stopped.returncode == 2
    assert "number of processes (1) must equal training.processes (2)" in stopped.stderr
    assert "torchrun --standalone --nproc_per_node 2" in stopped.stderr


def test_more_processes_than_rows_are_refused(runs: Path, cache: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    refused = run([*launcher, *command(runs / "crowded", module=True, training__batch_rows="1")], cache)
    assert refused.returncode != 0
    assert "training.batch_rows (1) must be at least the number of processes (2)" in refused.stderr
    assert "Traceback" not in refused.stderr.split("torch/distributed")[0]


def test_the_checkpoint_with_the_lowest_held_out_loss_is_kept_and_reported(runs: Path, cache: Path) -> None:
    # A rate that rises to the end, far too high: the first checkpoint is the best one.
    folder = runs / "diverging"
    rising = {"optimizer.learning_rate": "3", "optimizer.warmup_share": "1.0", "optimizer.gradient_clip": "0"}
    finished = run(command(folder, **rising, training__keep_last="1"), cache)
    assert finished.returncode == 0, finished.stderr[-2000:]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    held_out = {line["step"]: line["held_out_loss"] for line in lines if "held_out_loss" in line}
    assert list(held_out) == [2, 4, 6, 8]
    best = min(held_out, key=held_out.__getitem__)
    assert best < 8
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {f"checkpoint-{best}", "checkpoint-8"}
    assert str(folder / "checkpoints" / f"checkpoint-{best}") in finished.stdout


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_killed_run_on_a_gpu_goes_on_to_the_bits_of_an_uninterrupted_one(
    runs: Path, cache: Path, precision: str
) -> None:
    settings = {"training__precision": precision, "training__budget": "40steps"}
    whole, halved = runs / f"whole_{precision}", runs / f"halved_{precision}"
    assert run(command(whole, **settings), cache, cuda=True).returncode == 0
    assert "on cuda" in (whole / "report.txt").read_text(encoding="utf-8")
    process = subprocess.Popen(
        command(halved, **settings),
        env=environment(cache, cuda=True),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 200
    while not (halved / "checkpoints" / "checkpoint-4").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (halved / "model").exists(), "the run ended before it could be killed"
    resumed = run(command(halved, **settings), cache, cuda=True)
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert "resuming after step" in resumed.stderr
    assert weights(halved) == weights(whole)


@pytest.mark.gpu
def test_a_gpu_gives_the_losses_of_a_cpu(runs: Path, cache: Path) -> None:
    still = {"model__overrides.hidden_dropout": "0.0", "model__overrides.attention_dropout": "0.0"}
    # Muon's iterations are in bf16 on a GPU.
    optimizer = {"optimizer__name": "adamw", "optimizer__learning_rate": "2e-3"}
    settings = {**still, **optimizer, "training__precision": "fp32"}
    on_cpu, on_gpu = runs / "on_cpu", runs / "on_gpu"
    assert run(command(on_cpu, **settings), cache).returncode == 0
    assert run(command(on_gpu, **settings), cache, cuda=True).returncode == 0
    assert losses(on_gpu) == pytest.approx(losses(on_cpu), rel=1e-4)


def test_a_finished_run_is_not_trained_again(whole: Path, cache: Path) -> None:
    before = weights(whole)
    again = run(command(whole), cache)
    assert again.returncode == 0
    assert "finished before" in again.stdout
    assert weights(whole) == before


def test_a_folder_of_another_run_is_left_alone(whole: Path, cache: Path) -> None:
    refused = run(command(whole, training__seed="7"), cache)
    assert refused.returncode == 2
    assert refused.stderr.strip().splitlines()[-1].startswith("hf-minilm: output.folder")
    assert "training.seed: 0 -> 7" in refused.stderr
