"""The native architectures, by the names that `--to` and `model_type` call them."""

from .architecture import Architecture
from .bert import BERT
from .gpt2 import GPT2
from .llama import LLAMA, MISTRAL, QWEN3
from .marian import MARIAN
from .modernbert import MODERNBERT, MODERNBERT_DECODER
from .roberta import ROBERTA
from .t5 import T5

ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (BERT, ROBERTA, GPT2, LLAMA, MISTRAL, QWEN3, MODERNBERT, MODERNBERT_DECODER, T5, MARIAN)
}
"""What a model can come from and become. A new one is a file that says what it is, and its name here."""


def architecture_named(name: str) -> Architecture:
    """Give an architecture.

    Raises:
        ValueError: If none has that name.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"architecture ({name}) must be one of {', '.join(ARCHITECTURES)}.")
    return ARCHITECTURES[name]
