"""Proof on the user's own machine that a run which is killed goes on as if nothing had happened.

The recipe is trained for some steps in one go, and once more with a kill -9 on the way; then the losses of every step,
all weights and all moments of the optimizer are compared bit by bit. With another number of processes after the kill
the bits need only be equal if `training.gradient_parts` promises it; otherwise losses must agree up to rounding.
"""

import contextlib
import dataclasses
import hashlib
import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors.torch import load_file

from .checkpoint import checkpoint_path, list_checkpoints
from .launch import trains_on_gpu
from .metrics import read_metrics
from .recipe import Recipe, describe_recipe
from .schedule import Budget

RELATIVE_TOLERANCE = 1e-5
"""How far losses may lie apart where only rounding decides them; in fp32, without dropout."""

_OF_THE_CLOCK = {"seconds", "tokens_per_second", "waiting_share"}
_FILES = ("model.safetensors", "optimizer.safetensors")
_TAIL_LINES = 5


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Attributes:
        recipe: What is trained; its budget and its saving are replaced.
        before: Steps until the checkpoint that the killed run goes on from.
        after: Steps after it.
        processes: How many train.
        processes_after: How many go on after the kill.
    """

    recipe: Recipe
    before: int
    after: int
    processes: int
    processes_after: int

    @property
    def is_exact(self) -> bool:
        """Whether all bits must be equal."""
        return self.processes == self.processes_after or self.recipe.training.gradient_parts is not None


@dataclass(frozen=True)
class Outcome:
    """What was found.

    Attributes:
        killed_after: The newest checkpoint's step when the run was killed.
        losses: Logged steps that were compared.
        tensors: Weights and moments that were compared.
        sha256: Of the weights of the uninterrupted run.
        difference: The first difference; None if there is none.
    """

    killed_after: int
    losses: int
    tensors: int
    sha256: str
    difference: str | None


def check_resume(plan: Plan, folder: Path) -> Outcome:
    """Train in one go and with a kill, and compare.

    Args:
        plan: What to do.
        folder: An empty folder, for both runs.

    Raises:
        ValueError: If a run fails, with the end of what it said, or ends before it could be killed; or if no two runs
            are alike, as on a GPU whose sums have no fixed order.
    """
    if trains_on_gpu() and plan.recipe.training.gradient_parts is None:
        raise ValueError(
            "training.gradient_parts (null) must be a number on a GPU, whose sums have no fixed order without it; add "
            f"--set training.gradient_parts={max(plan.processes, plan.processes_after)}."
        )
    recipe = _recipe(plan)
    whole, halved = folder / "whole", folder / "halved"
    for name, run in (("whole.yaml", whole), ("halved.yaml", halved)):
        (folder / name).write_text(describe_recipe(_into(recipe, run)), encoding="utf-8")
    _wait(_start(folder / "whole.yaml", plan.processes), folder / "whole.yaml")
    killed_after = _kill_after(_start(folder / "halved.yaml", plan.processes), halved / "checkpoints", plan.before)
    _wait(_start(folder / "halved.yaml", plan.processes_after), folder / "halved.yaml")
    return compare(plan, whole, halved, killed_after=killed_after)


def _recipe(plan: Plan) -> Recipe:
    training = dataclasses.replace(
        plan.recipe.training,
        budget=Budget("steps", plan.before + plan.after),
        save_every=Budget("steps", plan.before),
        keep_last=max(2, plan.recipe.training.keep_last),
        log_every=1,
        processes=None,
    )
    evaluation = dataclasses.replace(plan.recipe.evaluation, every="never", rows=16)
    if plan.recipe.objective.name == "pairs":
        evaluation = dataclasses.replace(evaluation, translations=4)
    return dataclasses.replace(plan.recipe, training=training, evaluation=evaluation)


def _into(recipe: Recipe, folder: Path) -> Recipe:
    return dataclasses.replace(recipe, output=dataclasses.replace(recipe.output, folder=str(folder), trackers=()))


def _start(recipe: Path, processes: int) -> "subprocess.Popen[str]":
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    words = [*(launcher if processes > 1 else []), "-m", "hf_minilm.cli.main", "pretrain", str(recipe)]
    with recipe.with_suffix(".log").open("a", encoding="utf-8") as log:
        return subprocess.Popen([sys.executable, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True)


def _wait(process: "subprocess.Popen[str]", recipe: Path) -> None:
    try:
        code = process.wait()
    except BaseException:
        _kill(process)
        raise
    if code != 0:
        said = recipe.with_suffix(".log").read_text(encoding="utf-8", errors="replace").splitlines()
        raise ValueError(
            f"training of {recipe} (exit code {code}) must succeed to be compared; it said: "
            f"{' / '.join(line.strip() for line in said[-_TAIL_LINES:])}"
        )


def _kill(process: "subprocess.Popen[str]") -> None:
    """Kill a run with everything that it started, which a launcher puts into sessions of their own."""
    started = psutil.Process(process.pid)
    for each in [*started.children(recursive=True), started]:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait()


def _kill_after(process: "subprocess.Popen[str]", checkpoints: Path, step: int) -> int:
    """Kill a run and all its processes as soon as a checkpoint of a step is whole; return its newest one's step."""
    try:
        while process.poll() is None and not checkpoint_path(checkpoints, step).exists():
            time.sleep(0.005)
    finally:
        if process.poll() is None:
            _kill(process)
    steps = [int(path.name.rpartition("-")[2]) for path in list_checkpoints(checkpoints)]
    if process.returncode != -signal.SIGKILL or not steps:
        raise ValueError(
            f"run ({checkpoints.parent}, exit code {process.returncode}) must still train after step {step} to be "
            "killed; see the log beside it, or give more steps."
        )
    return max(steps)


