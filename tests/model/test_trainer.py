"""transformers' Trainer over micro-batches against one big batch."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

from hf_minilm import MiniLMForPreTraining


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
