"""Fine-tune two models alike on the same data, and lay their scores beside each other.

    python examples/compare_fine_tuned.py runs/ours/model runs/bert polarity.jsonl 'cola.tsv#4,2' es_gsd.conllu
    python examples/compare_fine_tuned.py runs/ours/model runs/bert names.iob2 --seeds 5 --learning-rates 1e-4 3e-4 1e-3

The ending says the task: `.jsonl` and `.tsv` are classified (`classify_texts.py`), `.conllu`, `.iob2` and `.conll` are
tagged (`tag_words.py`), `.json` is SQuAD's (`answer_questions.py`); those files say more. Of several learning rates,
each model takes the one that is best on a tenth of its training examples, with the first seed.

A score is the mean over the seeds. Its 95 % interval comes from drawing the held-out examples again, the same for both
models and all seeds, and so does that of the difference, which is of the first model over the second. The models take
turns, so that what else a machine does weighs on both; seconds are of the whole training: median, fastest, slowest.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import answer_questions
import classify_texts
import datasets
import numpy as np
import tag_words
from fine_tune import Score, add_batch_arguments, drawn_again, run
from labelled_records import load_parts
from transformers.utils import logging

from hf_minilm.evaluation.answers import ARTICLES

Outcome = tuple[list[Score], float]


class Task(NamedTuple):
    """How examples are loaded, and how a model is fine-tuned and scored on them."""

    load: Callable[[str, int | None], datasets.DatasetDict]
    fine_tune: Callable[[argparse.Namespace, datasets.DatasetDict], Outcome]


def _load_squad(source: str, limit: int | None) -> datasets.DatasetDict:
    return load_parts(source, answer_questions.read_squad, answer_questions.questions, limit=limit)


TASKS = {
    ("jsonl", "tsv"): Task(classify_texts.load, classify_texts.classify),
    ("conllu", "iob2", "conll"): Task(tag_words.load, tag_words.tag),
    ("json",): Task(_load_squad, lambda *given: answer_questions.answer_held_out(*given)[:2]),
}


def task_of(source: str) -> Task:
    """Choose the task by the ending of the file, or of the files of a folder.

    Raises:
        ValueError: If no task has it.
    """
    path = Path(source.partition("#")[0])
    name = next((file.name for file in sorted(path.glob("train.*"))), path.name)
    ending = name.lower().removesuffix(".gz").rpartition(".")[2]
    for endings, task in TASKS.items():
        if ending in endings:
            return task
    known = ", ".join(f".{ending}" for endings in TASKS for ending in endings)
    raise ValueError(f"data ({source}) must end in one of {known}, or that with .gz; convert it.")


def settings(arguments: argparse.Namespace, model: str, folder: str, *, rate: float, seed: int) -> argparse.Namespace:
    """Write the arguments of an example for one training."""
    own = {"model": model, "output": folder, "learning_rate": rate, "seed": seed, "untrained": False}
    squad = {"stride": answer_questions.STRIDE, "n_best": answer_questions.N_BEST}
    return argparse.Namespace(**{**vars(arguments), **squad, **own})


def best_rate(arguments: argparse.Namespace, task: Task, model: str, parts: datasets.DatasetDict, folder: str) -> float:
    """Choose among the learning rates without a look at the held-out examples."""
    if len(arguments.learning_rates) == 1:
        return arguments.learning_rates[0]
    inner = parts["train"].train_test_split(test_size=0.1, seed=0)
    found = {
        rate: task.fine_tune(settings(arguments, model, folder, rate=rate, seed=0), inner)[0][0].value
        for rate in arguments.learning_rates
    }
    return max(found, key=lambda rate: found[rate])


def compare(arguments: argparse.Namespace, source: str, folder: str) -> dict[str, Any]:
    """Fine-tune both models with every seed, in turn; all figures of one data set."""
    task, models = task_of(source), arguments.models
    parts = task.load(source, arguments.limit)
    rates = [best_rate(arguments, task, model, parts, folder) for model in models]
    outcomes: list[list[Outcome]] = [[], []]
    for seed in range(arguments.seeds):
        for which in (0, 1) if seed % 2 == 0 else (1, 0):
            given = settings(arguments, models[which], folder, rate=rates[which], seed=seed)
            outcomes[which].append(task.fine_tune(given, parts))
    rows = []
    for number, score in enumerate(outcomes[0][0][0]):
        each = [[scores[number] for scores, _ in outcome] for outcome in outcomes]
        drawn = [drawn_again(scores) for scores in each]
        values = [[score.value for score in scores] for scores in each]
        means = [float(np.mean(value)) for value in values]
        rows.append(
            {
                "score": score.name,
                "values": values,
                "means": means,
                "intervals": [interval(draws) for draws in drawn],
                "difference": [means[0] - means[1], *interval(drawn[0] - drawn[1])],
            }
        )
    return {
        "data": source,
        "examples": [len(parts["train"]), len(parts["test"])],
        "learning_rates": rates,
        "seconds": [[seconds for _, seconds in outcome] for outcome in outcomes],
        "rows": rows,
    }


def interval(draws: Any) -> list[float]:
    """Give the middle 95 % of what was drawn."""
    return [float(end) for end in np.percentile(draws, [2.5, 97.5])]


def table(models: list[str], compared: list[dict[str, Any]]) -> str:
    """Lay the figures out as Markdown."""
    lines = [
        f"| Data (train, held out) | Score | {models[0]} | {models[1]} | Difference | Seconds |",
        "|---|---|---|---|---|---|",
    ]
    for each in compared:
        train, held_out = each["examples"]
        spent = "; ".join(f"{median(s):.0f} ({min(s):.0f} to {max(s):.0f})" for s in each["seconds"])
        name = Path(each["data"].partition("#")[0]).name
        for row in each["rows"]:
            cells = [
                f"{mean:.3f} ({low:.3f} to {high:.3f})"
                for mean, (low, high) in zip(row["means"], row["intervals"], strict=True)
            ]
            by, low, high = row["difference"]
            cells += [f"{by:+.3f} ({low:+.3f} to {high:+.3f})", spent]
            lines.append(f"| {name} ({train:,}, {held_out:,}) | {row['score']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Compare on each data set, print the table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs=2, help="folders or Hub names of two models")
    parser.add_argument("data", nargs="+", help="files of examples, or folders with train.* and test.*")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each model on each data set")
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[3e-4])
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--limit", type=int, help="most examples of a data set")
    parser.add_argument(
        "--language", choices=ARTICLES, default="en", help="of answers, whose articles are not compared"
    )
    add_batch_arguments(parser)
    parser.add_argument("--json", type=Path, help="a file to write, with all figures")
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        raise ValueError(f"--seeds ({arguments.seeds}) must be at least 1; raise it.")
    for source in arguments.data:
        task_of(source)
    logging.set_verbosity_error()
    compared: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for source in arguments.data:
            with contextlib.redirect_stdout(sys.stderr):
                compared.append(compare(arguments, source, folder))
            if arguments.json is not None:  # after each, so that a run that is stopped has lost one data set at most
                arguments.json.write_text(json.dumps(compared, indent=1) + "\n", encoding="utf-8")
    print(table(arguments.models, compared))


if __name__ == "__main__":
    sys.exit(run(main))
