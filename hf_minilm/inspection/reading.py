"""One text read by one model: its tokens, and who looked at whom in every layer and head, for a page or a picture.

Shapes: L layers, H heads, T query positions, S key positions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..model.positions import POSITION_SCHEMES, build_positions
from .attention_maps import attention_maps, attention_modules
from .rollout import rollout, rollout_of_decoder
from .token_labels import TokenLabel, token_labels

MOST_TOKENS = 256
"""Of a text; more rows and columns than that are no longer told apart."""

MOST_WEIGHTS = 6_000_000
"""Of all maps together; a page is then 8 MB."""

CROSS_ATTENTION = ("cross_attention", "crossattention", "encoder_attn")
"""Words in the names of modules that look at another text, here and in transformers' own models."""


@dataclass(frozen=True, eq=False)
class Looks:
    """Who looked at whom in the layers of one stack, by one kind of attention.

    Attributes:
        kind: "self" (at the whole text), "masked" (at oneself and what stands before) or "cross" (at another text).
        stack: "encoder" or "decoder".
        weights: [L, H, T, S], from the lowest layer; exactly zero where looking is forbidden.
        rollout: [L, T, S], see `rollout.py`.
        queries: The tokens that look, T. With "cross", the one that is predicted there, as the one that was read is
            known already.
        keys: The tokens that are looked at, S.
        has_bias: Whether the position scheme adds a number to the scores.
    """

    kind: Literal["self", "masked", "cross"]
    stack: Literal["encoder", "decoder"]
    weights: torch.Tensor
    rollout: torch.Tensor
    queries: tuple[TokenLabel, ...]
    keys: tuple[TokenLabel, ...]
    has_bias: bool = False


@dataclass(frozen=True, eq=False)
class Reading:
    """What a page or a picture shows.

    Attributes:
        model: The model's name.
        facts: What else is said about it: a name and a value each.
        looks: One for a model of one stack, three for an encoder-decoder.
    """

    model: str
    facts: tuple[tuple[str, str], ...]
    looks: tuple[Looks, ...]


def read_text(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    *,
    second: str | None = None,
    name: str = "model",
) -> Reading:
    """Let a model read a text, and note who looks at whom; the model keeps its fast attention.

    Args:
        model: One of this package, or any that `attention_maps` can look into; in evaluation mode. An encoder-decoder
            has its head, as it writes the target itself unless `second` gives it.
        tokenizer: The model's, which serves both texts of an encoder-decoder.
        text: What it reads.
        second: For an encoder, the second text of a pair; for an encoder-decoder, the target.
        name: What to call the model.

    Raises:
        ValueError: If a text has no token or too many, is not for this kind of model, the model cannot be looked into,
            or its weights of attention are not finite.
    """
    modules = attention_modules(model)
    first = next(iter(modules.values()))
    if second is not None and not model.config.is_encoder_decoder and first.is_causal:
        raise ValueError(
            "second text (given) must be for an encoder or an encoder-decoder, and the model is a decoder, which reads "
            "one text; leave it out."
        )
    most_heads = max(module.config.num_attention_heads for module in modules.values())
    limit = _limit(model, tokenizer, maps=len(modules) * (most_heads + 2))
    texts = [text] if second is None or model.config.is_encoder_decoder else [text, second]
    inputs = dict(tokenizer(*texts, return_tensors="pt").to(model.device))
    source = inputs["input_ids"][0].tolist()
    _refuse_length("text", len(source), limit)
    vocabulary = model.get_input_embeddings().num_embeddings
    if max(source) >= vocabulary:
        raise ValueError(
            f"token id ({max(source)}) must be below the model's vocabulary ({vocabulary}); give the model its own "
            "tokenizer."
        )
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            looks = _looks_of_two_stacks(model, tokenizer, inputs, second=second, limit=limit[0])
        else:
            (weights,) = _maps(model, inputs, list(modules.values()))
            tokens = token_labels(tokenizer, source)
            shown = weights, rollout(weights), tokens, tokens, _adds_to_scores(first.config)
            looks = (Looks("masked", "decoder", *shown) if first.is_causal else Looks("self", "encoder", *shown),)
    return Reading(name, _facts(model, looks), looks)


