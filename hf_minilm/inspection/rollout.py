"""Attention rollout: how much of each input token has reached each token of a layer, through all layers below it.

A map of the third layer says which *vectors* of the second layer are read, and each of those is a mixture already.
Rollout (Abnar and Zuidema 2020, arXiv:2005.00928, section 3.1) follows the mixing down to the tokens that went in. With
`W_l` the mean over the heads of layer l, and half of each vector taken to come over the residual connection:

    A_l = (W_l + I) / 2                              its rows sum to 1
    R_l = A_l R_(l-1),  R_0 = I                      row i: the shares of the input tokens in token i after layer l

The half is the paper's assumption; the values, the feed-forward layers and the norms are left out. For the decoder of
an encoder-decoder the paper has no equation: here each sub-layer with a residual connection is mixed in the same way.

Shapes: L layers, H heads, T tokens, S source tokens.
"""

import torch


def rollout(maps: torch.Tensor) -> torch.Tensor:
    """Roll the maps of a stack out.

    Args:
        maps: Weights of self-attention [L, H, T, T], from the lowest layer.

    Returns:
        `R_l` of every layer, [L, T, T]; each row sums to 1.
    """
    reached = torch.eye(maps.shape[-1], dtype=maps.dtype, device=maps.device)
    layers = []
    for weights in maps.mean(dim=1):
        reached = _mixed(weights, reached, over_the_residual=reached)
        layers.append(reached)
    return torch.stack(layers)


def rollout_of_decoder(
    own: torch.Tensor, cross: torch.Tensor, source: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Roll the maps of a decoder out that looks at itself and then, in each layer, at another text.

    Args:
        own: Weights of the decoder's self-attention, [L, H, T, T].
        cross: Those of its cross-attention, [L, H, T, S].
        source: The encoder's rollout after its last layer, [S, S].

    Returns:
        The shares of the decoder's own input tokens [L, T, T], and of the source's [L, T, S]. Row i of the one and row
        i of the other sum to 1 together.
    """
    length, source_length = cross.shape[-2:]
    reached = torch.eye(length, length + source_length, dtype=own.dtype, device=own.device)
    of_source = torch.cat((source.new_zeros(source_length, length), source), dim=-1)  # [S, T + S]
    layers = []
    for own_weights, cross_weights in zip(own.mean(dim=1), cross.mean(dim=1), strict=True):
        reached = _mixed(own_weights, reached, over_the_residual=reached)
        reached = _mixed(cross_weights, of_source, over_the_residual=reached)
        layers.append(reached)
    return torch.stack(layers)[..., :length], torch.stack(layers)[..., length:]


def _mixed(weights: torch.Tensor, read: torch.Tensor, *, over_the_residual: torch.Tensor) -> torch.Tensor:
    """Half of what the weights read and half of what was there; all of the latter where a token may read nothing."""
    reads = 0.5 * weights.sum(dim=-1, keepdim=True)  # a half, or nothing
    return 0.5 * weights @ read + (1 - reads) * over_the_residual
