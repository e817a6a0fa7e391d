"""transformers' Seq2SeqTrainer and its collator with the encoder-decoder."""

import pytest
import torch
from tokenizers import Tokenizer, models
from torch import nn
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerFast, Seq2SeqTrainer, Seq2SeqTrainingArguments

from hf_minilm import MiniLMForConditionalGeneration, MiniLMSeq2SeqConfig

COMMON = {
    "use_cpu": True,
    "dataloader_pin_memory": False,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}


@pytest.fixture
def build(make_config):
    def make() -> nn.Module:
        torch.manual_seed(3)
        config = MiniLMSeq2SeqConfig(encoder=make_config(), decoder=make_config(), eos_token_id=2)
        return MiniLMForConditionalGeneration(config)

    return make


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    words = {word: number for number, word in enumerate(["<pad>", "<unk>", "<end>", *map(str, range(3, 61))])}
    base = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=base, pad_token="<pad>", eos_token="<end>", unk_token="<unk>")


@pytest.fixture
def examples(draw_tokens) -> list[dict[str, list[int]]]:
    """Eight pairs of unlike lengths, so that micro-batches predict unlike numbers of tokens."""
    lengths = [(3, 7), (9, 1), (4, 2), (6, 5), (2, 11), (8, 3), (5, 1), (7, 9)]
    return [
        {
            "input_ids": draw_tokens(source, seed=source).tolist(),
            "attention_mask": [1] * source,
            "labels": [*draw_tokens(target, seed=target + 20).tolist(), 2],
        }
        for source, target in lengths
    ]


def trainer_of(model, tokenizer, examples, *, folder, steps: int, micro_batch: int, **fields) -> Seq2SeqTrainer:
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=micro_batch,
        max_steps=steps,
        learning_rate=0.5,
        optim="sgd",
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        **{**COMMON, **fields},
    )
    collator = DataCollatorForSeq2Seq(tokenizer, model=model)
    return Seq2SeqTrainer(
        model=model,
        args=arguments,
        train_dataset=examples,
        eval_dataset=examples[:3],
        data_collator=collator,
        processing_class=tokenizer,
    )


def test_the_collator_makes_what_the_decoder_reads_as_the_model_does(build, tokenizer, examples):
    model = build()
    batch = DataCollatorForSeq2Seq(tokenizer, model=model)(examples[:3])
    assert batch["labels"].tolist()[1] == [*examples[1]["labels"], *[-100] * 6]
    assert torch.equal(batch["decoder_input_ids"], model.prepare_decoder_input_ids_from_labels(batch["labels"]))
    with_ids = model(**batch).loss
    del batch["decoder_input_ids"]
    assert torch.equal(model(**batch).loss, with_ids)


def test_a_trainer_that_generates_trains_and_predicts_what_the_model_writes(build, tokenizer, examples, tmp_path):
    model, start = build(), build()
    fields = {"predict_with_generate": True, "generation_max_length": 6, "generation_num_beams": 2, "logging_steps": 1}
    trainer = trainer_of(model, tokenizer, examples, folder=tmp_path, steps=2, micro_batch=4, **fields)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 2
    assert losses[0] > losses[1] > 0
    changed = [not torch.equal(*pair) for pair in zip(model.parameters(), start.parameters(), strict=True)]
    assert all(changed)

    predicted = trainer.predict(examples[:3])
    assert predicted.metrics["test_loss"] > 0
    with torch.no_grad():
        expected = [
            model.generate(torch.tensor([example["input_ids"]]), num_beams=2, max_length=6)[0].tolist()
            for example in examples[:3]
        ]
    for found, wanted in zip(predicted.predictions.tolist(), expected, strict=True):
        assert [token for token in found if token > 0] == [token for token in wanted if token > 0]


def test_unequal_micro_batches_take_the_same_step_as_one_big_batch(build, tokenizer, examples, tmp_path):
    start, whole, parts = (build() for _ in range(3))
    losses = []
    for model, micro_batch in ((whole, 8), (parts, 2)):
        fields = {"gradient_accumulation_steps": 8 // micro_batch, "logging_steps": 1}
        folder = tmp_path / str(micro_batch)
        trainer = trainer_of(model, tokenizer, examples, folder=folder, steps=1, micro_batch=micro_batch, **fields)
        losses.append(trainer.train().training_loss)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for before, one, several in zip(start.parameters(), whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(several - before, one - before, atol=2e-6, rtol=1e-4)
    moved = [(one - before).abs().max() for before, one in zip(start.parameters(), whole.parameters(), strict=True)]
    assert max(moved) > 0.01
