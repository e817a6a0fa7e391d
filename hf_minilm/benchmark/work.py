"""What one contestant does in its own process, as plain values that travel there as JSON."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

Maker = Literal["ours", "bert", "modernbert", "gpt2", "llama"]
ObjectiveName = Literal["masked_next_sentence", "masked", "causal"]
PeerData = Literal["pairs", "filled_pairs", "paragraphs", "grouped"]


@dataclass(frozen=True)
class TrainingWork:
    """Train for some steps.

    Attributes:
        maker: Whose model and whose loop.
        objective: What is predicted.
        size: Layers, width and heads, a name in the model's `SIZES`.
        vocab_size: Tokens of the model's vocabulary.
        rows: Rows of a step.
        length: Most tokens of a row.
        warmup_steps: Steps before those that are measured.
        steps: Steps that are measured.
        precision: `auto`, `fp32` or `bf16`.
        data: How a peer's texts become examples; ours packs them.
        tuned: Whether a peer has what Trainer offers for speed, or its defaults.
        settings: For ours `section.field=value` of a recipe, for a peer `field=value` of TrainingArguments.
    """

    maker: Maker
    objective: ObjectiveName
    size: str
    vocab_size: int
    rows: int
    length: int
    warmup_steps: int
    steps: int
    precision: str = "auto"
    data: PeerData = "grouped"
    tuned: bool = False
    settings: tuple[str, ...] = ()

    @property
    def total_steps(self) -> int:
        """All steps, measured or not."""
        return self.warmup_steps + self.steps


@dataclass(frozen=True)
class EncodingWork:
    """Turn texts into vectors.

    Attributes:
        maker: Whose model.
        size: Layers, width and heads.
        vocab_size: Tokens of the model's vocabulary.
        texts: Number of texts.
        batch_rows: Texts of a batch, in the given order.
        longest: Tokens that a text is truncated to.
        precision: `fp32`, or `bf16` for autocast.
    """

    maker: Maker
    size: str
    vocab_size: int
    texts: int
    batch_rows: int = 32
    longest: int = 512
    precision: str = "fp32"


@dataclass(frozen=True)
class GenerationWork:
    """Write tokens after a prompt, greedily.

    Attributes:
        maker: Whose model.
        size: Layers, width and heads.
        vocab_size: Tokens of the model's vocabulary.
        batch_rows: Prompts that are continued together.
        prompt_tokens: Tokens of a prompt.
        new_tokens: Tokens to write, the end of the text not being one.
        precision: `fp32` or `bf16`, of weights and arithmetic.
    """

    maker: Maker
    size: str
    vocab_size: int
    batch_rows: int
    prompt_tokens: int = 16
    new_tokens: int = 256
    precision: str = "fp32"


@dataclass(frozen=True)
class MachineWork:
    """Say what the machine is, and measure the rate of its matrix products."""


Work = TrainingWork | EncodingWork | GenerationWork | MachineWork
_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (TrainingWork, EncodingWork, GenerationWork, MachineWork)
}


def write_work(work: Work) -> str:
    """Write work as one line of JSON."""
    return json.dumps({"kind": type(work).__name__, **asdict(work)})


def read_work(text: str) -> Work:
    """Read what `write_work` wrote."""
    fields = json.loads(text)
    kind = _KINDS[fields.pop("kind")]
    work: Work = kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
    return work
