"""Our own contestants: models of the default architecture, and the training of `hf-minilm pretrain`."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..model.configuration_minilm import MiniLMConfig
from ..model.modeling_minilm import MiniLMForCausalLM, MiniLMModel
from ..model.variable_length import VARIABLE_LENGTH
from ..training.assembly import check_vocabulary_loss, prepare_training
from ..training.background_work import BackgroundWork
from ..training.compilation import can_compile
from ..training.launch import resolve_precision, set_threads, start_accelerator
from ..training.loop import Training, train
from ..training.memory import keep_freed_memory
from ..training.preparation import build_config, prepare_data
from ..training.processes import Processes
from ..training.recipe import Recipe, load_recipe
from .flops import matrix_work
from .stopwatch import Stopwatch
from .work import EncodingWork, GenerationWork, TrainingWork
from .working_folder import WorkingFolder

LEARNING_RATE = 5e-4
MASK_RATE = 0.15
"""Share of predicted tokens: that of BERT and of transformers' collator, for all contestants."""
USUAL_POSITIONS = 512


def recipe_for(work: TrainingWork, folder: WorkingFolder, run_folder: Path) -> Recipe:
    """Build the default recipe of an objective with what the contest fixes, and then what the user set.

    Raises:
        ValueError: If a setting of the user's is wrong.
    """
    masked = work.objective != "causal"
    positions = max(USUAL_POSITIONS, work.length)
    fixed: dict[str, Any] = {
        "model.size": work.size,
        "model.overrides.vocab_size": work.vocab_size,
        "model.overrides.max_position_embeddings": positions,
        "objective.name": "masked" if masked else "causal",
        "objective.next_sentence": str(work.objective == "masked_next_sentence").lower(),
        "optimizer.name": "adamw",
        "optimizer.learning_rate": LEARNING_RATE,
        "tokenizer.folder": folder.tokenizer(work.objective),
        "data.corpus": folder.corpus,
        "data.cache_folder": folder.cache,
        "data.sequence_length": work.length,
        "training.batch_rows": work.rows,
        "training.precision": work.precision,
        "training.budget": f"{work.total_steps}steps",
        # What `auto` chooses for a run of the length that a user's has; compiling falls into the warm-up.
        "training.compile": "yes" if can_compile() and resolve_precision(work.precision) == "bf16" else "no",
        "training.save_every": "never",
        "evaluation.every": "never",
        "output.folder": run_folder,
    }
    if masked:
        fixed["objective.mask_rate"] = MASK_RATE
    return load_recipe(None, [*(f"{path}={value}" for path, value in fixed.items()), *work.settings])


def check_recipe(work: TrainingWork) -> None:
    """Make sure that the recipe of some work can be carried out, wherever the corpus will be.

    Raises:
        ValueError: If a setting of the user's is wrong.
    """
    # Which arithmetic is the faster one is measured, and makes no setting right or wrong.
    recipe = recipe_for(replace(work, precision="fp32"), WorkingFolder(Path()), Path())
    build_config(recipe)
    check_vocabulary_loss(recipe.training.vocabulary_loss)


def prepare_ours(work: TrainingWork, folder: WorkingFolder) -> None:
    """Tokenise the corpus, so that no contestant has to while it is measured.

    Raises:
        ValueError: If the recipe is wrong, or the corpus cannot serve the objective.
    """
    with tempfile.TemporaryDirectory() as run_folder:
        recipe = recipe_for(work, folder, Path(run_folder))
        build_config(recipe)
        prepare_data(recipe, Path(run_folder), quiet=True)


def train_ours(work: TrainingWork, folder: WorkingFolder, device: torch.device) -> dict[str, Any]:
    """Train as `hf-minilm pretrain` does, but for evaluations and checkpoints, and measure it."""
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as run_folder:
        training, state = _prepare(work, folder, Path(run_folder))
        precision = training.accelerator.mixed_precision
        parameters = training.bare_model.num_parameters()
        stopwatch = Stopwatch(
            device,
            matrix_work(training.bare_model),
            warmup_steps=work.warmup_steps,
            steps=work.steps,
            pad_token_id=training.bare_model.config.pad_token_id,
        )
        training.optimizer.zero_grad = _followed_by(training.optimizer.zero_grad, stopwatch.step_ends)
        training.model = Watched(training.model, stopwatch.batch_arrives)
        train(training, state)
        figures = stopwatch.figures()
    return {
        "parameters": parameters,
        "precision": "bf16" if precision == "bf16" else "fp32",
        **figures.to_json(),
    }


def _prepare(work: TrainingWork, folder: WorkingFolder, run_folder: Path) -> tuple[Training, Any]:
    recipe = recipe_for(work, folder, run_folder)
    precision = resolve_precision(recipe.training.precision)
    accelerator = start_accelerator(precision, trackers=(), folder=str(run_folder))
    set_threads(recipe)
    data = prepare_data(recipe, run_folder, quiet=True)
    training, state = prepare_training(
        recipe, data, run_folder, accelerator=accelerator, processes=Processes(), background=BackgroundWork()
    )
    # The last step of a run is evaluated and saved, which is none of the steps.
    return replace(training, metrics=None, evaluate=lambda: {"held_out_loss": 0.0}, save=lambda _: None), state


def _followed_by(clear: Callable[[], None], ends: Callable[[], None]) -> Callable[[], None]:
    """Say that a step ends where its gradient is cleared: a GPU is told to move the weights, and then waited for."""

    def clear_and_end() -> None:
        clear()
        ends()

    return clear_and_end


class Watched(nn.Module):
    """A model that says when it is called; around it and not in it, as a compiled model compiles its hooks too."""

    def __init__(self, inner: nn.Module, called: Callable[[dict[str, torch.Tensor]], None]) -> None:
        super().__init__()
        self.inner, self.called = inner, called

    def forward(self, **inputs: Any) -> Any:
        """Say so, and compute."""
        self.called(inputs)
        return self.inner(**inputs)

    def __getattr__(self, name: str) -> Any:
        """Give what the model has."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)


def build_encoder(work: EncodingWork) -> nn.Module:
    """Build the model that encodes texts."""
    config = MiniLMConfig.preset("modern", work.size, vocab_size=work.vocab_size)
    config.max_position_embeddings = max(USUAL_POSITIONS, work.longest)
    # On CUDA the kernel behind it computes in half precision only.
    leaves_out_padding = work.precision != "fp32" or not torch.cuda.is_available()
    return MiniLMModel._from_config(config, attn_implementation=VARIABLE_LENGTH if leaves_out_padding else "sdpa")


def build_writer(work: GenerationWork) -> nn.Module:
    """Build the model that writes."""
    positions = max(USUAL_POSITIONS, work.prompt_tokens + work.new_tokens)
    sizes: dict[str, Any] = {"vocab_size": work.vocab_size, "max_position_embeddings": positions}
    config = MiniLMConfig.preset("modern_decoder", work.size, **sizes)
    return MiniLMForCausalLM(config)
