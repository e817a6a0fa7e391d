"""Saved models: opened with the head they have, ours and transformers'."""

import json

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertForPreTraining, BertModel, GPT2Config, GPT2LMHeadModel

from hf_minilm import MiniLMForCausalLM, MiniLMForMaskedLM, MiniLMForPreTraining, MiniLMForSequenceClassification
from hf_minilm.evaluation.saved_models import open_model

BERT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
OURS = [MiniLMForMaskedLM, MiniLMForPreTraining, MiniLMForSequenceClassification, MiniLMForCausalLM]


@pytest.fixture
def save(tmp_path, word_tokenizer):
    def save(model):
        model.save_pretrained(tmp_path / "model")
        word_tokenizer.save_pretrained(tmp_path / "model")
        return str(tmp_path / "model")

    return save


def models(tiny_model, tokenizer):
    bert = BertConfig(vocab_size=len(tokenizer), **BERT)
    gpt2 = GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2)
    return [
        *(tiny_model(each, tokenizer) for each in OURS),
        *(each(bert) for each in (BertForMaskedLM, BertForPreTraining)),
        GPT2LMHeadModel(gpt2),
    ]


def test_each_model_opens_with_its_own_head_in_float32(tiny_model, word_tokenizer, save):
    for model in models(tiny_model, word_tokenizer):
        opened, tokenizer = open_model(save(model.to(torch.bfloat16)))
        assert type(opened).__name__ == type(model).__name__
        assert opened.dtype == torch.float32
        assert len(tokenizer) == len(word_tokenizer)


def test_a_model_without_a_head_is_refused(word_tokenizer, save):
    folder = save(BertModel(BertConfig(vocab_size=len(word_tokenizer), **BERT)))
    with pytest.raises(ValueError, match=r"BertModel\) must end in one of ForPreTraining"):
        open_model(folder)


def test_a_larger_tokenizer_than_the_models_is_refused(word_tokenizer, save):
    folder = save(BertForMaskedLM(BertConfig(vocab_size=10, **BERT)))
    with pytest.raises(ValueError, match=r"tokens of the tokenizer \(\d+\) must be at most the model's 10"):
        open_model(folder)


def test_a_damaged_model_is_one_line(tmp_path, tiny_model, word_tokenizer, save):
    folder = save(tiny_model(MiniLMForMaskedLM, word_tokenizer))
    (tmp_path / "model" / "model.safetensors").write_bytes(b"{}")
    with pytest.raises(ValueError, match=r"must be whole; save it again"):
        open_model(folder)


def test_code_that_lies_beside_a_model_is_not_run(tmp_path, tiny_model, word_tokenizer, save):
    folder = save(tiny_model(MiniLMForMaskedLM, word_tokenizer))
    config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "another", "auto_map": {"AutoConfig": "evil.Config"}}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "model" / "evil.py").write_text("raise SystemExit('was run')", encoding="utf-8")
    with pytest.raises((ValueError, OSError)):
        open_model(folder)
