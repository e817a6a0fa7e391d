"""`hf-minilm check` prints one table a model, and its exit code says whether all of it holds."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from hf_minilm import MiniLMConfig, MiniLMForCausalLM, MiniLMForConditionalGeneration, MiniLMSeq2SeqConfig
from hf_minilm.cli.main import main
from hf_minilm.inspection import invariances
from hf_minilm.inspection.invariances import Difference


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    config = MiniLMConfig(vocab_size=97, hidden_size=24, num_hidden_layers=2, num_attention_heads=2)
    MiniLMForCausalLM(config).save_pretrained(tmp_path)
    return str(tmp_path)


def test_a_saved_model_is_checked_and_holds(folder, capsys):
    assert main(["check", folder, "--quick"]) == 0
    printed = capsys.readouterr().out
    assert folder in printed
    assert len(printed.splitlines()) == len(invariances.INVARIANCES) + 2
    assert "OUTSIDE" not in printed
    assert "left out" in printed


def test_a_difference_outside_its_tolerance_ends_with_1_and_is_marked(folder, capsys, monkeypatch):
    name, tolerance, _ = invariances.INVARIANCES[0]
    changed = ((name, tolerance, lambda subject: Difference(1.0, 0.0)), *invariances.INVARIANCES[-1:])
    monkeypatch.setattr(invariances, "INVARIANCES", changed)
    assert main(["check", folder]) == 1
    marked = [line for line in capsys.readouterr().out.splitlines() if line.endswith("OUTSIDE")]
    assert len(marked) == 1
    assert name in marked[0]


def test_a_model_that_does_not_exist_is_one_line(tmp_path, capsys):
    assert main(["check", str(tmp_path / "nowhere")]) == 2
    assert len([line for line in capsys.readouterr().err.splitlines() if line.startswith("hf-minilm: ")]) == 1


def test_a_weight_that_is_missing_is_one_line(folder, capsys):
    path = Path(folder, "model.safetensors")
    weights = load_file(path)
    weights.pop("model.layers.1.feed_forward.up.weight")
    save_file(weights, path, {"format": "pt"})
    assert main(["check", folder, "--quick"]) == 2
    printed, errors = capsys.readouterr()
    assert printed == ""
    assert re.fullmatch(r"hf-minilm: tensors must be .*1 missing: layers\.1\.feed_forward\.up\.weight\).*\n", errors)


def test_both_stacks_of_an_encoder_decoder_are_checked(tmp_path, capsys):
    torch.manual_seed(0)
    sizes = {"vocab_size": 97, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    stacks = {"encoder": {**sizes, "hidden_size": 36}, "decoder": {**sizes, "position_embedding": "relative_bias"}}
    MiniLMForConditionalGeneration(MiniLMSeq2SeqConfig(**stacks, share_embeddings=False)).save_pretrained(tmp_path)
    assert main(["check", str(tmp_path), "--quick"]) == 0
    printed = capsys.readouterr().out
    assert f"{tmp_path}, encoder" in printed
    assert f"{tmp_path}, decoder" in printed
    assert "OUTSIDE" not in printed


def test_a_model_of_another_package_is_refused_in_one_line(tmp_path, capsys):
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 8, "num_hidden_layers": 1}
    BertModel(BertConfig(vocab_size=20, **sizes)).save_pretrained(tmp_path)
    assert main(["check", str(tmp_path)]) == 2
    assert f"model ({tmp_path}, a bert) must be one of this package" in capsys.readouterr().err


def test_the_measured_model_is_left_as_it_was():
    torch.manual_seed(0)
    model = MiniLMForCausalLM(MiniLMConfig(vocab_size=97, hidden_size=24, num_hidden_layers=2, num_attention_heads=2))
    model.train().set_attn_implementation("sdpa")
    names = [name for name, _, _ in invariances.INVARIANCES if name != "sdpa = the formula"]
    assert len(names) == len(invariances.INVARIANCES) - 1
    invariances.check_invariances(model.model, leave_out=tuple(names))
    assert model.config._attn_implementation == "sdpa"
    assert model.model.training
    assert not model.model._forward_pre_hooks
