"""Convert a model of every native architecture there and back, and print how far apart the two are.

    python examples/prove_twins.py
    python examples/prove_twins.py bert llama path/to/a/native/model --classes ForMaskedLM ForCausalLM

Each class of an architecture is built by transformers at the usual base size, with random weights, and becomes ours and
native again. The figures are of the proof that ends every conversion: the largest difference of any logit in float32,
over padded batches of text and of random tokens, and how many tokens both wrote alike. A folder or Hub name is a model
as it was trained, and is only converted into ours.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from fine_tune import run
from transformers import PreTrainedModel

from hf_minilm.conversion import ARCHITECTURES, Converted, from_native, to_native

DECODER = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
BASE_SIZES: dict[str, dict[str, Any]] = {
    "llama": DECODER,
    "mistral": DECODER,
    "qwen3": DECODER,
    "t5": {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12, "decoder_start_token_id": 0},
    "marian": {
        "d_model": 512,
        "encoder_layers": 6,
        "decoder_layers": 6,
        "encoder_attention_heads": 8,
        "decoder_attention_heads": 8,
        "encoder_ffn_dim": 2048,
        "decoder_ffn_dim": 2048,
        "scale_embedding": True,
    },
}
"""Where the configuration's own defaults are another size: those of SmolLM2-135M, T5-base and OPUS-MT."""

COLUMNS = ("Model", "Heads", "Direction", "Parameters", "Largest logit difference", "of the largest", "Greedy tokens")


@dataclass
class Row:
    """A line of the table: conversions of one model in one direction, each with another head.

    Attributes:
        model: The architecture, or what it was read from.
        direction: In words.
        heads: The native classes.
        parameters: Of the largest class.
        difference: Largest difference of any logit, or of a hidden state where no class has logits.
        share: The largest difference as a share of the largest value of the same output.
        of_hidden_states: Whether it is of hidden states.
        greedy: Tokens that were equal, and tokens that were written.
    """

    model: str
    direction: str
    heads: list[str] = field(default_factory=list)
    parameters: int = 0
    difference: float = 0.0
    share: float = 0.0
    of_hidden_states: bool = True
    greedy: tuple[int, int] = (0, 0)

    def add(self, converted: Converted) -> None:
        """Count in what a conversion proved."""
        proof = converted.proof
        self.heads.append(converted.head.native)
        self.parameters = max(self.parameters, converted.model.num_parameters())
        self.greedy = (self.greedy[0] + proof.greedy_equal, self.greedy[1] + proof.greedy_tokens * proof.prompts)
        logits = [name for name in proof.differences if name.endswith("logits")]
        if logits and self.of_hidden_states:
            self.difference, self.share, self.of_hidden_states = 0.0, 0.0, False
        for name in logits or (proof.differences if self.of_hidden_states else ()):
            self.difference = max(self.difference, proof.differences[name])
            self.share = max(self.share, proof.shares[name])

    def __str__(self) -> str:
        """Write it as Markdown."""
        kind = " (hidden states)" if self.of_hidden_states else ""
        equal, written = self.greedy
        greedy = f"{equal} of {written} equal" if written else "-"
        return (
            f"| {self.model} | {', '.join(self.heads)} | {self.direction} | {self.parameters:,} "
            f"| {self.difference:.1e}{kind} | {self.share:.1e} | {greedy} |"
        )


def random_model(architecture: str, native_class: type[PreTrainedModel], **arguments: Any) -> PreTrainedModel:
    """Build a native model at base size, all of whose weights are random, those of norms and biases too."""
    torch.manual_seed(0)
    model = native_class(ARCHITECTURES[architecture].config_class(**BASE_SIZES.get(architecture, {})), **arguments)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Among Marian's are its sinusoids, which are the same in every model.
            if "embed_positions" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.02)
    return model


def there_and_back(architecture: str, endings: tuple[str, ...]) -> Iterator[Row]:
    """Convert the classes of an architecture whose names end so into ours, and back."""
    there, back = Row(architecture, "native to ours"), Row(architecture, "ours to native")
    for head in ARCHITECTURES[architecture].heads:
        if head.native.endswith(endings):
            ours = from_native(random_model(architecture, head.native_class, **head.arguments))
            there.add(ours)
            back.add(to_native(ours.model, architecture))
    if there.heads:
        yield from (there, back)


def trained(name: str) -> Iterator[Row]:
    """Convert a model as it was trained into ours."""
    row = Row(name, "native to ours")
    row.add(from_native(name))
    yield row


def main() -> None:
    """Print the table, each architecture's lines as soon as they are known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(ARCHITECTURES), help="architectures, folders or Hub names")
    parser.add_argument("--classes", nargs="+", default=[""], metavar="ENDING", help="endings of classes; else all")
    arguments = parser.parse_args()
    print("| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|", sep="\n", flush=True)
    for name in arguments.models:
        rows = there_and_back(name, tuple(arguments.classes)) if name in ARCHITECTURES else trained(name)
        for row in rows:
            print(row, flush=True)


if __name__ == "__main__":
    sys.exit(run(main))
