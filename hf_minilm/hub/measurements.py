"""What was measured of a model, as rows of the card's tables and as the results that the Hub shows beside it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from huggingface_hub import EvalResult

from ..data.world_probes import PHENOMENA
from ..evaluation.intervals import wilson_interval
from ..training.recipe import Recipe
from .corpora import corpora_of, dataset_names
from .record import Record

_PAIRS = "minimal pairs: the right word over the wrong one, by what stands between"
_FEATURES = {1: "number", 2: "gender"}
"""What decides the answer of a probe, as `world_probes.Phenomenon` numbers it."""
_PERHAPS_TRAINED_ON = "some of it may have been trained on"
_NAMES = {"bits_per_byte": "bits per byte", "chrf": "chrF", "bleu": "BLEU", "exact_match": "exact match"}


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One measured number.

    Attributes:
        suite: What was measured on, as a person reads it.
        dataset: The same for the Hub: a data set's name there, or a built-in corpus.
        metric: The metric's name among those of the Hub, where it has one.
        config: Which of several kinds of one metric it is.
        name: What the number is.
        value: The number.
        interval: The ends of its 95 % interval, where it is known.
        number: Cases that it was measured on.
        counted: What a case is.
        is_share: Whether it is a share, from 0 to 1, that is read in percent.
        note: What to compare it with.
    """

    suite: str
    dataset: str
    metric: str
    name: str
    value: float
    number: int
    counted: str
    config: str | None = None
    interval: tuple[float, float] | None = None
    is_share: bool = False
    note: str = ""

    def row(self) -> str:
        """Write a row of a table: name, value, interval, cases, note."""
        interval = " to ".join(map(self._text, self.interval)) if self.interval else ""
        cells = (self.name, self._text(self.value), interval, f"{self.number:,} {self.counted}", self.note)
        return f"| {' | '.join(escape(cell) for cell in cells)} |"

    def result(self, task: str) -> EvalResult:
        """Write it as the Hub reads it; the interval and the cases are arguments of the metric."""
        low, high = (round(bound, 6) for bound in self.interval) if self.interval else (None, None)
        known = {"low": low, "high": high, "n": self.number}
        return EvalResult(
            task_type=task,
            dataset_type=self.dataset,
            dataset_name=self.suite,
            metric_type=self.metric,
            metric_name=self.name,
            metric_value=round(self.value, 6),
            metric_config=self.config,
            metric_args={name: value for name, value in known.items() if value is not None},
        )

    def _text(self, value: float) -> str:
        if self.is_share:
            return f"{value:.1%}"
        return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"


def escape(text: str) -> str:
    """Write a text so that Markdown shows it on one line of a table as it is."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def measurements(record: Record) -> tuple[Measurement, ...]:
    """List what the run's report and `evaluation.json` say, numbers that are not finite left out."""
    found = [*_of_report(record), *_of_evaluation(record)]
    return tuple(measured for measured in found if math.isfinite(measured.value))


def _of_report(record: Record) -> Iterator[Measurement]:
    if record.report is None or record.recipe is None:
        return
    corpora = corpora_of(record.recipe)
    dataset = next(dataset_names(corpora), corpora[0])
    # What is held out of the last text may have been in an earlier one.
    when, caveat = (" at the end", _PERHAPS_TRAINED_ON) if record.num_earlier_texts else ("", "")
    held_out = f"{record.recipe.data.validation_share:.0%} held out{when}"
    where = {"suite": f"{', '.join(corpora)} ({held_out})", "dataset": dataset}
    for measured in (*_losses(record.report, where, masked=_masked(record.recipe)), *_scores(record.report, where)):
        yield replace(measured, note=_joined(measured.note, caveat))
    yield from _probes(record.report)


def _masked(recipe: Recipe) -> str:
    """Name the share of tokens that is hidden, as the loss depends on it; nothing is hidden from other models."""
    return f"{100 * recipe.objective.mask_rate:g} % masked" if recipe.objective.name == "masked" else ""


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _probes(report: Mapping[str, Any]) -> Iterator[Measurement]:
    for probe in report.get("probes", ()):
        yield Measurement(
            suite=_PAIRS,
            dataset="minimal_pairs",
            metric="accuracy",
            config=f"{probe['phenomenon']}-{probe['distance']}",
            name=f"{probe['phenomenon'].replace('_', ' ')}, distance {probe['distance']}",
            value=probe["accuracy"],
            interval=(probe["low"], probe["high"]),
            number=probe["number"],
            counted="pairs",
            is_share=True,
            note=_describe_probe(probe["phenomenon"]),
        )


