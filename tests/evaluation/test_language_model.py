"""Held-out losses against figures worked out from the logits."""

import math

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from transformers import T5ForConditionalGeneration

from hf_minilm import MiniLMForCausalLM, MiniLMForMaskedLM, MiniLMForPreTraining
from hf_minilm.evaluation.language_model import evaluating, held_out


def causal_batch(generator, rows, length, vocab_size):
    ids = torch.randint(3, vocab_size, (rows, length), generator=generator)
    labels = ids.clone()
    positions = torch.arange(length).repeat(rows, 1)
    for row in range(rows):
        cut = 2 + 3 * row
        positions[row, cut:] -= cut
        labels[row, [0, cut]] = -100
    return {"input_ids": ids, "position_ids": positions, "labels": labels}


class PositionedT5(T5ForConditionalGeneration):
    """A T5 that takes the positions of packed rows, has no use for them, and trains on another loss than the plain."""

    def forward(self, *, position_ids, decoder_position_ids, **batch):
        output = super().forward(**batch)
        output.loss = output.logits.square().mean()
        return output


def seq2seq_batch(generator, rows, length, target_length, vocab_size):
    ids, targets = (
        torch.randint(3, vocab_size, (rows, columns), generator=generator) for columns in (length, target_length + 1)
    )
    labels = targets[:, 1:].clone()
    for row in range(rows):
        labels[row, [1 + row, -1]] = -100
    return {
        "input_ids": ids,
        "position_ids": torch.arange(length).repeat(rows, 1),
        "decoder_input_ids": targets[:, :-1],
        "decoder_position_ids": torch.arange(target_length).repeat(rows, 1),
        "labels": labels,
    }


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(5)


def test_a_uniform_model_loses_the_logarithm_of_the_vocabulary_per_token(uniform_model, byte_tokenizer, generator):
    vocab_size = len(byte_tokenizer)
    model = uniform_model(MiniLMForCausalLM, byte_tokenizer)
    batch = causal_batch(generator, 3, 17, vocab_size)
    result = held_out(model, [batch], token_bytes=np.full(vocab_size, 4))
    assert result.nats_per_token == pytest.approx(math.log(vocab_size), rel=1e-6)
    assert result.bits_per_byte == pytest.approx(math.log2(vocab_size) / 4, rel=1e-6)
    assert result.num_tokens == 3 * 17 - 6
    assert result.next_sentence_loss is None
    assert result.num_sequences == 0


def test_every_token_weighs_the_same_however_unequal_the_batches(tiny_model, byte_tokenizer, generator):
    vocab_size = len(byte_tokenizer)
    model = tiny_model(MiniLMForCausalLM, byte_tokenizer)
    batches = [causal_batch(generator, rows, length, vocab_size) for rows, length in ((1, 5), (3, 29), (2, 11))]
    nats, count, num_bytes = 0.0, 0, 0
    token_bytes = torch.arange(vocab_size) % 7
    for batch in batches:
        with torch.no_grad():
            logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits
        for row, labels in enumerate(batch["labels"].tolist()):
            for place, label in enumerate(labels):
                if label != -100:
                    nats -= logits[row, place - 1].double().log_softmax(-1)[label].item()
                    count += 1
                    num_bytes += label % 7
    result = held_out(model, iter(batches), token_bytes=token_bytes)
    assert result.num_tokens == count
    assert result.nats_per_token == pytest.approx(nats / count, rel=1e-6)
    assert result.bits_per_byte == pytest.approx(nats / math.log(2) / num_bytes, rel=1e-6)


def test_an_encoder_decoder_is_measured_on_labels_that_stand_where_they_are_predicted(
    tiny_seq2seq, translation_tokenizer, generator
):
    vocab_size = len(translation_tokenizer)
    model = tiny_seq2seq(PositionedT5).train()
    sizes = ((1, 5, 4), (3, 9, 17), (2, 13, 6), (1, 7, 3))
    batches = [seq2seq_batch(generator, *size, vocab_size) for size in sizes]
    batches[-1]["labels"].fill_(-100)
    nats, count, num_bytes = 0.0, 0, 0
    for batch in batches:
        for row, labels in enumerate(batch["labels"].tolist()):
            one = {name: tensor[row : row + 1] for name, tensor in batch.items() if name != "labels"}
            with torch.no_grad():
                logs = model.eval()(**one).logits[0].double().log_softmax(-1)
            for place, label in enumerate(labels):
                if label != -100:
                    nats -= logs[place, label].item()
                    count += 1
                    num_bytes += label % 7
    model.train()
    result = held_out(model, batches, token_bytes=torch.arange(vocab_size) % 7)
    assert model.training
    assert result.num_tokens == count == 1 * 2 + 3 * 15 + 2 * 4
    assert result.nats_per_token == pytest.approx(nats / count, rel=1e-5)
    assert result.bits_per_byte == pytest.approx(nats / math.log(2) / num_bytes, rel=1e-5)
    assert result.next_sentence_loss is None


