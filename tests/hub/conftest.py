"""Hubs on loopback, a small trained run with a corpus of its own, and a model of each kind."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from hub_server import HubServer
from pushing import TOKEN
from writable_hub import WritableHub

from hf_minilm import MiniLMForConditionalGeneration, MiniLMSeq2SeqConfig
from hf_minilm.cli.main import main
from hf_minilm.data.document import Document
from hf_minilm.data.tokenizer import train_tokenizer

SENTENCES = [
    f"The {animal} in the {place} sees {number} {thing}. Then it goes home and sleeps."
    for animal in ("dog", "cat", "owl", "hen")
    for place in ("garden", "kitchen", "street")
    for number in ("two", "three", "four", "five")
    for thing in ("keys", "books", "cups")
]
SETTINGS = {
    "card.languages": "[en]",
    "data.sequence_length": "32",
    "evaluation.rows": "8",
    "model.overrides": "{num_hidden_layers: 2, hidden_size: 32, num_attention_heads: 2}",
    "training.batch_rows": "4",
    "training.budget": "4steps",
    "training.log_every": "1",
    "training.save_every": "2steps",
}


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def writable_hub() -> Iterator[WritableHub]:
    with WritableHub() as server:
        yield server


@pytest.fixture(scope="module")
def account(writable_hub: WritableHub) -> WritableHub:
    writable_hub.users[TOKEN] = "ana"
    return writable_hub


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on a text that must not be quoted, named by its whole path, with two checkpoints."""
    folder = tmp_path_factory.mktemp("secret-place")
    lines = [json.dumps({"text": f"{first} {second}"}) for first in SENTENCES[:12] for second in SENTENCES[::12]]
    (folder / "stories.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    places = {"data.corpus": str(folder / "stories.jsonl"), "output.folder": str(folder / "stories")}
    words = [f"--set={name}={value}" for name, value in {**SETTINGS, **places}.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_MINILM_CACHE", str(folder / "cache"))
        assert main(["pretrain", *words]) == 0
    return folder / "stories"


@pytest.fixture(scope="session")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of an encoder-decoder with initial weights and its tokenizer, and nothing else."""
    folder = tmp_path_factory.mktemp("models") / "translator"
    documents = (Document((sentence,), "-") for sentence in SENTENCES)
    tokenizer = train_tokenizer(documents, kind="bytelevel_bpe", vocab_size=300, for_pairs=True)
    ids: dict[str, Any] = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    stack = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
    fields = {**stack, **ids, "vocab_size": len(tokenizer), "initializer_range": 0.3}
    torch.manual_seed(0)
    config = MiniLMSeq2SeqConfig(encoder=fields, decoder={**fields, "position_embedding": "alibi"}, **ids)
    MiniLMForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
