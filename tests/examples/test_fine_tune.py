"""What the fine-tuning examples share: scores are those of other libraries, and left-out padding changes nothing."""

import json
from pathlib import Path

import classify_texts
import numpy as np
import pytest
import torch
from fine_tune import argument_parser, attention_of, drawn_again, f1, matthews, pearson, share
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from transformers import AutoModelForSequenceClassification, BertConfig

from hf_minilm import MiniLMConfig

RANDOM = np.random.default_rng(0)
RIGHT = RANDOM.integers(0, 3, 211)
SAID = np.where(RANDOM.random(211) < 0.6, RIGHT, RANDOM.integers(0, 3, 211))


@pytest.mark.parametrize("classes", [2, 3])
def test_scores_of_classes_are_those_of_scikit_learn(classes: int) -> None:
    right, said = RIGHT % classes, SAID % classes
    assert share("accuracy", said == right).value == pytest.approx(accuracy_score(right, said), abs=1e-12)
    assert matthews(said, right).value == pytest.approx(matthews_corrcoef(right, said), abs=1e-12)


def test_matthews_correlation_of_hundreds_of_classes_needs_no_table_of_their_pairs() -> None:
    right, said = RIGHT * 300 + np.arange(211), SAID * 300 + np.arange(211)
    score = matthews(said, right)
    assert score.rows.shape[1] < 1000
    assert score.value == pytest.approx(matthews_corrcoef(right, said), abs=1e-12)


def test_f1_of_counts_is_that_of_scikit_learn() -> None:
    said, right = SAID == 1, RIGHT == 1
    assert f1("F1", said & right, said, right).value == pytest.approx(f1_score(right, said), abs=1e-12)


def test_pearson_is_numpys() -> None:
    assert pearson(SAID, RIGHT).value == pytest.approx(np.corrcoef(SAID, RIGHT)[0, 1], abs=1e-12)


@pytest.mark.parametrize("score", [matthews, pearson])
def test_who_always_says_the_same_has_a_correlation_of_nothing(score) -> None:
    assert score(np.ones_like(RIGHT), RIGHT).value == 0.0


def test_a_drawn_score_is_that_of_the_drawn_examples() -> None:
    drawn = drawn_again([matthews(SAID, RIGHT)], draws=5)
    weights = np.random.default_rng(0).multinomial(211, np.full(211, 1 / 211), size=5)
    for value, weight in zip(drawn, weights, strict=True):
        again = np.repeat(np.arange(211), weight)
        assert value == pytest.approx(matthews_corrcoef(RIGHT[again], SAID[again]), abs=1e-12)


def test_the_interval_of_a_share_is_that_of_the_normal_law_where_examples_are_many() -> None:
    hits = np.arange(4000) % 4 > 0
    low, high = np.percentile(drawn_again([share("accuracy", hits)]), [2.5, 97.5])
    half = 1.96 * np.sqrt(0.75 * 0.25 / 4000)
    assert (low, high) == (pytest.approx(0.75 - half, abs=0.002), pytest.approx(0.75 + half, abs=0.002))


def test_the_mean_over_seeds_is_drawn_from_the_same_examples() -> None:
    one, other = share("accuracy", SAID == RIGHT), share("accuracy", SAID == 1)
    alone = [drawn_again([score], draws=7) for score in (one, other)]
    assert drawn_again([one, other], draws=7) == pytest.approx(np.mean(alone, axis=0), abs=1e-12)


def test_padding_is_left_out_where_that_can_take_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    choices = ([], ["--padded"], ["--bf16"])
    plain, padded, in_16_bits = (argument_parser("", data="").parse_args(["model", *more]) for more in choices)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert attention_of(MiniLMConfig(), plain) == "minilm_varlen"
    assert attention_of(MiniLMConfig(), padded) == "sdpa"
    for other in (MiniLMConfig(position_embedding="alibi"), MiniLMConfig(attention_dropout=0.1), BertConfig()):
        assert attention_of(other, plain) == "sdpa"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert attention_of(MiniLMConfig(), plain) == "sdpa"
    assert attention_of(MiniLMConfig(), in_16_bits) == "minilm_varlen"


def test_training_without_padding_gives_the_weights_of_training_with_it(encoder: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    records = [{"text": "the key is old. " * (1 + index % 7), "label": index % 2} for index in range(40)]
    texts.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    parts = classify_texts.load(str(texts), None)
    trained = []
    for padding in ([], ["--padded"]):
        output = str(tmp_path / f"trained{len(padding)}")
        words = [str(encoder), "--epochs", "2", "--learning-rate", "1e-3", "--batch-size", "8", "--output", output]
        classify_texts.classify(argument_parser("", data="").parse_args([*words, *padding]), parts)
        trained.append(AutoModelForSequenceClassification.from_pretrained(output))
    before = AutoModelForSequenceClassification.from_pretrained(encoder).state_dict()
    body = [name for name in before if name.startswith("model.")]
    moved = [{name: model.state_dict()[name] - before[name] for name in body} for model in trained]
    for name, step in moved[0].items():
        assert (step - moved[1][name]).abs().max() < 1e-4, name
    assert max(step.abs().max() for step in moved[0].values()) > 1e-3
