import errno
import logging
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModel, BertConfig, BertModel
from transformers.utils.logging import disable_progress_bar

from hf_minilm.training import checkpoint as module
from hf_minilm.training.checkpoint import (
    MANIFEST_FILE,
    DiskFullError,
    TrainingState,
    checkpoint_path,
    estimate_bytes,
    find_damage,
    list_checkpoints,
    load_training_state,
    newest_valid_checkpoint,
    remove_leftovers,
    save_checkpoint,
    save_training_checkpoint,
)
from hf_minilm.training.optimizer import build_optimizer, load_optimizer_state
from hf_minilm.training.recipe import OptimizerSettings, Recipe, recipe_from_dict, recipe_to_dict

STEPS = 40


class Injector:
    """Calls a fault at the n-th file operation: every open, mkdir, rename, remove, rmdir and fsync counts."""

    def __init__(self) -> None:
        self.count = 0
        self.fault_at = -1
        self.fault: Callable[[], None] | None = None
        self.keeps_failing = False
        sys.addaudithook(self._audit)

    def arm(self, fault_at: int, fault: Callable[[], None], *, keeps_failing: bool = False) -> None:
        self.count, self.fault_at, self.fault, self.keeps_failing = 0, fault_at, fault, keeps_failing

    def disarm(self) -> None:
        self.fault = None

    def tick(self) -> None:
        if self.fault is None:
            return
        self.count += 1
        if self.count == self.fault_at or (self.keeps_failing and self.count > self.fault_at):
            self.fault()

    def _audit(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}:
            self.tick()


@pytest.fixture(scope="module")
def installed_injector() -> Injector:
    return Injector()


@pytest.fixture
def injector(installed_injector: Injector, monkeypatch: pytest.MonkeyPatch) -> Iterator[Injector]:
    sync = os.fsync

    def counted_sync(descriptor: int) -> None:
        installed_injector.tick()
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", counted_sync)
    yield installed_injector
    installed_injector.disarm()


def writer(text: str) -> Callable[[Path], None]:
    """Write three files, one of them in a folder."""

    def write(folder: Path) -> None:
        (folder / "model.safetensors").write_text(text * 50)
        (folder / "inner").mkdir()
        (folder / "inner" / "part.json").write_text(text)
        (folder / "empty").write_text("")

    return write


def content(checkpoint: Path) -> str:
    return (checkpoint / "inner" / "part.json").read_text()


def fail_with(number: int) -> Callable[[], None]:
    def fault() -> None:
        raise OSError(number, os.strerror(number))

    return fault


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def prepare_child() -> None:
    """Leave what a fork must not share: a thread pool does not survive it, and tqdm's lock belongs to all processes.

    A child killed while it drew a progress bar would hold that lock for ever.
    """
    torch.set_num_threads(1)
    disable_progress_bar()


def run_in_child(action: Callable[[], object]) -> int:
    """Run an action in a forked process; give its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            prepare_child()
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def assert_one_whole_checkpoint_is_newest(folder: Path, allowed: dict[int, str]) -> None:
    """Nothing torn lies there under a checkpoint's name, and the newest is one of those allowed, with its content."""
    remove_leftovers(folder)
    checkpoints = list_checkpoints(folder)
    assert checkpoints
    assert {path.name for path in folder.iterdir()} == {path.name for path in checkpoints}
    assert [find_damage(checkpoint) for checkpoint in checkpoints] == [None] * len(checkpoints)
    newest = newest_valid_checkpoint(folder)
    assert newest is not None
    assert content(newest) in allowed[module.checkpoint_step(newest)].split("|")


def small_model(seed: int) -> BertModel:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 20}
    return BertModel(BertConfig(vocab_size=11, max_position_embeddings=9, **sizes)).eval()


def save_small(folder: Path, model: BertModel, optimizer: torch.optim.Optimizer, step: int, keep_last: int = 1) -> Path:
    state = TrainingState(step, tokens=100 * step, seconds=0.1 * step, recipe=recipe_to_dict(Recipe()))
    return save_training_checkpoint(
        folder, state, model=model, tokenizer=None, optimizer=optimizer, keep_last=keep_last
    )


