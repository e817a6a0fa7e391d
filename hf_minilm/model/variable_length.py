"""Texts of unequal length as one long line of tokens with marks where each begins: `minilm_varlen`.

A mask over a row of T tokens costs T^2 scores a row, most of which lie across packed sequences, or on padding, and are
thrown away. What is here is told where sequences begin and never looks across: a sequence of length L costs L^2. On
CUDA by a kernel that torch ships (FlashAttention, Dao 2023, arXiv:2307.08691), or where every row is one sequence by
cuDNN's, which needs two thirds of its time; on a CPU by taking sequences of about the same length together. And a
batch of padded texts is brought into such a line before the first layer and back after the last, so that padding costs
nothing anywhere. It knows self-attention without a cache, and no position bias.

Shapes: B batch, H query heads, K key and value heads, T positions, D head size, L tokens of the line, N sequences.
"""

import functools
from typing import Any, cast

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

VARIABLE_LENGTH = "minilm_varlen"
"""The name to give as `attn_implementation`."""

FIRST_WITH_KERNEL = (8, 0)
"""The compute capability from which on a GPU has torch's kernel for sequences of unequal length, and bf16 products."""

# The fastest first, for rows that are one sequence each.
_WHOLE_ROWS = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]

LONGEST_TRAINED_BY_FORMULA = 256
"""Tokens of a sequence up to which a CPU in bf16 goes there and back faster by the formula than by torch's kernel."""


def fits_in_a_line(config: Any, attention_mask: Any, *, hidden_states_wanted: Any) -> bool:
    """Tell whether a batch has padding that can be left out; those who look inside the layers see rows."""
    is_rows = isinstance(attention_mask, torch.Tensor) and attention_mask.dim() == 2
    if not is_rows or config._attn_implementation != VARIABLE_LENGTH or torch.compiler.is_compiling():
        return False
    if hidden_states_wanted is None:
        hidden_states_wanted = getattr(config, "output_hidden_states", False)
    return not hidden_states_wanted and not bool(attention_mask.all())


class Line:
    """The tokens of padded rows as one line without the padding.

    Args:
        attention_mask: 1 for tokens and 0 for padding, [B, T].
        sequence_ids: Number of each token's packed sequence, [B, T]; None: a row is one sequence.
    """

    def __init__(self, attention_mask: torch.Tensor, sequence_ids: torch.Tensor | None) -> None:
        self.shape = attention_mask.shape
        self.kept = attention_mask.flatten().nonzero().flatten()  # [L]
        rows = torch.arange(self.shape[0], device=attention_mask.device)[:, None].expand(self.shape)
        owner = rows if sequence_ids is None else rows * self.shape[1] + sequence_ids
        changes = owner.flatten()[self.kept].diff().nonzero().flatten() + 1
        self.bounds = nn.functional.pad(nn.functional.pad(changes, (1, 0)), (0, 1), value=len(self.kept)).to(
            torch.int32
        )

    def of(self, rows: torch.Tensor) -> torch.Tensor:
        """Bring what stands in rows, [B or 1, T, ...], into the line, [1, L, ...]."""
        return rows.expand(*self.shape, *rows.shape[2:]).flatten(0, 1).index_select(0, self.kept)[None]

    def rows(self, line: torch.Tensor) -> torch.Tensor:
        """Put a line [1, L, E] back into rows [B, T, E], with zeros for padding."""
        rows = line.new_zeros(self.shape.numel(), line.shape[-1])
        return rows.index_copy(0, self.kept, line[0]).unflatten(0, self.shape)


def sequence_bounds(
    batch_size: int,
    length: int,
    *,
    sequence_ids: torch.Tensor | None,
    attention_mask: torch.Tensor | None,
    device: torch.device,
) -> torch.Tensor:
    """Say where each sequence begins when all rows stand in one line, and where the last one ends: int32 [N + 1].

    Runs of padding are sequences of their own: nobody looks at them, and no token has to be moved.

    Args:
        batch_size: B.
        length: T.
        sequence_ids: Number of each token's sequence, [B, T]; None: a row is one sequence.
        attention_mask: 1 for tokens and 0 for padding, [B, T], or None.
        device: Where to build.

    Raises:
        ValueError: If padding divides the tokens of a sequence: here they would not see each other.
    """
    if attention_mask is not None and not torch.compiler.is_compiling():
        _refuse_gaps(attention_mask != 0, sequence_ids)
    starts = torch.zeros(batch_size, length, dtype=torch.bool, device=device)
    starts[:, 0] = True
    for changing in (sequence_ids, attention_mask):
        if changing is not None:
            starts[:, 1:] |= changing[:, 1:] != changing[:, :-1]
    first = starts.flatten().nonzero().flatten()
    return nn.functional.pad(first, (0, 1), value=batch_size * length).to(torch.int32)


