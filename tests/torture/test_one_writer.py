"""R13: a run folder has one writer, whoever was killed and however fast the run is started again."""

import time

from jobs import (
    Launched,
    Workplace,
    assert_checkpoints_are_whole,
    is_running,
    kill_if_alive,
    slowness,
    weights,
)
from tries import MARKS, Row

pytestmark = MARKS

LONGEST_ORPHAN = 5.0
LONG = {"training.budget": "100000steps", "training.save_every": "5steps"}
AGENT = ["torchrun", "--standalone", "--nproc_per_node", "2"]


def test_the_ranks_of_a_killed_launcher_go_too_and_meanwhile_the_run_cannot_be_started(workplace: Workplace) -> None:
    with Row("R13", "kill -9 of torchrun", tries=20, few=2) as row:
        for number in range(row.tries):
            with row.attempt(f"kill {number}"):
                launched = Launched(AGENT, workplace.new_folder("orphaned"), LONG, workplace.environment)
                launched.wait_for_step(row.random.randrange(2, 20))
                orphans = launched.workers()
                assert len(orphans) == 2
                kill_if_alive(launched.process.pid)
                launched.process.wait()
                try:
                    start_again_at_once(workplace, launched, orphans, row)
                finally:
                    for pid in orphans:
                        kill_if_alive(pid)
                assert_checkpoints_are_whole(launched.folder)


def start_again_at_once(workplace: Workplace, launched: Launched, orphans: list[int], row: Row) -> None:
    """Start the run of a killed launcher again, and see that its ranks end and that there is only one writer."""
    begin = time.monotonic()
    again = workplace.start(launched.folder, LONG, processes=2)
    slow = slowness()
    row.measure("slowness", slow)
    while any(is_running(pid) for pid in orphans) and time.monotonic() < begin + LONGEST_ORPHAN * slow:
        time.sleep(0.01)
    left = [pid for pid in orphans if is_running(pid)]
    row.measure("orphan", time.monotonic() - begin)
    ended = again.ranks[0].end(20.0 * slow if left else 1.0)
    again.kill_all()
    is_refused = ended is not None and ended[0] == 2 and "must have one writer" in again.text
    assert ended is None or is_refused, f"{ended}\n{again.text}"
    assert not left, (
        f"{len(left)} ranks live on after {time.monotonic() - begin:.1f} s; the second start is refused: {is_refused}"
    )


def test_a_second_job_in_a_folder_is_refused_and_does_not_disturb_the_first(workplace: Workplace) -> None:
    settings = {"training.save_every": "5steps"}
    with Row("R13", "two jobs in a folder", tries=12, few=3) as row:
        whole = weights(workplace.finish(workplace.new_folder("whole"), settings, processes=2))
        for number in range(row.tries):
            with row.attempt(f"job {number}"):
                first = workplace.start(workplace.new_folder("shared"), settings, processes=2)
                first.wait_for_step(row.random.randrange(1, 10))
                begin = time.monotonic()
                second = workplace.start(first.folder, settings, processes=row.random.choice([1, 2]))
                codes = second.wait()
                row.measure("refusal", second.last_end - begin)
                text = second.text
                assert first.wait() == [0, 0], first.text
                assert codes[0] == 2, f"exit codes {codes}\n{text}"
                assert all(code > 0 for code in codes), f"exit codes {codes}\n{text}"
                assert "must have one writer" in text
                assert weights(first.folder) == whole
