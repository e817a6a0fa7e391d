import math

import pytest
import torch
from torch import nn

from hf_minilm import MiniLMForCausalLM, MiniLMForMaskedLM, MiniLMForNextSentencePrediction, MiniLMForPreTraining
from hf_minilm.model.layers import first_tokens
from hf_minilm.model.losses import (
    IGNORED,
    next_tokens,
    normalised_cross_entropy,
    order_cross_entropy,
    predicted_positions,
    sequence_count,
)


def masked_labels(input_ids: torch.Tensor, *, share: float = 0.3) -> torch.Tensor:
    chosen = torch.rand(input_ids.shape, generator=torch.Generator().manual_seed(5)) < share
    return input_ids.masked_fill(~chosen, IGNORED)


def gradients_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_equal_gradients(first: nn.Module, second: nn.Module) -> None:
    ours, theirs = gradients_of(first), gradients_of(second)
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], atol=2e-6, rtol=1e-4)


def test_the_loss_is_in_nats_per_predicted_token():
    labels = torch.tensor([2, IGNORED, 0, IGNORED])
    assert normalised_cross_entropy(torch.zeros(4, 7), labels).item() == pytest.approx(math.log(7))
    assert normalised_cross_entropy(torch.zeros(4, 7), labels, count=8).item() == pytest.approx(math.log(7) / 4)


def test_predicted_positions_are_picked_in_row_order():
    hidden_states = torch.arange(6.0).view(2, 3, 1)
    chosen, labels = predicted_positions(hidden_states, torch.tensor([[IGNORED, 4, IGNORED], [9, IGNORED, 8]]))
    assert chosen.flatten().tolist() == [1.0, 3.0, 5.0]
    assert labels.tolist() == [4, 9, 8]


def test_next_tokens_are_shifted_and_no_sequence_predicts_the_first_of_the_next():
    labels = torch.tensor([[5, 6, 7, 8, 9]])
    assert next_tokens(labels).tolist() == [[6, 7, 8, 9, IGNORED]]
    packed = next_tokens(labels, torch.tensor([[0, 0, 1, 1, 1]]))
    assert packed.tolist() == [[6, IGNORED, 8, 9, IGNORED]]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("model_class", [MiniLMForMaskedLM, MiniLMForPreTraining])
def test_the_masked_loss_of_predicted_positions_equals_that_of_full_logits(
    make_model, draw_tokens, model_class, training
):
    sparse, full = (make_model(model_class).train(training) for _ in range(2))
    input_ids = draw_tokens(3, 7)
    labels = masked_labels(input_ids)
    loss = sparse(input_ids, labels=labels).loss
    logits = full(input_ids)[0]
    expected = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    assert_equal_gradients(sparse, full)


def test_the_causal_loss_equals_that_of_shifted_full_logits(make_model, draw_tokens):
    sparse, full = (make_model(MiniLMForCausalLM).train() for _ in range(2))
    input_ids = draw_tokens(3, 7)
    labels = input_ids.clone()
    labels[1, 4:] = IGNORED
    loss = sparse(input_ids, labels=labels).loss
    logits = full(input_ids).logits[:, :-1]
    expected = nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    assert_equal_gradients(sparse, full)


def test_logits_come_back_in_evaluation_and_on_request_but_not_in_training_on_labels(make_model, draw_tokens):
    model = make_model(MiniLMForMaskedLM)
    input_ids = draw_tokens(2, 5)
    assert model(input_ids, labels=input_ids).logits.shape == (2, 5, 61)
    assert model(input_ids, labels=input_ids, return_logits=False).logits is None
    model.train()
    assert model(input_ids).logits.shape == (2, 5, 61)
    assert model(input_ids, labels=input_ids).logits is None
    assert model(input_ids, labels=input_ids, return_logits=True).logits.shape == (2, 5, 61)


