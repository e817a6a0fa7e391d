"""Rollout is the sum over all paths from a token down to the input, each the product of its mixed weights."""

import itertools

import torch

from hf_minilm.inspection import rollout
from hf_minilm.inspection.rollout import rollout_of_decoder


def draw_maps(*shape: int, seed: int = 4) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).softmax(-1)


def mixed(weights: torch.Tensor) -> list[list[float]]:
    """The edges of a layer's graph (Abnar and Zuidema 2020, section 3): weights and the residual, half each."""
    return (0.5 * weights.mean(0) + 0.5 * torch.eye(weights.shape[-1])).tolist()


def sum_over_paths(layers: list[list[list[float]]], start: int, end: int) -> float:
    tokens = range(len(layers[0]))
    total = 0.0
    for between in itertools.product(tokens, repeat=len(layers) - 1):
        path = (start, *between, end)
        product = 1.0
        for layer, (upper, lower) in zip(reversed(layers), itertools.pairwise(path), strict=True):
            product *= layer[upper][lower]
        total += product
    return total


def test_rollout_is_the_sum_over_all_paths_of_the_products_of_their_weights():
    maps = draw_maps(3, 2, 4, 4)
    layers = [mixed(layer) for layer in maps]
    rolled = rollout(maps)
    for layer in range(3):
        expected = [[sum_over_paths(layers[: layer + 1], start, end) for end in range(4)] for start in range(4)]
        torch.testing.assert_close(rolled[layer], torch.tensor(expected, dtype=torch.float64))


def test_two_tokens_that_look_at_each_other_are_halves_and_then_even():
    maps = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).expand(2, 1, 2, 2)
    assert rollout(maps).tolist() == [[[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]]]
    looks_at_itself = torch.eye(2).expand(2, 1, 2, 2)
    assert rollout(looks_at_itself).tolist() == [[[1, 0], [0, 1]]] * 2


def test_no_share_of_a_later_token_reaches_a_causal_one_and_rows_sum_to_1():
    maps = draw_maps(3, 2, 5, 5).tril()
    rolled = rollout(maps / maps.sum(-1, keepdim=True))
    assert rolled.triu(1).abs().max() == 0
    torch.testing.assert_close(rolled.sum(-1), torch.ones(3, 5, dtype=torch.float64))


def test_a_token_that_may_look_at_nothing_is_made_of_itself():
    maps = draw_maps(2, 2, 4, 4)
    maps[:, :, 1] = 0
    rolled = rollout(maps)
    assert rolled[:, 1].tolist() == [[0, 1, 0, 0]] * 2
    torch.testing.assert_close(rolled.sum(-1), torch.ones(2, 4, dtype=torch.float64))


def test_a_decoder_that_does_not_look_at_the_source_has_the_rollout_of_its_own_maps():
    own, source = draw_maps(3, 2, 4, 4), rollout(draw_maps(2, 2, 6, 6, seed=5))[-1]
    shares, of_source = rollout_of_decoder(own, torch.zeros(3, 2, 4, 6, dtype=torch.float64), source)
    torch.testing.assert_close(shares, rollout(own))
    assert of_source.abs().max() == 0


def test_the_rollout_of_a_decoder_is_that_of_one_graph_with_both_texts_and_two_layers_for_each_of_its_own():
    own, cross, encoder = draw_maps(2, 3, 4, 4), draw_maps(2, 3, 4, 6, seed=6), draw_maps(2, 3, 6, 6, seed=5)
    shares, of_source = rollout_of_decoder(own, cross, rollout(encoder)[-1])
    rolled_source = rollout(encoder)[-1]
    reached = torch.eye(4, 10, dtype=torch.float64)
    read = torch.cat((torch.zeros(6, 4), rolled_source), dim=1)
    for layer in range(2):
        reached = torch.tensor(mixed(own[layer]), dtype=torch.float64) @ reached
        both = torch.cat((torch.eye(4), cross[layer].mean(0)), dim=1) / 2
        reached = both @ torch.cat((reached, read))
        torch.testing.assert_close(torch.cat((shares[layer], of_source[layer]), dim=1), reached)
    torch.testing.assert_close(shares.sum(-1) + of_source.sum(-1), torch.ones(2, 4, dtype=torch.float64))
