"""Fine-tune a model to classify texts (their sentiment, topic, acceptability), with transformers' own Trainer.

    python examples/classify_texts.py runs/world/model                  # on stories that it makes, by their topic
    python examples/classify_texts.py runs/mine/model reviews.jsonl     # on records with `text` and `label`
    python examples/classify_texts.py runs/mine/model cola.tsv#4,2      # on columns of a table, text and label
    python examples/classify_texts.py runs/mine/model reviews.jsonl --untrained    # what the pre-training is worth

A tenth of the records is held out. Printed are the accuracy on them, that of always naming the commonest class, and
Matthews' correlation, each with its 95 % interval. The classifier opens in `pipeline("text-classification")`.
"""

import argparse
import sys
from collections import Counter
from typing import Any

import datasets
import numpy as np
from fine_tune import Score, argument_parser, fine_tune, matthews, named_labels, open_model, run, seconds_of, share
from labelled_records import load_parts, read_records, with_numbered_labels
from made_examples import topics
from transformers import AutoModelForSequenceClassification


def load(source: str | None, limit: int | None) -> datasets.DatasetDict:
    """Load texts with their labels numbered."""
    return with_numbered_labels(
        load_parts(source, lambda file: read_records(file, ("text", "label")), topics, limit=limit)
    )


def encode(parts: datasets.DatasetDict, tokenizer: Any, max_length: int) -> datasets.DatasetDict:
    """Turn texts into token ids, without padding: Trainer's collator adds it, and the model takes it out again."""
    return parts.map(
        lambda batch: tokenizer(batch["text"], truncation=True, max_length=max_length),
        batched=True,
        remove_columns="text",
    )


def classify(arguments: argparse.Namespace, parts: datasets.DatasetDict) -> tuple[list[Score], float]:
    """Fine-tune and measure; the scores, and the seconds of the training."""
    labels = named_labels(parts["train"].features["label"].names)
    model, tokenizer = open_model(AutoModelForSequenceClassification, arguments, **labels)
    encoded = encode(parts, tokenizer, arguments.max_length)
    trainer = fine_tune(model, tokenizer, encoded["train"], arguments)
    predicted = trainer.predict(encoded["test"]).predictions.argmax(-1)
    right = np.array(parts["test"]["label"])
    return [share("accuracy", predicted == right), matthews(predicted, right)], seconds_of(trainer)


def main() -> None:
    """Fine-tune, measure, print."""
    arguments = argument_parser(__doc__, data="records with text and label (.jsonl, .tsv)").parse_args()
    parts = load(arguments.data, arguments.limit)
    scores, seconds = classify(arguments, parts)
    held_out = parts["test"]["label"]
    commonest = Counter(held_out).most_common(1)[0][1] / len(held_out)
    print(f"{scores[0]}; always the commonest class {commonest:.3f}; {scores[1]}")
    print(f"{len(held_out):,} held-out records; trained on {len(parts['train']):,} in {seconds:.0f} s")


if __name__ == "__main__":
    sys.exit(run(main))
