"""Cross-entropy over a vocabulary from the vectors before it, without ever holding the logits of all of them.

The logits of N tokens over V words take N x V numbers, their softmax and its gradient as many again: most of the
memory of training a small model, and much of its time. Here they are made for a chunk of tokens at a time, turned into
their own gradient in place, multiplied back, and overwritten by the next chunk's. With p = softmax(h W^T + b) and a
target y, the loss of a token is log sum exp(h W^T + b) - (h W^T + b)_y and its gradient by the logits is p - 1_y, so
all that the backward pass needs is known in the forward pass, and no product is computed twice (as in Hsu et al. 2024,
arXiv:2410.10989, section 3.2, for one GPU kernel; here in plain torch, on any device).

Sums over the vocabulary and over the tokens are in float32, whatever the type of the products.

Shapes: N predicted tokens, E hidden size, V vocabulary, n tokens of a chunk.
"""

import importlib
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from .losses import Count, clamped_count, summed_cross_entropy
from .vocabulary_loss_kernel import can_launch, losses_into_gradients_on_gpu

VOCABULARY_LOSSES = ("auto", "chunked", "plain", "torch", "liger")
"""Ways to compute the loss: `chunked` as above, `plain` by all logits at once, `torch` by its
`linear_cross_entropy`, `liger` by the kernel of the package of that name, on CUDA. `auto` is chunked where the
projection is an ordinary layer, and plain elsewhere, in code that is being compiled, and in float16, whose small
numbers a loss scale must lift before they are made. `chunked` has no second derivatives, and says so; for these set
`model.vocabulary_loss = "plain"`."""

_CHUNK_ELEMENTS = {"cpu": 2**25, "cuda": 2**28}
"""Logits of a chunk by device: of 1,024 tokens at a vocabulary of 32,768, and on CUDA of 8,192, half a gigabyte in
bfloat16. More make the products no faster."""
_CACHE_BYTES = 2**21
"""What a core keeps near it; the softmax of so many logits at a time takes half the time on a CPU."""


def vocabulary_cross_entropy(
    hidden_states: torch.Tensor,
    projection: nn.Module,
    labels: torch.Tensor,
    *,
    count: Count = None,
    label_smoothing: float = 0.0,
    implementation: str = "auto",
) -> torch.Tensor:
    """Sum the cross-entropy of predicted tokens and divide it by a count.

    Args:
        hidden_states: [N, E].
        projection: To the vocabulary, [N, E] to [N, V].
        labels: [N], token ids; nothing is ignored, see `predicted_positions`.
        count: See `normalised_cross_entropy`.
        label_smoothing: See `normalised_cross_entropy`.
        implementation: One of `VOCABULARY_LOSSES`.

    Returns:
        A scalar, in nats.

    Raises:
        ValueError: If the implementation is unknown, or cannot work with this projection.
        ImportError: If its package is missing.
    """
    if implementation not in VOCABULARY_LOSSES:
        raise ValueError(
            f"vocabulary_loss ({implementation}) must be one of {', '.join(VOCABULARY_LOSSES)}; auto is for all cases."
        )
    fits = is_ordinary(projection)
    if implementation == "auto":
        is_eager = not torch.compiler.is_compiling() and _product_dtype(hidden_states) != torch.float16
        implementation = "chunked" if fits and is_eager else "plain"
    share = 1 / clamped_count(labels, count)  # what a token's loss counts for
    if implementation == "plain":
        return share * summed_cross_entropy(projection(hidden_states), labels, label_smoothing=label_smoothing)
    if not fits:
        raise ValueError(
            f"vocabulary_loss ({implementation}) must have an ordinary linear layer to work on, and lm_head is "
            f"{type(projection).__name__} with hooks or adapters; use auto or plain."
        )
    tensors = hidden_states, cast(torch.Tensor, projection.weight), cast(torch.Tensor | None, projection.bias)
    return _LOSSES[implementation](*tensors, labels, share, label_smoothing)


