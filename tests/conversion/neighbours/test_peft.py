"""PEFT knows an exported model by its architecture: its own choice of layers for LoRA is there and trains."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

pytestmark = [
    pytest.mark.slow,
    # PEFT asks transformers by a name that this version still has, and mends its own setting for GPT-2's projections.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),
]


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "llama"])
def test_lora_with_the_default_targets_trains_an_exported_model_and_leaves_its_weights_alone(twin, texts, architecture):
    peft = pytest.importorskip("peft", reason="PEFT is not installed")
    model = twin(architecture)
    auto_class = AutoModelForMaskedLM if architecture == "bert" else AutoModelForCausalLM
    native = auto_class.from_pretrained(model.folder)
    before = {name: weight.clone() for name, weight in native.state_dict().items()}
    inputs = model.tokenizer(list(texts), padding=True, return_tensors="pt")
    inputs["labels"] = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    with torch.no_grad():
        before_training = native.eval()(**inputs).loss.item()
        assert before_training == pytest.approx(model.ours(**inputs).loss.item(), abs=1e-4)

    torch.manual_seed(0)
    adapted = peft.get_peft_model(native, peft.LoraConfig(lora_dropout=0.0)).train()
    optimizer = torch.optim.AdamW([weight for weight in adapted.parameters() if weight.requires_grad], lr=1e-2)
    for _ in range(80):
        adapted(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        assert adapted.eval()(**inputs).loss.item() < 0.85 * before_training
    after = adapted.unload().state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