def compare(plan: Plan, whole: Path, halved: Path, *, killed_after: int) -> Outcome:
    """Compare the folders of the run in one go and of the one that was killed."""
    lines = [_losses(run) for run in (whole, halved)]
    last = [checkpoint_path(run / "checkpoints", plan.before + plan.after) for run in (whole, halved)]
    differences = _loss_differences(*lines, is_exact=plan.is_exact)
    tensors = 0
    if plan.is_exact:
        pairs = [(load_file(last[0] / name), load_file(last[1] / name)) for name in _FILES]
        tensors = sum(len(theirs) for theirs, _ in pairs)
        differences = [*differences, *(found for pair in pairs for found in _tensor_differences(*pair))]
    sha256 = hashlib.sha256((last[0] / _FILES[0]).read_bytes()).hexdigest()
    return Outcome(killed_after, len(lines[0]), tensors, sha256, next(iter(differences), None))


def _losses(run: Path) -> dict[int, dict[str, float]]:
    """Read what was logged at each step, but for what the clock decides."""
    logged: dict[int, dict[str, float]] = {}
    for line in read_metrics(run / "metrics.jsonl"):
        kept = {name: value for name, value in line.items() if name not in _OF_THE_CLOCK}
        logged.setdefault(line["step"], {}).update(kept)
    return logged


def _loss_differences(
    first: dict[int, dict[str, float]], second: dict[int, dict[str, float]], *, is_exact: bool
) -> list[str]:
    tolerance = 0.0 if is_exact else RELATIVE_TOLERANCE
    found = []
    for step in sorted(first.keys() | second.keys()):
        one, other = first.get(step, {}), second.get(step, {})
        for name in sorted(one.keys() | other.keys()):
            values = one.get(name, math.nan), other.get(name, math.nan)
            if (is_exact or "loss" in name) and not math.isclose(*values, rel_tol=tolerance, abs_tol=0.0):
                found.append(f"{name} of step {step}: {values[0]!r} in one go, {values[1]!r} with a kill")
    return found


def _tensor_differences(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> Iterator[str]:
    for name in sorted(first.keys() | second.keys()):
        one, other = first.get(name), second.get(name)
        if one is None or other is None:
            yield f"tensor {name}: only in one of the two"
        elif one.shape != other.shape or one.dtype != other.dtype:
            yield f"tensor {name}: {_form(one)} in one go, {_form(other)} with a kill"
        elif not torch.equal(one, other):
            apart = (one.double() - other.double()).abs().max().item()
            yield f"tensor {name}: up to {apart:.3g} apart"


def _form(tensor: torch.Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}"


def to_json(plan: Plan, outcome: Outcome) -> dict[str, Any]:
    """Give what was compared and what was found as plain values."""
    facts = {name: getattr(plan, name) for name in ("before", "after", "processes", "processes_after", "is_exact")}
    return {**facts, **dataclasses.asdict(outcome)}
