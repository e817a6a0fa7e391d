"""Intervals: against their definitions, and against figures whose spread is known."""

import math

import numpy as np
import pytest

from hf_minilm.evaluation.intervals import bootstrap_interval, stratified_bootstrap_interval, wilson_interval


@pytest.mark.parametrize(("successes", "number"), [(8, 10), (3.5, 7), (1, 90)])
def test_wilsons_bounds_are_the_shares_that_lie_1_96_deviations_from_the_one_seen(successes, number):
    for bound in wilson_interval(successes, number):
        assert abs(successes / number - bound) == pytest.approx(1.959964 * math.sqrt(bound * (1 - bound) / number))


def test_wilsons_interval_stays_between_0_and_1():
    assert wilson_interval(10, 10)[1] == 1.0
    assert wilson_interval(0, 7)[0] == 0.0


def test_the_bootstrap_of_a_mean_is_as_wide_as_its_standard_error_says():
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    columns = np.stack([values, np.ones(400)], axis=1)
    low, high = bootstrap_interval(columns, lambda sums: sums[:, 0] / sums[:, 1], seed=0)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.25 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.25 * error)


def test_the_same_seed_draws_the_same_samples_and_another_one_others():
    columns = np.random.default_rng(1).normal(size=(50, 1))
    bounds = [bootstrap_interval(columns, lambda sums: sums[:, 0], seed=seed) for seed in (3, 3, 4)]
    assert bounds[0] == bounds[1] != bounds[2]


def test_a_mean_over_groups_gives_each_group_the_same_weight():
    groups = [[1.0] * 30, [0.0] * 500]
    assert stratified_bootstrap_interval(groups, seed=0) == (0.5, 0.5)


def test_the_interval_of_a_mean_over_groups_has_the_variance_of_the_groups_means():
    generator = np.random.default_rng(5)
    groups = [(generator.random(size) < share).astype(float).tolist() for size, share in ((300, 0.9), (80, 0.4))]
    error = math.sqrt(sum(np.var(group) / len(group) for group in groups)) / 2
    low, high = stratified_bootstrap_interval(groups, seed=0)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.1)
