"""What a model is given, checked at the door: a wrong number is named while somebody still knows where it came from.

Behind the door an id beyond its table is an IndexError on a CPU, and on CUDA an assertion that ends the process. A mask
that hides every token, labels that are one short, or a padding mask made for adding to scores are no error there at
all, but a number that looks like a result.

Shapes and types are checked everywhere. Values are read where that makes nobody wait: on a CPU, one `aminmax` a tensor.
On CUDA `torch._assert_async` checks ids and labels without a synchronisation, once a text and not with a cache. Nothing
is checked in code that is being compiled, exported or traced, nor in fake, wrapped or distributed tensors.

Shapes: B batch, T positions, E hidden size, C classes or choices.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch

from .losses import IGNORED, problem_of

Forward = TypeVar("Forward", bound=Callable[..., Any])

_ID_DTYPES = (torch.int64, torch.int32)


def is_plain(tensor: Any) -> bool:
    """Tell whether something is a tensor with numbers of its own: fake, traced, batched and sharded ones have none."""
    # mypy's view of torch lacks two of these functions.
    if type(tensor) is not torch.Tensor or torch.compiler.is_compiling() or cast(Any, torch.jit).is_tracing():
        return False
    return not cast(Any, torch._C)._functorch.is_functorch_wrapped_tensor(tensor)


def refuse_bad_inputs(
    model: Any,
    input_ids: torch.Tensor | None,
    inputs_embeds: torch.Tensor | None,
    *,
    attention_mask: Any,
    token_type_ids: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    has_cache: bool,
) -> None:
    """Check what a stack is given; the range of positions is the position scheme's matter.

    Args:
        model: The stack; its `argument_prefix` stands before the arguments' names.
        input_ids: [B, T].
        inputs_embeds: [B, T, E].
        attention_mask: Only checked as a padding mask [B, T], or with a cache [B, any].
        token_type_ids: [B or 1, T].
        position_ids: [B or 1, T].
        has_cache: Whether earlier tokens may be in a cache.

    Raises:
        ValueError: With the argument's name, its value, and what is allowed.
    """
    prefix, config = model.argument_prefix, model.config
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError(f"{prefix}input_ids and {prefix}inputs_embeds: exactly one of them must be given.")
    if not is_plain(input_ids if inputs_embeds is None else inputs_embeds):
        return
    if input_ids is None:
        shape = _shape_of_vectors(prefix + "inputs_embeds", cast(torch.Tensor, inputs_embeds), config.hidden_size)
    else:
        name, limit = prefix + "input_ids", getattr(model.get_input_embeddings(), "num_embeddings", config.vocab_size)
        shape = _shape_of_ids(name, input_ids)
        _refuse_outside(name, input_ids, limit, "use the tokenizer that belongs to the model", has_cache=has_cache)
    # One row of positions, or of token types, serves all rows.
    per_token = (shape, (1, shape[1]))
    if is_plain(attention_mask) and attention_mask.dim() == 2:
        refuse_bad_mask(prefix + "attention_mask", attention_mask, shape, any_width=has_cache or bool(prefix))
    if is_plain(position_ids):
        name, positions = prefix + "position_ids", cast(torch.Tensor, position_ids)
        _refuse_dtype(name, positions, _ID_DTYPES)
        _refuse_shape(name, positions, per_token)
    if config.type_vocab_size > 0 and is_plain(token_type_ids):
        name, types = prefix + "token_type_ids", cast(torch.Tensor, token_type_ids)
        _refuse_dtype(name, types, _ID_DTYPES)
        _refuse_shape(name, types, per_token)
        advice = "number segments from 0, or configure a larger type_vocab_size"
        _refuse_outside(name, types, config.type_vocab_size, advice, has_cache=has_cache)


def refuse_bad_mask(name: str, mask: torch.Tensor, shape: Sequence[int], *, any_width: bool) -> None:
    """Check a padding mask [B, T]; a row may be all padding, but not every row.

    With a cache it may have any width, as it is that of what the cache holds and of what is new; and in an
    encoder-decoder, as transformers hands it the mask of a piece where it reads a prompt in pieces.

    A row of padding gives finite vectors that nobody reads: batches are filled up with them. All rows together give a
    result that is made of nothing.

    Raises:
        ValueError: For another shape, other values than 0 and 1, or no token at all.
    """
    _refuse_shape(name, mask, ((shape[0], mask.shape[1]) if any_width else tuple(shape),))
    if mask.device.type != "cpu":
        return
    lowest, highest = _ends(mask)
    if not 0 <= lowest <= highest <= 1:
        value = highest if lowest >= 0 else lowest
        raise ValueError(f"{name} ({value}) must be 1 for tokens and 0 for padding; give other masks as [B, 1, T, S].")
    if highest == 0:
        raise ValueError(f"{name} (all 0) must be 1 for at least one token; leave batches without a token out.")


def labels_checked(**kinds: str) -> Callable[[Forward], Forward]:
    """Decorate a head's `forward`, so that its labels are checked before anything is computed.

    Args:
        **kinds: For each argument that holds labels, what they are labels of, a name in `LABELS`.
    """

    def decorate(forward: Forward) -> Forward:
        names = tuple(inspect.signature(forward).parameters)

        @functools.wraps(forward)
        def checked(*arguments: Any, **named: Any) -> Any:
            if not torch.compiler.is_compiling():
                given = {**dict(zip(names, arguments, strict=False)), **named}
                for name, kind in kinds.items():
                    if is_plain(given.get(name)):
                        LABELS[kind](name, given[name], given)
            return forward(*arguments, **named)

        return cast(Forward, checked)

    return decorate


def _check_vocabulary(name: str, labels: torch.Tensor, given: dict[str, Any]) -> None:
    """Check token ids [B, T], -100 where nothing is predicted."""
    config = given["self"].config
    shape = _text_shape(given, prefix="decoder_" if config.is_encoder_decoder else "")
    _refuse_labels(name, labels, config.vocab_size, () if shape is None else (shape,))


def _check_order(name: str, labels: torch.Tensor, given: dict[str, Any]) -> None:
    """Check next-sentence labels, 0 or 1, [B] or [B, 1]; or [B, T] with -100 but at the first tokens."""
    _refuse_labels(name, labels, 2, _one_a_row(_text_shape(given), and_a_token=True))


def _check_tokens(name: str, labels: torch.Tensor, given: dict[str, Any]) -> None:
    """Check a class id for each token [B, T], -100 where there is none."""
    shape = _text_shape(given)
    _refuse_labels(name, labels, given["self"].num_labels, () if shape is None else (shape,))


def _check_choices(name: str, labels: torch.Tensor, given: dict[str, Any]) -> None:
    """Check the right choice of C, [B]."""
    shape = _text_shape(given, dimensions=3)
    if shape is not None:
        _refuse_labels(name, labels, shape[1], _one_a_row(shape))


def _check_places(name: str, places: torch.Tensor, given: dict[str, Any]) -> None:
    """Check places in a text [B]; those outside it are allowed, and not counted."""
    _refuse_dtype(name, places, (torch.int64,))
    _refuse_shape(name, places, _one_a_row(_text_shape(given)))


def _check_texts(name: str, labels: torch.Tensor, given: dict[str, Any]) -> None:
    """Check class ids [B], numbers [B] for a regression, or shares from 0 to 1 [B, C] for several classes at once."""
    model, shapes = given["self"], _one_a_row(_text_shape(given))
    classes = model.num_labels
    problem = problem_of(labels, num_labels=classes, told=model.config.problem_type)
    if problem == "single_label_classification":
        _refuse_labels(name, labels, classes, shapes)
        return
    _refuse_shape(name, labels, shapes if classes == 1 else [(rows, classes) for rows, *_ in shapes[:1]])
    if labels.device.type != "cpu" or labels.numel() == 0:
        return
    low, high = (0, 1) if problem == "multi_label_classification" else (-torch.inf, torch.inf)
    lowest, highest = _ends(labels)
    # Not a number is on neither side of anything.
    if not (low <= lowest and highest <= high) or torch.inf in (-lowest, highest):
        value = lowest if not low <= lowest else highest
        rule = "be from 0 to 1 for each class" if problem == "multi_label_classification" else "be finite"
        raise ValueError(f"{name} ({value}) must {rule}; correct the data, or set problem_type.")


LABELS: dict[str, Callable[[str, torch.Tensor, dict[str, Any]], None]] = {
    "vocabulary": _check_vocabulary,
    "order": _check_order,
    "tokens": _check_tokens,
    "choices": _check_choices,
    "places": _check_places,
    "texts": _check_texts,
}
"""What labels may be of, and who checks them, given the argument's name, the labels, and all arguments with `self`."""