def train_and_save(folder: Path) -> None:
    """Train to step STEPS from the newest valid checkpoint, saving after every step."""
    model = small_model(0)
    newest = newest_valid_checkpoint(folder)
    if newest is not None:
        model = BertModel.from_pretrained(newest).eval()
    optimizer = build_optimizer(model, OptimizerSettings())
    if newest is not None:
        load_optimizer_state(newest, optimizer)
    for step in range(load_training_state(newest).step if newest else 0, STEPS):
        ids = torch.randint(11, (3, 7), generator=torch.Generator().manual_seed(step))
        model(ids).last_hidden_state.square().mul(ids[..., None] % 3).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        save_small(folder, model, optimizer, step + 1)


def test_a_checkpoint_opens_as_a_model_as_it_lies_and_holds_the_recipe_and_no_pickle(tmp_path: Path) -> None:
    model = small_model(3)
    optimizer = build_optimizer(model, OptimizerSettings())
    recipe = recipe_from_dict({"training": {"budget": "7min"}, "optimizer": {"learning_rate": 0.1 + 0.2}})
    state = TrainingState(17, tokens=5, seconds=1 / 3, recipe=recipe_to_dict(recipe), losses={"best": 2 / 3, "año": 1})
    checkpoint = save_training_checkpoint(
        tmp_path / "run" / "checkpoints", state, model=model, tokenizer=None, optimizer=optimizer, keep_last=1
    )
    assert checkpoint == tmp_path / "run" / "checkpoints" / "checkpoint-17"
    opened = AutoModel.from_pretrained(checkpoint)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), opened.parameters(), strict=True))
    assert load_training_state(checkpoint) == state
    assert recipe_from_dict(load_training_state(checkpoint).recipe) == recipe
    assert {path.suffix for path in checkpoint.iterdir()} == {".json", ".safetensors"}
    assert not [path for path in checkpoint.iterdir() if path.read_bytes()[:2] in (b"\x80\x02", b"\x80\x04", b"PK")]


def test_the_last_ones_and_the_best_one_are_kept(tmp_path: Path) -> None:
    for step in range(10, 80, 10):
        save_checkpoint(tmp_path, step, writer(f"{step}"), keep_last=2, best_step=30 if step >= 30 else None)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-30", "checkpoint-60", "checkpoint-70"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_checkpoints_are_ordered_by_step_not_by_name_and_other_names_are_left_alone(tmp_path: Path) -> None:
    for name in ("checkpoint-old", "notes", "checkpoint-5.backup"):
        (tmp_path / name).mkdir()
    for step in (9, 10, 100):
        save_checkpoint(tmp_path, step, writer("x"), keep_last=3)
    remove_leftovers(tmp_path)
    assert [module.checkpoint_step(path) for path in list_checkpoints(tmp_path)] == [9, 10, 100]
    assert {"checkpoint-old", "notes", "checkpoint-5.backup"} <= {path.name for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="must be named checkpoint-STEP"):
        module.checkpoint_step(tmp_path / "notes")


def test_a_damaged_checkpoint_of_a_later_step_never_pushes_out_a_good_one_and_is_replaced_in_time(
    tmp_path: Path,
) -> None:
    save_checkpoint(tmp_path, 10, writer("ten"), keep_last=2)
    save_checkpoint(tmp_path, 20, writer("twenty"), keep_last=2)
    (checkpoint_path(tmp_path, 20) / "empty").unlink()
    save_checkpoint(tmp_path, 15, writer("fifteen"), keep_last=1)
    assert [module.checkpoint_step(path) for path in list_checkpoints(tmp_path)] == [15, 20]
    newest = newest_valid_checkpoint(tmp_path)
    assert newest is not None
    assert content(newest) == "fifteen"
    save_checkpoint(tmp_path, 20, writer("again"), keep_last=1)
    assert_one_whole_checkpoint_is_newest(tmp_path, {20: "again"})


