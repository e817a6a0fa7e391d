"""A batch that is prepared on the host gives the numbers of the batch itself."""

import pytest
import torch

from hf_minilm import MiniLMConfig, MiniLMForCausalLM, MiniLMForMaskedLM, MiniLMForPreTraining
from hf_minilm.model.losses import Targets
from hf_minilm.training.prepared_batch import on_device, prepared

PACKED = torch.tensor([[*range(5), *range(8)], [*range(9), *range(4)]])
WHOLE = torch.arange(13).expand(2, -1)


def make_model(model_class, *, attention):
    torch.manual_seed(0)
    sizes = {"vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return model_class._from_config(MiniLMConfig(**sizes), attn_implementation=attention)


def draw_tokens():
    return torch.randint(5, 61, (2, 13), generator=torch.Generator().manual_seed(0))


def batch_for(model_class, input_ids, positions):
    batch = {"input_ids": input_ids, "position_ids": positions}
    if model_class is MiniLMForCausalLM:
        return batch | {"labels": input_ids.masked_fill(positions == 0, -100)}
    batch["labels"] = torch.where(positions % 3 == 1, input_ids, -100)
    if model_class is MiniLMForPreTraining:
        batch["next_sentence_label"] = torch.where(positions == 0, torch.arange(13) % 2, -100)
    return batch


@pytest.mark.parametrize("positions", [PACKED, WHOLE], ids=["packed", "whole"])
@pytest.mark.parametrize("attention", ["minilm_varlen", "sdpa"])
@pytest.mark.parametrize("model_class", [MiniLMForCausalLM, MiniLMForMaskedLM, MiniLMForPreTraining])
def test_losses_and_gradients_are_those_of_the_batch_to_the_bit(model_class, attention, positions):
    model = make_model(model_class, attention=attention).train()
    batch = batch_for(model_class, draw_tokens(), positions)
    counts = {"num_items_in_batch": 7.0}
    if model_class is MiniLMForPreTraining:
        counts["num_sequences_in_batch"] = 3.0
    results = []
    for inputs in (batch, on_device(prepared(model, batch), torch.device("cpu"))):
        model.zero_grad()
        loss = model(**inputs, **counts).loss
        loss.backward()
        results.append([loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    assert all(torch.equal(expected, found) for expected, found in zip(*results, strict=True))


@pytest.mark.parametrize("types", [0, 2])
def test_token_types_go_to_a_model_that_has_them(types):
    config = MiniLMConfig(
        vocab_size=61, hidden_size=24, num_hidden_layers=1, num_attention_heads=2, type_vocab_size=types
    )
    batch = batch_for(MiniLMForMaskedLM, draw_tokens(), PACKED)
    inputs = prepared(MiniLMForMaskedLM(config), batch | {"token_type_ids": torch.ones_like(PACKED)})
    assert ("token_type_ids" in inputs) == (types > 0)


def test_nothing_is_left_to_be_looked_for():
    batch = batch_for(MiniLMForPreTraining, draw_tokens(), PACKED)
    inputs = prepared(make_model(MiniLMForPreTraining, attention="minilm_varlen"), batch)
    assert inputs["attention_mask"].tolist() == [0, 5, 13, 22, 26]
    assert isinstance(inputs["labels"], Targets)
    assert isinstance(inputs["next_sentence_label"], Targets)
    assert inputs["next_sentence_label"].places.tolist() == [0, 5, 13, 22]


def test_with_another_kernel_positions_stay_and_labels_need_not_be_looked_for():
    batch = batch_for(MiniLMForCausalLM, draw_tokens(), PACKED)
    inputs = prepared(make_model(MiniLMForCausalLM, attention="sdpa"), batch)
    assert inputs.keys() == {"input_ids", "position_ids", "shift_labels"}
    assert inputs["position_ids"] is batch["position_ids"]
    assert isinstance(inputs["shift_labels"], Targets)


def test_rows_of_one_sequence_need_neither_positions_nor_bounds():
    batch = batch_for(MiniLMForMaskedLM, draw_tokens(), WHOLE)
    model = make_model(MiniLMForMaskedLM, attention="minilm_varlen")
    assert prepared(model, batch).keys() == {"input_ids", "labels"}
    later = prepared(model, batch | {"position_ids": WHOLE + 3})
    assert later["position_ids"].equal(WHOLE + 3)
