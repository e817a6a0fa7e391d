"""Metrics of fine-tuned models as `evaluate.Metric` classes that need no network and leave no file.

    from hf_minilm.evaluation.metrics import ClassificationMetric

    metric = ClassificationMetric()
    metric.compute(predictions=[0, 1, 1], references=[0, 1, 0])  # {"accuracy": 0.667, "macro_f1": 0.667, ...}

`evaluate.load("accuracy")` fetches its code from the Hub; these classes are used without it. Scores are scikit-learn's,
scipy's and sacrebleu's. Entities are found by conlleval's rules in `entities`, with the results of `seqeval`, which is
left aside as it has had no release since 2020 and is no wheel. Shares lie in [0, 1]; chrF and BLEU from 0 to 100.
"""

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import evaluate

from .answers import exact_match, token_f1
from .entities import find_entities
from .translation import score_translations


class OfflineMetric(evaluate.Metric):
    """A metric that keeps its examples in memory: Trainer gathers those of several processes before it asks."""

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def _build_data_dir(self) -> str:
        # The library would create the folder, and nothing is written there.
        return str(Path(self._data_dir_root) / self.name)


def _information(description: str, predictions: Any, references: Any) -> evaluate.MetricInfo:
    return evaluate.MetricInfo(
        description=description,
        citation="",
        inputs_description=description,
        features=datasets.Features({"predictions": predictions, "references": references}),
    )


class ClassificationMetric(OfflineMetric):
    """One class a text: `accuracy`, `macro_f1`, `weighted_f1` and `matthews_correlation`.

    Predictions and references are class numbers. The F1 of a class without any is 0, and so is the correlation where
    all predictions, or all references, are the same; both as in scikit-learn.
    """

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("int64")
        return _information("Class numbers against the right ones.", number, number)

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

        with warnings.catch_warnings():
            # It says so where there is a single class, which is no mistake of a small sample.
            warnings.filterwarnings("ignore", message="A single label was found", category=UserWarning)
            correlation = matthews_corrcoef(references, predictions)
        return {
            "accuracy": float(accuracy_score(references, predictions)),
            "macro_f1": float(f1_score(references, predictions, average="macro", zero_division=0)),
            "weighted_f1": float(f1_score(references, predictions, average="weighted", zero_division=0)),
            "matthews_correlation": float(correlation),
        }


class CorrelationMetric(OfflineMetric):
    """One number a text: `pearson` and `spearman`; NaN where all predictions, or all references, are the same."""

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")
        return _information("Numbers against the right ones.", number, number)

    def _compute(self, predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
        from scipy.stats import pearsonr, spearmanr

        if len(set(predictions)) < 2 or len(set(references)) < 2:
            return {"pearson": math.nan, "spearman": math.nan}
        return {
            "pearson": float(pearsonr(predictions, references).statistic),
            "spearman": float(spearmanr(predictions, references).statistic),
        }


class EntityMetric(OfflineMetric):
    """Entities of sentences: `entity_precision`, `entity_recall`, `entity_f1`, `entity_f1/TYPE` and `token_accuracy`.

    Predictions and references are lists of tags in IOB1, IOB2 or BIOES, a list a sentence; see `entities`. An entity is
    right if its type and both ends are. Without predicted, or right, entities what would be divided by 0 is 0.
    """

    def _info(self) -> evaluate.MetricInfo:
        tags = datasets.List(datasets.Value("string"))
        return _information("Tags of each sentence against the right ones.", tags, tags)

    def _compute(self, predictions: Sequence[list[str]], references: Sequence[list[str]]) -> dict[str, float]:
        predicted, right, shared, kinds = Counter[str](), Counter[str](), Counter[str](), set[str]()
        tags_right = tags = 0
        for given, wanted in zip(predictions, references, strict=True):
            if len(given) != len(wanted):
                raise ValueError(f"tags ({len(given)}) must be as many as the sentence's ({len(wanted)}); give all.")
            found, there = set(find_entities(given)), set(find_entities(wanted))
            for counter, entities in ((predicted, found), (right, there), (shared, found & there)):
                counter.update(entity.kind for entity in entities)
            kinds |= {entity.kind for entity in there}
            tags += len(wanted)
            tags_right += sum(one == other for one, other in zip(given, wanted, strict=True))
        return {
            "entity_precision": _share(shared.total(), predicted.total()),
            "entity_recall": _share(shared.total(), right.total()),
            "entity_f1": _share(2 * shared.total(), predicted.total() + right.total()),
            "token_accuracy": _share(tags_right, tags),
            **{f"entity_f1/{kind}": _share(2 * shared[kind], predicted[kind] + right[kind]) for kind in sorted(kinds)},
        }


class AnswerMetric(OfflineMetric):
    """Answers that are spans of a text: `exact_match` and `token_f1`, means over the questions; see `answers`.

    Predictions are texts, references lists of right texts. `compute` takes `language`, "en" without.
    """

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return _information("Answers against lists of right ones.", text, datasets.List(text))

    def _compute(
        self, predictions: Sequence[str], references: Sequence[list[str]], language: str = "en"
    ) -> dict[str, float]:
        pairs = list(zip(predictions, references, strict=True))
        return {
            "exact_match": sum(exact_match(*pair, language=language) for pair in pairs) / len(pairs),
            "token_f1": sum(token_f1(*pair, language=language) for pair in pairs) / len(pairs),
        }


class TranslationMetric(OfflineMetric):
    """Texts that were written: sacrebleu's `chrf` and `bleu`, from 0 to 100, and `exact_match` but for white space."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return _information("Texts against one reference each.", text, text)

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        scores = score_translations(predictions, references)
        return {"chrf": scores.chrf, "bleu": scores.bleu, "exact_match": scores.exact_match}


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