def test_a_folder_without_a_valid_checkpoint_gives_none(tmp_path: Path) -> None:
    assert newest_valid_checkpoint(tmp_path / "absent") is None
    remove_leftovers(tmp_path / "absent")
    assert newest_valid_checkpoint(tmp_path) is None
    (tmp_path / "checkpoint-3").mkdir()
    assert newest_valid_checkpoint(tmp_path) is None


def test_keeping_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"keep_last \(0\) must be at least 1"):
        save_checkpoint(tmp_path, 1, writer("x"), keep_last=0)


@pytest.mark.parametrize("keeps_failing", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("second_step", [20, 10], ids=["next step", "same step"])
def test_an_error_at_any_file_operation_of_a_save_leaves_a_whole_newest_checkpoint(
    injector: Injector, tmp_path: Path, keeps_failing: bool, second_step: int
) -> None:
    failures = 0
    for fault_at in range(1, 200):
        folder = tmp_path / str(fault_at)
        save_checkpoint(folder, 10, writer("old"), keep_last=1)
        injector.arm(fault_at, fail_with(errno.EIO), keeps_failing=keeps_failing)
        try:
            save_checkpoint(folder, second_step, writer("new"), keep_last=1)
        except OSError:
            failures += 1
        finally:
            injector.disarm()
        assert_one_whole_checkpoint_is_newest(folder, {10: "old", 20: "new"} if second_step == 20 else {10: "old|new"})
        if injector.count < fault_at:
            break
    assert failures > 15
    assert injector.count < fault_at
    assert_one_whole_checkpoint_is_newest(folder, {second_step: "new"})


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("second_step", [20, 10], ids=["next step", "same step"])
def test_kill_9_at_any_file_operation_of_a_save_leaves_a_whole_newest_checkpoint(
    injector: Injector, tmp_path: Path, second_step: int
) -> None:
    codes = []
    for fault_at in range(1, 200):
        folder = tmp_path / str(fault_at)
        save_checkpoint(folder, 10, writer("old"), keep_last=1)

        def save(folder: Path = folder, fault_at: int = fault_at) -> None:
            injector.arm(fault_at, kill)
            save_checkpoint(folder, second_step, writer("new"), keep_last=1)

        codes.append(run_in_child(save))
        assert_one_whole_checkpoint_is_newest(folder, {10: "old", 20: "new"} if second_step == 20 else {10: "old|new"})
        if codes[-1] == 0:
            break
    assert codes[-1] == 0
    assert set(codes[:-1]) == {-signal.SIGKILL}
    assert len(codes) > 15


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("kills", [12, pytest.param(150, marks=pytest.mark.slow)])
def test_training_killed_at_random_times_ends_with_the_bits_of_training_without_a_kill(
    tmp_path: Path, kills: int
) -> None:
    generator = random.Random(5)
    landed = 0
    for _ in range(kills):
        had_one = newest_valid_checkpoint(tmp_path) is not None
        landed += _train_until_killed(tmp_path, after_seconds=generator.uniform(0.01, 0.35))
        remove_leftovers(tmp_path)
        left = list_checkpoints(tmp_path)
        assert [find_damage(path) for path in left] == [None] * len(left)
        assert left or not had_one
        if left and module.checkpoint_step(left[-1]) > STEPS - 5:
            shutil.rmtree(left.pop())  # begin again rather than kill a run that is over
    assert landed > kills // 2
    # Both in children, which have one thread: the number of threads decides the bits of a matrix product.
    for folder in (tmp_path, tmp_path / "without a kill"):
        assert run_in_child(lambda folder=folder: train_and_save(folder)) == 0
    resumed, whole = (checkpoint_path(folder, STEPS) for folder in (tmp_path, tmp_path / "without a kill"))
    for name in ("model.safetensors", "optimizer.safetensors", "optimizer.json", "training_state.json"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes(), name


def _train_until_killed(folder: Path, *, after_seconds: float) -> bool:
    child = os.fork()
    if child == 0:
        try:
            prepare_child()
            train_and_save(folder)
            os._exit(0)
        finally:
            os._exit(1)
    time.sleep(after_seconds)
    os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code == -signal.SIGKILL


@pytest.fixture
def two_checkpoints(tmp_path: Path) -> Path:
    model = small_model(0)
    optimizer = build_optimizer(model, OptimizerSettings())
    for step in (1, 2):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 0.1 * step)
        optimizer.step()
        save_small(tmp_path, model, optimizer, step, keep_last=2)
    return tmp_path


def test_every_flipped_bit_is_found_and_the_older_checkpoint_is_taken(
    two_checkpoints: Path, caplog: pytest.LogCaptureFixture
) -> None:
    newest = checkpoint_path(two_checkpoints, 2)
    generator = random.Random(1)
    for path in sorted(newest.iterdir()):
        whole = path.read_bytes()
        for _ in range(60 if path.name == MANIFEST_FILE else 20):
            torn = bytearray(whole)
            torn[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
            path.write_bytes(torn)
            with caplog.at_level(logging.WARNING):
                caplog.clear()
                assert newest_valid_checkpoint(two_checkpoints) == checkpoint_path(two_checkpoints, 1)
            assert [record.levelname for record in caplog.records] == ["WARNING"]
            assert re.search(rf"checkpoint \(.*checkpoint-2\) is damaged .*{re.escape(path.name)}", caplog.text)
        path.write_bytes(whole)
    assert newest_valid_checkpoint(two_checkpoints) == newest


def test_truncated_missing_linked_and_swapped_files_are_found(two_checkpoints: Path) -> None:
    newest, older = checkpoint_path(two_checkpoints, 2), checkpoint_path(two_checkpoints, 1)
    for path in sorted(newest.iterdir()):
        whole = path.read_bytes()
        for size in (0, 1, len(whole) - 1):
            path.write_bytes(whole[:size])
            assert (find_damage(newest) or "").startswith(path.name)
        path.unlink()
        assert find_damage(newest) == f"{path.name} is missing"
        if (older / path.name).read_bytes() != whole:
            shutil.copy(older / path.name, path)
            assert (find_damage(newest) or "").startswith(path.name)
            path.unlink()
        if path.name != MANIFEST_FILE:
            path.symlink_to(older / path.name)
            assert find_damage(newest) == f"{path.name} is missing"
            path.unlink()
        path.write_bytes(whole)
    assert find_damage(newest) is None


def test_a_whole_checkpoint_under_another_step_and_a_path_outside_are_found(two_checkpoints: Path) -> None:
    renamed = checkpoint_path(two_checkpoints, 3)
    checkpoint_path(two_checkpoints, 2).rename(renamed)
    assert find_damage(renamed) == f"{MANIFEST_FILE} is that of step 2"
    for name in ("../checkpoint-1/config.json", "/etc/passwd"):
        files = {name: {"size": 1, "sha256": ""}}
        (renamed / MANIFEST_FILE).write_bytes(module._manifest_bytes(3, files))
        assert find_damage(renamed) == f"{name} lies outside the checkpoint"
    for text in ("[]", "null", "[" * 100_000, "\udcff"):
        (renamed / MANIFEST_FILE).write_bytes(text.encode(errors="surrogateescape"))
        assert find_damage(renamed) == f"{MANIFEST_FILE} is not as it was written"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"step": 1, "surprise": 2}'])
def test_a_training_state_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "training_state.json").write_text(text)
    with pytest.raises(ValueError, match=r"training state \(.*\) must be JSON with step, tokens"):
        load_training_state(tmp_path)