@pytest.mark.parametrize("model_class", [MiniLMForMaskedLM, MiniLMForCausalLM])
def test_micro_batches_with_the_count_of_all_add_up_to_one_big_batch(make_model, draw_tokens, model_class):
    whole, parts = (make_model(model_class).train() for _ in range(2))
    input_ids = draw_tokens(7, 6)
    labels = masked_labels(input_ids)
    labels[0] = input_ids[0]  # micro-batches of very unequal weight
    big = whole(input_ids, labels=labels).loss
    big.backward()
    count = (labels[:, 1:] if model_class is MiniLMForCausalLM else labels).ne(IGNORED).sum()
    total = 0.0
    for rows in torch.arange(7).split([1, 2, 4]):
        loss = parts(input_ids[rows], labels=labels[rows], num_items_in_batch=count).loss
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(big.item(), rel=1e-5)
    assert_equal_gradients(whole, parts)


def test_both_pre_training_losses_add_up_when_both_counts_are_given(make_model, draw_tokens):
    whole, parts = (make_model(MiniLMForPreTraining).train() for _ in range(2))
    input_ids, order = draw_tokens(7, 6), torch.tensor([0, 1, 1, 0, IGNORED, 1, 0])
    labels = masked_labels(input_ids)
    big = whole(input_ids, labels=labels, next_sentence_label=order).loss
    big.backward()
    counts = {"num_items_in_batch": labels.ne(IGNORED).sum(), "num_sequences_in_batch": 6}
    losses = [
        parts(input_ids[rows], labels=labels[rows], next_sentence_label=order[rows], **counts).loss
        for rows in torch.arange(7).split([1, 2, 4])
    ]
    sum(losses).backward()
    torch.testing.assert_close(sum(losses), big)
    assert_equal_gradients(whole, parts)


def test_with_tokens_counted_alone_each_next_sentence_mean_weighs_as_its_share_of_tokens():
    labels = torch.tensor([[4, IGNORED, 5], [IGNORED, IGNORED, 6]])
    order = torch.tensor([1, 0])
    assert sequence_count(labels, order, tokens=None) is None
    # 3 of 12 predicted tokens, so a quarter of the mean over 2 sequences: their sum is divided by 8.
    assert sequence_count(labels, order, tokens=12).item() == pytest.approx(8)


def packed_order_batch() -> dict[str, torch.Tensor]:
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3], [0, 1, 2, 3, 4, 0, 1]])
    order = torch.full((2, 7), IGNORED)
    order[0, 0], order[0, 3], order[1, 0], order[1, 5] = 1, 0, 0, 1
    return {"position_ids": positions, "next_sentence_label": order}


def test_next_sentence_labels_of_packed_rows_equal_those_of_separate_sequences(make_model, draw_tokens):
    packed_model, separate_model = (make_model(MiniLMForPreTraining) for _ in range(2))
    input_ids, batch = draw_tokens(2, 7), packed_order_batch()
    packed = packed_model(input_ids, **batch)
    pieces = [input_ids[0, :3], input_ids[0, 3:], input_ids[1, :5], input_ids[1, 5:]]
    separate = [
        separate_model(piece[None], next_sentence_label=torch.tensor([label]))
        for piece, label in zip(pieces, (1, 0, 0, 1), strict=True)
    ]
    expected = torch.cat([outputs.seq_relationship_logits for outputs in separate])
    torch.testing.assert_close(packed.seq_relationship_logits, expected, atol=1e-5, rtol=1e-5)
    loss = sum(outputs.loss for outputs in separate) / 4
    torch.testing.assert_close(packed.loss, loss)
    packed.loss.backward()
    loss.backward()
    assert_equal_gradients(packed_model, separate_model)


@pytest.mark.parametrize("model_class", [MiniLMForPreTraining, MiniLMForNextSentencePrediction])
def test_labels_of_one_column_and_of_whole_rows_mean_what_flat_labels_mean(make_model, draw_tokens, model_class):
    model = make_model(model_class)
    input_ids, flat = draw_tokens(4, 6), torch.tensor([0, 1, IGNORED, 1])
    rows = torch.full((4, 6), IGNORED)
    rows[:, 0] = flat
    name = "labels" if model_class is MiniLMForNextSentencePrediction else "next_sentence_label"
    losses = [model(input_ids, **{name: labels}).loss for labels in (flat, flat[:, None], rows)]
    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(losses[2], losses[0])


