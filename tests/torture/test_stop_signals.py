"""R9: a stop signal to any of the ranks, whenever it comes: one consistent checkpoint, and the end."""

import signal
import time

import pytest
from jobs import (
    Fault,
    Job,
    Launched,
    Workplace,
    assert_checkpoints_are_whole,
    free_port,
    kill_if_alive,
    slowness,
    step_of,
)
from tries import MARKS, Row

pytestmark = MARKS

LONGEST_END = 2.0
"""Seconds from the first signal to the end of all ranks, the save not counted."""
PAUSE = 1.5
SETTINGS = {"training.budget": "4000steps", "training.save_every": "5steps"}
WAYS = ("one rank", "both at once", "staggered", "in a save", "twice")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_to_any_of_the_ranks_leaves_one_consistent_checkpoint(workplace: Workplace, name: str) -> None:
    with Row("R9", f"{name} to ranks", tries=18, few=5) as row:
        for number in range(row.tries):
            way, rank = WAYS[number % len(WAYS)], row.random.randrange(2)
            with row.attempt(f"{way}, rank {rank}"):
                stop_ranks(workplace, getattr(signal, name), way, rank, row)


def stop_ranks(workplace: Workplace, number: int, way: str, rank: int, row: Row) -> None:
    """Send a signal to one rank or both, and look at the end."""
    pause = Fault(0, at="save", count=2, do="pause", seconds=PAUSE)
    faults = [pause] if way == "in a save" else []
    job = workplace.start(workplace.new_folder("stopped"), SETTINGS, processes=2, faults=faults)
    if way == "in a save":
        job.wait_for_fault()
    else:
        job.wait_for_step(row.random.randrange(3, 12))
    begin = job.kill(rank, number)
    if way == "staggered":
        time.sleep(row.random.uniform(0, 5))
    if way in ("both at once", "staggered"):
        job.kill(1 - rank, number)
    elif way == "twice":
        time.sleep(row.random.uniform(0, 0.1))
        job.kill(rank, number)
    slow = slowness()
    codes = job.wait(30 * slow)
    assert codes == [128 + number] * 2, f"exit codes {codes}\n{job.text}"
    took = job.last_end - begin - (PAUSE if way == "in a save" else 0)
    row.measure("end", took)
    row.measure("slowness", slow)
    assert took < LONGEST_END * slow, f"{took:.1f} s, where all takes {slow:.1f} times as long as alone"
    assert_all_is_saved(job)
    assert "the same command goes on" in job.text


def assert_all_is_saved(job: Job | Launched) -> None:
    saved, done = max(assert_checkpoints_are_whole(job.folder), default=0), step_of(job.folder)
    assert saved == done, f"{done} steps were made, and {saved} are saved\n{job.text}"


def test_a_signal_to_the_launcher_leaves_one_consistent_checkpoint_and_no_rank(workplace: Workplace) -> None:
    with Row("R9", "signals to torchrun", tries=6, few=2) as row:
        for turn in range(row.tries):
            number = (signal.SIGTERM, signal.SIGINT)[turn % 2]
            with row.attempt(f"{number.name}"):
                launcher = ["torchrun", "--nnodes", "1", "--nproc_per_node", "2", "--master_port", f"{free_port()}"]
                launched = Launched(launcher, workplace.new_folder("launched"), SETTINGS, workplace.environment)
                launched.wait_for_step(row.random.randrange(3, 12))
                workers = launched.workers()
                assert len(workers) == 2
                begin = time.monotonic()
                kill_if_alive(launched.process.pid, number)
                code = launched.wait()
                row.measure("end of torchrun", time.monotonic() - begin)
                assert code != 0
                assert not [pid for pid in workers if kill_if_alive(pid)], "a rank outlives the launcher"
                assert_all_is_saved(launched)
