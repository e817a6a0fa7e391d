"""The counted operations are those that torch's own counter sees in a real step."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hf_minilm import MiniLMConfig, MiniLMForCausalLM, MiniLMForMaskedLM, MiniLMForPreTraining
from hf_minilm.benchmark.flops import matrix_work, training_flops
from hf_minilm.benchmark.peers import build_peer

TOLERANCE = 1e-3
BATCH, LENGTH, VOCABULARY, PREDICTED_EVERY = 3, 20, 311, 4


def counted(model, **inputs) -> int:
    """Operations that torch counts in a forward and a backward pass; eager attention, as it knows no fused one's."""
    model.train().set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        model(**inputs).loss.backward()
    return counter.get_total_flops()


def inputs_with_labels(*, all_predicted: bool) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, VOCABULARY, (BATCH, LENGTH))
    is_predicted = torch.arange(LENGTH) % PREDICTED_EVERY == 1
    return {"input_ids": ids, "labels": ids.clone() if all_predicted else ids.masked_fill(~is_predicted, -100)}


def predicted(inputs) -> int:
    return int((inputs["labels"] != -100).sum())


def ours(kind, **fields):
    sizes = {"hidden_size": 36, "num_attention_heads": 3, "num_hidden_layers": 2, "vocab_size": VOCABULARY}
    return kind(MiniLMConfig(**sizes, **fields))


@pytest.mark.parametrize("fields", [{}, {"num_key_value_heads": 1, "head_dim": 8}, {"feed_forward": "plain"}])
def test_a_masked_step_counts_the_vocabulary_at_predicted_positions_only(fields):
    model, inputs = ours(MiniLMForMaskedLM, **fields), inputs_with_labels(all_predicted=False)
    expected = training_flops(
        matrix_work(model), tokens=BATCH * LENGTH, predicted=predicted(inputs), sequences=0, length=LENGTH
    )
    assert counted(model, **inputs) == pytest.approx(expected, rel=TOLERANCE)


def test_a_causal_step_counts_all_positions_but_each_rows_last():
    model, inputs = ours(MiniLMForCausalLM), inputs_with_labels(all_predicted=True)
    expected = training_flops(
        matrix_work(model), tokens=BATCH * LENGTH, predicted=BATCH * (LENGTH - 1), sequences=0, length=LENGTH
    )
    assert counted(model, **inputs) == pytest.approx(expected, rel=TOLERANCE)


def test_the_next_sentence_counts_once_a_sequence():
    model, inputs = ours(MiniLMForPreTraining), inputs_with_labels(all_predicted=False)
    inputs["next_sentence_label"] = torch.tensor([0, 1, 1])
    work = matrix_work(model)
    expected = training_flops(work, tokens=BATCH * LENGTH, predicted=predicted(inputs), sequences=BATCH, length=LENGTH)
    assert work.order == 36 * 36 + 2 * 36
    assert counted(model, **inputs) == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize(
    ("maker", "objective"),
    [("bert", "masked_next_sentence"), ("bert", "masked"), ("gpt2", "causal"), ("llama", "causal")],
)
def test_a_peer_without_sparse_prediction_computes_what_is_counted_with_every_position_predicted(
    small_work, maker, objective
):
    model = build_peer(small_work(maker, objective, vocab_size=VOCABULARY))
    inputs = inputs_with_labels(all_predicted=True)
    if objective == "masked_next_sentence":
        inputs["next_sentence_label"] = torch.tensor([0, 1, 1])
    expected = training_flops(
        matrix_work(model), tokens=BATCH * LENGTH, predicted=BATCH * LENGTH, sequences=BATCH, length=LENGTH
    )
    assert counted(model, **inputs) == pytest.approx(expected, rel=TOLERANCE)


def test_a_tuned_modernbert_predicts_sparsely(small_work):
    model = build_peer(small_work("modernbert", "masked", vocab_size=VOCABULARY, tuned=True))
    inputs = inputs_with_labels(all_predicted=False)
    expected = training_flops(
        matrix_work(model), tokens=BATCH * LENGTH, predicted=predicted(inputs), sequences=0, length=LENGTH
    )
    assert counted(model, **inputs) == pytest.approx(expected, rel=TOLERANCE)


def test_a_layer_with_a_window_counts_no_more_than_the_window():
    fields = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 3}
    bidirectional, causal = ours(MiniLMForMaskedLM, **fields), ours(MiniLMForCausalLM, **fields)
    assert matrix_work(bidirectional).windows == (7, None)
    assert matrix_work(causal).windows == (3, None)
    work = matrix_work(causal)
    short, long = (training_flops(work, tokens=1, predicted=0, sequences=0, length=each) for each in (10, 20))
    assert long - short == 12 * work.width * 10
