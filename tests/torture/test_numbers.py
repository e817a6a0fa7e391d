"""R16: a number that is not finite never gets into weights or checkpoints, on whichever rank it arises."""

import itertools
import json

import pytest
from jobs import OBJECTIVES, Fault, Workplace, assert_checkpoints_are_whole
from safetensors.torch import load
from tries import MARKS, Row

from hf_minilm.training.checkpoint import checkpoint_path

pytestmark = MARKS

STEPS = 8
EACH_STEP = {"training.budget": f"{STEPS}steps", "training.save_every": "1steps", "training.keep_last": f"{STEPS}"}
MOVED = ("model.safetensors", "optimizer.safetensors")
"""The files of a checkpoint that hold what a step moves."""


@pytest.mark.parametrize("decides", ["host", "optimizer"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("place", ["gradient", "loss", "activation"])
def test_a_step_with_a_number_that_is_not_finite_on_one_rank_is_left_out_on_all(
    workplace: Workplace, place: str, precision: str, decides: str
) -> None:
    settings = {**OBJECTIVES["masked + next sentence"], **EACH_STEP, "training.precision": precision}
    # As on GPUs, which are given the next step before the host has read the last one's numbers.
    decisions = [Fault(rank, at="loop", count=1, do="decide") for rank in range(2)] if decides == "optimizer" else []
    with Row("R16", f"{place}, 2 processes, {precision}, the {decides} decides", tries=50, few=2) as row:
        for _ in range(row.tries):
            step, rank = row.random.randint(2, STEPS), row.random.randrange(2)
            value = row.random.choice(["nan", "inf"])
            with row.attempt(f"{value} in step {step} of rank {rank}"):
                folder = workplace.new_folder()
                fault = Fault(rank, at=place, count=step, do=value)
                job = workplace.start(folder, settings, processes=2, faults=[fault, *decisions])
                assert job.wait() == [0, 0], job.text
                assert_checkpoints_are_whole(folder)
                checkpoints = [checkpoint_path(folder / "checkpoints", number) for number in range(1, STEPS + 1)]
                files = [[(checkpoint / name).read_bytes() for name in MOVED] for checkpoint in checkpoints]
                assert [number for number in range(2, STEPS + 1) if files[number - 1] == files[number - 2]] == [step]
                tensors = [tensor for file in itertools.chain(*files) for tensor in load(file).values()]
                assert all(bool(tensor.isfinite().all()) for tensor in tensors)
                lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
                assert [line["step"] for line in lines if "skipped_steps" in line] == [step]
