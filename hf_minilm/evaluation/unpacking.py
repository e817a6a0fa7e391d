"""Held-out rows taken apart into the sequences that were packed into them."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..data.objectives import CausalObjective, MaskedObjective
from ..data.sequences import IGNORED

_ROWS_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class UnpackedSequence:
    """One sequence of a packed row, its special tokens included: [length] each, and its next-sentence label.

    Attributes:
        input_ids: What the model reads, masked where it is to be restored.
        token_type_ids: The segment of each token; 0 for a decoder's.
        labels: The tokens to predict, -100 elsewhere.
        next_sentence_label: 0, 1, or -100 where nothing is asked.
    """

    input_ids: torch.Tensor
    token_type_ids: torch.Tensor
    labels: torch.Tensor
    next_sentence_label: int

    @property
    def true_ids(self) -> list[int]:
        """The tokens before masking."""
        return torch.where(self.labels != IGNORED, self.labels, self.input_ids).tolist()


def unpacked_sequences(objective: MaskedObjective | CausalObjective) -> Iterator[UnpackedSequence]:
    """Take the held-out rows apart, padding left out."""
    for batch in objective.evaluation_batches(_ROWS_AT_ONCE):
        pairs = batch.get("next_sentence_label", torch.full_like(batch["labels"], IGNORED))
        types = batch.get("token_type_ids", torch.zeros_like(batch["labels"]))
        for row, positions in enumerate(batch["position_ids"]):
            starts = (positions == 0).nonzero().flatten().tolist()
            for start, stop in itertools.pairwise([*starts, len(positions)]):
                input_ids = batch["input_ids"][row, start:stop]
                if input_ids[0] != objective.special.pad:
                    yield UnpackedSequence(
                        input_ids,
                        types[row, start:stop],
                        batch["labels"][row, start:stop],
                        int(pairs[row, start]),
                    )
