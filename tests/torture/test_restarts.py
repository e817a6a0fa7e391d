"""R11: `torchrun --max-restarts` gives back the bits of a run without a fault."""

import time
from collections.abc import Sequence

from jobs import OWN_STORE_EACH_TIME, Launched, Workplace, kill_if_alive, step_of, weights
from tries import MARKS, Row

pytestmark = MARKS

FAULTS_EACH = 3
SETTINGS = {"training.budget": "60steps", "training.save_every": "5steps"}
AGENT = ["torchrun", "--standalone", "--max-restarts", f"{FAULTS_EACH}", "--nproc_per_node", "2"]


def test_a_run_that_torchrun_restarts_has_the_bits_of_one_without_a_fault(workplace: Workplace) -> None:
    with Row("R11", tries=30, few=3) as row:
        whole = weights(workplace.finish(workplace.new_folder("whole"), SETTINGS, processes=2))
        while row.done < row.tries and not row.is_lost:
            stops = sorted(row.random.sample(range(6, 50), FAULTS_EACH))
            with row.attempt(f"a rank killed after each of steps {stops}"):
                environment = {**workplace.environment, **OWN_STORE_EACH_TIME}
                launched = Launched(AGENT, workplace.new_folder("restarted"), SETTINGS, environment)
                injure(launched, stops, row)
                assert launched.wait() == 0, launched.text
                assert weights(launched.folder) == whole
            # Each fault was a try, and they succeed together.
            row.count_more(FAULTS_EACH - 1)


def injure(launched: Launched, stops: Sequence[int], row: Row) -> None:
    """Kill a random rank after each of some steps, and wait until the run has gone beyond."""
    for stop in stops:
        launched.wait_for_step(stop)
        ranks, begin = launched.workers(), time.monotonic()
        kill_if_alive(row.random.choice(ranks))
        launched.wait_for_new_workers(ranks)
        row.measure("new ranks", time.monotonic() - begin)
        launched.wait_for_step(step_of(launched.folder) + 1)
        row.measure("training again", time.monotonic() - begin)
