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
import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn
from transformers import Cache

from .configuration_minilm import MiniLMConfig
from .input_checks import is_plain

Rotation = tuple[torch.Tensor, torch.Tensor]
"""Cosine and sine of each position's angles, each [B or 1, 1, T, R] in float32, R the features that are turned."""


class PositionScheme(nn.Module):
    """Base of every scheme: tells nothing in all three places, which is the scheme `none`.

    Without positions a bidirectional model sees a bag of tokens; a causal one can still count what it may look at
    (Haviv et al. 2022, arXiv:2203.16634).
    """

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__()
        # Into its `is_causal` transformers writes the direction that a call asks for, while it lasts, as masks read it.
        self.config = config
        self.max_positions = config.max_position_embeddings

    def added_to_embeddings(self, position_ids: torch.Tensor) -> torch.Tensor | None:
        """Give the vectors [B or 1, T, E] to add to the token embeddings of positions [B or 1, T], or None."""
        return None

    def rotation(self, position_ids: torch.Tensor, layer_type: str = "full_attention") -> Rotation | None:
        """Give the angles by which `rotate` turns queries and keys at positions [B or 1, T], or None.

        `layer_type` is an entry of the configuration's `layer_types`: sliding layers may turn by other angles.
        """
        return None

    def added_to_scores(self, query_positions: torch.Tensor, key_positions: torch.Tensor) -> torch.Tensor | None:
        """Give the bias [B or 1, H, T, S] for queries at [B or 1, T] and keys at [B or 1, S], or None.

        Where it depends on the direction of attention, that is `self.config.is_causal` at the time of the call.
        """
        return None

    @property
    def is_added_to_scores(self) -> bool:
        """Whether there is a bias on the scores."""
        return type(self).added_to_scores is not PositionScheme.added_to_scores

    def refuse_unknown_positions(self, position_ids: torch.Tensor) -> None:
        """Raise ValueError for a position that the scheme cannot tell; most can tell any."""

    def score_bias(self, position_ids: torch.Tensor, cache: Cache | None, layer_idx: int) -> torch.Tensor | None:
        """Give the bias for queries at [B or 1, T] and the keys of a layer, its own tokens' or also a cache's.

        Keys in a cache stand one after another, and only differences of positions count, so the queries are counted
        from the cache too, whatever padding came first.
        """
        if cache is None:
            return self.added_to_scores(position_ids, position_ids)
        length, device = position_ids.shape[1], position_ids.device
        key_length, first_key = cache.get_mask_sizes(length, layer_idx)
        keys = (torch.arange(key_length, device=device) + first_key).unsqueeze(0)
        queries = (torch.arange(length, device=device) + cache.get_seq_length()).unsqueeze(0)
        return self.added_to_scores(queries, keys)


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
        """Raise for a position outside the table, where looking costs nothing: on the CPU, outside compiled code.

        Raises:
            ValueError: With the longest sequence that the table allows.
        """
        if position_ids.device.type != "cpu" or not is_plain(position_ids):
            return
        lowest, highest = torch.aminmax(position_ids)
        length = int(highest) + 1
        if lowest < 0:
            raise ValueError(
                f"position_ids ({int(lowest)}) must be in [0, {self.table.num_embeddings}) to be looked up in a table; "
                "count from 0, and give padding any position that is there."
            )
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
    i + R/2, where the paper pairs 2i with 2i + 1: the same up to a fixed permutation of the features, and faster. R is
    the head size, or a share of it (`partial_rotary_factor`, Black et al. 2022, section 2.1.1): the rest is not turned.

    `rope_parameters["rope_type"]` names a way of reaching further than the training did, see `FREQUENCIES`. With
    `dynamic` the frequencies depend on the longest position of the batch, so that keys which a cache took in before
    the text outgrew `max_position_embeddings` are turned by other ones than those after: as in transformers.
    """

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__(config)
        self.head_size = cast(int, config.head_dim)  # the configuration has filled it in
        layer_types = set(cast(list[str], config.layer_types))
        self.rope_parameters = {layer_type: config.rope_parameters_of(layer_type) for layer_type in layer_types}

    def rotation(self, position_ids: torch.Tensor, layer_type: str = "full_attention") -> Rotation:
        """Cosine and sine of position x frequency."""
        parameters = self.rope_parameters[layer_type]
        size = int(self.head_size * parameters.get("partial_rotary_factor", 1.0))
        compute = FREQUENCIES[parameters["rope_type"]]
        frequencies = compute(parameters, size, position_ids=position_ids, max_positions=self.max_positions)
        angles = position_ids[..., None].float() * frequencies  # [B, T, R/2]
        angles = torch.cat((angles, angles), dim=-1).unsqueeze(1)  # [B, 1, T, R]
        factor = attention_factor(parameters)
        return angles.cos() * factor, angles.sin() * factor


class LinearBiases(PositionScheme):
    """The further away a token, the lower its score, at a slope of each head's own (ALiBi, Press et al. 2022).

    Causal: -slope x (p - q) for a query at p and a key at q <= p, the paper's section 3. Bidirectional: -slope x
    |p - q|, which the paper leaves open; a model cannot tell then whether a token stands before or after another.
    """

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__(config)
        self.num_heads = config.num_attention_heads

    def added_to_scores(self, query_positions: torch.Tensor, key_positions: torch.Tensor) -> torch.Tensor:
        """Multiply distances by slopes."""
        distances = key_positions[:, None, :] - query_positions[:, :, None]  # [B, T, S], negative for earlier keys
        # Left linear where causal: what lies ahead is masked, and a padded row may count its positions from anywhere.
        distances = distances if self.config.is_causal else -distances.abs()
        # Written on the device: sent there, they would be waited for, and a CUDA graph may not send them.
        slopes = torch.stack([torch.full((), slope, device=distances.device) for slope in slopes_of(self.num_heads)])
        return distances[:, None].float() * slopes[:, None, None]  # [B, H, T, S]


def slopes_of(num_heads: int) -> list[float]:
    """List ALiBi's slopes: 2^(-8/n), 2^(-16/n), ... for n heads, n a power of 2 (Press et al. 2022, section 3).

    For another number of heads, those of the power of 2 below, and then every second one of the power above: the rule
    of the authors' code.
    """
    below = 2 ** int(math.log2(num_heads))
    slopes = [2.0 ** (-8.0 * (head + 1) / below) for head in range(below)]
    return slopes + [2.0 ** (-4.0 * (head + 1) / below) for head in range(0, 2 * (num_heads - below), 2)]


class RelativeBiases(PositionScheme):
    """A trained number for each head and distance, far distances in common buckets, the same in every layer (T5).

    Raffel et al. 2020 (arXiv:1910.10683), section 2.1: a quarter of the buckets (half when causal) for the nearest
    distances one by one, then logarithmically wider ones up to the largest distance. Bidirectional attention has its
    own half of the buckets for either side.
    """

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__(config)
        self.num_buckets = config.relative_attention_num_buckets
        self.max_distance = config.relative_attention_max_distance
        self.table = nn.Embedding(self.num_buckets, config.num_attention_heads)

    def added_to_scores(self, query_positions: torch.Tensor, key_positions: torch.Tensor) -> torch.Tensor:
        """Look every pair's bucket up in the trained table."""
        distances = key_positions[:, None, :] - query_positions[:, :, None]  # [B, T, S]
        return self.table(self.buckets(distances)).permute(0, 3, 1, 2)  # [B, H, T, S]

    def buckets(self, distances: torch.Tensor) -> torch.Tensor:
        """Number the bucket of each distance (key's position minus query's), whatever the shape."""
        if self.config.is_causal:
            num_buckets, first, distances = self.num_buckets, torch.zeros_like(distances), (-distances).clamp(min=0)
        else:
            num_buckets = self.num_buckets // 2
            first, distances = (distances > 0) * num_buckets, distances.abs()
        num_single = num_buckets // 2
        # Clamped, so that no logarithm of 0 is taken where the near distances are meant.
        ratio = (distances.clamp(min=num_single).float() / num_single).log() / math.log(self.max_distance / num_single)
        far = num_single + (ratio * (num_buckets - num_single)).long()
        return first + torch.where(distances < num_single, distances, far.clamp(max=num_buckets - 1))