def is_ordinary(projection: nn.Module) -> bool:
    """Tell whether a projection does nothing but multiply by its weight and add its bias.

    Adapters and quantisation replace the class, offloading and sharding hang hooks on it or distribute its weight.
    """
    return (
        type(projection) is nn.Linear
        and type(projection.weight) is nn.Parameter
        and projection.weight.device.type != "meta"
        and not (projection._forward_pre_hooks or projection._forward_hooks or hasattr(projection, "_hf_hook"))
    )


class ChunkedCrossEntropy(torch.autograd.Function):
    """The loss of all tokens; its gradients are made with it, a chunk of tokens at a time."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_states: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        share: torch.Tensor,
        label_smoothing: float,
    ) -> torch.Tensor:
        """Compute the loss of hidden states [N, E] under a projection [V, E], and the gradients that are needed."""
        dtype = _product_dtype(hidden_states)
        vectors, matrix = hidden_states.to(dtype), weight.to(dtype)
        offset = None if bias is None else bias.to(dtype)
        total = torch.zeros((), dtype=_sum_dtype(dtype), device=weight.device)
        by_hidden, by_weight, by_bias = torch.empty_like(vectors), None, None
        elements = _CHUNK_ELEMENTS.get(weight.device.type, _CHUNK_ELEMENTS["cpu"])
        for chunk in _slices(len(labels), elements // len(weight)):
            logits = nn.functional.linear(vectors[chunk], matrix, offset)  # [n, V]
            wanted = share if any(ctx.needs_input_grad) else None
            total += losses_into_gradients(logits, labels[chunk], label_smoothing, share=wanted)
            if ctx.needs_input_grad[0]:
                torch.mm(logits, matrix, out=by_hidden[chunk])
            if ctx.needs_input_grad[1]:
                by_weight = _added(by_weight, logits.t() @ vectors[chunk])
            if ctx.needs_input_grad[2]:
                by_bias = _added(by_bias, logits.sum(dim=0, dtype=total.dtype))
        ctx.types = hidden_states.dtype, weight.dtype, None if bias is None else bias.dtype
        ctx.save_for_backward(by_hidden if ctx.needs_input_grad[0] else None, by_weight, by_bias)
        return total * share

    @staticmethod
    def backward(ctx: Any, *by_loss: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Multiply the gradients by that of the loss, which is 1 unless more is made of it.

        Raises:
            ValueError: If these are to be differentiated again. torch's `once_differentiable` sees that only where
                more is made of the loss; else second derivatives would lack a part, without a word.
        """
        if torch.is_grad_enabled():
            raise ValueError(
                "create_graph (True) must be False with vocabulary_loss chunked, which auto chooses and which has no "
                'second derivatives; set model.vocabulary_loss = "plain".'
            )
        (factor,) = by_loss
        # Reading the factor is free on a CPU and would make any other device wait.
        is_one = factor.device.type == "cpu" and factor.item() == 1.0
        gradients = (
            None if gradient is None else (gradient if is_one else gradient * factor).to(dtype)
            for gradient, dtype in zip(ctx.saved_tensors, ctx.types, strict=True)
        )
        return *gradients, None, None, None


def losses_into_gradients(
    logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float, *, share: torch.Tensor | None
) -> torch.Tensor:
    """Sum the losses of a chunk's logits, and write their gradients in their place.

    Args:
        logits: [n, V]; afterwards share x (softmax - target), or of no use where no share is given.
        labels: [n].
        label_smoothing: e: the target is 1 - e + e/V at the label and e/V elsewhere.
        share: What a token's loss counts for, a scalar; None: no gradients are wanted.

    Returns:
        A scalar.
    """
    if can_launch(logits):
        return losses_into_gradients_on_gpu(logits, labels, label_smoothing, share=share)
    total = torch.zeros((), dtype=_sum_dtype(logits.dtype), device=logits.device)
    size = _CACHE_BYTES // (4 * logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    for block in _slices(len(logits), size):
        targets = labels[block, None]
        scores = logits[block].to(total.dtype)  # the logits themselves where the type is the same
        scores.sub_(scores.amax(dim=-1, keepdim=True))
        chosen = scores.gather(1, targets).mul_(1 - label_smoothing)
        if label_smoothing:
            chosen.add_(scores.mean(dim=-1, keepdim=True), alpha=label_smoothing)
        weights, divisors, log_sums = _undivided_softmax(scores, quickly=scores.dtype != logits.dtype)
        total += (log_sums - chosen).sum()
        if share is not None:
            gradients = weights.mul_(share / divisors)
            if label_smoothing:
                gradients.sub_(share * (label_smoothing / gradients.shape[1]))
            gradients.scatter_add_(1, targets, (share * (label_smoothing - 1)).to(scores.dtype).expand(targets.shape))
            logits[block] = gradients
    return total


