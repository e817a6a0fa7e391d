"""The results of an evaluation: one JSON, `evaluation.json`, and one table.

    {
      "schema": 1,
      "model": {"name": "model", "class": "MiniLMForMaskedLM", "parameters": 1090000, "vocabulary": 8000},
      "results": {
        SUITE: {
          METRIC: {
            "value": 0.71,          # a number; null where it is not defined
            "low": 0.70,            # the ends of the 95 % interval; null where none is given
            "high": 0.72,
            "n": 46000,             # how many of `counted` the value is measured on
            "counted": "pairs",
            "unit": "share",        # one of UNITS
            "interval": "Wilson"    # how the interval was computed; null where none is given
          }
        }
      },
      "suites": {SUITE: {"seconds": 61.2, "notes": ["sums of within-word pseudo-log-likelihoods"]}},
      "command": "hf-minilm evaluate model pairs:zorro_en",    # null if not called from the command line
      "seed": 0,
      "versions": {"python": "3.13.1", "torch": "2.13.0", "transformers": "5.23.0", "hf_minilm": "0.1.0"},
      "hardware": {"device": "cpu", "name": "AMD EPYC", "threads": 2}
    }

SUITE is what was asked for, without the folders of a path: `pairs:zorro_en`. METRIC may have a part after a slash,
which names a subset: `accuracy/anaphor_agreement` is the accuracy of one paradigm, `entity_f1/PER` the F1 of one type.
The first metric of a suite is its headline. No name of a host and no path is in it.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..data.whole_file import write_whole

EVALUATION_FILE = "evaluation.json"
"""The file's name, in the folder of the model."""

SCHEMA = 1

UNITS = {
    "share": "from 0 to 1",
    "nats": "nats per predicted token, or per label",
    "bits": "bits per byte of the predicted text",
    "perplexity": "exp of nats per predicted token",
    "correlation": "from -1 to 1",
    "points": "from 0 to 100",
}
"""The units of a figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number; see the schema above."""

    value: float
    n: int
    counted: str
    unit: str
    low: float | None = None
    high: float | None = None
    interval: str | None = None

    def to_text(self) -> str:
        """Return the value and its interval for a person: shares as percentages."""
        if not math.isfinite(self.value):
            return "-"
        bounds = (
            "" if self.low is None or self.high is None else f" ({self._round(self.low)} to {self._round(self.high)})"
        )
        return f"{self._round(self.value)}{' %' if self.unit == 'share' else ''}{bounds}"

    def _round(self, number: float) -> str:
        if self.unit == "share":
            return f"{100 * number:.1f}"
        return f"{number:,.1f}" if self.unit in ("perplexity", "points") else f"{number:.3f}"


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """What one suite measured.

    Attributes:
        figures: The figures by metric, the headline first.
        notes: How it was measured, and what was left out, in sentences.
        seconds: How long it took.
    """

    figures: Mapping[str, Figure]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that an evaluation measured, and what it was measured with; see the schema above."""

    model: Mapping[str, Any]
    suites: Mapping[str, SuiteResult]
    seed: int
    versions: Mapping[str, str]
    hardware: Mapping[str, Any]
    command: str | None = None
    schema: int = field(default=SCHEMA, init=False)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON above as dictionaries."""
        return {
            "schema": self.schema,
            "model": dict(self.model),
            "results": {
                suite: {metric: _finite(asdict(figure)) for metric, figure in result.figures.items()}
                for suite, result in self.suites.items()
            },
            "suites": {
                suite: {"seconds": round(result.seconds, 2), "notes": list(result.notes)}
                for suite, result in self.suites.items()
            },
            "command": self.command,
            "seed": self.seed,
            "versions": dict(self.versions),
            "hardware": dict(self.hardware),
        }

    def save(self, path: Path) -> None:
        """Write the JSON; a file of that name is replaced when the new one is whole."""
        write_whole(path, json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    def to_text(self) -> str:
        """Return a table for a person, a suite after the other."""
        return "\n".join(_lines(self)) + "\n"


def written_suites(path: Path) -> list[str]:
    """Name the suites that an `evaluation.json` holds; none where there is no such file."""
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return []
    results = written.get("results") if isinstance(written, Mapping) else None
    return list(results) if isinstance(results, Mapping) else []


def _finite(figure: dict[str, Any]) -> dict[str, Any]:
    """JSON has no word for what is not a finite number."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in figure.items()
    }


def _lines(evaluation: Evaluation) -> Iterator[str]:
    model = evaluation.model
    yield f"{model['name']}: {model['class']} of {model['parameters']:,} parameters (95 % intervals)"
    names = [metric for result in evaluation.suites.values() for metric in result.figures]
    width = max(map(len, names), default=0) + 2
    for suite, result in evaluation.suites.items():
        yield ""
        yield f"{suite} ({result.seconds:,.1f} s)"
        for metric, figure in result.figures.items():
            yield f"  {metric:<{width}}{figure.to_text():<28}{figure.n:>12,} {figure.counted}"
        for note in result.notes:
            yield f"  {note}"