def test_next_sentence_figures_are_those_of_the_labelled_sequences(tiny_model, word_tokenizer, generator):
    vocab_size = len(word_tokenizer)
    model = tiny_model(MiniLMForPreTraining, word_tokenizer)
    ids = torch.randint(5, vocab_size, (2, 13), generator=generator)
    positions = torch.tensor([[*range(6), *range(7)], [*range(4), *range(4), *range(5)]])
    orders = torch.full_like(ids, -100)
    for row, place, label in ((0, 0, 1), (0, 6, 0), (1, 0, 1), (1, 8, 1)):
        orders[row, place] = label
    labels = torch.full_like(ids, -100)
    labels[0, 3], labels[1, 1], labels[1, 6] = 9, 8, 7
    batch = {"input_ids": ids, "position_ids": positions, "token_type_ids": torch.zeros_like(ids), "labels": labels}
    with torch.no_grad():
        output = model(**batch, next_sentence_label=orders)
    truth = torch.tensor([1, 0, 1, 1])
    logs = output.seq_relationship_logits.double().log_softmax(-1)
    result = held_out(model, [batch | {"next_sentence_label": orders}], token_bytes=np.ones(vocab_size, np.int64))
    assert result.num_sequences == 4
    assert result.next_sentence_majority == 0.75
    assert result.next_sentence_loss == pytest.approx(-logs[range(4), truth].mean().item(), rel=1e-6)
    assert result.next_sentence_accuracy == (logs.argmax(-1) == truth).double().mean().item()
    chosen = output.prediction_logits.double().log_softmax(-1)[[0, 1, 1], [3, 1, 6], [9, 8, 7]]
    assert result.nats_per_token == pytest.approx(-chosen.mean().item(), rel=1e-6)


def test_the_mode_is_restored_and_dropout_is_off(tiny_model, byte_tokenizer, generator):
    model = tiny_model(MiniLMForCausalLM, byte_tokenizer, hidden_dropout=0.5).train()
    batch = causal_batch(generator, 2, 9, len(byte_tokenizer))
    first, second = (held_out(model, [batch], token_bytes=np.ones(len(byte_tokenizer))) for _ in range(2))
    assert first == second
    assert model.training


def test_no_more_rows_are_read_than_asked_for(tiny_model, byte_tokenizer, generator):
    model = tiny_model(MiniLMForCausalLM, byte_tokenizer)
    batches = [causal_batch(generator, 3, 11, len(byte_tokenizer)) for _ in range(3)]
    sizes = np.ones(len(byte_tokenizer), np.int64)
    some = held_out(model, batches, token_bytes=sizes, max_rows=4)
    same = [batches[0], {name: tensor[:1] for name, tensor in batches[1].items()}]
    assert some == held_out(model, same, token_bytes=sizes)


def test_bfloat16_gives_nearly_the_same_loss(tiny_model, byte_tokenizer, generator):
    model = tiny_model(MiniLMForCausalLM, byte_tokenizer)
    batch = causal_batch(generator, 2, 19, len(byte_tokenizer))
    sizes = np.ones(len(byte_tokenizer), np.int64)
    exact, rounded = (
        held_out(model, [batch], token_bytes=sizes, autocast=cast).nats_per_token for cast in (False, True)
    )
    assert rounded == pytest.approx(exact, rel=1e-2)


def test_text_without_a_predicted_token_is_refused(uniform_model, word_tokenizer):
    model = uniform_model(MiniLMForMaskedLM, word_tokenizer)
    ids = torch.full((1, 8), 6)
    with pytest.raises(ValueError, match=r"predicted tokens \(0\) must be at least 1"):
        held_out(model, [{"input_ids": ids, "labels": torch.full_like(ids, -100)}], token_bytes=np.ones(9))


def test_attention_that_knows_no_cache_gives_way_while_a_model_is_measured(tiny_model, byte_tokenizer):
    model = tiny_model(MiniLMForCausalLM, byte_tokenizer)
    model.set_attn_implementation("minilm_varlen")
    with evaluating(model):
        assert model(torch.tensor([[3, 4, 5]]), use_cache=True).past_key_values is not None
    assert model.config._attn_implementation == "minilm_varlen"


def test_a_model_that_trains_in_16_bits_is_measured_in_its_own_precision(uniform_model, byte_tokenizer, generator):
    vocab_size = len(byte_tokenizer)
    torch.manual_seed(3)
    model = MiniLMForCausalLM(uniform_model(MiniLMForCausalLM, byte_tokenizer).config)
    batch = causal_batch(generator, 3, 17, vocab_size)
    sizes = np.full(vocab_size, 4)
    plain = held_out(model, [batch], token_bytes=sizes)
    in_training = Accelerator(cpu=True, mixed_precision="bf16").prepare(model)
    assert held_out(in_training, [batch], token_bytes=sizes) == plain
    assert held_out(in_training, [batch], token_bytes=sizes, autocast=True) != plain
    assert in_training.training
    assert "forward" in vars(in_training), "training goes on in 16 bits"
