"""The example of continued pre-training lowers the loss on text of another kind, and leaves the model what it was."""

import re
from pathlib import Path

import adapt_to_domain
import pytest
import torch
from adapt_to_domain import auto_class_of, windows
from fine_tune import open_tokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    BertConfig,
    GPT2Config,
)

SCRIPT = Path(adapt_to_domain.__file__)


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_the_loss_falls_and_the_heads_stay(kind: str, request, tmp_path: Path, run_script) -> None:
    folder = request.getfixturevalue(kind)
    options = ("--limit", 200, "--epochs", 2, "--learning-rate", 4e-3, "--batch-size", 16, "--output", tmp_path / "out")
    code, printed, errors = run_script(folder, *options)
    assert code == 0, errors
    before, after = (float(value) for value in re.findall(r"nats per predicted token ([\d.]+)", printed))
    assert after < before - 0.5, printed
    both = (folder, tmp_path / "out")
    names = [AutoConfig.from_pretrained(path).architectures for path in both]
    assert names[0] == names[1]
    if kind == "encoder":
        heads = [AutoModelForPreTraining.from_pretrained(path).next_sentence.weight for path in both]
        # It had no gradient; only the decay of weights has drawn it in.
        assert (heads[0] - heads[1]).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("config", "auto_class"),
    [
        (BertConfig(architectures=["BertForPreTraining"]), AutoModelForMaskedLM),
        (GPT2Config(architectures=["GPT2LMHeadModel"]), AutoModelForCausalLM),
        (BertConfig(architectures=None), AutoModelForMaskedLM),
    ],
)
def test_a_native_model_is_opened_under_the_head_that_it_was_saved_with(config, auto_class) -> None:
    assert auto_class_of(config) is auto_class


def test_a_long_text_goes_on_in_further_rows_and_no_token_is_lost(encoder: Path) -> None:
    tokenizer = open_tokenizer(encoder)
    text = "the key is old and the dogs bark. " * 9
    rows = windows(tokenizer, [text], 16)["input_ids"]
    whole = tokenizer(text)["input_ids"]
    assert max(map(len, rows)) <= 16 < len(whole)
    assert [token for row in rows for token in row[1:-1]] == whole[1:-1]
    assert torch.tensor(rows[0][:1]).tolist() == whole[:1]