def _looks_of_two_stacks(
    model: Any, tokenizer: PreTrainedTokenizerBase, inputs: dict[str, Any], *, second: str | None, limit: int
) -> tuple[Looks, ...]:
    if second is None:
        written = model.generate(**inputs, num_beams=1, do_sample=False, max_new_tokens=limit - 1)[0].tolist()
    else:
        start = model.config.decoder_start_token_id
        written = [start, *tokenizer(text_target=second)["input_ids"]]
    _refuse_length("second text", len(written) - 1, (limit, "are as many as can be shown or read"))
    parts: dict[str, list[Any]] = {"encoder": [], "decoder": [], "cross": []}
    for name, module in attention_modules(model).items():
        is_cross = any(word in name for word in CROSS_ATTENTION)
        parts["cross" if is_cross else "decoder" if "decoder." in name else "encoder"].append(module)
    target = {"decoder_input_ids": torch.tensor([written[:-1]], device=model.device), "use_cache": False}
    encoder, decoder, cross = _maps(model, {**inputs, **target}, *parts.values())
    source = token_labels(tokenizer, inputs["input_ids"][0].tolist())
    read, predicted = (token_labels(tokenizer, ids) for ids in (written[:-1], written[1:]))
    of_source = rollout(encoder)
    own_shares, source_shares = rollout_of_decoder(decoder, cross, of_source[-1])
    return (
        Looks("self", "encoder", encoder, of_source, source, source, _adds_to_scores(parts["encoder"][0].config)),
        Looks("masked", "decoder", decoder, own_shares, read, read, _adds_to_scores(parts["decoder"][0].config)),
        Looks("cross", "decoder", cross, source_shares, predicted, source),
    )


def _maps(model: PreTrainedModel, inputs: dict[str, Any], *groups: Sequence[Any]) -> list[torch.Tensor]:
    """Run the model once, and give the maps [L, H, T, S] of each group of its modules."""
    try:
        maps = attention_maps(model, inputs)
    except RuntimeError as error:
        raise ValueError(
            f"model ({model.config.model_type}) must call its attention through transformers' attention interface, or "
            f"its maps cannot be taken; give another. ({error})"
        ) from error
    if not all(bool(weights.isfinite().all()) for weights in maps):
        raise ValueError("attention weights (NaN or infinite) must be finite; give a model whose training went well.")
    of_module = dict(zip(attention_modules(model).values(), maps, strict=True))
    return [torch.cat([of_module[module] for module in group]).cpu() for group in groups]


def _adds_to_scores(config: Any) -> bool:
    """Tell whether a model of this package has a position scheme that adds a bias to the scores."""
    is_ours = getattr(config, "position_embedding", None) in POSITION_SCHEMES
    return is_ours and build_positions(config).is_added_to_scores


def _limit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, maps: int) -> tuple[int, str]:
    """Say how many tokens a text may have, and why."""
    positions = getattr(model.config, "max_position_embeddings", None) or math.inf
    return min(
        (MOST_TOKENS, "are as many as a picture can show"),
        (math.isqrt(MOST_WEIGHTS // maps), f"are as many as a page with {maps} maps can hold"),
        (int(min(tokenizer.model_max_length, positions, 10**9)), "are as many as the model reads"),
    )


def _refuse_length(what: str, length: int, limit: tuple[int, str]) -> None:
    most, reason = limit
    if not 1 <= length <= most:
        raise ValueError(
            f"{what} ({length} tokens) must have 1 to {most} tokens, which {reason}; give "
            f"{'a shorter one' if length else 'some words'}."
        )


def _facts(model: PreTrainedModel, looks: tuple[Looks, ...]) -> tuple[tuple[str, str], ...]:
    first = next(iter(attention_modules(model).values()))
    heads = looks[0].weights.shape[1]
    stacks = "encoder-decoder" if len(looks) > 1 else looks[0].stack
    facts = [
        ("kind", f"{stacks} ({model.config.model_type})"),
        ("layers", " + ".join(str(len(look.weights)) for look in looks[:2])),
        ("heads", str(heads)),
        ("head size D", str(first.head_dim if hasattr(first, "head_dim") else first.config.hidden_size // heads)),
        ("parameters", f"{model.num_parameters():,}"),
    ]
    scheme = getattr(first.config, "position_embedding", None)
    if scheme is not None:
        meaning = (getattr(POSITION_SCHEMES.get(scheme), "__doc__", None) or "").split("\n")[0]
        facts.append(("positions", f"{scheme}. {meaning}" if meaning else scheme))
    return tuple(facts)