def test_the_first_tokens_of_packed_sequences_are_picked_in_row_order():
    hidden_states = torch.arange(14.0).view(2, 7, 1)
    order = packed_order_batch()["next_sentence_label"]
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0]])
    assert first_tokens(hidden_states, None, order).flatten().tolist() == [0.0, 3.0, 7.0, 12.0]
    assert first_tokens(hidden_states, mask, order).flatten().tolist() == [0.0, 3.0, 7.0, 12.0]
    assert first_tokens(hidden_states, None, None).flatten().tolist() == [0.0, 7.0]
    assert first_tokens(hidden_states, mask, torch.tensor([0, 1])).flatten().tolist() == [2.0, 7.0]
    assert first_tokens(hidden_states, mask[:, None, None].bool(), None).flatten().tolist() == [0.0, 7.0]
    expected = nn.functional.cross_entropy(torch.eye(2)[[0, 1, 0, 1]], torch.tensor([1, 0, 0, 1]))
    torch.testing.assert_close(order_cross_entropy(torch.eye(2)[[0, 1, 0, 1]], order), expected)


@pytest.mark.parametrize("order_shape", [(3,), (3, 6)])
@pytest.mark.parametrize("count", [None, 5])
def test_a_batch_without_any_label_gives_zero_loss_and_zero_gradients(make_model, draw_tokens, order_shape, count):
    model = make_model(MiniLMForPreTraining).train()
    input_ids = draw_tokens(3, 6)
    outputs = model(
        input_ids,
        labels=torch.full_like(input_ids, IGNORED),
        next_sentence_label=torch.full(order_shape, IGNORED),
        num_items_in_batch=count,
    )
    outputs.loss.backward()
    assert outputs.loss == outputs.masked_lm_loss == outputs.next_sentence_loss == 0
    for gradient in gradients_of(model).values():
        assert gradient.eq(0).all()


@pytest.mark.parametrize("model_class", [MiniLMForMaskedLM, MiniLMForCausalLM, MiniLMForNextSentencePrediction])
def test_a_head_of_one_loss_gives_zero_without_labels_too(make_model, draw_tokens, model_class):
    model = make_model(model_class).train()
    input_ids = draw_tokens(3, 6)
    loss = model(input_ids, labels=torch.full_like(input_ids, IGNORED)).loss
    loss.backward()
    assert loss == 0
    assert all(gradient.eq(0).all() for gradient in gradients_of(model).values())


@pytest.mark.parametrize("scheme", ["learned", "rope"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_equal_gradients(make_model, draw_tokens, scheme, reentrant):
    plain, saving = (make_model(MiniLMForPreTraining, position_embedding=scheme).train() for _ in range(2))
    # transformers 5.17 knows it by its older name.
    enable = getattr(saving, "activation_checkpointing_enable", None) or saving.gradient_checkpointing_enable
    enable({"use_reentrant": reentrant})
    saving.enable_input_require_grads()
    input_ids, batch = draw_tokens(2, 7), packed_order_batch()
    for model in (plain, saving):
        model(input_ids, labels=masked_labels(input_ids), **batch).loss.backward()
    assert_equal_gradients(plain, saving)


def test_labels_that_are_already_shifted_take_the_place_of_labels(make_model, draw_tokens):
    model, tokens = make_model(MiniLMForCausalLM), draw_tokens(2, 9)
    shifted = next_tokens(tokens)
    expected = model(tokens, labels=tokens).loss
    for labels in (None, tokens, tokens.flip(0)):
        torch.testing.assert_close(model(tokens, labels=labels, shift_labels=shifted).loss, expected)