def angles_of(position_ids: torch.Tensor, size: int, *, theta: float) -> torch.Tensor:
    """Compute position x theta^(-2i / size) for i = 0 .. size/2 - 1, in radians: float32 [B or 1, T, size/2]."""
    return position_ids[..., None].float() * base_frequencies(size, theta=theta, device=position_ids.device)


def base_frequencies(size: int, *, theta: float | torch.Tensor, device: torch.device) -> torch.Tensor:
    """Compute theta^(-2i / size) for i = 0 .. size/2 - 1, the angle a position adds, in radians.

    The frequencies are computed when they are asked for and never stored: a buffer would be rounded when the model is
    cast to bfloat16 (and an angle of 1000 then be wrong by up to 4), and be lost when it is built on the meta device.

    Args:
        size: Number of features that the angles serve, even.
        theta: Base of the geometric progression.
        device: Where to compute.

    Returns:
        float32 [size/2].
    """
    exponents = torch.arange(0, size, 2, dtype=torch.int64, device=device).float() / size
    return 1.0 / theta**exponents


def default_frequencies(
    parameters: dict[str, Any], size: int, *, position_ids: torch.Tensor, max_positions: int
) -> torch.Tensor:
    """The paper's own frequencies."""
    return base_frequencies(size, theta=parameters["rope_theta"], device=position_ids.device)


