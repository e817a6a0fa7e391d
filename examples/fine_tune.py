"""What the fine-tuning examples share: their arguments, opening a model, training it by Trainer, scores with intervals.

Run the examples that import this, not this file. What makes them fast is one word, `attn_implementation`: with
`minilm_varlen` the model takes the padding out of the batches that Trainer's own collators make, so that no token that
nobody wrote is computed, in any order of the texts. All else is transformers as it is, so a native model (BERT,
ModernBERT, GPT-2) may be named wherever one of ours may.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, Trainer, TrainingArguments, set_seed

import hf_minilm  # noqa: F401 -- registers the architecture
from hf_minilm.model.positions import POSITION_SCHEMES, PositionScheme
from hf_minilm.model.variable_length import VARIABLE_LENGTH
from hf_minilm.one_line import one_line

Rows = NDArray[np.float64]
DRAWS = 2000


def argument_parser(description: str, *, data: str, **defaults: Any) -> argparse.ArgumentParser:
    """Make a parser of the arguments that all examples take; `data` says what the file holds."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or Hub name of a model, ours or any other")
    parser.add_argument("data", nargs="?", help=f"{data}; or a folder with train.* and test.*; none: it makes its own")
    parser.add_argument("--limit", type=int, help="most examples to use or to make")
    parser.add_argument("--untrained", action="store_true", help="begin with initial weights, for comparison")
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument(
        "--learning-rate",
        type=float,
        default=1e-3,
        help="default %(default)s, for small models that Muon trained; large published ones want some 5e-5",
    )
    add_batch_arguments(parser)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default=f"runs/{Path(sys.argv[0]).stem}", help="folder for what is trained")
    parser.set_defaults(**defaults)
    return parser


def add_batch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say what a batch is and how it is computed."""
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=256, help="most tokens of an example; the rest is cut off")
    parser.add_argument("--bf16", action="store_true", help="16-bit arithmetic, faster where a machine is built for it")
    parser.add_argument("--padded", action="store_true", help="compute the padding too, for comparison")
    parser.add_argument("--grouped", action="store_true", help="texts of similar length in a batch, with less padding")


def run(main: Callable[[], None]) -> int:
    """Run an example; a user's mistake is one line and exit code 2."""
    try:
        main()
    except (ValueError, OSError) as error:
        print(f"{Path(sys.argv[0]).stem}: {one_line(error, longest=2_000)}", file=sys.stderr)
        return 2
    return 0


def attention_of(config: Any, arguments: argparse.Namespace) -> str:
    """Choose the attention to train with: the one without padding, where a model has it and it can take effect.

    It adds no bias to scores, drops no weights, and on CUDA knows 16 bits alone. So a model with `alibi`,
    `relative_bias` or `attention_dropout` is trained by sdpa, as a native one is, and any on CUDA without `--bf16`.
    """
    in_32_bits = torch.cuda.is_available() and not arguments.bf16
    if arguments.padded or in_32_bits or config.model_type != "hf_minilm" or config.attention_dropout > 0:
        return "sdpa"
    adds_bias = POSITION_SCHEMES[config.position_embedding].added_to_scores is not PositionScheme.added_to_scores
    return "sdpa" if adds_bias else VARIABLE_LENGTH


def open_model(auto_class: Any, arguments: argparse.Namespace, **settings: Any) -> tuple[PreTrainedModel, Any]:
    """Open a model under a head, and its tokenizer.

    Args:
        auto_class: Such as `AutoModelForSequenceClassification`.
        arguments: The example's.
        **settings: Of the configuration, such as `num_labels`.
    """
    set_seed(arguments.seed)
    config = AutoConfig.from_pretrained(arguments.model, **settings)
    options = {"attn_implementation": attention_of(config, arguments), "dtype": torch.float32}
    if arguments.untrained:
        model = auto_class.from_config(config, **options)
    else:
        model = auto_class.from_pretrained(arguments.model, config=config, **options)
    return model, open_tokenizer(arguments.model)


def named_labels(names: Sequence[str]) -> dict[str, dict[Any, Any]]:
    """Write the names of classes as a configuration has them."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def open_tokenizer(name: str) -> Any:
    """Open a tokenizer that can fill up rows; one of a decoder may have nothing but an end to do so.

    It fills them up on the right, where padding moves none of the places that labels name.
    """
    tokenizer = AutoTokenizer.from_pretrained(name, padding_side="right")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def trainer_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Write Trainer's arguments: linear decay after a tenth of warm-up, random order, nothing saved in between."""
    has_gpu = torch.cuda.is_available()
    return {
        "output_dir": arguments.output,
        "num_train_epochs": arguments.epochs,
        "learning_rate": arguments.learning_rate,
        "warmup_steps": 0.1,  # below 1: a share
        "weight_decay": 0.01,
        "per_device_train_batch_size": arguments.batch_size,
        "per_device_eval_batch_size": 2 * arguments.batch_size,
        "train_sampling_strategy": "group_by_length" if arguments.grouped else "random",
        "bf16": arguments.bf16,
        "use_cpu": not has_gpu,
        # Pinned memory needs a GPU, and Trainer warns where there is none.
        "dataloader_pin_memory": has_gpu,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 50,
        "seed": arguments.seed,
    }


