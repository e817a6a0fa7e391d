"""What a language model thinks of single tokens: the log-probability of each, with all the work shared that can be.

Questions that read the same tokens share one reading, readings of one length share a batch, so that no model needs
padding or a mask, and the projection to the vocabulary, most of the work of a small model, sees only the places that
are asked for. That holds for the classes of transformers as it does for those of this package.

Shapes: B readings of one length, T tokens, E hidden size, N questions, V vocabulary.
"""

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .language_model import evaluating, prediction_logits

_LARGEST_BATCH = 8_192  # tokens
_LARGEST_LOGITS = 2**25  # numbers of 4 bytes


@dataclass(frozen=True, slots=True)
class Query:
    """Tokens that a model reads, and the tokens that it is asked for at some of its positions."""

    input_ids: tuple[int, ...]
    positions: tuple[int, ...]
    targets: tuple[int, ...]


def target_log_probabilities(
    model: Any, queries: Sequence[Query], *, batch_size: int | None = None
) -> list[NDArray[np.float64]]:
    """Return the log-probabilities of each query's targets, in nats, computed in the model's own precision.

    Args:
        model: A masked, pre-training or causal language model.
        queries: Each with at least one position.
        batch_size: Most readings at once; None: as many as make 8,192 tokens.
    """
    answers: list[NDArray[np.float64]] = [np.zeros(0)] * len(queries)
    with evaluating(model) as device:
        for batch in _batches(queries, batch_size, vocab_size=model.config.vocab_size):
            rows = [row for row, (_, askers) in enumerate(batch) for asker in askers for _ in queries[asker].positions]
            asked = [queries[asker] for _, askers in batch for asker in askers]
            columns = [position for query in asked for position in query.positions]
            targets = [target for query in asked for target in query.targets]
            input_ids = torch.tensor([ids for ids, _ in batch], device=device)
            places = torch.tensor(rows, device=device), torch.tensor(columns, device=device)
            logits = _logits_at(model, input_ids, places)  # [N, V]
            chosen = logits.float().log_softmax(-1).gather(1, torch.tensor(targets, device=device)[:, None])
            logs = chosen[:, 0].double().cpu().numpy()
            stops = np.cumsum([len(query.positions) for query in asked])[:-1]
            for asker, answer in zip((a for _, askers in batch for a in askers), np.split(logs, stops), strict=True):
                answers[asker] = answer
    return answers


def _batches(
    queries: Sequence[Query], batch_size: int | None, *, vocab_size: int
) -> Iterator[list[tuple[tuple[int, ...], list[int]]]]:
    """Iterate over batches of readings of one length, each reading with the numbers of the queries that need it."""
    askers: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, query in enumerate(queries):
        askers[query.input_ids].append(number)
    by_length: dict[int, list[tuple[tuple[int, ...], list[int]]]] = defaultdict(list)
    for reading in askers.items():
        by_length[len(reading[0])].append(reading)
    for length, readings in by_length.items():
        most = max(1, _LARGEST_BATCH // length) if batch_size is None else batch_size
        batch: list[tuple[tuple[int, ...], list[int]]] = []
        num_logits = 0
        for reading in readings:
            added = sum(len(queries[number].positions) for number in reading[1]) * vocab_size
            if batch and (len(batch) == most or num_logits + added > _LARGEST_LOGITS):
                yield batch
                batch, num_logits = [], 0
            batch.append(reading)
            num_logits += added
        yield batch


def _logits_at(model: Any, input_ids: torch.Tensor, places: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Return the logits [N, V] at N places, rows [N] and columns [N], of readings [B, T]."""
    with _projecting_only(model, places):
        logits = prediction_logits(model(input_ids=input_ids))
    # Not every class sends its vectors through the module that it names as its projection.
    return logits[places] if logits.dim() == 3 else logits


@contextlib.contextmanager
def _projecting_only(model: Any, places: tuple[torch.Tensor, torch.Tensor]) -> Iterator[None]:
    """Let the projection to the vocabulary see [N, E] instead of [B, T, E]."""

    def choose(_: nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (arguments[0][places], *arguments[1:])

    projection = model.get_output_embeddings()
    handle = None if projection is None else projection.register_forward_pre_hook(choose)
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()
