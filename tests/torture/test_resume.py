"""R1: a run that stops and goes on at any step has the bits of one that never stopped. R2: on other processes too."""

import signal
from pathlib import Path

import pytest
from jobs import OBJECTIVES, STILL, Fault, Workplace, assert_checkpoints_are_whole, bits, logged, weights
from tries import IS_FULL, MARKS, Row

from hf_minilm.training.checkpoint import checkpoint_path

pytestmark = MARKS

STEPS = 40
# Three rows a process in micro-batches of two: the gradient of a step is added up.
MICRO_BATCHES = {1: 3, 2: 2, 4: 1}
ACCUMULATED = {"training.micro_batch_rows": "2"}

CASES = [(name, processes, precision) for name in OBJECTIVES for processes in (1, 2) for precision in ("fp32", "bf16")]
FEW = [
    ("masked", 1, "bf16"),
    ("masked + next sentence", 2, "fp32"),
    ("causal", 1, "fp32"),
    ("pairs", 1, "fp32"),
    ("pairs", 2, "bf16"),
]


def go_on_until(
    workplace: Workplace, folder: Path, settings: dict[str, str], steps: range, *, processes: int, rank: int
) -> None:
    """Go on with a run after a step, and stop it after another by a signal to one rank."""
    passage = (len(steps) - 1) * MICRO_BATCHES[processes] + 1
    fault = Fault(rank, at="backward", count=passage, do="SIGTERM")
    job = workplace.start(folder, settings, processes=processes, faults=[fault])
    codes = job.wait()
    assert codes == [128 + signal.SIGTERM] * processes, f"exit codes {codes}\n{job.text}"


@pytest.mark.parametrize(("objective", "processes", "precision"), CASES if IS_FULL else FEW)
def test_a_run_that_stops_and_goes_on_at_any_step_has_the_bits_of_one_that_does_not(
    workplace: Workplace, objective: str, processes: int, precision: str
) -> None:
    settings = {**OBJECTIVES[objective], **ACCUMULATED, "training.precision": precision}
    every_step = {"training.save_every": "1steps", "training.keep_last": f"{STEPS}"}
    with Row("R1", f"{objective}, {processes} processes, {precision}", tries=STEPS - 1, few=2) as row:
        whole, stopped = workplace.new_folder("whole"), workplace.new_folder("stopped")
        workplace.finish(whole, {**settings, **every_step}, processes=processes)
        step = 0
        for stop in sorted(row.random.sample(range(1, STEPS), row.tries)):
            with row.attempt(f"stop after step {stop}"):
                rank = row.random.randrange(processes)
                go_on_until(workplace, stopped, settings, range(step, stop), processes=processes, rank=rank)
                lines = logged(stopped)
                assert lines == logged(whole)[: len(lines)]
                checkpoints = [checkpoint_path(folder / "checkpoints", stop) for folder in (stopped, whole)]
                assert bits(checkpoints[0]) == bits(checkpoints[1])
            step = max(assert_checkpoints_are_whole(stopped), default=0)
        workplace.finish(stopped, settings, processes=processes)
        assert logged(stopped) == logged(whole)
        assert weights(stopped) == weights(whole)


def test_a_run_that_goes_on_with_other_numbers_of_processes_has_the_same_losses(workplace: Workplace) -> None:
    steps = 100 if IS_FULL else STEPS
    settings = {**STILL, **ACCUMULATED, "training.budget": f"{steps}steps"}
    with Row("R2", "losses to 1e-5", tries=20, few=2) as row:
        whole = workplace.finish(workplace.new_folder("whole"), settings)
        losses = [line["loss"] for line in logged(whole) if "loss" in line]
        for _ in range(row.tries):
            stops = sorted(row.random.sample(range(1, steps), 3))
            with row.attempt(f"2, 1, 4 and 2 processes, changed after steps {stops}"):
                folder = workplace.new_folder("changing")
                for start, stop, processes in zip([0, *stops], stops, (2, 1, 4), strict=False):
                    go_on_until(workplace, folder, settings, range(start, stop), processes=processes, rank=0)
                workplace.finish(folder, settings, processes=2)
                assert [line["loss"] for line in logged(folder) if "loss" in line] == pytest.approx(losses, rel=1e-5)
