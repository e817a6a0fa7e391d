import itertools
import math
import random

import pytest

from hf_minilm.training.schedule import Budget, finished, learning_rate_factor, progress

KINDS = ("cosine", "linear", "wsd", "noam", "constant")
SHARES = {"warmup_share": 0.05, "decay_share": 0.2, "final_share": 0.1}


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("20min", "seconds", 1200),
        ("90s", "seconds", 90),
        ("1h30min", "seconds", 5400),
        ("1h 30min 5s", "seconds", 5405),
        ("1d", "seconds", 86400),
        ("0.5h", "seconds", 1800),
        ("2.5s", "seconds", 2.5),
        ("1000steps", "steps", 1000),
        ("1step", "steps", 1),
        ("10ksteps", "steps", 10_000),
        (1000, "steps", 1000),
        ("1_000", "steps", 1000),
        ("50Mtokens", "tokens", 50_000_000),
        ("2.5Btokens", "tokens", 2_500_000_000),
        ("2.3Btokens", "tokens", 2_300_000_000),
        ("123456789 tokens", "tokens", 123_456_789),
    ],
)
def test_a_budget_is_read_as_people_write_it(text: str | int, kind: str, value: float) -> None:
    budget = Budget.parse(text)
    assert (budget.kind, budget.value) == (kind, value)


@pytest.mark.parametrize(
    "text", ["", "min", "20 minutes", "1.5steps", "0s", "-5min", "0", "50mtokens", "1e3", "nan", "h"]
)
def test_a_budget_that_means_nothing_is_refused_with_examples_on_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"budget \(.*\) must .*20min") as caught:
        Budget.parse(text)
    assert "\n" not in str(caught.value)


def test_every_budget_survives_being_written_and_read_again() -> None:
    generator = random.Random(3)
    for _ in range(500):
        kind = generator.choice(["steps", "tokens", "seconds"])
        exact = [1, 7, 1000, 1500, 10**6, 2_500_000_000, 1_234_567_000, 10**12 + 10**6]
        value: float = generator.choice([*exact, generator.randrange(1, 10**13)])
        if kind == "seconds" and generator.random() < 0.5:
            value = generator.random() * 10 ** generator.randrange(-6, 5)
        budget = Budget(kind, value)
        assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    ("text", "again"),
    [("5400s", "1h30min"), ("180s", "3min"), ("90s", "1min30s"), ("2500Mtokens", "2.5Btokens"), (1000, "1000steps")],
)
def test_a_budget_is_written_in_its_shortest_usual_form(text: str | int, again: str) -> None:
    assert str(Budget.parse(text)) == again


@pytest.mark.parametrize("kind", KINDS)
def test_the_rate_rises_in_a_straight_line_reaches_its_peak_and_never_leaves_0_to_1(kind: str) -> None:
    assert learning_rate_factor(kind, 0.0, **SHARES) == 0.0
    assert learning_rate_factor(kind, 0.025, **SHARES) == pytest.approx(0.5)
    assert learning_rate_factor(kind, 0.05, **SHARES) == 1.0
    factors = [learning_rate_factor(kind, step / 997, **SHARES) for step in range(998)]
    assert all(0.0 <= factor <= 1.0 for factor in factors)
    after = [factor for step, factor in enumerate(factors) if step / 997 >= 0.05]
    assert all(later <= earlier for earlier, later in itertools.pairwise(after))


@pytest.mark.parametrize("kind", ["cosine", "linear", "wsd"])
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_the_rate_ends_at_the_final_share(kind: str, final: float) -> None:
    assert learning_rate_factor(kind, 1.0, **(SHARES | {"final_share": final})) == pytest.approx(final)


def test_each_schedule_has_the_value_of_its_formula_half_way_down() -> None:
    shares = {"warmup_share": 0.0, "decay_share": 0.2, "final_share": 0.0}
    assert learning_rate_factor("cosine", 0.25, **shares) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert learning_rate_factor("linear", 0.25, **shares) == pytest.approx(0.75)
    assert learning_rate_factor("wsd", 0.8, **shares) == 1.0
    assert learning_rate_factor("wsd", 0.85, **shares) == pytest.approx(0.5)
    assert learning_rate_factor("constant", 1.0, **shares) == 1.0


def test_noam_is_the_formula_of_the_paper_over_its_peak() -> None:
    width, warmup_steps, steps = 512, 40, 1000

    def of_the_paper(step: int) -> float:
        return width**-0.5 * min(step**-0.5, step * warmup_steps**-1.5)

    for step in (1, 7, 39, 40, 41, 500, 1000):
        ours = learning_rate_factor("noam", step / steps, warmup_share=0.04, decay_share=0.0, final_share=0.0)
        assert ours * (width * warmup_steps) ** -0.5 == pytest.approx(of_the_paper(step))


def test_extreme_shares_are_defined_everywhere() -> None:
    for kind in KINDS:
        for warmup in (0.0, 1.0):
            for decay in (0.0, 1.0):
                for done in (0.0, 0.5, 1.0):
                    factor = learning_rate_factor(kind, done, warmup_share=warmup, decay_share=decay, final_share=0.0)
                    assert 0.0 <= factor <= 1.0
    assert learning_rate_factor("wsd", 1.0, warmup_share=0.1, decay_share=0.0, final_share=0.0) == 1.0


def test_a_share_outside_0_to_1_and_an_unknown_schedule_are_refused() -> None:
    with pytest.raises(ValueError, match=r"progress \(1.5\) must be in \[0, 1\]"):
        learning_rate_factor("cosine", 1.5, **SHARES)
    with pytest.raises(ValueError, match=r"schedule \(polynomial\) must be one of"):
        learning_rate_factor("polynomial", 0.5, **SHARES)  # type: ignore[arg-type]


def test_progress_counts_what_the_budget_counts_and_stops_at_1() -> None:
    done = {"tokens": 500, "seconds": 30.0}
    assert progress(Budget.parse("40steps"), 10, **done) == 0.25
    assert progress(Budget.parse("1000tokens"), 10, **done) == 0.5
    assert progress(Budget.parse("2min"), 10, **done) == 0.25
    assert progress(Budget.parse("5steps"), 10, **done) == 1.0
    assert progress(Budget.parse("2min"), 10, **done, opening_seconds=20.0) == 0.1
    assert progress(Budget.parse("40steps"), 10, **done, opening_seconds=20.0) == 0.25


def test_a_run_is_finished_exactly_when_its_budget_is_used() -> None:
    for size in (1, 3, 7, 49, 1000, 123_457):
        budget = Budget("steps", size)
        assert not finished(budget, size - 1, tokens=0, seconds=0.0)
        assert finished(budget, size, tokens=0, seconds=0.0)


def test_the_rate_of_a_step_does_not_depend_on_the_number_of_processes_or_on_a_restart() -> None:
    budget = Budget.parse("37steps")
    whole = [
        learning_rate_factor("cosine", progress(budget, step + 0.5, tokens=0, seconds=0.0), **SHARES)
        for step in range(37)
    ]
    resumed = [
        learning_rate_factor("cosine", progress(budget, step + 0.5, tokens=9, seconds=5.0), **SHARES)
        for step in range(20, 37)
    ]
    assert whole[20:] == resumed
    assert min(whole) > 0.0