def linear_frequencies(
    parameters: dict[str, Any], size: int, *, position_ids: torch.Tensor, max_positions: int
) -> torch.Tensor:
    """All positions `factor` times closer together (Chen et al. 2023, arXiv:2306.15595, equation 4)."""
    theta = parameters["rope_theta"]
    return base_frequencies(size, theta=theta, device=position_ids.device) / parameters["factor"]


def dynamic_frequencies(
    parameters: dict[str, Any], size: int, *, position_ids: torch.Tensor, max_positions: int
) -> torch.Tensor:
    """A base that grows with the text once it is longer than the training's (dynamic NTK; Peng et al. 2023, B.3).

    theta' = theta x (factor x length / max_positions - (factor - 1))^(size / (size - 2)).
    """
    length = (position_ids.max() + 1).clamp(min=max_positions).float()
    stretch = parameters["factor"] * length / max_positions - (parameters["factor"] - 1)
    theta = parameters["rope_theta"] * stretch ** (size / (size - 2))
    return base_frequencies(size, theta=theta, device=position_ids.device)


def yarn_frequencies(
    parameters: dict[str, Any], size: int, *, position_ids: torch.Tensor, max_positions: int
) -> torch.Tensor:
    """Slow waves stretched by `factor`, fast ones kept, a ramp between (YaRN, Peng et al. 2023, arXiv:2309.00071).

    Section 3.2: a wave that turns more than `beta_fast` (32) times within the training's length is kept, one that
    turns less than `beta_slow` (1) times is stretched. As in the authors' code, the ramp is linear in the number of
    the wave, its ends rounded outwards unless `truncate` is false, where the paper's is linear in the turns.
    """
    theta, length = parameters["rope_theta"], parameters.get("original_max_position_embeddings", max_positions)
    first, last = (
        size * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))
        for turns in (parameters.get("beta_fast") or 32, parameters.get("beta_slow") or 1)
    )
    if parameters.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, size - 1)
    waves = torch.arange(size // 2, device=position_ids.device).float()
    stretched = ((waves - first) / max(last - first, 0.001)).clamp(0, 1)
    frequencies = base_frequencies(size, theta=theta, device=position_ids.device)
    return frequencies * (1 - stretched) + frequencies / parameters["factor"] * stretched


def llama3_frequencies(
    parameters: dict[str, Any], size: int, *, position_ids: torch.Tensor, max_positions: int
) -> torch.Tensor:
    """Waves longer than the training's text divided by `factor`, short ones kept, smoothly between (Llama 3.1's code).

    Long is above length / low_freq_factor, short below length / high_freq_factor.
    """
    frequencies = base_frequencies(size, theta=parameters["rope_theta"], device=position_ids.device)
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    length = parameters.get("original_max_position_embeddings", max_positions)
    turns = length * frequencies / (2 * math.pi)  # within the training's text
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return frequencies * kept + frequencies / parameters["factor"] * (1 - kept)


FREQUENCIES: dict[str, Callable[..., torch.Tensor]] = {
    "default": default_frequencies,
    "linear": linear_frequencies,
    "dynamic": dynamic_frequencies,
    "yarn": yarn_frequencies,
    "llama3": llama3_frequencies,
}
"""How each `rope_type` computes the angle that a position adds, float32 [R/2] for R turned features."""


def attention_factor(parameters: dict[str, Any]) -> float:
    """Compute what cosines and sines are multiplied by: 1, but for YaRN 0.1 ln(factor) + 1 (its equation 22).

    `attention_factor` replaces it; with `mscale` and `mscale_all_dim` (DeepSeek's code) it is a ratio of two such sums.
    """
    if parameters["rope_type"] != "yarn":
        return 1.0
    if parameters.get("attention_factor") is not None:
        return float(parameters["attention_factor"])
    growth = 0.1 * math.log(max(parameters["factor"], 1.0))
    above, below = parameters.get("mscale"), parameters.get("mscale_all_dim")
    return (growth * above + 1.0) / (growth * below + 1.0) if above and below else growth + 1.0


def rotate(features: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    """Turn queries or keys [B, H, T, D] by their positions' angles; the type is kept.

    Of the first R features, R the size of the rotation, those at i and i + R/2 are a pair; the rest is left as it is.
    """
    cosine, sine = rotation
    turned, left = features.split((cosine.shape[-1], features.shape[-1] - cosine.shape[-1]), dim=-1)
    first, second = turned.chunk(2, dim=-1)
    quarter_turn = torch.cat((-second, first), dim=-1)
    turned = (turned * cosine + quarter_turn * sine).to(features.dtype)
    return torch.cat((turned, left), dim=-1) if left.shape[-1] else turned


POSITION_SCHEMES: dict[str, Callable[[MiniLMConfig], PositionScheme]] = {
    "none": PositionScheme,
    "learned": LearnedPositions,
    "sinusoidal": SinusoidalPositions,
    "rope": RotaryPositions,
    "alibi": LinearBiases,
    "relative_bias": RelativeBiases,
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