def _text_shape(given: dict[str, Any], *, prefix: str = "", dimensions: int = 2) -> Sequence[int] | None:
    """Give the shape of the tokens, [B, T] or [B, C, T]; None where they are missing or wrong, which is said later."""
    ids, vectors = given.get(prefix + "input_ids"), given.get(prefix + "inputs_embeds")
    if ids is None and vectors is None:
        return None
    shape = cast(torch.Tensor, ids).shape if vectors is None else vectors.shape[:-1]
    return None if len(shape) != dimensions or 0 in shape else cast(Sequence[int], shape)


def _one_a_row(shape: Sequence[int] | None, *, and_a_token: bool = False) -> list[tuple[int, ...]]:
    """List the shapes that labels may have of which a row has one; none where the tokens are missing or wrong."""
    if shape is None:
        return []
    rows = shape[0]
    return [(rows,), (rows, 1), *([tuple(shape)] if and_a_token else [])]


def _shape_of_ids(name: str, ids: torch.Tensor) -> tuple[int, int]:
    _refuse_dtype(name, ids, _ID_DTYPES)
    if ids.dim() != 2:
        raise ValueError(f"{name} ({_written(ids.shape)}) must have the shape [rows, tokens]; give one row as [[...]].")
    return _filled(name, ids)


def _shape_of_vectors(name: str, vectors: torch.Tensor, size: int) -> tuple[int, int]:
    if not vectors.is_floating_point():
        raise ValueError(f"{name} ({vectors.dtype}) must be floating-point vectors; give ids as input_ids.")
    if vectors.dim() != 3 or vectors.shape[2] != size:
        raise ValueError(f"{name} ({_written(vectors.shape)}) must have the shape [rows, tokens, {size}]; reshape it.")
    return _filled(name, vectors)


