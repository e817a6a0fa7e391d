"""Checkpoints that were damaged, or made by somebody else, manifest and all: an error with a name, or exact weights.

What an attacker seals again is sealed: the manifest finds accidents. Then the weights and states themselves are looked
at, before anything is trained with them.
"""

import json
import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mutations import mutated
from safetensors.torch import load_file, save_file

from hf_minilm import MiniLMConfig, MiniLMForPreTraining
from hf_minilm.training import checkpoint as module
from hf_minilm.training.checkpoint import (
    TrainingState,
    find_damage,
    load_training_state,
    newest_valid_checkpoint,
    remove_leftovers,
    save_training_checkpoint,
)
from hf_minilm.training.checkpoint_model import load_model
from hf_minilm.training.optimizer import build_optimizer, load_optimizer_state
from hf_minilm.training.recipe import OptimizerSettings, Recipe, recipe_to_dict

FIELDS = {"vocab_size": 23, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
WEIGHTS, MOMENTS, SCALARS, STATE = (
    "model.safetensors",
    "optimizer.safetensors",
    "optimizer.json",
    "training_state.json",
)
REFUSALS = (ValueError, OSError)


def build() -> tuple[MiniLMForPreTraining, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = MiniLMForPreTraining(MiniLMConfig(**FIELDS))
    return model, build_optimizer(model, OptimizerSettings())


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, optimizer = build()
    for _ in range(2):
        model(torch.arange(12).reshape(2, 6)).prediction_logits.square().mean().backward()
        optimizer.step()
    state = TrainingState(step=2, tokens=24, seconds=1.0, recipe=recipe_to_dict(Recipe()), losses={"best_step": 2})
    settings: dict[str, Any] = {"model": model, "tokenizer": None, "optimizer": optimizer, "keep_last": 2}
    return save_training_checkpoint(tmp_path_factory.mktemp("checkpoints"), state, **settings)


@pytest.fixture
def checkpoint(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / original.name))


def seal(checkpoint: Path) -> None:
    """Write the manifest anew, as an attacker would."""
    (checkpoint / "manifest.json").unlink(missing_ok=True)
    module._seal(checkpoint, 2)


def resume(checkpoint: Path) -> MiniLMForPreTraining:
    """Open all of a checkpoint, as a run that goes on does."""
    load_training_state(checkpoint)
    model = load_model(checkpoint, MiniLMForPreTraining, MiniLMConfig(**FIELDS), attention="sdpa")
    load_optimizer_state(checkpoint, build_optimizer(model, OptimizerSettings()))
    return model


@pytest.mark.parametrize("name", [WEIGHTS, MOMENTS])
@pytest.mark.parametrize("number", [60, pytest.param(5_000, marks=[pytest.mark.slow, pytest.mark.timeout(3_600)])])
def test_a_mutation_is_found_by_the_manifest_and_when_it_was_sealed_again_by_what_it_is(
    name: str, number: int, checkpoint: Path, original: Path, bounded: Callable
) -> None:
    draw, content = random.Random(number), (original / name).read_bytes()
    refused = 0
    with bounded(seconds=20 + number / 10, megabytes=300):
        for _ in range(number):
            changed = mutated(content, draw)
            if changed == content:
                continue
            (checkpoint / name).write_bytes(changed)
            assert str(find_damage(checkpoint)).startswith(name)
            seal(checkpoint)
            assert newest_valid_checkpoint(checkpoint.parent) == checkpoint
            try:
                model = resume(checkpoint)
            except REFUSALS:
                refused += 1
            else:  # other numbers in the place of the old ones, as they may be after any step
                assert all(bool(torch.isfinite(weight).all()) for weight in model.parameters())
                assert load_file(checkpoint / name).keys() == load_file(original / name).keys()
            shutil.copy(original / "manifest.json", checkpoint)
    assert refused


def tensors(checkpoint: Path, name: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    loaded = {key: value.clone() for key, value in load_file(checkpoint / name).items()}
    change(loaded)
    save_file(loaded, checkpoint / name, metadata={"format": "pt"})


def first(loaded: dict[str, torch.Tensor]) -> str:
    return next(key for key in sorted(loaded) if loaded[key].dim() == 2)


CHANGES: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "missing": lambda loaded: loaded.pop(first(loaded)),
    "extra": lambda loaded: loaded.update(other=torch.ones(3)),
    "none": lambda loaded: loaded.clear(),
    "transposed": lambda loaded: loaded.update({first(loaded): torch.ones(3, 7)}),
    "empty": lambda loaded: loaded.update({first(loaded): torch.ones(0, 8)}),
    "whole numbers": lambda loaded: loaded.update({first(loaded): loaded[first(loaded)].long()}),
    "truth values": lambda loaded: loaded.update({first(loaded): loaded[first(loaded)] > 0}),
    "NaN": lambda loaded: loaded[first(loaded)].fill_(float("nan")),
    "infinite": lambda loaded: loaded[first(loaded)][0].fill_(-float("inf")),
    "another name for a moment": lambda loaded: loaded.update({f"other/{first(loaded)}": torch.ones(3)}),
    "a name without its moment": lambda loaded: loaded.update({first(loaded).partition("/")[2]: torch.ones(3)}),
    "huge name": lambda loaded: loaded.update({"x" * 100_000: torch.ones(1)}),
}


@pytest.mark.parametrize("name", [WEIGHTS, MOMENTS])
@pytest.mark.parametrize("case", CHANGES)
def test_tensors_that_are_not_the_models_are_refused(case: str, name: str, checkpoint: Path) -> None:
    tensors(checkpoint, name, CHANGES[case])
    seal(checkpoint)
    with pytest.raises(REFUSALS) as refused:
        resume(checkpoint)
    assert len(str(refused.value)) < 1_000


def test_half_precision_weights_are_refused_and_not_widened(checkpoint: Path) -> None:
    tensors(checkpoint, WEIGHTS, lambda loaded: loaded.update({key: loaded[key].half() for key in loaded}))
    seal(checkpoint)
    with pytest.raises(ValueError, match="in single precision, and"):
        resume(checkpoint)


def test_a_whole_checkpoint_opens_to_its_weights(checkpoint: Path) -> None:
    model = resume(checkpoint)
    saved = load_file(checkpoint / WEIGHTS)
    assert all(torch.equal(model.state_dict()[name], saved[name]) for name in saved)


def trees() -> Iterator[tuple[str, str, Any]]:
    for name in (SCALARS, STATE):
        for content in (b"", b"{", b"[]", b"null", b"3", b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b"{}"):
            yield f"{name} {content[:9]!r}", name, content
    for field in ("groups", "scalars", "optimizer"):
        for value in (None, 3, "x", [3], {"x": 3}, [{"param_names": 3}], [{}], {"x": {"step": "NaN"}}):
            yield f"{field}={value}", SCALARS, {field: value}
    yield "scalars NaN", SCALARS, {"scalars": {"model.norm.weight": {"step": float("nan")}}}
    for field in ("step", "tokens", "seconds", "recipe", "losses"):
        for value in (None, -1, float("nan"), "x", [1], True, 1e999):
            if not (field == "seconds" and value is True):
                yield f"{field}={value}", STATE, {field: value}
    yield "step 1.5", STATE, {"step": 1.5}
    yield "an unknown field", STATE, {"other": 1}


TREES = {case: (name, content) for case, name, content in trees()}


@pytest.mark.parametrize("case", TREES)
def test_states_that_are_none_are_refused(case: str, checkpoint: Path) -> None:
    name, content = TREES[case]
    if not isinstance(content, bytes):
        content = json.dumps({**json.loads((checkpoint / name).read_text(encoding="utf-8")), **content}).encode()
    (checkpoint / name).write_bytes(content)
    seal(checkpoint)
    with pytest.raises(REFUSALS):
        resume(checkpoint)


MANIFESTS: tuple[bytes, ...] = (
    *(b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b"{}", b'{"step": 2, "files": []}'),
    *(b'{"step": 2, "files": {"a": 3}}', b'{"step": "2", "files": {}}', b'{"step": 2, "files": {"a": {"size": NaN}}}'),
)


@pytest.mark.parametrize("content", MANIFESTS)
def test_a_manifest_that_is_none_is_damage(content: bytes, checkpoint: Path) -> None:
    (checkpoint / "manifest.json").write_bytes(content)
    assert "manifest.json" in str(find_damage(checkpoint))
    assert newest_valid_checkpoint(checkpoint.parent) is None


NAMES = (
    "../a",
    "/etc/passwd",
    "a/../../b",
    "..",
    ".",
    "",
    "a\0b",
    "/dev/zero",
    "//etc/hosts",
    "a/../model.safetensors",
    "./../a",
    "a/b/../../../c",
    "..\\a",
    "~/a",
    "file:///etc/hosts",
    "/proc/self/environ",
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("entry", [{"size": 1, "sha256": "0"}, 3, {}, {"size": "1"}, []])
def test_a_sealed_manifest_that_names_files_elsewhere_is_damage(name: str, entry: Any, checkpoint: Path) -> None:
    (checkpoint / "manifest.json").write_bytes(module._manifest_bytes(2, {name: entry}))
    assert find_damage(checkpoint) is not None


@pytest.mark.parametrize("what", ["file", "folder", "checkpoint", "manifest", "device", "pipe"])
def test_a_link_out_of_the_checkpoint_is_damage(what: str, checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    if what == "folder":
        (checkpoint / "inner").mkdir()
        (checkpoint / "inner" / "part.json").write_text("{}", encoding="utf-8")
        seal(checkpoint)
        (checkpoint / "inner").rename(target)
        (checkpoint / "inner").symlink_to(target)
    elif what == "checkpoint":
        checkpoint.rename(target)
        checkpoint.symlink_to(target)
    elif what == "manifest":
        (checkpoint / "manifest.json").rename(target)
        (checkpoint / "manifest.json").symlink_to(target)
    else:
        (checkpoint / WEIGHTS).rename(target)
        if what == "pipe":
            (checkpoint / WEIGHTS).unlink(missing_ok=True)
            module.os.mkfifo(checkpoint / WEIGHTS)
        else:
            (checkpoint / WEIGHTS).symlink_to("/dev/zero" if what == "device" else target)
    assert find_damage(checkpoint) is not None
    assert target.exists()


@pytest.mark.parametrize("purpose", ["writing", "removing", "replaced"])
def test_a_leftover_that_is_a_link_costs_nothing_of_what_it_leads_to(purpose: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / f".checkpoint-4.{purpose}").symlink_to(tmp_path / "mine")
    remove_leftovers(tmp_path / "run")
    assert newest_valid_checkpoint(tmp_path / "run") is None
    assert (tmp_path / "mine" / "thesis.txt").read_text(encoding="utf-8") == "mine"


class Payload:
    """Unpickled, it leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize(
    "name",
    [
        "custom_checkpoint_0.pkl",
        "random_states_0.pkl",
        "optimizer.bin",
        "scheduler.bin",
        "training_args.bin",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "model.safetensors.index.json",
        "modeling_evil.py",
        "custom_generate/generate.py",
        "vocab.txt",
    ],
)
def test_a_file_that_was_put_into_a_checkpoint_is_damage_and_never_run(
    name: str, checkpoint: Path, tmp_path: Path
) -> None:
    (checkpoint / name).parent.mkdir(exist_ok=True)
    (checkpoint / name).write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    assert find_damage(checkpoint) == f"{name} is not in manifest.json"
    seal(checkpoint)
    assert find_damage(checkpoint) is None
    assert resume(checkpoint) is not None
    assert not (tmp_path / "ran").exists()


def test_what_evaluate_writes_into_a_checkpoint_is_no_damage(checkpoint: Path) -> None:
    (checkpoint / "evaluation.json").write_text("{}", encoding="utf-8")
    assert find_damage(checkpoint) is None


def test_an_adapter_that_was_put_into_a_checkpoint_is_damage_and_never_joined(checkpoint: Path) -> None:
    (checkpoint / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}), encoding="utf-8")
    assert find_damage(checkpoint) == "adapter_config.json is not in manifest.json"
    seal(checkpoint)
    with pytest.raises(ValueError, match=r"adapter \(.*adapter_config.json\) must not lie beside weights"):
        resume(checkpoint)


def test_a_note_beside_the_files_is_no_damage(checkpoint: Path) -> None:
    (checkpoint / "README.md").write_text("the good one", encoding="utf-8")
    assert find_damage(checkpoint) is None
