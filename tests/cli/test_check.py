"""`hf-minilm check` prints one table a model, and its exit code says whether all of it holds."""

import pytest
import torch

from hf_minilm import MiniLMConfig, MiniLMForCausalLM
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
