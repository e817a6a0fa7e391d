"""R5: kill -9 at any time, in a save and in a rotation too: nothing torn, and the bits of a run that was left alone."""

import time
from pathlib import Path

import pytest
from jobs import (
    EACH_STEP,
    TINY,
    Fault,
    Job,
    Workplace,
    assert_checkpoints_are_whole,
    bits,
    logged,
    slowness,
    weights,
)
from tries import MARKS, Row

from hf_minilm.training.checkpoint import checkpoint_path

pytestmark = MARKS

STEPS = 40
# Each of the first three saves and rotations of a life has about so many file operations.
OPERATIONS = 75
LATEST_KILL = 4.0
"""Seconds from the start of the ranks to a kill at a random time, at most, on an idle machine."""


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_that_is_killed_at_random_times_ends_with_the_bits_of_one_that_is_not(
    workplace: Workplace, processes: int
) -> None:
    settings = {**TINY, **EACH_STEP, "evaluation.every": "7steps"}
    whole = workplace.new_folder("whole")
    workplace.finish(whole, {**settings, "training.keep_last": f"{STEPS}"}, processes=processes)
    with Row("R5", f"{processes} processes", tries=250, few=20) as row:
        folder, newest = workplace.new_folder("killed"), 0
        while row.done < row.tries and not row.is_lost:
            with row.attempt(f"a life that begins after step {newest}"):
                job = start_with_a_kill(workplace, folder, settings, processes=processes, row=row)
                codes = job.wait()
                if codes == [0] * processes:
                    row.void()
                steps = assert_checkpoints_are_whole(folder)
                last = max(steps, default=0)
                assert last >= newest, f"step {newest} was saved, and {steps} are left\n{job.text}"
                lines = logged(folder)
                # A checkpoint is sealed while the next step is made, and only then one that a kill cannot take.
                assert not lines or lines[-1]["step"] <= last + 2, "more than the interval and the one sealed is lost"
                newest = last
                if newest:
                    pair = [checkpoint_path(each / "checkpoints", newest) for each in (folder, whole)]
                    assert bits(pair[0]) == bits(pair[1])
            if newest > STEPS - 4 or row.is_lost or row.done == row.tries:
                with row.attempt("the end of a run that was killed"):
                    row.void()
                    assert_same_end(workplace, folder, whole, settings, processes=processes)
                folder, newest = workplace.new_folder("killed"), 0


def start_with_a_kill(workplace: Workplace, folder: Path, settings: dict[str, str], *, processes: int, row: Row) -> Job:
    """Start or go on with a run that is killed before a random file operation of a save, or at a random time."""
    if row.random.random() < 0.5:
        operation = row.random.randrange(1, 3 * OPERATIONS)
        fault = Fault(0, at="file operation of a save", count=operation, do="SIGKILL")
        return workplace.start(folder, settings, processes=processes, faults=[fault])
    job = workplace.start(folder, settings, processes=processes)
    victims = row.random.choice([range(processes), [row.random.randrange(processes)]])
    time.sleep(row.random.uniform(0, LATEST_KILL * slowness()))
    for rank in victims:
        job.kill(rank)
    return job


def assert_same_end(
    workplace: Workplace, folder: Path, whole: Path, settings: dict[str, str], *, processes: int
) -> None:
    workplace.finish(folder, settings, processes=processes)
    assert weights(folder) == weights(whole)
    assert logged(folder) == logged(whole)
