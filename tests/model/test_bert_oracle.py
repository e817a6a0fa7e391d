"""Equality with transformers' own BERT and GPT-2, whose random weights are copied into ours."""

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    GPT2Config,
    GPT2LMHeadModel,
)

from hf_minilm import MiniLMConfig, MiniLMForCausalLM, MiniLMForMaskedLM, MiniLMForPreTraining

BERT_NAMES = {
    "bert.embeddings.word_embeddings": "model.embeddings.tokens",
    "bert.embeddings.position_embeddings": "model.positions.table",
    "bert.embeddings.token_type_embeddings": "model.embeddings.token_types",
    "bert.embeddings.LayerNorm": "model.embeddings.norm",
    "bert.encoder.layer.": "model.layers.",
    "attention.self.": "attention.",
    "attention.output.dense": "attention.output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "feed_forward.up",
    ".output.dense": ".feed_forward.down",
    ".output.LayerNorm": ".feed_forward_norm",
    "bert.pooler": "pooler",
    "cls.predictions.transform.dense": "transform.dense",
    "cls.predictions.transform.LayerNorm": "transform.norm",
    "cls.predictions.decoder": "lm_head",
    "cls.predictions.bias": "lm_head.bias",
    "cls.seq_relationship": "next_sentence",
}
"""Pieces of BERT's names and ours, replaced in this order."""

GPT2_NAMES = {
    "transformer.wte": "model.embeddings.tokens",
    "transformer.wpe": "model.positions.table",
    "transformer.h.": "model.layers.",
    "ln_1": "attention_norm",
    "ln_2": "feed_forward_norm",
    "attn.c_proj": "attention.output",
    "mlp.c_fc": "feed_forward.up",
    "mlp.c_proj": "feed_forward.down",
    "transformer.ln_f": "model.norm",
}
PAIRS = [(BertForMaskedLM, MiniLMForMaskedLM), (BertForPreTraining, MiniLMForPreTraining)]
SIZES = {"vocab_size": 67, "hidden_size": 36, "num_hidden_layers": 3, "num_attention_heads": 3}


def renamed(name: str, names: dict[str, str]) -> str:
    for theirs, ours in names.items():
        name = name.replace(theirs, ours)
    return name


def randomise(model: torch.nn.Module) -> None:
    """Give every weight, norms and biases included, a value of its own."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)


def bert_pair(bert_class: type, our_class: type, *, attention: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    bert = bert_class(
        BertConfig(**SIZES, intermediate_size=53, max_position_embeddings=29, attn_implementation=attention)
    ).eval()
    randomise(bert)
    config = MiniLMConfig.preset(
        "bert", "tiny", **SIZES, intermediate_size=53, max_position_embeddings=29, attn_implementation=attention
    )
    ours = our_class(config).eval()
    ours.load_state_dict(
        {renamed(name, BERT_NAMES): weight for name, weight in bert.state_dict().items() if "position_ids" not in name}
    )
    return bert, ours


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
    gradients = {renamed(name, BERT_NAMES): parameter.grad for name, parameter in bert.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=1e-4)


def gpt2_weights(gpt2: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Rename GPT-2's weights; its projections are stored transposed, and query, key and value as one."""
    weights = {}
    for name, weight in gpt2.state_dict().items():
        ours = renamed(name, GPT2_NAMES)
        if weight.dim() == 2 and (".attn." in name or ".mlp." in name):
            weight = weight.T
        if ".attn.c_attn" in name:
            for part, piece in zip(("query", "key", "value"), weight.chunk(3), strict=True):
                weights[ours.replace("attn.c_attn", f"attention.{part}")] = piece
        else:
            weights[ours] = weight
    return weights


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
    ours.load_state_dict(gpt2_weights(gpt2))
    input_ids = torch.randint(0, 67, (3, 13), generator=torch.Generator().manual_seed(2))
    theirs, mine = gpt2(input_ids, labels=input_ids), ours(input_ids, labels=input_ids)
    torch.testing.assert_close(mine.logits, theirs.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mine.loss, theirs.loss)
    theirs.loss.backward()
    mine.loss.backward()
    torch.testing.assert_close(
        ours.model.embeddings.tokens.weight.grad, gpt2.transformer.wte.weight.grad, atol=1e-5, rtol=1e-4
    )
