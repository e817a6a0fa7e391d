"""transformers' Trainer: micro-batches against one big batch, what it evaluates, and the labels that it smooths."""

import pytest
import torch
from torch.nn import functional
from transformers import Trainer, TrainingArguments
from transformers.utils.generic import find_labels

from hf_minilm import (
    MiniLMForCausalLM,
    MiniLMForConditionalGeneration,
    MiniLMForMaskedLM,
    MiniLMForPreTraining,
    MiniLMSeq2SeqConfig,
)


def rows(draw_tokens, *, with_order: bool) -> list[dict[str, torch.Tensor]]:
    input_ids = draw_tokens(8, 9)
    examples = []
    for number, tokens in enumerate(input_ids):
        labels = torch.full_like(tokens, -100)
        # The next-sentence loss is weighed by predicted tokens, so there every row predicts as many.
        predicted = 2 if with_order else 1 + number
        labels[1 : 1 + predicted] = tokens[1 : 1 + predicted]
        example = {"input_ids": tokens, "labels": labels}
        examples.append({**example, "next_sentence_label": torch.tensor(number % 2)} if with_order else example)
    return examples


def one_step(model, examples, *, folder, micro_batch: int) -> float:
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=len(examples) // micro_batch,
        max_steps=1,
        learning_rate=1.0,
        optim="sgd",
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        use_cpu=True,
        dataloader_pin_memory=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=1,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=examples)
    return trainer.train().training_loss


@pytest.mark.parametrize("with_order", [False, True], ids=["masked", "masked and next sentence"])
def test_four_micro_batches_take_the_same_step_as_one_big_batch(make_model, draw_tokens, tmp_path, with_order):
    examples = rows(draw_tokens, with_order=with_order)
    start, whole, parts = (make_model(MiniLMForPreTraining) for _ in range(3))
    big = one_step(whole, examples, folder=tmp_path / "whole", micro_batch=8)
    small = one_step(parts, examples, folder=tmp_path / "parts", micro_batch=2)
    assert small == pytest.approx(big, rel=1e-5)
    for before, one, several in zip(start.parameters(), whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(several - before, one - before, atol=2e-6, rtol=1e-4)
    assert (
        max((one - before).abs().max() for before, one in zip(start.parameters(), whole.parameters(), strict=True))
        > 0.01
    )


@pytest.mark.parametrize("head", [MiniLMForCausalLM, MiniLMForMaskedLM, MiniLMForConditionalGeneration])
def test_evaluation_has_the_models_own_loss(make_model, draw_tokens, tmp_path, head):
    assert find_labels(head) == ["labels"]
    if head is MiniLMForConditionalGeneration:
        config = MiniLMSeq2SeqConfig.preset("modern", "tiny", vocab_size=64, pad_token_id=0, decoder_start_token_id=1)
        model = head(config).eval()
    else:
        model = make_model(head).eval()
    ids = draw_tokens(4, 6)
    seen = []
    trainer = Trainer(
        model=model,
        args=TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True),
        eval_dataset=[{"input_ids": row, "labels": row} for row in ids],
        compute_metrics=lambda prediction: seen.append(prediction.label_ids.shape) or {},
    )
    with torch.no_grad():
        expected = model(input_ids=ids, labels=ids).loss.item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)
    assert seen == [(4, 6)]


def test_labels_that_trainer_smooths_are_those_of_the_next_tokens(make_model, draw_tokens, tmp_path):
    model, ids = make_model(MiniLMForCausalLM).train(), draw_tokens(4, 6)
    arguments = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, report_to="none", label_smoothing_factor=0.2, disable_tqdm=True
    )
    found = Trainer(model=model, args=arguments).compute_loss(model, {"input_ids": ids, "labels": ids.clone()})
    logits = model(ids).logits[:, :-1].flatten(0, 1)
    expected = functional.cross_entropy(logits, ids[:, 1:].flatten(), label_smoothing=0.2)
    torch.testing.assert_close(found, expected)
