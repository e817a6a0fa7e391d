"""R10: a rank that dies ends the job quickly, and one that freezes within the timeout, which names it."""

import math
import re
import time

import pytest
from jobs import Fault, Job, Workplace, assert_checkpoints_are_whole, timeout_settings
from tries import IS_FULL, MARKS, Row

from hf_minilm.training.recipe import TrainingSettings

pytestmark = MARKS

LONGEST_END = 5.0
"""Seconds from the death of a rank to the end of the others."""
TIMEOUT = 6
SETTINGS = {
    "training.budget": "4000steps",
    "training.save_every": "3steps",
    "evaluation.every": "4steps",
}
PAUSE = 1.0
PROCESSES = 3 if IS_FULL else 2
PLACES = ("forward", "backward", "save", "evaluation")
DEEDS = ("SIGKILL", "raise", "exit", "SIGSTOP")
# The main rank alone saves and evaluates; a second one that fails by itself does so while it waits for the main one.
SAME_PLACES = {
    (rank, deed, PLACES[(rank + index) % len(PLACES)])
    for index, deed in enumerate(DEEDS)
    for rank in range(PROCESSES)
}
CASES = [(rank, deed, place) for deed in DEEDS for rank in range(PROCESSES) for place in PLACES]


def start_injured(workplace: Workplace, rank: int, deed: str, place: str, settings: dict[str, str]) -> tuple[Job, float]:
    """Start a run in which something happens to a rank; gives the moment at which it did."""
    folder = workplace.new_folder("injured")
    fault = Fault(rank, at=place, count=2 if place in ("save", "evaluation") else 7, do=deed)
    if rank == 0 or place in ("forward", "backward"):
        job = workplace.start(folder, settings, processes=PROCESSES, faults=[fault])
        wait_for_fault(job, fault)
        return job, fault.happened or math.inf
    # The others have nothing to do meanwhile: they wait in an exchange.
    pause = Fault(0, at=place, count=2, do="pause", seconds=PAUSE)
    if deed in ("raise", "exit"):
        fault.at, fault.count = "exchange", 7
        job = workplace.start(folder, settings, processes=PROCESSES, faults=[fault])
        wait_for_fault(job, fault)
        return job, fault.happened or math.inf
    job = workplace.start(folder, settings, processes=PROCESSES, faults=[pause])
    job.wait_for(lambda: pause.happened)
    time.sleep(PAUSE / 4)
    import signal

    return job, job.kill(rank, getattr(signal, deed))


def wait_for_fault(job: Job, fault: Fault) -> None:
    """Wait until it has happened; the rank may have ended of it by then."""
    deadline = time.monotonic() + 60
    while fault.happened is None and time.monotonic() < deadline:
        time.sleep(0.01)
    if fault.happened is None:
        job.kill_all()
        raise AssertionError(f"the fault did not happen\n{job.text}")


@pytest.mark.parametrize("deed", DEEDS)
def test_a_lost_rank_ends_the_job(workplace: Workplace, deed: str) -> None:
    cases = [case for case in (CASES if IS_FULL else sorted(SAME_PLACES)) if case[1] == deed]
    settings, longest = SETTINGS, LONGEST_END
    with Row("R10", deed, tries=len(cases), few=len(cases)) as row:
        if deed == "SIGSTOP":
            assert hasattr(TrainingSettings(), "timeout"), "training.timeout is missing: a frozen rank is never noticed"
            settings, longest = {**SETTINGS, **timeout_settings(TIMEOUT)}, TIMEOUT + 2.0
        for rank, _, place in cases:
            with row.attempt(f"rank {rank}, {place}"):
                job, begin = start_injured(workplace, rank, deed, place, settings)
                others = [each for number, each in enumerate(job.ranks) if number != rank]
                ends = [each.end(max(begin + longest + 3 - time.monotonic(), 0)) for each in others]
                text = job.text
                job.kill_all()
                assert None not in ends, f"exit codes {ends}; still alive after {longest + 3} s\n{text}"
                row.measure("end", max(end[1] for end in ends if end) - begin)
                codes = [end[0] for end in ends if end]
                assert 0 not in codes, f"exit codes {codes}\n{text}"
                assert not [code for code in codes if code < 0], f"exit codes {codes}\n{text}"
                assert max(end[1] for end in ends if end) - begin <= longest
                assert_checkpoints_are_whole(job.folder)
                if deed == "SIGSTOP":
                    assert re.search(rf"\b(rank|process)s? \(?{rank}\b", text), f"rank {rank} is not named\n{text}"
