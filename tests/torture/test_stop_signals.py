"""R9: a stop signal to any of the ranks, whenever it comes: one consistent checkpoint, and the end."""

import signal
import time

import pytest
from jobs import (
    LONGEST_START,
    Fault,
    Launched,
    Workplace,
    assert_checkpoints_are_whole,
    free_port,
    kill_if_alive,
    logged,
    step_of,
    weights,
    words,
)
from tries import IS_FULL, MARKS, Row

pytestmark = MARKS

LONGEST_END = 2.0
"""Seconds from the first signal to the end of all ranks, the save not counted."""
PAUSE = 1.5
LONG = {"training.budget": "4000steps"}
SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1")
WAYS = ("each rank", "both at once", "staggered", "in a save", "twice")


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_to_any_of_the_ranks_leaves_one_consistent_checkpoint(workplace: Workplace, name: str) -> None:
    number = getattr(signal, name)
    with Row("R9", f"{name} to ranks", tries=18, few=5) as row:
        for turn in range(row.tries):
            way, rank = WAYS[turn % len(WAYS)], row.random.randrange(2)
            with row.attempt(f"{way}, rank {rank}"):
                folder = workplace.new_folder("stopped")
                settings = {**LONG, "training.save_every": "5steps"}
                pause = Fault(0, at="save", count=2, do="pause", seconds=PAUSE)
                job = workplace.start(folder, settings, processes=2, faults=[pause] if way == "in a save" else [])
                after = row.random.randrange(3, 12)
                job.wait_for(lambda: pause.happened if way == "in a save" else step_of(folder) >= after)
                first = job.kill(rank, number)
                if way == "both at once":
                    job.kill(1 - rank, number)
                elif way == "staggered":
                    time.sleep(row.random.uniform(0, 5))
                    job.kill(1 - rank, number)
                elif way == "twice":
                    time.sleep(row.random.uniform(0, 0.1))
                    job.kill(rank, number)
                codes = job.wait(30)
                last = max(ended[1] for each in job.ranks if (ended := each.end()))
                took = last - first - (PAUSE if way == "in a save" else 0)
                row.measure("end", took)
                assert codes == [128 + number] * 2, f"exit codes {codes}\n{job.text}"
                assert took < LONGEST_END, f"{took:.1f} s"
                saved = max(assert_checkpoints_are_whole(folder), default=0)
                assert saved == step_of(folder), f"step {saved} is saved of {step_of(folder)}"
                assert "the same command goes on" in job.text


def test_a_signal_to_the_launcher_leaves_a_checkpoint_from_which_the_same_line_goes_on(
    workplace: Workplace,
) -> None:
    launcher = ["torchrun", "--nnodes", "1", "--nproc_per_node", "2", "-m", "hf_minilm.cli.main"]
    with Row("R9", "signals to torchrun", tries=6, few=2) as row:
        for turn in range(row.tries):
            number = (signal.SIGTERM, signal.SIGINT)[turn % 2]
            with row.attempt(f"{number.name}"):
                folder = workplace.new_folder("launched")
                port = ["--master_port", f"{free_port()}"]
                command = [launcher[0], *port, *launcher[1:], *words(folder, LONG)]
                launched = Launched(command, workplace.environment, folder.with_suffix(".txt"))
                launched.wait_for(lambda: step_of(folder) >= 3)
                workers = launched.workers()
                assert len(workers) == 2
                begin = time.monotonic()
                kill_if_alive(launched.process.pid, number)
                code = launched.wait(LONGEST_START)
                row.measure("end", time.monotonic() - begin)
                assert code != 0
                assert max(assert_checkpoints_are_whole(folder), default=0) == step_of(folder)
                assert not [pid for pid in workers if kill_if_alive(pid)], "workers outlive the launcher"
