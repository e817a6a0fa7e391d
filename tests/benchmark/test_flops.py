"""The counted operations are those that torch's own counter sees in a real step."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hf_minilm import MiniLMConfig, MiniLMForCausalLM, MiniLMForMaskedLM, MiniLMForPreTraining
from hf_minilm.benchmark.flops import count_looks, matrix_work, training_flops
from hf_minilm.benchmark.peers import build_peer
from hf_minilm.benchmark.stopwatch import count_batch

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


def looks(work) -> int:
    return int(count_looks(work, torch.full((BATCH,), LENGTH)))


def predicted(inputs) -> int:
    return int((inputs["labels"] != -100).sum())


def ours(kind, **fields):
    sizes = {"hidden_size": 36, "num_attention_heads": 3, "num_hidden_layers": 2, "vocab_size": VOCABULARY}
    return kind(MiniLMConfig(**sizes, **fields))


@pytest.mark.parametrize("fields", [{}, {"num_key_value_heads": 1, "head_dim": 8}, {"feed_forward": "plain"}])
def test_a_masked_step_counts_the_vocabulary_at_predicted_positions_only(fields):
    model, inputs = ours(MiniLMForMaskedLM, **fields), inputs_with_labels(all_predicted=False)
    work = matrix_work(model)
    expected = training_flops(work, tokens=BATCH * LENGTH, predicted=predicted(inputs), sequences=0, looks=looks(work))
    assert counted(model, **inputs) == pytest.approx(expected, rel=TOLERANCE)


def test_a_causal_step_counts_all_positions_but_each_rows_last():
    model, inputs = ours(MiniLMForCausalLM), inputs_with_labels(all_predicted=True)
    work = matrix_work(model)
    expected = training_flops(
        work, tokens=BATCH * LENGTH, predicted=BATCH * (LENGTH - 1), sequences=0, looks=looks(work)
    )
    assert counted(model, **inputs) == pytest.approx(expected, rel=TOLERANCE)


def test_the_next_sentence_counts_once_a_sequence():
    model, inputs = ours(MiniLMForPreTraining), inputs_with_labels(all_predicted=False)
    inputs["next_sentence_label"] = torch.tensor([0, 1, 1])
    work = matrix_work(model)
    expected = training_flops(
        work, tokens=BATCH * LENGTH, predicted=predicted(inputs), sequences=BATCH, looks=looks(work)
    )
    assert work.order == 36 * 36 + 2 * 36
    assert counted(model, **inputs) == pytest.approx(expected, rel=TOLERANCE)


def test_packed_sequences_count_what_they_do_one_by_one():
    model, lengths = ours(MiniLMForMaskedLM), [3, 9, 6, 11, 7]
    rows = [[3, 9, 6], [11, 7]]  # two rows of 20 positions that end with padding
    positions = torch.zeros(2, LENGTH, dtype=torch.long)
    ids, labels = torch.zeros_like(positions), torch.full_like(positions, -100)
    alone = predicted_tokens = 0
    for row, own in enumerate(rows):
        begin = 0
        for length in own:
            here = slice(begin, begin + length)
            positions[row, here] = torch.arange(length)
            ids[row, here] = torch.randint(5, VOCABULARY, (length,))
            labels[row, begin + 1] = 7
            alone += counted(model, input_ids=ids[row : row + 1, here], labels=labels[row : row + 1, here])
            predicted_tokens, begin = predicted_tokens + 1, begin + length
    work = matrix_work(model)
    counts = count_batch({"input_ids": ids, "position_ids": positions, "labels": labels}, work, pad_token_id=0)
    assert (int(counts.tokens), int(counts.predicted)) == (sum(lengths), predicted_tokens)
    expected = training_flops(
        work, tokens=int(counts.tokens), predicted=int(counts.predicted), sequences=0, looks=int(counts.looks)
    )
    assert alone == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize(
    ("maker", "objective"),
    [("bert", "masked_next_sentence"), ("bert", "masked"), ("gpt2", "causal"), ("llama", "causal")],
)
def test_a_peer_without_sparse_prediction_computes_what_is_counted_with_every_position_predicted(
    small_work, maker, objective
):
    model = build_peer(small_work(maker, objective, vocab_size=VOCABULARY))
    work = matrix_work(model)
    inputs = inputs_with_labels(all_predicted=True)
    if objective == "masked_next_sentence":
        inputs["next_sentence_label"] = torch.tensor([0, 1, 1])
    expected = training_flops(work, tokens=BATCH * LENGTH, predicted=BATCH * LENGTH, sequences=BATCH, looks=looks(work))
    assert counted(model, **inputs) == pytest.approx(expected, rel=TOLERANCE)


def test_a_tuned_modernbert_predicts_sparsely(small_work):
    model = build_peer(small_work("modernbert", "masked", vocab_size=VOCABULARY, tuned=True))
    work = matrix_work(model)
    inputs = inputs_with_labels(all_predicted=False)
    expected = training_flops(work, tokens=BATCH * LENGTH, predicted=predicted(inputs), sequences=0, looks=looks(work))
    assert counted(model, **inputs) == pytest.approx(expected, rel=TOLERANCE)


def test_a_layer_with_a_window_counts_no_more_than_the_window():
    fields = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 3}
    bidirectional, causal = ours(MiniLMForMaskedLM, **fields), ours(MiniLMForCausalLM, **fields)
    assert matrix_work(bidirectional).windows == (7, None)
    assert matrix_work(causal).windows == (3, None)
    work = matrix_work(causal)
    short, long = (int(count_looks(work, torch.tensor([length]))) for length in (10, 20))
    assert (short, long) == (10 * 10 + 10 * 3, 20 * 20 + 20 * 3)