def test_a_weight_that_is_not_finite_is_never_saved(two_checkpoints: Path) -> None:
    model = small_model(0)
    optimizer = build_optimizer(model, OptimizerSettings())
    with torch.no_grad():
        model.pooler.dense.weight[2, 3] = float("inf")
    with pytest.raises(ValueError, match=r"weights \(pooler.dense.weight\) must be finite"):
        save_small(two_checkpoints, model, optimizer, 3)
    assert newest_valid_checkpoint(two_checkpoints) == checkpoint_path(two_checkpoints, 2)


def test_too_little_room_is_seen_before_a_byte_is_written(
    two_checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model(0)
    usage = shutil.disk_usage(two_checkpoints)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(DiskFullError, match=r"\(1000 bytes free\) must have room .* \(about \d+ bytes\)") as caught:
        save_small(two_checkpoints, model, build_optimizer(model, OptimizerSettings()), 3)
    assert str(two_checkpoints) in str(caught.value)
    assert str(estimate_bytes(model)) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(list_checkpoints(two_checkpoints)) == 2


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
        RuntimeError("No space left on device (os error 28)"),
    ],
)
def test_a_disk_that_fills_up_during_the_save_is_named_whichever_library_met_it(
    two_checkpoints: Path, error: Exception
) -> None:
    def write(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise error

    with pytest.raises(DiskFullError, match=r"bytes free\) must have room for a checkpoint"):
        save_checkpoint(two_checkpoints, 3, write, keep_last=1)
    assert sorted(path.name for path in two_checkpoints.iterdir()) == ["checkpoint-1", "checkpoint-2"]


def test_another_error_of_the_writer_passes_as_it_is_and_leaves_nothing(two_checkpoints: Path) -> None:
    def write(folder: Path) -> None:
        raise KeyError("other")

    with pytest.raises(KeyError):
        save_checkpoint(two_checkpoints, 3, write, keep_last=1)
    assert sorted(path.name for path in two_checkpoints.iterdir()) == ["checkpoint-1", "checkpoint-2"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a file system of one's own needs the right to mount")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_really_fills_up_at_any_point_leaves_the_old_checkpoint_and_training_may_go_on(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "estimate_bytes", lambda model: 0)
    model = small_model(0)
    optimizer = build_optimizer(model, OptimizerSettings())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    size = sum(path.stat().st_size for path in save_small(small_disk, model, optimizer, 1).iterdir())
    for point in range(20):
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(max(shutil.disk_usage(small_disk).free - size * point // 20, 0)))
        with pytest.raises(DiskFullError, match="must have room for a checkpoint"):
            save_small(small_disk, model, optimizer, 2)
        ballast.unlink()
        assert sorted(path.name for path in small_disk.iterdir()) == ["checkpoint-1"]
        assert find_damage(checkpoint_path(small_disk, 1)) is None
    assert find_damage(save_small(small_disk, model, optimizer, 2)) is None


def test_the_estimate_is_close_to_the_size_of_a_checkpoint_and_never_below_it(tmp_path: Path) -> None:
    model = BertModel(BertConfig(vocab_size=20_000, hidden_size=64, num_hidden_layers=1, num_attention_heads=2))
    optimizer = build_optimizer(model, OptimizerSettings(name="adamw"))  # which keeps more than Muon
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    size = sum(path.stat().st_size for path in save_small(tmp_path, model, optimizer, 1).iterdir())
    assert size <= estimate_bytes(model) <= size + 9 * 2**20


def test_a_tied_weight_is_counted_once() -> None:
    model = nn.ModuleDict({"a": nn.Embedding(1000, 100), "b": nn.Linear(100, 1000, bias=False)})
    model["b"].weight = model["a"].weight
    assert estimate_bytes(model) - estimate_bytes(nn.Linear(1, 1, bias=False)) == 3 * 4 * (100_000 - 1)


def test_saving_and_loading_touch_no_pickle(two_checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a pickle was written or read")

    for owner, name in ((torch, "load"), (torch, "save"), (pickle, "load"), (pickle, "loads"), (pickle, "dump")):
        monkeypatch.setattr(owner, name, refuse)
    for name in ("Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    newest = newest_valid_checkpoint(two_checkpoints)
    assert newest is not None
    model = BertModel.from_pretrained(newest)
    optimizer = build_optimizer(model, OptimizerSettings())
    load_optimizer_state(newest, optimizer)
    save_small(two_checkpoints, model, optimizer, load_training_state(newest).step + 1)
