"""Metrics: against scikit-learn, scipy, seqeval and sacrebleu, by `evaluate`'s own way of calling them."""

import math
import random

import numpy as np
import pytest
import sacrebleu
import scipy.stats
import sklearn.metrics

from hf_minilm.evaluation.metrics import (
    AnswerMetric,
    ClassificationMetric,
    CorrelationMetric,
    EntityMetric,
    TranslationMetric,
)


@pytest.fixture
def draws():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_files(tmp_path, monkeypatch):
    """Point the library's cache to a folder that must not come into being."""
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", tmp_path / "metrics")
    yield
    assert not (tmp_path / "metrics").exists()


def test_classification_scores_are_scikit_learns(draws):
    references, predictions = draws.integers(0, 4, size=(2, 57))
    scores = ClassificationMetric().compute(predictions=predictions, references=references)
    expected = {
        "accuracy": sklearn.metrics.accuracy_score(references, predictions),
        "macro_f1": sklearn.metrics.f1_score(references, predictions, average="macro"),
        "weighted_f1": sklearn.metrics.f1_score(references, predictions, average="weighted"),
        "matthews_correlation": sklearn.metrics.matthews_corrcoef(references, predictions),
    }
    assert scores == pytest.approx(expected)


def test_classification_scores_of_a_single_class_warn_nobody():
    scores = ClassificationMetric().compute(predictions=[2, 2], references=[2, 2])
    assert scores == {"accuracy": 1.0, "macro_f1": 1.0, "weighted_f1": 1.0, "matthews_correlation": 0.0}


def test_a_hand_computed_case_of_three():
    scores = ClassificationMetric().compute(predictions=[0, 1, 1], references=[0, 1, 0])
    assert scores == pytest.approx(
        {"accuracy": 2 / 3, "macro_f1": 2 / 3, "weighted_f1": 2 / 3, "matthews_correlation": 0.5}
    )


def test_correlations_are_scipys_and_undefined_ones_are_no_number(draws):
    references, noise = draws.normal(size=(2, 31))
    predictions = references + noise
    scores = CorrelationMetric().compute(predictions=predictions, references=references)
    assert scores["pearson"] == pytest.approx(scipy.stats.pearsonr(predictions, references).statistic)
    assert scores["spearman"] == pytest.approx(scipy.stats.spearmanr(predictions, references).statistic)
    assert math.isnan(CorrelationMetric().compute(predictions=[1.0, 1.0], references=[0.0, 1.0])["pearson"])


def test_examples_may_be_added_batch_by_batch():
    metric = ClassificationMetric()
    for predictions, references in (([0, 1], [0, 0]), ([1], [1])):
        metric.add_batch(predictions=predictions, references=references)
    assert metric.compute()["accuracy"] == pytest.approx(2 / 3)


def test_entities_count_with_both_ends_and_their_type():
    right = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-ORG", "O", "O"]]
    given = [["B-PER", "I-PER", "O", "B-ORG"], ["O", "B-ORG", "I-ORG", "O"]]
    scores = EntityMetric().compute(predictions=given, references=right)
    assert scores == pytest.approx(
        {
            "entity_precision": 1 / 3,
            "entity_recall": 1 / 3,
            "entity_f1": 1 / 3,
            "token_accuracy": 6 / 8,
            "entity_f1/LOC": 0.0,
            "entity_f1/ORG": 0.0,
            "entity_f1/PER": 1.0,
        }
    )


def test_without_any_entity_scores_are_0_and_words_are_right():
    scores = EntityMetric().compute(predictions=[["O", "O"]], references=[["O", "O"]])
    assert scores == {"entity_precision": 0.0, "entity_recall": 0.0, "entity_f1": 0.0, "token_accuracy": 1.0}


def test_sentences_of_unequal_tags_are_refused():
    with pytest.raises(ValueError, match=r"tags \(1\) must be as many as the sentence's \(2\)"):
        EntityMetric().compute(predictions=[["O"]], references=[["O", "O"]])


@pytest.mark.parametrize("prefixes", ["BI", "I", "BIES"])
def test_entity_scores_are_seqevals(prefixes):
    seqeval = pytest.importorskip("seqeval.metrics", reason="seqeval is not installed")
    generator = random.Random(0)
    tags = ["O", "O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in ("PER", "LOC"))]
    right, given = ([[generator.choice(tags) for _ in range(9)] for _ in range(40)] for _ in range(2))
    for sentence, others in zip(right, given, strict=True):
        for place in range(0, 9, 2):
            others[place] = sentence[place]
    scores = EntityMetric().compute(predictions=given, references=right)
    report = seqeval.classification_report(right, given, output_dict=True)
    assert scores["entity_precision"] == pytest.approx(report["micro avg"]["precision"])
    assert scores["entity_recall"] == pytest.approx(report["micro avg"]["recall"])
    assert scores["entity_f1"] == pytest.approx(seqeval.f1_score(right, given))
    assert scores["entity_f1/PER"] == pytest.approx(report["PER"]["f1-score"])
    assert scores["token_accuracy"] == pytest.approx(seqeval.accuracy_score(right, given))


def test_answers_are_scored_in_their_language():
    answers = {"predictions": ["La casa", "rojo"], "references": [["casa"], ["azul", "rojo oscuro"]]}
    assert AnswerMetric().compute(**answers, language="es") == pytest.approx(
        {"exact_match": 0.5, "token_f1": (1 + 2 / 3) / 2}
    )
    assert AnswerMetric().compute(**answers)["exact_match"] == 0.0


def test_scores_of_written_texts_are_sacrebleus():
    outputs = ["The key is in the old house by the lake.", "She sees him."]
    targets = ["The key is in an old house near the lake.", "She saw him."]
    scores = TranslationMetric().compute(predictions=outputs, references=targets)
    assert scores["chrf"] == pytest.approx(sacrebleu.corpus_chrf(outputs, [targets]).score)
    assert scores["bleu"] == pytest.approx(sacrebleu.corpus_bleu(outputs, [targets]).score)
    assert scores["exact_match"] == 0.0
