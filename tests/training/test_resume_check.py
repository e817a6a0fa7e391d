"""`hf-minilm resume-check` proves that a killed run goes on, and names the first difference where it does not."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hf_minilm.cli.main import main
from hf_minilm.training.recipe import Recipe, load_recipe
from hf_minilm.training.resume_check import Plan, compare

LINES = [
    {"step": 1, "loss": 3.5, "learning_rate": 0.1, "seconds": 1.0, "tokens_per_second": 10.0, "waiting_share": 0.1},
    {"step": 2, "loss": 3.25, "learning_rate": 0.05, "seconds": 2.0},
    {"step": 2, "held_out_loss": 3.0},
]


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Make the folders of two equal runs of two steps."""
    for name in ("whole", "halved"):
        write_run(tmp_path / name, LINES, torch.arange(6.0), seconds=1.0 if name == "whole" else 9.0)
    return tmp_path / "whole", tmp_path / "halved"


def write_run(folder: Path, lines: list[dict[str, Any]], weight: torch.Tensor, *, seconds: float = 1.0) -> None:
    checkpoint = folder / "checkpoints" / "checkpoint-2"
    checkpoint.mkdir(parents=True, exist_ok=True)
    timed = [{**line, "seconds": seconds} for line in lines]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in timed), encoding="utf-8")
    save_file({"weight": weight, "bias": torch.ones(2)}, checkpoint / "model.safetensors")
    save_file({"weight.exp_avg": weight * 2}, checkpoint / "optimizer.safetensors")


def plan(*, processes_after: int = 1, recipe: Recipe | None = None) -> Plan:
    return Plan(recipe or Recipe(), before=1, after=1, processes=1, processes_after=processes_after)


def test_equal_runs_have_no_difference_whatever_the_clock_said(runs: tuple[Path, Path]) -> None:
    outcome = compare(plan(), *runs, killed_after=1)
    assert outcome.difference is None
    assert (outcome.losses, outcome.tensors) == (2, 3)


def test_the_first_loss_that_differs_is_named_before_any_tensor(runs: tuple[Path, Path]) -> None:
    changed = [LINES[0], {**LINES[1], "loss": math.nextafter(3.25, 4)}, LINES[2]]
    write_run(runs[1], changed, torch.zeros(6))
    assert (
        compare(plan(), *runs, killed_after=1).difference
        == "loss of step 2: 3.25 in one go, 3.2500000000000004 with a kill"
    )


def test_a_step_that_one_run_lacks_is_a_difference(runs: tuple[Path, Path]) -> None:
    write_run(runs[1], LINES[:1], torch.arange(6.0))
    assert (compare(plan(), *runs, killed_after=1).difference or "").startswith("held_out_loss of step 2: 3.0 in one")


@pytest.mark.parametrize(
    ("weight", "named"),
    [
        (torch.tensor([0, 1, 2, 3, 4, 5.5]), "tensor weight: up to 0.5 apart"),
        (torch.arange(5.0), r"tensor weight: torch.float32 [6] in one go, torch.float32 [5] with a kill"),
        (torch.arange(6.0).double(), "tensor weight: torch.float32 [6] in one go, torch.float64 [6] with a kill"),
    ],
)
def test_the_first_tensor_that_differs_is_named(runs: tuple[Path, Path], weight: torch.Tensor, named: str) -> None:
    write_run(runs[1], LINES, weight)
    assert compare(plan(), *runs, killed_after=1).difference == named


def test_bits_are_promised_on_as_many_processes_or_with_parts_of_the_gradient() -> None:
    assert plan().is_exact
    assert not plan(processes_after=2).is_exact
    assert plan(processes_after=2, recipe=load_recipe(None, ["training.gradient_parts=2"])).is_exact


def test_losses_on_another_number_of_processes_may_differ_by_rounding_alone(runs: tuple[Path, Path]) -> None:
    for factor, differs in ((1 + 1e-6, False), (1 + 1e-4, True)):
        write_run(runs[1], [LINES[0], {**LINES[1], "loss": 3.25 * factor}, LINES[2]], torch.zeros(6))
        assert (compare(plan(processes_after=2), *runs, killed_after=1).difference is not None) == differs


SMALL = [
    *("--set=data.world_documents=60", "--set=data.sequence_length=32", "--set=training.batch_rows=4"),
    *(
        "--set=model.overrides={hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2}",
        "--set=model.preset=bert",
    ),
]


@pytest.mark.parametrize(
    ("words", "how"),
    [
        ([], "bit by bit"),
        pytest.param(["--processes=2", "--set=training.precision=bf16"], "bit by bit", marks=pytest.mark.slow),
        pytest.param(
            ["--processes=2", "--processes-after=1", "--set=training.gradient_parts=4"],
            "bit by bit",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [
                *(
                    "--processes=2",
                    "--processes-after=1",
                    "--set=training.precision=fp32",
                    "--set=optimizer.name=adamw",
                ),
                *("--set=model.preset=modern", "--set=optimizer.learning_rate=1e-3"),
            ],
            "up to rounding",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_real_run_is_killed_and_found_equal(
    words: list[str], how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_MINILM_CACHE", str(tmp_path / "cache"))
    written = tmp_path / "found.json"
    arguments = ["resume-check", "--before=3", "--after=40", f"--json={written}", *SMALL, *words]
    assert main(arguments) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert f"{how}:" in said
    assert "equal; SHA-256 of the weights" in said
    found = json.loads(written.read_text(encoding="utf-8"))
    assert found["difference"] is None
    assert found["losses"] == 43
    assert 3 <= found["killed_after"] < 43


def test_a_run_that_fails_is_said_in_one_line_with_what_it_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["resume-check", f"--set=data.corpus={tmp_path}/nowhere.txt"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "nowhere.txt" in lines[0]


def test_a_file_that_cannot_be_written_is_said_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["resume-check", f"--json={tmp_path}/nowhere/found.json", "--before=3", "--after=40", *SMALL]
    assert main(arguments) == 2
    assert "nowhere/found.json) must be in a folder that exists; make it first." in capsys.readouterr().err


def test_steps_and_processes_begin_at_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume-check", "--before=0"]) == 2
    assert "--before (0) must be at least 1" in capsys.readouterr().err
