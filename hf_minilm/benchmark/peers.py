"""The peers: transformers' own models of our layers, width and heads, and their training under Trainer.

As its users run it: TrainingArguments' defaults, which are fp32, `adamw_torch_fused`, a random order and no workers.
Tuned: bf16 where the device is fast at it, texts of similar length in a batch (`train_sampling_strategy`), the marks of
special tokens kept for the collator, which otherwise finds them again token by token in Python, on a GPU as many
processes that make batches as ours has and no waiting for each step's loss, and for ModernBERT its sparse prediction.
What `--set-peer` adds comes on top, as `torch_compile=true`.
"""

import inspect
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, load_from_disk
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertModel,
    DataCollatorForLanguageModeling,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from ..data.tokenizer import load_tokenizer
from ..model.configuration_minilm import SIZES
from ..training.batches_ahead import resolve_batch_processes
from .flops import matrix_work
from .ours import LEARNING_RATE, MASK_RATE, USUAL_POSITIONS
from .settings import trainer_arguments
from .stopwatch import Stopwatch
from .work import EncodingWork, GenerationWork, Maker, TrainingWork
from .working_folder import WorkingFolder

_NO_ENDS: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None}

Sizes = Mapping[str, Any]
"""Layers, width and heads, named as in `SIZES`."""


def build_bert_config(sizes: Sizes, vocab_size: int, *, positions: int, pad_token_id: int = 0) -> BertConfig:
    """BERT as published: a feed-forward of four times the width, learned positions, dropout of 0.1."""
    return BertConfig(
        vocab_size=vocab_size,
        intermediate_size=4 * sizes["hidden_size"],
        max_position_embeddings=max(USUAL_POSITIONS, positions),
        pad_token_id=pad_token_id,
        **sizes,
    )


def build_modernbert_config(
    sizes: Sizes, vocab_size: int, *, positions: int, sparse: bool, pad_token_id: int = 0
) -> ModernBertConfig:
    """ModernBERT as published: a gated feed-forward of 1.5 times the width, every third layer global."""
    return ModernBertConfig(
        vocab_size=vocab_size,
        intermediate_size=3 * sizes["hidden_size"] // 2,
        max_position_embeddings=max(8192, positions),
        sparse_prediction=sparse,
        cls_token_id=None,
        sep_token_id=None,
        pad_token_id=pad_token_id,
        **_NO_ENDS,
        **sizes,
    )


def build_gpt2_config(sizes: Sizes, vocab_size: int, *, positions: int, pad_token_id: int = 0) -> GPT2Config:
    """GPT-2 as published: a feed-forward of four times the width, learned positions, dropout of 0.1."""
    return GPT2Config(
        vocab_size=vocab_size,
        n_layer=sizes["num_hidden_layers"],
        n_embd=sizes["hidden_size"],
        n_head=sizes["num_attention_heads"],
        n_positions=max(1024, positions),
        pad_token_id=pad_token_id,
        **_NO_ENDS,
    )


