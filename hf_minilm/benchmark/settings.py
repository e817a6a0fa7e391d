"""What a user may choose about a run of the bench."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from ..model.configuration_minilm import SIZES
from ..training.recipe_values import nearest
from ..yaml_text import read_yaml

_LEAST = {"rounds": 1, "steps": 1, "rows": 2, "length": 16, "vocabulary": 300, "texts": 1, "new_tokens": 2}
_OWN = {
    "model.size": "--size",
    "data.corpus": "--corpus",
    "data.sequence_length": "--length",
    "training.batch_rows": "--rows",
    "training.budget": "--steps",
    "tokenizer.vocab_size": "--vocabulary",
    "output.folder": "--folder",
}
"""Fields of a recipe that must be the same for all, and the argument that sets them so."""


@dataclass(frozen=True)
class BenchSettings:
    """Settings of a run; None takes what suits the machine.

    Attributes:
        corpus: What is read, as `data.corpus` of a recipe.
        size: Layers, width and heads of all models.
        rounds: How often each contestant is measured.
        steps: Measured steps of a training.
        rows: Rows of a training step.
        length: Most tokens of a row.
        vocabulary: Tokens of the vocabulary.
        texts: Texts that are encoded.
        new_tokens: Tokens that are generated.
        recipe: `section.field=value` for our recipe.
        trainer: `field=value` for the TrainingArguments of tuned peers.
        peers: Texts; a peer takes part if its name has all words of one of them, or there are none.

    Raises:
        ValueError: If one of them cannot be used.
    """

    corpus: str = "builtin:docs"
    size: str = "mini"
    rounds: int = 3
    steps: int | None = None
    rows: int | None = None
    length: int | None = None
    vocabulary: int = 30_522
    texts: int = 2_000
    new_tokens: int = 256
    recipe: tuple[str, ...] = ()
    trainer: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            known = ", ".join(SIZES)
            raise ValueError(
                f"--size ({self.size}) must be one of {known}; did you mean {nearest(self.size, [*SIZES])}?"
            )
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(
                    f"--{name.replace('_', '-')} ({value}) must be at least {least}; give a larger number."
                )
        for setting in self.recipe:
            path = setting.partition("=")[0].strip()
            if path in _OWN:
                raise ValueError(f"--set {path} must be the same for all contestants; use {_OWN[path]}.")
        trainer_arguments(self.trainer)

    def takes_part(self, peer: str) -> bool:
        """Tell whether a peer takes part, by its name."""
        return not self.peers or any(set(text.split()) <= set(peer.split()) for text in self.peers)

    def to_json(self) -> dict[str, Any]:
        """Give the settings by name."""
        return dataclasses.asdict(self)


def trainer_arguments(settings: tuple[str, ...]) -> dict[str, Any]:
    """Read `field=value` texts as arguments of TrainingArguments.

    Raises:
        ValueError: If a text has another form or names no field.
    """
    if not settings:
        return {}
    from transformers import TrainingArguments

    known = [field.name for field in dataclasses.fields(TrainingArguments)]
    arguments = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or name not in known:
            likely = nearest(name, known)
            raise ValueError(
                f"--set-peer ({setting}) must be field=value of TrainingArguments; did you mean {likely}=...?"
            )
        arguments[name] = read_yaml(text, name=f"--set-peer {name}")
    return arguments