def _describe_probe(name: str) -> str:
    """Say in a few words what a kind of probe asks, and how often a guess is right; nothing of one not known here."""
    kind = PHENOMENA.get(name)
    if kind is None:
        return ""
    asked = "" if kind.feature is None else f"{_FEATURES[kind.feature]} of the {kind.role}"
    asked = asked or f"{' or '.join(kind.answers)} {kind.role}"
    return f"{asked}; chance {100 / len(kind.answers):g} %"


def _losses(report: Mapping[str, Any], where: Mapping[str, str], *, masked: str) -> Iterator[Measurement]:
    held_out, floor = report["held_out"], report.get("floor")
    tokens: dict[str, Any] = {**where, "number": held_out["num_tokens"], "counted": "tokens"}
    note = f"least possible {floor:.3f}" if isinstance(floor, float) else ""
    end = f", {masked}" if masked else ""
    name = f"loss, nats per predicted token{end}"
    yield Measurement(**tokens, metric="loss", name=name, value=held_out["nats_per_token"], note=note)
    if held_out.get("bits_per_byte") is not None:
        bits = held_out["bits_per_byte"]
        yield Measurement(**tokens, metric="bits_per_byte", name=f"bits per byte{end}", value=bits)
    if held_out.get("next_sentence_accuracy") is not None:
        yield _share(
            held_out["next_sentence_accuracy"],
            held_out["num_sequences"],
            "next sentence right",
            {**where, "metric": "accuracy", "config": "next_sentence", "counted": "pairs"},
            note=_joined(masked, f"always the commoner answer {held_out['next_sentence_majority']:.1%}"),
        )
    if isinstance(floor, Mapping):
        yield Measurement(
            **{**tokens, "number": floor["num_tokens"]},
            metric="loss",
            config="sample",
            name=f"{name}, on a sample",
            value=floor["model_nats_per_token"],
            note=f"least possible {floor['nats_per_token']:.3f}",
        )


def _share(value: float, number: int, name: str, kind: Mapping[str, Any], *, note: str = "") -> Measurement:
    interval = wilson_interval(value * number, number)
    return Measurement(**kind, name=name, value=value, number=number, interval=interval, is_share=True, note=note)


def _scores(report: Mapping[str, Any], where: Mapping[str, str]) -> Iterator[Measurement]:
    for score in report.get("scores", ()):
        yield from _translations(score, where)


def _translations(score: Mapping[str, Any], where: Mapping[str, str]) -> Iterator[Measurement]:
    search = "greedy" if score["num_beams"] == 1 else f"{score['num_beams']} beams"
    texts: dict[str, Any] = {**where, "config": search, "counted": "texts"}
    for metric in ("chrf", "bleu"):
        yield Measurement(
            **texts,
            metric=metric,
            name=f"{_NAMES[metric]}, {search}",
            value=score[metric],
            number=score["number"],
            note=score[f"{metric}_signature"],
        )
    yield _share(score["exact_match"], score["number"], f"exact match, {search}", texts | {"metric": "exact_match"})


def _of_evaluation(record: Record) -> Iterator[Measurement]:
    """Read the suites of `evaluation.json`; a metric of a subset, `accuracy/agreement`, is left to that file."""
    for suite, metrics in (record.evaluation or {}).get("results", {}).items():
        for metric, cell in metrics.items():
            if cell["value"] is None or "/" in metric:
                continue
            low, high = cell.get("low"), cell.get("high")
            yield Measurement(
                suite=suite,
                dataset=suite,
                metric=metric,
                name=_NAMES.get(metric, metric.replace("_", " ")),
                value=cell["value"],
                interval=None if low is None or high is None else (low, high),
                number=cell["n"],
                counted=cell.get("counted", "cases"),
                is_share=cell.get("unit") == "share",
                note=_describe_probe(metric) if suite.split(":")[0] == "probes" else "",
            )


def notes_of(record: Record, suite: str) -> tuple[str, ...]:
    """Return how a suite of `evaluation.json` was measured and what was left out, each sentence once."""
    said = (record.evaluation or {}).get("suites", {}).get(suite, {})
    return tuple(dict.fromkeys(said.get("notes", ())))
