"""Fine-tune a model to read two texts together: which class they make (inference), or how alike they are (regression).

    python examples/compare_sentences.py runs/world/model                    # is a sentence true of a story?
    python examples/compare_sentences.py runs/world/model --made similar     # how much do two texts share, from 0 to 5?
    python examples/compare_sentences.py runs/mine/model pairs.jsonl         # text, text_pair and label: classes
    python examples/compare_sentences.py runs/mine/model sts.jsonl --regression     # the label is a number

Both texts stand in one row, so that every token sees both, and are told apart by the [SEP] between them; by token types
too where a model has them, as preset bert. For many texts against many, `embed_sentences.py` reads each alone. The same
head does both: with one output and `problem_type="regression"` its loss is the squared error.
"""

import argparse
import sys
from collections import Counter
from typing import Any

import datasets
import numpy as np
from fine_tune import (
    Score,
    argument_parser,
    fine_tune,
    matthews,
    named_labels,
    open_model,
    pearson,
    run,
    seconds_of,
    share,
)
from labelled_records import load_parts, read_records, with_numbered_labels
from made_examples import claims, similar
from transformers import AutoModelForSequenceClassification

MAKERS = {"claims": claims, "similar": similar}


def load(source: str | None, limit: int | None, *, made: str, regression: bool) -> datasets.DatasetDict:
    """Load pairs of texts with their labels: the number of a class, or a number as it is."""
    fields = ("text", "text_pair", "label")
    parts = load_parts(source, lambda file: read_records(file, fields), MAKERS[made], limit=limit)
    if regression:
        return parts.cast_column("label", datasets.Value("float32"))
    return with_numbered_labels(parts)


def head_of(feature: Any) -> dict[str, Any]:
    """Say what the head gives: a class by name, or one number."""
    if isinstance(feature, datasets.ClassLabel):
        return named_labels(feature.names)
    return {"num_labels": 1, "problem_type": "regression"}


def compare(arguments: argparse.Namespace, parts: datasets.DatasetDict) -> tuple[list[Score], float]:
    """Fine-tune and measure; the scores, and the seconds of the training."""
    feature = parts["train"].features["label"]
    model, tokenizer = open_model(AutoModelForSequenceClassification, arguments, **head_of(feature))
    encoded = parts.map(
        lambda batch: tokenizer(
            batch["text"], batch["text_pair"], truncation="longest_first", max_length=arguments.max_length
        ),
        batched=True,
        remove_columns=["text", "text_pair"],
    )
    trainer = fine_tune(model, tokenizer, encoded["train"], arguments)
    predicted, right = trainer.predict(encoded["test"]).predictions, np.array(parts["test"]["label"])
    if isinstance(feature, datasets.ClassLabel):
        best = predicted.argmax(-1)
        return [share("accuracy", best == right), matthews(best, right)], seconds_of(trainer)
    errors = (predicted[:, 0] - right) ** 2
    return [pearson(predicted[:, 0], right), share("mean squared error", errors)], seconds_of(trainer)


def main() -> None:
    """Fine-tune, measure, print."""
    parser = argument_parser(__doc__, data="records with text, text_pair and label (.jsonl, .tsv)")
    parser.add_argument("--regression", action="store_true", help="the label is a number to predict, and no class")
    parser.add_argument("--made", choices=MAKERS, default="claims", help="what to compare where no file is given")
    arguments = parser.parse_args()
    is_regression = arguments.regression or (arguments.data is None and arguments.made == "similar")
    parts = load(arguments.data, arguments.limit, made=arguments.made, regression=is_regression)
    scores, seconds = compare(arguments, parts)
    labels = parts["test"]["label"]
    if is_regression:
        chance = f"always the mean has an error of {np.var(labels):.3f}"
    else:
        chance = f"always the commonest class {Counter(labels).most_common(1)[0][1] / len(labels):.3f}"
    print(f"{scores[0]}; {scores[1]}; {chance}")
    print(f"{len(labels):,} held-out pairs; trained on {len(parts['train']):,} in {seconds:.0f} s")


if __name__ == "__main__":
    sys.exit(run(main))
