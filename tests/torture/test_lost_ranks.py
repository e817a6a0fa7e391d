"""R10: a rank that dies ends the job quickly, and one that freezes within the timeout, which names it."""

import re
import signal
import time

import pytest
from jobs import Fault, Job, Workplace, assert_checkpoints_are_whole, slowness, timeout_settings
from tries import IS_FULL, MARKS, Row

from hf_minilm.training.recipe import TrainingSettings

pytestmark = MARKS

LONGEST_END = 5.0
"""Seconds from the death of a rank to the end of the others."""
TIMEOUT = 6
SETTINGS = {"training.budget": "4000steps", "training.save_every": "3steps", "evaluation.every": "4steps"}
PAUSE = 1.0
RANKS = 3 if IS_FULL else 2
PLACES = ("forward", "backward", "save", "evaluation")
DEEDS = ("SIGKILL", "raise", "exit", "SIGSTOP")


@pytest.mark.parametrize("deed", DEEDS)
def test_a_lost_rank_ends_the_job(workplace: Workplace, deed: str) -> None:
    cases = [(rank, place) for rank in range(RANKS) for place in PLACES]
    if not IS_FULL:
        cases = [(rank, PLACES[(DEEDS.index(deed) + rank) % len(PLACES)]) for rank in range(RANKS)]
    settings = SETTINGS
    with Row("R10", deed, tries=len(cases), few=len(cases)) as row:
        if deed == "SIGSTOP":
            assert hasattr(TrainingSettings(), "timeout"), "training.timeout is missing, and 2 h are too long to wait"
            settings = {**SETTINGS, **timeout_settings(TIMEOUT)}
        for rank, place in cases:
            with row.attempt(f"rank {rank}, {place}"):
                job, begin = start_injured(workplace, rank, deed, place, settings)
                slow = slowness()
                row.measure("slowness", slow)
                # The timeout is a matter of the clock, and the rest of the processor.
                limit = LONGEST_END * slow if deed != "SIGSTOP" else TIMEOUT + 2.0 * slow
                text = assert_others_end(job, rank, begin, limit, row)
                assert_checkpoints_are_whole(job.folder)
                if deed == "SIGSTOP":
                    assert re.search(rf"\b(rank|process)e?s? \(?{rank}\b", text), f"rank {rank} is not named\n{text}"


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_frozen_rank_of_two_that_share_a_model_ends_the_job(workplace: Workplace, ranks: int) -> None:
    sharing = {"training.parallelism": "sharded", "training.shard_over": "2"}
    settings = {**SETTINGS, **timeout_settings(TIMEOUT), **sharing}
    cases = [(rank, place) for rank in range(ranks) for place in ("forward", "backward", "save")]
    with Row("R10", f"SIGSTOP, {ranks} ranks, two share a copy", tries=len(cases), few=2) as row:
        for rank, place in row.random.sample(cases, row.tries):
            with row.attempt(f"rank {rank}, {place}"):
                job, begin = start_injured(workplace, rank, "SIGSTOP", place, settings, ranks=ranks)
                assert_others_end(job, rank, begin, TIMEOUT + 2.0 * slowness(), row)
                assert_checkpoints_are_whole(job.folder)


def start_injured(
    workplace: Workplace, rank: int, deed: str, place: str, settings: dict[str, str], *, ranks: int = RANKS
) -> tuple[Job, float]:
    """Start a run in which something happens to a rank; gives the moment at which it did.

    Only the main rank saves. The others wait for it in an exchange meanwhile, and there they fail.
    """
    fault = Fault(rank, at=place, count=2 if place in ("save", "evaluation") else 7, do=deed)
    if rank and place == "save":
        if deed in ("SIGKILL", "SIGSTOP"):
            fault = Fault(0, at=place, count=2, do="pause", seconds=PAUSE)
        else:
            fault.at, fault.count = "exchange", 7
    job = workplace.start(workplace.new_folder("injured"), settings, processes=ranks, faults=[fault])
    begin = job.wait_for_fault()
    if fault.do == "pause":
        time.sleep(PAUSE / 4)
        begin = job.kill(rank, getattr(signal, deed))
    return job, begin


def assert_others_end(job: Job, rank: int, begin: float, longest: float, row: Row) -> str:
    """All other ranks end in time, with a code that is neither success nor a crash; gives what was printed."""
    others = [each for number, each in enumerate(job.ranks) if number != rank]
    ends = [each.end(max(begin + longest + 5 - time.monotonic(), 0)) for each in others]
    text = job.where_it_is() if None in ends else job.text
    job.kill_all()
    codes = [end and end[0] for end in ends]
    assert None not in codes, f"exit codes {codes}: alive after {longest + 5} s\n{text}"
    took = max(end[1] for end in ends if end) - begin
    row.measure("end", took)
    assert all(code is not None and code > 0 for code in codes), f"exit codes {codes}\n{text}"
    assert took <= longest, f"{took:.1f} s\n{text}"
    return text