def build_llama_config(sizes: Sizes, vocab_size: int, *, positions: int, pad_token_id: int = 0) -> LlamaConfig:
    """Llama with tied embeddings, as small ones have: a gated feed-forward of 8/3 of the width, to a multiple of 32."""
    return LlamaConfig(
        vocab_size=vocab_size,
        intermediate_size=-(-8 * sizes["hidden_size"] // (3 * 32)) * 32,
        max_position_embeddings=max(2048, positions),
        tie_word_embeddings=True,
        pad_token_id=pad_token_id,
        **_NO_ENDS,
        **sizes,
    )


def build_peer(work: TrainingWork) -> PreTrainedModel:
    """Build the model that a peer trains, with its own initial weights."""
    return build_architecture(
        work.maker,
        SIZES[work.size],
        work.vocab_size,
        positions=work.length,
        next_sentence=work.objective == "masked_next_sentence",
        sparse=work.tuned,
    )


def build_architecture(
    maker: Maker,
    sizes: Sizes,
    vocab_size: int,
    *,
    positions: int,
    next_sentence: bool = False,
    sparse: bool = False,
    pad_token_id: int = 0,
) -> PreTrainedModel:
    """Build a peer's model with its own initial weights.

    Args:
        maker: Whose model.
        sizes: Layers, width and heads.
        vocab_size: Tokens of the vocabulary.
        positions: The least that the longest text may have.
        next_sentence: Whether BERT has the head that tells the order of two sentences.
        sparse: Whether ModernBERT computes logits of what it predicts alone.
        pad_token_id: The token whose embedding is not trained.
    """
    shape: dict[str, Any] = {"vocab_size": vocab_size, "positions": positions, "pad_token_id": pad_token_id}
    if maker == "bert":
        head = BertForPreTraining if next_sentence else BertForMaskedLM
        return head(build_bert_config(sizes, **shape))
    if maker == "modernbert":
        return ModernBertForMaskedLM(build_modernbert_config(sizes, **shape, sparse=sparse))
    if maker == "gpt2":
        return GPT2LMHeadModel(build_gpt2_config(sizes, **shape))
    return LlamaForCausalLM(build_llama_config(sizes, **shape))


class StopwatchTrainer(Trainer):
    """Trainer that tells a stopwatch when a batch has arrived."""

    def __init__(self, *, stopwatch: Stopwatch, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.stopwatch = stopwatch

    def training_step(self, model: nn.Module, inputs: Any, *arguments: Any, **options: Any) -> torch.Tensor:
        """Tell it, and make the step's gradient."""
        self.stopwatch.batch_arrives(inputs)
        return super().training_step(model, inputs, *arguments, **options)


class StepEnds(TrainerCallback):
    """Tells a stopwatch when the weights have moved."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        self.stopwatch = stopwatch

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Tell it."""
        self.stopwatch.step_ends()


def train_peer(work: TrainingWork, folder: WorkingFolder, device: torch.device) -> dict[str, Any]:
    """Train a peer under Trainer, and measure it."""
    torch.manual_seed(0)
    model = build_peer(work)
    tokenizer = load_tokenizer(folder.tokenizer(work.objective))
    collator = DataCollatorForLanguageModeling(
        tokenizer, mlm=work.objective != "causal", mlm_probability=MASK_RATE if work.objective != "causal" else None
    )
    stopwatch = Stopwatch(device, matrix_work(model), warmup_steps=work.warmup_steps, steps=work.steps, pad_token_id=0)
    with tempfile.TemporaryDirectory() as output:
        StopwatchTrainer(
            stopwatch=stopwatch,
            model=model,
            args=training_arguments(work, device, Path(output)),
            train_dataset=_examples(work, folder, model),
            data_collator=collator,
            processing_class=tokenizer,
            callbacks=[StepEnds(stopwatch)],
        ).train()
    return {
        "parameters": model.num_parameters(),
        "precision": work.precision,
        **stopwatch.figures().to_json(),
    }


def training_arguments(work: TrainingWork, device: torch.device, output: Path) -> TrainingArguments:
    """Write the arguments of a peer's training: the defaults, or what makes it fast."""
    arguments: dict[str, Any] = {
        "output_dir": str(output),
        "max_steps": work.total_steps,
        "per_device_train_batch_size": work.rows,
        "learning_rate": LEARNING_RATE,
        "use_cpu": device.type == "cpu",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        # Pinned memory needs a GPU, and Trainer warns where there is none.
        "dataloader_pin_memory": device.type == "cuda",
    }
    if work.tuned:
        arguments |= {
            "bf16": work.precision == "bf16",
            "optim": "adamw_torch_fused",
            "remove_unused_columns": False,
            "dataloader_num_workers": resolve_batch_processes(None, device, num_sharing=1),
            "logging_nan_inf_filter": False,
        }
        if work.data != "grouped":
            arguments["train_sampling_strategy"] = "group_by_length"
        arguments |= trainer_arguments(work.settings)
    return TrainingArguments(**arguments)


def _examples(work: TrainingWork, folder: WorkingFolder, model: PreTrainedModel) -> Any:
    """Open the examples: as many as the steps take, so that texts are sorted over a whole number of them."""
    examples = load_from_disk(folder.examples(work))
    examples = examples.select(range(min(work.total_steps * work.rows, len(examples))))
    return remove_what_is_not_taken(examples, model) if work.tuned else examples


def remove_what_is_not_taken(examples: Dataset, model: PreTrainedModel) -> Dataset:
    """Remove the columns that a model does not take, but for the marks of special tokens, which the collator takes.

    Trainer would remove those too; so it is told to remove nothing.
    """
    taken = {*inspect.signature(model.forward).parameters, "special_tokens_mask"}
    return examples.remove_columns([name for name in examples.column_names if name not in taken])


def build_encoder(work: EncodingWork) -> nn.Module:
    """Build the model that encodes texts."""
    return BertModel(build_bert_config(SIZES[work.size], work.vocab_size, positions=work.longest))


def build_writer(work: GenerationWork) -> nn.Module:
    """Build the model that writes."""
    positions = work.prompt_tokens + work.new_tokens
    return GPT2LMHeadModel(build_gpt2_config(SIZES[work.size], work.vocab_size, positions=positions))
