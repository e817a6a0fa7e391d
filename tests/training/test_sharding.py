"""The model shared out over processes: the numbers of one process, and checkpoints for any number of them."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from forked_runs import Leg, rewound
from safetensors.torch import load_file

from hf_minilm.data.world import World
from hf_minilm.training.compilation import can_compile
from hf_minilm.training.pretrain import claim_folder
from hf_minilm.training.recipe import TrainingSettings, load_recipe
from hf_minilm.training.sharded_muon import deal_out
from hf_minilm.training.sharding import processes_of_a_copy

HERE = Path(__file__).parent
SMALL = {
    "data.sequence_length": "64",
    "model.preset": "bert",
    "model.size": "tiny",
    "model.overrides.num_hidden_layers": "2",
    "training.batch_rows": "7",  # not a multiple of the processes
    "training.budget": "6steps",
    "training.save_every": "2steps",
    "training.keep_last": "9",
    "training.log_every": "1",
    "training.precision": "fp32",
    "evaluation.every": "2steps",
    "evaluation.rows": "8",
}
# Dropout is drawn by process: without it all else is the same up to rounding, of which Muon's iterations make more.
STILL = {"model.overrides.hidden_dropout": "0.0", "model.overrides.attention_dropout": "0.0"}
ADAMW = {"optimizer.name": "adamw", "optimizer.learning_rate": "2e-3"}
SHARDED, DATA = {"training.parallelism": "sharded"}, {"training.parallelism": "data"}
COPIES = {**SHARDED, "training.shard_over": "2"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for run folders, with the corpus that they train on."""
    folder = tmp_path_factory.mktemp("runs")
    lines = [json.dumps({"text": document.text}) for document in World(("es", "en")).documents(150)]
    (folder / "stories.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def leg(folder: Path, processes: int, *settings: dict[str, str]) -> Leg:
    """Make a run over so many processes that a launcher starts, or with 0 over one that nothing started."""
    merged = {"data.corpus": str(folder.parent / "stories.jsonl"), **SMALL}
    for some in settings:
        merged |= some
    words = [f"--set={name}={value}" for name, value in {**merged, "output.folder": str(folder)}.items()]
    return {"processes": processes, "words": ["pretrain", *words]}


def run(legs: list[Leg], cache: Path) -> str:
    """Make the runs, and give what they said."""
    script = [sys.executable, str(HERE / "forked_runs.py"), json.dumps(legs)]
    cpu = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "HF_MINILM_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(script, env={**os.environ, **cpu}, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def logged(folder: Path, name: str = "loss") -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line[name] for line in lines if name in line]


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def runs(folder: Path) -> tuple[Path, str]:
    """One recipe in one process, in two that have all of it and in two that share it, which is gone on with twice."""
    shared = folder / "shared"
    legs = [
        leg(folder / "one", 0, STILL, ADAMW),
        leg(folder / "data", 2, STILL, ADAMW),
        leg(shared, 2, STILL, ADAMW, SHARDED),
        rewound(shared, 4, keep="shared_whole"),
        leg(shared, 2, STILL, ADAMW, SHARDED),
        rewound(shared, 2, keep="shared_resumed"),
        leg(shared, 1, STILL, ADAMW, SHARDED),
        rewound(shared, 4, keep="shared_one"),
        leg(shared, 4, STILL, ADAMW, SHARDED),
    ]
    return folder, run(legs, folder / "cache")


def test_a_shared_model_has_the_losses_of_a_whole_one(runs: tuple[Path, str]) -> None:
    folder, said = runs
    assert said.count("model shared out, processes: 2") == 2
    for name in ("loss", "total_loss", "held_out_loss"):
        shared = logged(folder / "shared_whole", name)
        assert len(shared) in (3, 6)
        assert shared == pytest.approx(logged(folder / "one", name), rel=1e-5)
        assert shared == pytest.approx(logged(folder / "data", name), rel=1e-5)


def test_a_shared_model_resumes_to_the_same_bits(runs: tuple[Path, str]) -> None:
    folder, said = runs
    assert said.count("resuming after step 4; fp32, sdpa attention, model shared out, processes: 2") == 1
    assert weights(folder / "shared_resumed") == weights(folder / "shared_whole")
    for name in ("loss", "held_out_loss"):
        assert logged(folder / "shared_resumed", name) == logged(folder / "shared_whole", name)


def test_another_number_of_processes_goes_on(runs: tuple[Path, str]) -> None:
    folder, said = runs
    assert said.count("resuming after step 2; fp32, sdpa attention, the one process has all of the model") == 1
    assert said.count("resuming after step 4; fp32, sdpa attention, model shared out, processes: 4") == 1
    for name in ("loss", "total_loss", "held_out_loss"):
        assert logged(folder / "shared", name) == pytest.approx(logged(folder / "one", name), rel=1e-5)


def test_a_checkpoint_of_a_shared_model_is_that_of_a_whole_one(runs: tuple[Path, str]) -> None:
    folder, _ = runs
    one, shared = (folder / name / "checkpoints" / "checkpoint-6" for name in ("one", "shared_whole"))
    assert {path.name for path in shared.iterdir()} == {path.name for path in one.iterdir()}
    for file in ("model.safetensors", "optimizer.safetensors"):
        first, second = (load_file(checkpoint / file) for checkpoint in (one, shared))
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            torch.testing.assert_close(second[name], tensor, rtol=0, atol=2e-4, msg=lambda text, name=name: name + text)
    first, second = (json.loads((checkpoint / "optimizer.json").read_text("utf-8")) for checkpoint in (one, shared))
    assert second == first


@pytest.mark.parametrize(
    ("processes", "copy_size"),
    [(2, 2), pytest.param(4, 4, marks=pytest.mark.slow), pytest.param(4, 2, id="two copies")],
)
def test_gradients_and_steps_of_a_shared_model_are_those_of_a_whole_one(processes: int, copy_size: int) -> None:
    script = [sys.executable, str(HERE / "sharded_models.py"), str(processes), "cpu", str(copy_size)]
    cpu = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(script, env=cpu, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.gpu
def test_gradients_and_steps_of_a_shared_model_are_those_of_a_whole_one_on_a_gpu() -> None:
    script = [sys.executable, str(HERE / "sharded_models.py"), "1", "cuda"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]


def test_one_process_shares_nothing_out_unless_a_launcher_gives_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    sharded, data = TrainingSettings(parallelism="sharded"), TrainingSettings()
    assert processes_of_a_copy(sharded, num_processes=2) == 2
    assert processes_of_a_copy(data, num_processes=2) == 1
    assert processes_of_a_copy(data, num_processes=1) == 1
    with pytest.raises(ValueError, match=r"\(sharded\) must have several processes .*: torchrun --standalone --nproc_"):
        processes_of_a_copy(sharded, num_processes=1)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert processes_of_a_copy(sharded, num_processes=1) == 1


def test_copies_that_processes_share_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TrainingSettings(parallelism="sharded", shard_over=4)
    assert [processes_of_a_copy(settings, num_processes=number) for number in (4, 8)] == [4, 4]
    for number in (2, 6):
        with pytest.raises(ValueError, match=rf"shard_over \(4\) must divide the number of processes \({number}\)"):
            processes_of_a_copy(settings, num_processes=number)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert processes_of_a_copy(settings, num_processes=1) == 1
    with pytest.raises(ValueError, match=r"training.shard_over \(2\) must stay null with training.parallelism data"):
        load_recipe(None, ["training.shard_over=2"])


def test_a_run_goes_on_in_the_other_mode_but_not_with_other_settings(tmp_path: Path) -> None:
    recipe = load_recipe(None, ["training.parallelism=sharded"])
    claim_folder(recipe, tmp_path)
    (tmp_path / "checkpoints" / "checkpoint-2").mkdir(parents=True)
    claim_folder(load_recipe(None, []), tmp_path)
    with pytest.raises(ValueError, match=r"differs in training.seed: 0 -> 1"):
        claim_folder(load_recipe(None, ["training.seed=1"]), tmp_path)


def test_matrices_are_dealt_out_by_their_work() -> None:
    shapes = [torch.Size(each) for each in [(8, 8), (8, 32), (32, 8), (8, 8), (8, 8), (8, 8)]]
    assert deal_out(shapes, 1) == [0] * 6
    assert deal_out(shapes, 2) == [0, 0, 1, 1, 0, 1]
    assert sorted(deal_out(shapes, 9)) == [0, 1, 2, 3, 4, 5]


def test_copies_of_a_shared_model_train_together_and_any_other_sharing_goes_on(folder: Path, tmp_path: Path) -> None:
    settings = [STILL, ADAMW, {"data.corpus": str(folder / "stories.jsonl")}]
    one, copies = tmp_path / "one", tmp_path / "copies"
    legs = [
        leg(one, 0, *settings),
        leg(copies, 4, *settings, COPIES),
        rewound(copies, 4, keep="whole"),
        leg(copies, 4, *settings, COPIES),
        rewound(copies, 2, keep="resumed"),
        leg(copies, 2, *settings, COPIES),
    ]
    said = run(legs, folder / "cache")
    assert said.count("2 copies of the model, each shared out, processes: 4") == 2
    assert said.count("attention, model shared out, processes: 2") == 1
    assert weights(tmp_path / "resumed") == weights(tmp_path / "whole")
    for name in ("loss", "total_loss", "held_out_loss"):
        assert logged(tmp_path / "whole", name) == pytest.approx(logged(one, name), rel=1e-5)
        assert logged(copies, name) == pytest.approx(logged(one, name), rel=1e-5)


@pytest.mark.slow
def test_dropout_and_parts_of_a_batch_resume_to_the_same_bits_too(folder: Path, tmp_path: Path) -> None:
    settings = [SHARDED, {"data.corpus": str(folder / "stories.jsonl"), "training.micro_batch_rows": "2"}]
    run_folder = tmp_path / "run"
    legs = [leg(run_folder, 2, *settings), rewound(run_folder, 2, keep="whole"), leg(run_folder, 2, *settings)]
    run(legs, folder / "cache")
    assert weights(run_folder) == weights(tmp_path / "whole")
    assert logged(run_folder) == logged(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.skipif(not can_compile(), reason="needs a C++ compiler")
def test_compiled_layers_of_a_shared_model_have_the_losses_of_plain_ones(folder: Path, tmp_path: Path) -> None:
    settings = [STILL, ADAMW, {"data.corpus": str(folder / "stories.jsonl")}]
    plain, compiled = tmp_path / "plain", tmp_path / "compiled"
    legs = [leg(plain, 0, *settings), leg(compiled, 2, *settings, SHARDED, {"training.compile": "yes"})]
    assert "compiled, model shared out, processes: 2" in run(legs, folder / "cache")
    assert logged(compiled) == pytest.approx(logged(plain), rel=1e-5)


MODELS = {
    "masked": {"model.preset": "bert"},
    "causal": {"objective.name": "causal", "model.preset": "gpt2", "model.overrides.tie_word_embeddings": "false"},
    "denoising": {"objective.name": "denoising", "model.preset": "modern"},
}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("model", MODELS)
def test_every_combination_goes_from_two_processes_to_one_to_four(
    tmp_path: Path, folder: Path, model: str, optimizer: str, precision: str
) -> None:
    settings = {**STILL, **MODELS[model], "optimizer.name": optimizer, "optimizer.learning_rate": "2e-3"}
    settings |= {"training.precision": precision, "data.corpus": str(folder / "stories.jsonl")}
    shared, one = tmp_path / "shared", tmp_path / "one"
    legs = [
        leg(one, 0, settings),
        leg(shared, 2, settings, SHARDED),
        rewound(shared, 4, keep="whole"),
        leg(shared, 2, settings, SHARDED),
        rewound(shared, 2, keep="resumed"),
        leg(shared, 0, settings, DATA),
        rewound(shared, 4, keep="by_one"),
        leg(shared, 4, settings, SHARDED),
        rewound(shared, 2, keep="by_four"),
        leg(shared, 4, settings, COPIES),
    ]
    said = run(legs, folder / "cache")
    assert said.count("model shared out") == 3
    assert said.count("2 copies of the model, each shared out") == 1
    assert weights(tmp_path / "resumed") == weights(tmp_path / "whole")
    assert logged(tmp_path / "resumed") == logged(tmp_path / "whole")
    tolerance = 1e-5 if (precision, optimizer) == ("fp32", "adamw") else 1e-4 if precision == "fp32" else 3e-3
    for name in ("loss", "held_out_loss"):
        assert logged(tmp_path / "whole", name) == pytest.approx(logged(one, name), rel=tolerance)
        assert logged(tmp_path / "by_four", name) == pytest.approx(logged(one, name), rel=tolerance)
        assert logged(shared, name) == pytest.approx(logged(one, name), rel=tolerance)
