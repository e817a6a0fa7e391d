"""The results as tables for a person and as JSON for a program."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..data.whole_file import write_whole
from .contests import Contestant
from .machine import Machine
from .rounds import Results, Spread
from .settings import BenchSettings

_NOTHING = "-"
FOOTNOTE = (
    "min / median / max over the rounds; ratios are ours / peer within a round. tokens/s counts no padding. MFU: "
    "useful operations over the matrix rate of the same round and precision."
)


def header(machine: Machine, settings: BenchSettings, rates: dict[str, float]) -> str:
    """Say on what is measured, and what."""
    measured = ", ".join(f"{name} {rate / 1e12:.2f} TFLOP/s" for name, rate in rates.items())
    versions = f"torch {machine.torch}, transformers {machine.transformers}, hf_minilm {machine.hf_minilm}"
    return (
        f"{machine.device}: {machine.name}, threads: {machine.threads}; {versions}\n"
        f"matrix products: {measured}\n"
        f"corpus {settings.corpus}, size {settings.size}, vocabulary {settings.vocabulary:,}, rounds: {settings.rounds}"
    )


def table(results: Results) -> str:
    """Lay the results of a contest out, a contestant a line, and below it what those that died said last."""
    contest = results.contest
    rows = _filled([_heading(results), *(_row(results, contestant) for contestant in contest.contestants)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [f"{contest.name}: {contest.description}"]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([*lines, *_deaths(results)])


def _filled(rows: list[list[str]]) -> list[list[str]]:
    """Leave out the columns that nobody has a figure for."""
    columns = [column for column in zip(*rows, strict=True) if set(column[1:]) != {_NOTHING}]
    return [list(row) for row in zip(*columns, strict=True)]


def _heading(results: Results) -> list[str]:
    cells = ["contestant", "parameters", "precision"]
    has_peers = _has_peers(results)
    for figure in results.contest.figures:
        cells.append(figure.title)
        if has_peers:
            cells.append("ours/peer" if figure.more_is_better else "ours/peer (less is better)")
    return [*cells, "padding", "waiting", "memory MB before, peak", "MFU"]


def _row(results: Results, contestant: Contestant) -> list[str]:
    name = contestant.name
    figures: dict[str, Any] = next((each.figures for each in results.outcomes[name] if each.figures), {})
    cells = [name, f"{figures['parameters']:,}" if figures else "died", figures.get("precision", _NOTHING)]
    for figure in results.contest.figures:
        cells.append(_spread(results.spread(name, figure.key), scale=figure.scale, digits=figure.digits))
        if _has_peers(results):
            cells.append(_spread(results.ratio(contestant, figure), digits=2))
    before, peak = results.spread(name, "memory_before"), results.spread(name, "peak_memory")
    memory = f"{before.middle / 1e6:,.0f}, {peak.middle / 1e6:,.0f}" if before and peak else _NOTHING
    shares = [_middle_percent(results.spread(name, key)) for key in ("padding_share", "waiting_share")]
    return [*cells, *shares, memory, _middle_percent(results.utilisation(name))]


def _has_peers(results: Results) -> bool:
    return any(contestant.against is not None for contestant in results.contest.contestants)


def _spread(spread: Spread | None, *, scale: float = 1.0, digits: int = 0) -> str:
    if spread is None:
        return _NOTHING
    values = (spread.least, spread.middle, spread.most)
    return " / ".join(f"{value * scale:,.{digits}f}" for value in values)


def _middle_percent(spread: Spread | None) -> str:
    return _NOTHING if spread is None else f"{spread.middle:.1%}"


def _deaths(results: Results) -> Iterator[str]:
    for name, outcomes in results.outcomes.items():
        for number, outcome in enumerate(outcomes, start=1):
            if outcome.error is not None:
                yield f"  {name} died in round {number}: {outcome.error}"


def to_json(machine: Machine, settings: BenchSettings, contests: list[Results]) -> dict[str, Any]:
    """Give everything that was set and measured, with what the tables show."""
    return {
        "machine": asdict(machine),
        "settings": settings.to_json(),
        "contests": {results.contest.name: _contest_to_json(results) for results in contests},
    }


def _contest_to_json(results: Results) -> dict[str, Any]:
    contestants = {}
    for contestant in results.contest.contestants:
        shown: dict[str, Any] = {"work": asdict(contestant.work), "against": contestant.against}
        shown["rounds"] = [outcome.to_json() for outcome in results.outcomes[contestant.name]]
        for figure in results.contest.figures:
            shown[figure.key] = _spread_to_json(results.spread(contestant.name, figure.key))
            shown[f"{figure.key}_ratio"] = _spread_to_json(results.ratio(contestant, figure))
        shown["mfu"] = _spread_to_json(results.utilisation(contestant.name))
        contestants[contestant.name] = shown
    return {
        "description": results.contest.description,
        "matrix_rates": results.matrix_rates,
        "contestants": contestants,
    }


def _spread_to_json(spread: Spread | None) -> dict[str, float] | None:
    return None if spread is None else spread.to_json()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON so that the file is whole at every moment."""
    write_whole(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