def _refuse_gaps(are_tokens: torch.Tensor, sequence_ids: torch.Tensor | None) -> None:
    begins = are_tokens.clone()
    begins[:, 1:] &= ~are_tokens[:, :-1]
    owners = torch.zeros_like(begins, dtype=torch.int64) if sequence_ids is None else sequence_ids
    runs = torch.zeros_like(owners).scatter_add_(1, owners, begins.long())
    if (runs > 1).any():
        raise ValueError(
            f"attention_mask (runs of tokens in a sequence: {int(runs.max())}) must have the tokens of a sequence side "
            f"by side with {VARIABLE_LENGTH}; pad on one side, or use sdpa."
        )


def variable_length_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,  # noqa: ARG001
) -> tuple[torch.Tensor, None]:
    """Compute attention inside each sequence of a line of tokens.

    Args:
        module: The attention module; its `is_causal` gives the direction where nobody asks for another.
        query: Queries [B, H, T, D].
        key: Keys [B, K, T, D].
        value: Values [B, K, T, D].
        attention_mask: As `sequence_bounds` gives it; None: a row is one sequence.
        scaling: Factor of the scores.
        dropout: Must be 0.
        sliding_window: Tokens seen to the left, the token itself included, and when bidirectional to the right too.
        is_causal: Whether no later token is seen; None: as the module has it.
        **kwargs: Ignored; what other implementations of the same interface need.

    Returns:
        Outputs [B, T, H, D], and no weights.

    Raises:
        ValueError: If weights are to be dropped, there are other keys than the queries' own, or the kernel for CUDA
            is asked for float32, or on a GPU that it does not know.
    """
    batch_size, _, length, _ = query.shape
    # Under autocast norms of queries and keys give float32, and torch brings operators of its own alone to one type.
    query, key = query.to(value.dtype), key.to(value.dtype)
    if dropout > 0:
        raise ValueError(f"attention_dropout ({dropout}) must be 0 with {VARIABLE_LENGTH}; set it, or use sdpa.")
    if key.shape[2] != length or (attention_mask is not None and attention_mask.dim() != 1):
        raise ValueError(
            f"number of keys ({key.shape[2]}) must be that of the queries ({length}) with {VARIABLE_LENGTH}, which "
            "knows no cache and no mask of its own; generate with use_cache=False, or use sdpa."
        )
    looks_back_alone = bool(module.is_causal if is_causal is None else is_causal)
    group_size = query.shape[1] // key.shape[1]
    if group_size > 1:
        key, value = key.repeat_interleave(group_size, dim=1), value.repeat_interleave(group_size, dim=1)
    if attention_mask is None and query.device.type == "cuda" and sliding_window is None:
        with sdpa_kernel(_WHOLE_ROWS, set_priority=True):
            outputs = nn.functional.scaled_dot_product_attention(
                query, key, value, is_causal=looks_back_alone, scale=scaling
            )
        return outputs.transpose(1, 2), None
    if attention_mask is None:
        attention_mask = torch.arange(batch_size + 1, dtype=torch.int32, device=query.device) * length
    line = [tensor.transpose(1, 2).flatten(0, 1) for tensor in (query, key, value)]  # [B x T, H, D]
    left = -1 if sliding_window is None else sliding_window - 1
    window = (left, 0 if looks_back_alone else left)
    if query.device.type not in ("cpu", "cuda"):
        raise ValueError(f"device ({query.device}) must be a CPU or a CUDA GPU with {VARIABLE_LENGTH}; use sdpa.")
    if query.is_cuda and not torch.compiler.is_compiling():
        _refuse_old_gpu(query.device)
    if query.device.type != "cpu" and query.dtype == torch.float32:
        raise ValueError(
            f"type of the vectors (float32) must be of 16 bits with {VARIABLE_LENGTH} on a GPU; train with bf16=True, "
            "load the model in bfloat16, or use sdpa."
        )
    kernel = grouped_attention if query.device.type == "cpu" else _kernel()
    outputs = kernel(*line, attention_mask, attention_mask, length, length, scale=scaling, window_size=window)
    return cast(torch.Tensor, outputs).unflatten(0, (batch_size, length)), None


