"""Equality with transformers' own BERT and GPT-2, whose random weights are copied into ours."""

import copy

import pytest
import torch
from random_weights import randomise
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    GPT2Config,
    GPT2LMHeadModel,
)

from hf_minilm import MiniLMConfig, MiniLMForCausalLM, MiniLMForMaskedLM, MiniLMForPreTraining
from hf_minilm.conversion import ARCHITECTURES
from hf_minilm.conversion.tensors import carry_over

PAIRS = [(BertForMaskedLM, MiniLMForMaskedLM), (BertForPreTraining, MiniLMForPreTraining)]
SIZES = {"vocab_size": 67, "hidden_size": 36, "num_hidden_layers": 3, "num_attention_heads": 3}


def bert_pair(bert_class: type, our_class: type, *, attention: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    sizes = {**SIZES, "intermediate_size": 53, "max_position_embeddings": 29, "attn_implementation": attention}
    bert = bert_class(BertConfig(**sizes)).eval()
    randomise(bert)
    ours = our_class(MiniLMConfig.preset("bert", "tiny", **sizes)).eval()
    give(ours, bert, "bert")
    return bert, ours


def give(ours: torch.nn.Module, native: torch.nn.Module, architecture: str) -> None:
    """Give a model of ours a native one's weights."""
    described = ARCHITECTURES[architecture]
    pairs = described.pairs(ours, native, head=described.head_of_native(type(native).__name__))
    carry_over(native, ours, pairs, to_ours=True, config=ours.config)


def bert_inputs() -> dict[str, torch.Tensor]:
    input_ids = torch.randint(1, 67, (3, 13), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(input_ids)
    mask[1, 9:], mask[2, 4:] = 0, 0
    types = torch.zeros_like(input_ids)
    types[0, 6:], types[1, 3:9] = 1, 1
    return {"input_ids": input_ids.masked_fill(mask == 0, 0), "attention_mask": mask, "token_type_ids": types}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(("bert_class", "our_class"), PAIRS)
def test_the_bert_preset_with_berts_weights_is_bert(bert_class, our_class, attention):
    bert, ours = bert_pair(bert_class, our_class, attention=attention)
    inputs = bert_inputs()
    real = inputs["attention_mask"].bool()
    theirs, mine = bert(**inputs), ours(**inputs)
    torch.testing.assert_close(mine[0][real], theirs[0][real], atol=1e-5, rtol=1e-5)
    assert theirs[0].std() > 0.5
    if bert_class is BertForPreTraining:
        torch.testing.assert_close(mine.seq_relationship_logits, theirs.seq_relationship_logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("bert_class", "our_class"), PAIRS)
def test_loss_and_every_gradient_equal_those_of_bert(bert_class, our_class):
    bert, ours = bert_pair(bert_class, our_class, attention="eager")
    inputs = bert_inputs()
    inputs["labels"] = inputs["input_ids"].masked_fill(torch.arange(13) % 3 != 1, -100)
    inputs["labels"][inputs["attention_mask"] == 0] = -100
    if bert_class is BertForPreTraining:
        inputs["next_sentence_label"] = torch.tensor([0, 1, 1])
    theirs, mine = bert(**inputs).loss, ours(**inputs).loss
    torch.testing.assert_close(mine, theirs)
    theirs.backward()
    mine.backward()
    assert_gradients_are_those_of(bert, ours, "bert")


def assert_gradients_are_those_of(native: torch.nn.Module, ours: torch.nn.Module, architecture: str) -> None:
    """Compare all gradients, which change their names and their shapes as the weights do."""
    gradients = copy.deepcopy(ours)
    for parameter in native.parameters():
        parameter.data = parameter.grad
    give(gradients, native, architecture)
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients.get_parameter(name).data, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_gpt2_preset_with_gpt2s_weights_is_gpt2(attention):
    gpt2 = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=67,
            n_embd=36,
            n_layer=3,
            n_head=3,
            n_inner=53,
            n_positions=29,
            attn_implementation=attention,
            bos_token_id=1,
            eos_token_id=2,
        )
    ).eval()
    randomise(gpt2)
    config = MiniLMConfig.preset(
        "gpt2",
        "tiny",
        **SIZES,
        intermediate_size=53,
        max_position_embeddings=29,
        attn_implementation=attention,
        pad_token_id=None,
    )
    ours = MiniLMForCausalLM(config).eval()
    give(ours, gpt2, "gpt2")
    input_ids = torch.randint(0, 67, (3, 13), generator=torch.Generator().manual_seed(2))
    theirs, mine = gpt2(input_ids, labels=input_ids), ours(input_ids, labels=input_ids)
    torch.testing.assert_close(mine.logits, theirs.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mine.loss, theirs.loss)
    theirs.loss.backward()
    mine.loss.backward()
    assert_gradients_are_those_of(gpt2, ours, "gpt2")
