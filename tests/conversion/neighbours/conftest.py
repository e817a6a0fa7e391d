"""Native twins of models of ours, as `hf-minilm export` leaves them, for the programs that open them by their path."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from random_weights import randomise
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_minilm import MiniLMConfig, MiniLMForCausalLM, MiniLMForMaskedLM
from hf_minilm.conversion import save, to_native
from hf_minilm.data.tokenizer import train_tokenizer
from hf_minilm.data.world import World

TEXTS = (
    "The keys to the cabinet are old.",
    "Ana lost an umbrella in the park, and Diego saw it there.",
    "El cuadro amarillo del barrio está mojado.",
    "Diego reads.",
)
SMALL = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 72}
CHOICES: dict[str, dict[str, Any]] = {
    "bert": {"name": "bert"},
    "modernbert": {"name": "modern"},
    "gpt2": {"name": "gpt2"},
    "llama": {"name": "modern_decoder", "num_key_value_heads": 2},
}
"""The preset that an architecture can express, and what differs from it."""

DECODERS = ("gpt2", "llama")


@dataclass(frozen=True)
class Twin:
    """A model of ours and the folder that holds its native twin, with their tokenizer."""

    ours: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    folder: Path


@pytest.fixture(scope="session")
def texts() -> tuple[str, ...]:
    return TEXTS


@pytest.fixture(scope="session")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Twin]:
    """Make a small model of ours with weights that differ everywhere, and export it; once for each architecture."""
    made: dict[str, Twin] = {}

    def of(architecture: str) -> Twin:
        if architecture not in made:
            made[architecture] = _export(architecture, tmp_path_factory.mktemp(architecture))
        return made[architecture]

    return of


def _export(architecture: str, folder: Path) -> Twin:
    writes = architecture in DECODERS
    kind, our_class = ("bytelevel_bpe", MiniLMForCausalLM) if writes else ("wordpiece", MiniLMForMaskedLM)
    tokenizer = train_tokenizer(World().documents(300), kind=kind, vocab_size=500, max_length=64)
    config = MiniLMConfig.preset(
        size="tiny",
        **{**SMALL, **CHOICES[architecture]},
        vocab_size=len(tokenizer),
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    ours = randomise(our_class(config))
    ours.save_pretrained(folder / "ours")
    tokenizer.save_pretrained(folder / "ours")
    save(to_native(folder / "ours", architecture), folder / "native")
    return Twin(ours, tokenizer, folder / "native")
