"""The example that prints how far apart native models and ours are."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from hf_minilm.conversion import from_native

SCRIPT = Path(__file__).parents[2] / "examples" / "prove_twins.py"


def test_a_saved_model_has_a_line_with_what_its_conversion_proved(run_script, tmp_path):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=67,
        hidden_size=36,
        intermediate_size=53,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    code, printed, _ = run_script(tmp_path)
    header, _, line = printed.splitlines()
    cells = dict(zip(header.split(" | "), line.split(" | "), strict=True))
    proved = from_native(tmp_path)
    assert code == 0
    assert cells["Heads"] == "LlamaForCausalLM"
    assert cells["Parameters"] == f"{proved.model.num_parameters():,}"
    assert float(cells["Largest logit difference"]) == pytest.approx(proved.proof.differences["logits"], rel=0.05)
    assert cells["Greedy tokens |"] == "128 of 128 equal |"


def test_a_folder_that_is_absent_is_one_line_and_exit_code_2(run_script, tmp_path):
    code, _, errors = run_script(tmp_path / "nowhere")
    assert code == 2
    assert errors.startswith(f"prove_twins: model ({tmp_path / 'nowhere'}) must be ")
    assert errors.count("\n") == 1
