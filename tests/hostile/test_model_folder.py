"""Weights of a model folder that somebody made: what measures it opens what is declared, or says one line."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mutations import mutated
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from hf_minilm import MiniLMConfig, MiniLMForMaskedLM
from hf_minilm.cli.main import main
from hf_minilm.evaluation.saved_models import open_model

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small masked model with its tokenizer."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 23, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    MiniLMForMaskedLM(MiniLMConfig(**sizes)).save_pretrained(tmp_path)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(chr(97 + number) for number in range(18))]
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), words, strict=False))
    PreTrainedTokenizerFast(tokenizer_object=inner, **names).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("number", [60, pytest.param(5_000, marks=[pytest.mark.slow, pytest.mark.timeout(3_600)])])
def test_a_mutated_file_of_weights_opens_to_what_it_declares_or_is_one_line(
    number: int, folder: Path, bounded: Callable
) -> None:
    draw, content = random.Random(number), (folder / WEIGHTS).read_bytes()
    names = load_file(folder / WEIGHTS).keys()
    refused = []
    with bounded(seconds=20 + number / 5, megabytes=300):
        for _ in range(number):
            (folder / WEIGHTS).write_bytes(mutated(content, draw))
            try:
                model, _ = open_model(str(folder))
            except (ValueError, OSError) as error:
                refused.append(str(error))
                continue
            assert names <= load_file(folder / WEIGHTS).keys()
            assert all(bool(torch.isfinite(weight).all()) for weight in model.parameters())
    assert len(refused) > number / 2
    assert max(map(len, refused)) < 1_000


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named_and_nothing_is_measured(
    value: float, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = MiniLMForMaskedLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.norm.weight[3] = value
    model.save_pretrained(folder)
    assert main(["evaluate", str(folder), "validation:builtin:world"]) == 2
    assert "model.norm.weight) must be finite" in capsys.readouterr().err