def fine_tune(
    model: PreTrainedModel, tokenizer: Any, train: datasets.Dataset, arguments: argparse.Namespace, **options: Any
) -> Trainer:
    """Train by transformers' own Trainer, and save; `options` are Trainer's."""
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**trainer_settings(arguments)),
        train_dataset=train,
        processing_class=tokenizer,
        **options,
    )
    trainer.train()
    trainer.save_model()
    return trainer


def seconds_of(trainer: Trainer) -> float:
    """Return how long the training took."""
    return next(entry["train_runtime"] for entry in reversed(trainer.state.log_history) if "train_runtime" in entry)


@dataclass(frozen=True)
class Score:
    """A figure over held-out examples that is a function of sums over them, so that they can be drawn again.

    Attributes:
        name: What it is.
        rows: What each example adds to each sum, [examples, sums].
        of_sums: The figure of sums [..., sums], or of many such at once.
    """

    name: str
    rows: Rows
    of_sums: Callable[[Rows], Rows]

    @property
    def value(self) -> float:
        """The figure of the held-out examples."""
        return float(self.of_sums(self.rows.sum(axis=0)))

    def __str__(self) -> str:
        low, high = np.percentile(drawn_again([self]), [2.5, 97.5])
        return f"{self.name} {self.value:.3f} ({low:.3f} to {high:.3f})"


def drawn_again(scores: Sequence[Score], *, draws: int = DRAWS) -> Rows:
    """Draw as many examples with replacement, again and again (Efron 1979), and give the mean of the scores each time.

    Scores of as many examples are drawn alike: the difference between two models is that of the same examples. The
    95 % interval lies between the percentiles 2.5 and 97.5; a score without a single error has an interval of no width.

    Args:
        scores: Those of one model, one a seed, over the same examples.
        draws: How often.
    """
    number = len(scores[0].rows)
    weights = np.random.default_rng(0).multinomial(number, np.full(number, 1 / number), size=draws)
    return np.mean([score.of_sums(weights @ score.rows) for score in scores], axis=0)


def share(name: str, hits: Any, of: Any = None) -> Score:
    """Score by the share of hits: accuracy, if an example is one hit or none; `of` says how many it could be."""
    hits = np.asarray(hits, dtype=np.float64)
    most = np.ones_like(hits) if of is None else np.asarray(of, dtype=np.float64)
    return Score(name, np.stack((hits, most), axis=-1), lambda sums: sums[..., 0] / sums[..., 1])


def matthews(predicted: NDArray[np.int64], right: NDArray[np.int64]) -> Score:
    """Score classes by Matthews' correlation, in its form for any number of them (Gorodkin 2004): 0 is chance."""
    classes = np.union1d(predicted, right)
    was_said, was_true = (numbers[:, None] == classes for numbers in (predicted, right))
    counts = np.column_stack((np.ones(len(right)), predicted == right, was_said, was_true))  # [N, 2 + 2 C]

    def of_sums(sums: Rows) -> Rows:
        number, hits = sums[..., 0], sums[..., 1]
        said, true = np.split(sums[..., 2:], 2, axis=-1)
        spread = (number**2 - (said**2).sum(-1)) * (number**2 - (true**2).sum(-1))
        # Whoever always says the same is right by chance alone: 0 / 1.
        return (number * hits - (said * true).sum(-1)) / np.sqrt(np.where(spread > 0, spread, 1))

    return Score("Matthews correlation", counts, of_sums)


def f1(name: str, hits: Any, predicted: Any, right: Any) -> Score:
    """Score by the harmonic mean of precision and recall, from counts an example."""
    rows = np.stack([np.asarray(counts, dtype=np.float64) for counts in (hits, predicted, right)], axis=-1)
    return Score(name, rows, lambda sums: 2 * sums[..., 0] / np.maximum(sums[..., 1] + sums[..., 2], 1))


def pearson(predicted: Rows, right: Rows) -> Score:
    """Score numbers by their linear correlation."""
    x, y = (np.asarray(values, dtype=np.float64) for values in (predicted, right))
    x, y = x - x.mean(), y - y.mean()  # the same correlation, with smaller sums

    def of_sums(sums: Rows) -> Rows:
        number, sx, sy, sxx, syy, sxy = np.moveaxis(sums, -1, 0)
        spread = (number * sxx - sx**2) * (number * syy - sy**2)
        return (number * sxy - sx * sy) / np.sqrt(np.where(spread > 0, spread, 1))

    return Score("Pearson correlation", np.stack((np.ones_like(x), x, y, x * x, y * y, x * y), axis=-1), of_sums)