def grouped_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: torch.Tensor,
    *_: Any,
    scale: float,
    window_size: tuple[int, int],
) -> torch.Tensor:
    """Compute attention inside each sequence of a line, those of about the same length together.

    Args:
        query: [L, H, D].
        key: [L, H, D].
        value: [L, H, D].
        bounds: As `sequence_bounds` gives them.
        *_: What the kernel for CUDA asks for besides.
        scale: Factor of the scores.
        window_size: How many tokens are seen to the left and to the right, -1 for all.

    Returns:
        [L, H, D].
    """
    groups = groups_of_similar_length(bounds)
    are_tokens = [torch.arange(int(lengths.max())) < lengths[:, None] for _, lengths in groups]  # each [n, l]
    # Places behind the end of a shorter sequence read its last token, and are left out again below.
    places = [
        (starts[:, None] + torch.minimum(torch.arange(is_token.shape[1]), lengths[:, None] - 1)).flatten()
        for (starts, lengths), is_token in zip(groups, are_tokens, strict=True)
    ]
    sizes, at = [len(each) for each in places], torch.cat(places)
    # One index_select for all groups: there and back it takes a quarter of the time of an index in brackets.
    gathered = [tensor.flatten(1).index_select(0, at).split(sizes) for tensor in (query, key, value)]
    outputs = []
    for is_token, *rows in zip(are_tokens, *gathered, strict=True):
        queries, keys, values = (each.view(*is_token.shape, *query.shape[1:]).transpose(1, 2) for each in rows)
        found = _attend(queries, keys, values, _group_mask(is_token, window_size), scale=scale)  # [n, H, l, D]
        outputs.append(found.transpose(1, 2).flatten(0, 1).flatten(1))
    kept = torch.cat([is_token.flatten() for is_token in are_tokens]).nonzero().flatten()
    return torch.cat(outputs).index_select(0, kept[at[kept].argsort()]).view(query.shape)


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, *, scale: float
) -> torch.Tensor:
    """Compute the attention of a group [n, H, l, D] by torch's kernel, or by the formula where that trains faster.

    In bf16 the kernel's way back takes several times as long as the formula's; see model_cards/LOG.md.
    """
    trains_in_bf16 = query.dtype == torch.bfloat16 and query.requires_grad
    if not trains_in_bf16 or query.shape[2] > LONGEST_TRAINED_BY_FORMULA:
        return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    scores = ((query * scale) @ key.transpose(-1, -2)).float()
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1).to(value.dtype) @ value


def groups_of_similar_length(bounds: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Sort sequences into groups in which the longest is at most a quarter longer than the shortest, or 4 tokens.

    Returns:
        Starts [n] and lengths [n] of each group's sequences, the longest first.
    """
    starts = bounds[:-1].long()
    lengths, order = bounds.diff().long().sort(descending=True, stable=True)
    groups, first, sizes = [], 0, lengths.tolist()
    for place in range(1, len(sizes) + 1):
        if place == len(sizes) or sizes[first] > max(1.25 * sizes[place], sizes[place] + 4):
            groups.append((starts[order[first:place]], lengths[first:place]))
            first = place
    return groups


def _group_mask(is_token: torch.Tensor, window_size: tuple[int, int]) -> torch.Tensor | None:
    """Say which keys each query of a group sees, [n or 1, 1, l or 1, l]; None where all see all."""
    left, right = window_size
    mask = None if is_token.all() else is_token[:, None, None, :]
    if left >= 0 or right >= 0:
        steps = torch.arange(is_token.shape[1])
        ahead = steps[None, :] - steps[:, None]
        seen = ((ahead >= -left) | (left < 0)) & ((ahead <= right) | (right < 0))
        mask = seen[None, None] if mask is None else mask & seen
    return mask


def _refuse_old_gpu(device: torch.device) -> None:
    capability = _compute_capability(device)
    if capability < FIRST_WITH_KERNEL:
        raise ValueError(
            f"compute capability of the GPU ({'.'.join(map(str, capability))}) must be "
            f"{'.'.join(map(str, FIRST_WITH_KERNEL))} or later with {VARIABLE_LENGTH}; use sdpa."
        )


@functools.cache
def _compute_capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def _kernel() -> Any:
    """Fetch torch's kernel when it is first needed: older versions of torch do not have it."""
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn


# Code that came with a saved model must not take the place of the installed package's.
if VARIABLE_LENGTH not in AttentionInterface().valid_keys():
    AttentionInterface.register(VARIABLE_LENGTH, variable_length_attention)
    # What transformers builds by itself, for a cache, is an ordinary mask, which the function above refuses by shape.
    AttentionMaskInterface.register(VARIABLE_LENGTH, sdpa_mask)
