"""Fine-tune a model to classify texts, with transformers' own Trainer.

    python examples/classify_texts.py runs/world/model                  # on stories that it makes, by their topic
    python examples/classify_texts.py runs/mine/model reviews.jsonl     # on records with `text` and `label`
    python examples/classify_texts.py runs/mine/model reviews.jsonl --untrained    # what the pre-training is worth

A tenth of the records is held out. Printed are the accuracy on them and that of always naming the commonest class.
"""

import argparse
import random
from collections import Counter

import datasets
import numpy as np
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    EvalPrediction,
    Trainer,
    TrainingArguments,
    set_seed,
)

import hf_minilm  # noqa: F401 -- registers the architecture
from hf_minilm.data.world import World, text_of


def story_records(number: int) -> list[dict[str, str]]:
    """Make stories without their opening, which names the place and so gives the topic away."""
    generator = random.Random(0)
    machines = World().machines
    records = []
    for index in range(number):
        language = list(machines)[index % len(machines)]
        story = machines[language].draw_story(generator)
        begin = story.units.index(1)
        records.append({"text": text_of(story.words[begin:]), "label": story.scene.split("/")[0]})
    return records


def load_records(path: str | None) -> datasets.DatasetDict:
    """Divide the records into `train` and `test`, their labels numbered."""
    records = (
        datasets.Dataset.from_list(story_records(4000))
        if path is None
        else datasets.load_dataset("json", data_files=path, split="train")
    )
    records = records.select_columns(["text", "label"]).cast_column("label", datasets.Value("string"))
    return records.class_encode_column("label").train_test_split(test_size=0.1, seed=0)


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Share of the records whose class has the highest score."""
    return {"accuracy": float(np.mean(prediction.predictions.argmax(-1) == prediction.label_ids))}


def main() -> None:
    """Fine-tune, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or Hub name of a model")
    parser.add_argument("records", nargs="?", help="JSON lines with text and label, .jsonl or .jsonl.gz")
    parser.add_argument("--untrained", action="store_true", help="begin with initial weights, for comparison")
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--output", default="runs/classifier", help="folder for the classifier")
    arguments = parser.parse_args()

    records = load_records(arguments.records)
    names = records["train"].features["label"].names
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    set_seed(0)
    if arguments.untrained:
        config = AutoConfig.from_pretrained(arguments.model, **labels)
        model = AutoModelForSequenceClassification.from_config(config)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(arguments.model, **labels)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    encoded = records.map(lambda batch: tokenizer(batch["text"], truncation=True), batched=True, remove_columns="text")

    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=arguments.output,
            num_train_epochs=arguments.epochs,
            learning_rate=arguments.learning_rate,
            warmup_steps=0.1,
            per_device_train_batch_size=32,
            per_device_eval_batch_size=64,
            train_sampling_strategy="group_by_length",
            eval_strategy="epoch",
            save_strategy="no",
            report_to="none",
            seed=0,
        ),
        train_dataset=encoded["train"],
        eval_dataset=encoded["test"],
        processing_class=tokenizer,
        compute_metrics=accuracy,
    )
    trainer.train()
    trainer.save_model()
    held_out = records["test"]["label"]
    commonest = Counter(held_out).most_common(1)[0][1] / len(held_out)
    result = trainer.evaluate()["eval_accuracy"]
    print(f"accuracy {result:.1%} on {len(held_out):,} held-out records; always the commonest class {commonest:.1%}")


if __name__ == "__main__":
    main()
