"""What the tests of the examples share."""

import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers.utils import logging

from hf_minilm import MiniLMConfig, MiniLMForCausalLM, MiniLMForPreTraining
from hf_minilm.data.tokenizer import train_tokenizer
from hf_minilm.data.world import World

EXAMPLES = Path(__file__).parents[2] / "examples"
# Scripts that share a module find it beside them, as they do when they are run by name.
sys.path.insert(0, str(EXAMPLES))
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture
def run_script(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Run the script that the test file names as `SCRIPT`; its exit code, and what it printed on both streams."""

    script = str(request.module.SCRIPT)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(script, run_name="__main__")
        return int(ended.value.code or 0), *capsys.readouterr()

    verbosity = logging.get_verbosity()
    yield run
    logging.set_verbosity(verbosity)
    logging.enable_progress_bar()


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of an encoder with initial weights and a tokenizer of whole words."""
    return saved_model(tmp_path_factory.mktemp("encoder"), MiniLMForPreTraining, "wordpiece")


@pytest.fixture(scope="session")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a decoder with initial weights."""
    return saved_model(tmp_path_factory.mktemp("decoder"), MiniLMForCausalLM, "bytelevel_bpe")


def saved_model(folder: Path, model_class: type, kind: str) -> Path:
    """Save a small model of the built-in stories' words."""
    tokenizer = train_tokenizer(World().documents(200), kind=kind, vocab_size="auto")
    torch.manual_seed(0)
    ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model_class(MiniLMConfig(vocab_size=len(tokenizer), **SIZES, **ends)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
