"""Who is measured when, and what is made of it."""

import json

import pytest

from hf_minilm.benchmark.contests import Contest, Contestant, Figure
from hf_minilm.benchmark.machine import Machine
from hf_minilm.benchmark.processes import Outcome
from hf_minilm.benchmark.report import table, to_json
from hf_minilm.benchmark.rounds import Spread, hold
from hf_minilm.benchmark.settings import BenchSettings
from hf_minilm.benchmark.work import GenerationWork, MachineWork

SPEED = Figure("tokens_per_second", "tokens/s")
OURS = Contestant("ours", GenerationWork("ours", "tiny", 400, 1))
PEER = Contestant("peer", GenerationWork("gpt2", "tiny", 400, 1), against="ours")
CONTEST = Contest("race", "who is faster", (OURS, PEER), (SPEED,))
RATES = {"fp32": 100.0, "bf16": 1000.0}


def figures(speed):
    return {"tokens_per_second": speed, "parameters": 5, "precision": "fp32", "flops_per_second": speed / 2}


class Scripted:
    """Gives the speeds of a list one after the other, None for a death, and remembers who was asked."""

    def __init__(self, ours, peer):
        self.speeds = {"ours": iter(ours), "gpt2": iter(peer)}
        self.asked = []

    def __call__(self, work):
        if isinstance(work, MachineWork):
            self.asked.append("machine")
            return Outcome({"matrix_rates": {"fp32": 50.0, "bf16": 1000.0}})
        self.asked.append(work.maker)
        speed = next(self.speeds[work.maker])
        return Outcome(None, "OutOfMemory: none left") if speed is None else Outcome(figures(speed))


def test_rounds_alternate_in_order_and_the_machine_is_measured_once_a_round():
    scripted = Scripted([1, 1, 1], [1, 1, 1])
    hold(CONTEST, 3, scripted, first_rates=RATES)
    assert scripted.asked == ["ours", "gpt2", "machine", "gpt2", "ours", "machine", "ours", "gpt2"]


def test_a_ratio_is_that_of_the_same_round():
    results = hold(CONTEST, 3, Scripted([10, 40, 90], [5, 10, 45]), first_rates=RATES)
    assert results.ratio(PEER, SPEED) == Spread(2.0, 2.0, 4.0)
    assert results.ratio(OURS, SPEED) is None
    assert results.spread("ours", SPEED.key) == Spread(10, 40, 90)


def test_the_matrix_rate_is_that_of_the_same_round():
    results = hold(CONTEST, 2, Scripted([10, 10], [1, 1]), first_rates=RATES)
    assert results.utilisation("ours") == Spread(5 / 100, pytest.approx((5 / 100 + 5 / 50) / 2), 5 / 50)


def test_a_contestant_that_dies_is_reported_and_the_others_go_on():
    results = hold(CONTEST, 2, Scripted([10, 20], [None, 5]), first_rates=RATES)
    assert not results.all_lived
    assert results.ratio(PEER, SPEED) == Spread(4.0, 4.0, 4.0)
    assert "peer died in round 1: OutOfMemory: none left" in table(results)


def test_a_contestant_that_never_lives_has_no_figures():
    results = hold(CONTEST, 1, Scripted([10], [None]), first_rates=RATES)
    line = next(line for line in table(results).splitlines() if line.startswith("peer "))
    assert line.split()[:2] == ["peer", "died"]
    machine = Machine("cpu", "a processor", 1, False, "3", "2", "5", "0")
    written = json.loads(json.dumps(to_json(machine, BenchSettings(), [results])))
    peer = written["contests"]["race"]["contestants"]["peer"]
    assert peer["rounds"] == [{"error": "OutOfMemory: none left"}]
    assert peer["tokens_per_second"] is None


def test_all_rows_of_a_table_have_their_columns_under_each_other():
    results = hold(CONTEST, 1, Scripted([1_000_000], [3]), first_rates=RATES)
    heading, ours, peer = table(results).splitlines()[1:]
    end = heading.index("tokens/s") + len("tokens/s")
    assert ours[:end].endswith("1,000,000 / 1,000,000 / 1,000,000")
    assert peer[:end].endswith("3 / 3 / 3")