def _undivided_softmax(
    scores: torch.Tensor, *, quickly: bool
) -> tuple[torch.Tensor, torch.Tensor | float, torch.Tensor]:
    """Turn scores [n, V], the largest of each row 0, into their softmax, whose division is left to the caller.

    With torch's own softmax the loss takes three quarters of the time on a CPU. Its exponential is right to 6e-6: a
    thousandth of what 16 bits can tell, but not all that float32 can.

    Returns:
        Weights [n, V] in the memory of the scores or in new one, what to divide them by ([n, 1], or 1), and the
        logarithms of the sums of the exponentials [n, 1].
    """
    if quickly:
        probabilities = scores.softmax(dim=-1)
        return probabilities, 1.0, -probabilities.amax(dim=-1, keepdim=True).log()
    sums = scores.exp_().sum(dim=-1, keepdim=True)
    return scores, sums, sums.log()


def _slices(length: int, size: int) -> list[slice]:
    """Cut a length into slices of a size, the last one shorter; at least one, of nothing if need be."""
    size = max(size, 1)
    return [slice(start, min(start + size, length)) for start in range(0, max(length, 1), size)]


def _added(sum_so_far: torch.Tensor | None, part: torch.Tensor) -> torch.Tensor:
    return part.to(_sum_dtype(part.dtype)) if sum_so_far is None else sum_so_far.add_(part)


def _product_dtype(hidden_states: torch.Tensor) -> torch.dtype:
    device = hidden_states.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_states.dtype


def _sum_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _chunked(
    hidden_states: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    share: torch.Tensor,
    label_smoothing: float,
) -> torch.Tensor:
    if not torch.is_grad_enabled():  # the function goes by what its inputs require
        hidden_states, weight, bias = hidden_states.detach(), weight.detach(), None if bias is None else bias.detach()
    loss = ChunkedCrossEntropy.apply(hidden_states, weight, bias, labels, share, label_smoothing)
    return cast(torch.Tensor, loss)


def _torchs(
    hidden_states: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    share: torch.Tensor,
    label_smoothing: float,
) -> torch.Tensor:
    linear_cross_entropy = getattr(nn.functional, "linear_cross_entropy", None)
    if linear_cross_entropy is None:
        raise ImportError(
            f"vocabulary_loss (torch) must have torch's linear_cross_entropy, which torch {torch.__version__} lacks; "
            "use auto."
        )
    dtype = _product_dtype(hidden_states)
    hidden_states, weight, bias = hidden_states.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    options: dict[str, Any] = {"linear_bias": bias, "reduction": "sum", "label_smoothing": label_smoothing}
    return cast(torch.Tensor, share * linear_cross_entropy(hidden_states, weight, labels, **options).float())


def _ligers(
    hidden_states: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    share: torch.Tensor,
    label_smoothing: float,
) -> torch.Tensor:
    kernel = importlib.import_module("liger_kernel.transformers.functional").liger_fused_linear_cross_entropy
    options: dict[str, Any] = {"bias": bias, "reduction": "sum", "label_smoothing": label_smoothing}
    return share * kernel(hidden_states, weight, labels, accum_dtype=torch.float32, **options)


_LOSSES: dict[str, Callable[..., torch.Tensor]] = {"chunked": _chunked, "torch": _torchs, "liger": _ligers}
