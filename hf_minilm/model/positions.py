"""Positional embeddings: how a model that sees a set of tokens learns their order.

Attention alone does not know where a token stands. A scheme tells it in up to three places, and is one class with one
method for each place; attention calls all three and does not know which scheme it has:

    added_to_embeddings   a vector per position, added to the token embeddings before the first layer
    rotation              angles per position, by which every layer turns its queries and keys
    added_to_scores       a number per pair of positions, added to every layer's attention scores

A new scheme is one class and one line in `POSITION_SCHEMES`.

Shapes: B batch, H heads, T query positions, S key positions, D head size, E hidden size. Positions count from 0 and
restart at 0 with each sequence of a packed row.
"""

import difflib
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn
from transformers.utils.import_utils import is_tracing

from .configuration_minilm import MiniLMConfig

Rotation = tuple[torch.Tensor, torch.Tensor]
"""Cosine and sine of each position's angles, each [B or 1, 1, T, D], in float32."""


class PositionScheme(nn.Module):
    """Base of every scheme: tells nothing in all three places, which is the scheme `none`.

    Without positions a bidirectional model sees a bag of tokens; a causal one can still count what it may look at
    (Haviv et al. 2022, arXiv:2203.16634).
    """

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__()
        self.max_positions = config.max_position_embeddings

    def added_to_embeddings(self, position_ids: torch.Tensor) -> torch.Tensor | None:
        """Give the vectors [B or 1, T, E] to add to the token embeddings of positions [B or 1, T], or None."""
        return None

    def rotation(self, position_ids: torch.Tensor) -> Rotation | None:
        """Give the angles by which `rotate` turns queries and keys at positions [B or 1, T], or None."""
        return None

    def added_to_scores(self, query_positions: torch.Tensor, key_positions: torch.Tensor) -> torch.Tensor | None:
        """Give the bias [B or 1, H, T, S] for queries at [B or 1, T] and keys at [B or 1, S], or None."""
        return None

    def refuse_unknown_positions(self, position_ids: torch.Tensor) -> None:
        """Raise ValueError for a position that the scheme cannot tell; most can tell any."""


class LearnedPositions(PositionScheme):
    """One trained vector a position (Gehring et al. 2017; BERT and GPT-2).

    Cannot be asked about a position beyond its table.
    """

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__(config)
        self.table = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def added_to_embeddings(self, position_ids: torch.Tensor) -> torch.Tensor:
        """Look the positions up in the trained table."""
        return self.table(position_ids)

    def refuse_unknown_positions(self, position_ids: torch.Tensor) -> None:
        """Raise for a position beyond the table, where looking costs nothing: on the CPU, outside compiled code.

        Raises:
            ValueError: With the longest sequence that the table allows.
        """
        if position_ids.device.type != "cpu" or is_tracing(position_ids):
            return
        length = int(position_ids.max()) + 1
        if length > self.table.num_embeddings:
            raise ValueError(
                f"sequence length ({length}) must not exceed max_position_embeddings ({self.table.num_embeddings}); "
                "shorten the sequence, or use a position_embedding without a table."
            )


class SinusoidalPositions(PositionScheme):
    """Fixed waves of geometrically growing length (Vaswani et al. 2017, section 3.5).

    PE(p, 2i) = sin(p / 10000^(2i/E)) and PE(p, 2i+1) = cos(p / 10000^(2i/E)). Waves are computed for the positions
    asked for, not looked up, so there is no longest sequence.
    """

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__(config)
        self.hidden_size = config.hidden_size

    def added_to_embeddings(self, position_ids: torch.Tensor) -> torch.Tensor:
        """Interleave the sine and the cosine of every frequency at every position."""
        angles = angles_of(position_ids, self.hidden_size, theta=10_000.0)  # [B, T, E/2]
        return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)  # [B, T, E]


class RotaryPositions(PositionScheme):
    """Queries and keys turned by an angle proportional to their position (Su et al. 2021, equation 34).

    The product of a query at p and a key at q then depends on p - q alone. As in Llama, feature i is paired with
    i + D/2, where the paper pairs 2i with 2i + 1: the same up to a fixed permutation of the features, and faster.
    """

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__(config)
        # The configuration has filled both in.
        self.head_size = cast(int, config.head_dim)
        self.theta = cast(dict[str, Any], config.rope_parameters)["rope_theta"]

    def rotation(self, position_ids: torch.Tensor) -> Rotation:
        """Cosine and sine of position x frequency."""
        angles = angles_of(position_ids, self.head_size, theta=self.theta)  # [B, T, D/2]
        angles = torch.cat((angles, angles), dim=-1).unsqueeze(1)  # [B, 1, T, D]
        return angles.cos(), angles.sin()


def angles_of(position_ids: torch.Tensor, size: int, *, theta: float) -> torch.Tensor:
    """Compute position x theta^(-2i / size) for i = 0 .. size/2 - 1.

    The frequencies are computed when they are asked for and never stored: a buffer would be rounded when the model is
    cast to bfloat16 (and an angle of 1000 then be wrong by up to 4), and be lost when it is built on the meta device.

    Args:
        position_ids: [B or 1, T], from 0.
        size: Number of features that the angles serve, even.
        theta: Base of the geometric progression.

    Returns:
        Angles in radians, float32 [B or 1, T, size/2].
    """
    exponents = torch.arange(0, size, 2, dtype=torch.int64, device=position_ids.device).float() / size
    return position_ids[..., None].float() * (1.0 / theta**exponents)


def rotate(features: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    """Turn the pairs (i, i + D/2) of queries or keys [B, H, T, D] by their positions' angles; the type is kept."""
    cosine, sine = rotation
    first, second = features.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (features * cosine + turned * sine).to(features.dtype)


POSITION_SCHEMES: dict[str, Callable[[MiniLMConfig], PositionScheme]] = {
    "none": PositionScheme,
    "learned": LearnedPositions,
    "sinusoidal": SinusoidalPositions,
    "rope": RotaryPositions,
}
"""The registry: what `MiniLMConfig.position_embedding` may name."""


def build_positions(config: MiniLMConfig) -> PositionScheme:
    """Build the scheme that the configuration names.

    Raises:
        ValueError: If no scheme has that name.
    """
    name = config.position_embedding
    if name not in POSITION_SCHEMES:
        near = difflib.get_close_matches(name, POSITION_SCHEMES, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"position_embedding ({name}) must be one of {', '.join(POSITION_SCHEMES)}; the nearest is {near}."
        )
    return POSITION_SCHEMES[name](config)