def _filled(name: str, tokens: torch.Tensor) -> tuple[int, int]:
    rows, length = tokens.shape[:2]
    if rows == 0:
        raise ValueError(f"{name} (0 rows) must have at least one row; leave empty batches out.")
    if length == 0:
        raise ValueError(f"{name} (0 tokens) must have at least one token a row; leave empty texts out.")
    return rows, length


def _refuse_dtype(name: str, tensor: torch.Tensor, allowed: tuple[torch.dtype, ...]) -> None:
    if tensor.dtype not in allowed:
        names = " or ".join(str(dtype).removeprefix("torch.") for dtype in allowed)
        raise ValueError(f"{name} ({tensor.dtype}) must be whole numbers of type {names}; call .long() if they are.")


def _refuse_shape(name: str, tensor: torch.Tensor, allowed: Sequence[tuple[int, ...]]) -> None:
    if allowed and tuple(tensor.shape) not in allowed:
        shapes = " or ".join(map(_written, dict.fromkeys(allowed)))
        raise ValueError(f"{name} ({_written(tensor.shape)}) must have the shape {shapes}; make it fit the tokens.")


def _written(shape: Sequence[int]) -> str:
    return str(list(shape))


def _refuse_labels(name: str, labels: torch.Tensor, limit: int, shapes: Sequence[Any]) -> None:
    _refuse_dtype(name, labels, (torch.int64,))
    _refuse_shape(name, labels, [tuple(shape) for shape in shapes])
    _refuse_outside(name, labels, limit, f"mark what is not predicted with {IGNORED}", ignored=True)


def _refuse_outside(
    name: str, ids: torch.Tensor, limit: int, advice: str, *, ignored: bool = False, has_cache: bool = False
) -> None:
    """Check that ids are in [0, limit), or `IGNORED` where labels may be."""
    rule = f"must be in [0, {limit})" + (f" or {IGNORED}" if ignored else "")
    if ids.device.type == "cuda":
        if not has_cache:
            assert_inside(ids, limit, f"{name} {rule}; {advice}.", ignored=ignored)
        return
    if ids.device.type != "cpu" or ids.numel() == 0:
        return
    lowest, highest = _ends(ids)
    if ignored and lowest < 0:
        lowest, highest = _ends(ids.masked_fill(ids == IGNORED, 0))
    if lowest < 0 or highest >= limit:
        raise ValueError(f"{name} ({lowest if lowest < 0 else highest}) {rule}; {advice}.")


def assert_inside(ids: torch.Tensor, limit: int, message: str, *, ignored: bool) -> None:
    """Let the device check ids, and say what is wrong in its own time: on CUDA nobody waits for the answer."""
    fits = ids.clamp(0, limit - 1) == ids
    torch._assert_async((fits | (ids == IGNORED) if ignored else fits).all(), message)


def _ends(tensor: torch.Tensor) -> tuple[float, float]:
    """Give the lowest and the highest number, in one pass."""
    lowest, highest = torch.aminmax(tensor)
    return lowest.item(), highest.item()
