"""What earlier versions wrote opens to the same numbers, and their runs go on (row R21)."""

import json
import tarfile
from pathlib import Path

import pytest
import torch
from keep_run import HALF, KEPT, LOGITS_FILE, OBJECTIVES, RUN, WHOLE, logits
from safetensors.torch import load_file

from hf_minilm.cli.main import main
from hf_minilm.training.checkpoint import find_damage, load_training_state

FILES = sorted(KEPT.glob("*.tar.gz"))


@pytest.fixture
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a kept run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_MINILM_CACHE", str(tmp_path / "cache"))
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / RUN


def losses(run: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def test_a_run_of_each_objective_is_kept() -> None:
    assert {path.name.removesuffix(".tar.gz").rpartition("-")[2] for path in FILES} == set(OBJECTIVES)


@pytest.mark.parametrize("run", FILES, indirect=True, ids=lambda path: path.name)
def test_a_checkpoint_of_an_earlier_version_is_whole_and_computes_what_it_did(run: Path) -> None:
    checkpoint = run / "checkpoints" / f"checkpoint-{HALF}"
    assert find_damage(checkpoint) is None
    assert load_training_state(checkpoint).step == HALF
    expected = load_file(run / LOGITS_FILE)["logits"]
    assert expected.std() > 0.01
    torch.testing.assert_close(logits(checkpoint), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("run", FILES, indirect=True, ids=lambda path: path.name)
def test_a_run_of_an_earlier_version_goes_on_to_the_losses_that_it_had(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = losses(run)
    assert main(["pretrain", f"{RUN}/recipe.yaml"]) == 0, capsys.readouterr().err
    assert f"resuming after step {HALF}" in capsys.readouterr().err
    found = losses(run)
    assert list(found) == list(expected) == list(range(1, WHOLE + 1))
    assert list(found.values()) == pytest.approx(list(expected.values()), rel=1e-4)
