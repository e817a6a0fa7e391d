"""The example of LoRA trains few parameters, and the merged model says what the adapted one said."""

import re
from pathlib import Path

import adapt_with_lora
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

# PEFT asks transformers by a name that will go away with version 6.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
SCRIPT = Path(adapt_with_lora.__file__)
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def test_an_adapter_is_learnt_saved_and_merged(encoder: Path, tmp_path: Path, run_script) -> None:
    options = ("--limit", 60, "--epochs", 2, "--rank", 2, "--learning-rate", 1e-2, "--output", tmp_path)
    code, printed, errors = run_script(encoder, *options)
    assert code == 0, errors
    trained, total = (int(number.replace(",", "")) for number in re.search(r"([\d,]+) of ([\d,]+)", printed).groups())
    assert 0 < trained < 0.2 * total
    assert float(re.search(r"differ by at most (\S+)", printed).group(1)) < 1e-4
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").state_dict()
    before = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=6).state_dict()
    assert (tmp_path / "adapter_model.safetensors").stat().st_size < 100_000
    name = "model.layers.0.attention.query.weight"
    step = merged[name] - before[name]
    assert step.abs().max() > 1e-3
    assert torch.linalg.matrix_rank(step, rtol=1e-3) <= 2
    embeddings = "model.embeddings.tokens.weight"
    assert torch.equal(merged[embeddings], before[embeddings])


def test_a_native_model_is_given_adapters_in_its_layers_and_a_whole_new_head() -> None:
    adapted = adapt_with_lora.with_adapter(BertForSequenceClassification(BertConfig(vocab_size=50, **SIZES)), rank=2)
    assert isinstance(adapted, PeftModel)
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert {name.split(".")[2] for name in trained} == {"bert", "classifier"}
    assert all("lora_" in name for name in trained if ".encoder." in name)
    assert any("pooler" in name and "lora_" not in name for name in trained)
