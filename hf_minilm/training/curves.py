"""The curves of runs as a picture: losses, learning rate, gradient norm and throughput, of one run or several."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..inspection.picture_file import new_figure, refuse_other_formats, save_picture
from .metrics import read_metrics

Line = dict[str, Any]

AXES = {"tokens": "tokens seen", "step": "step", "seconds": "seconds of training"}
"""What curves may be drawn over, and how the axis is called."""

PANELS = {
    "loss": "loss [nats per predicted token]",
    "learning_rate": "learning rate",
    "gradient_norm": "gradient norm before clipping",
    "tokens_per_second": "tokens a second since the process began",
}
"""What is drawn, in this order; the first has the held-out loss, too."""

MOST_RUNS = 10


@dataclass(frozen=True)
class Run:
    """What is drawn of a run.

    Attributes:
        name: What the legend calls it.
        lines: Of its metrics.
    """

    name: str
    lines: list[Line]


def read_run(path: Path) -> Run:
    """Read the metrics of a run that has ended, was stopped, or is at work.

    Args:
        path: The run's folder, or its `metrics.jsonl`.

    Raises:
        FileNotFoundError: If there are none.
        ValueError: If the file holds something else.
    """
    file = path / "metrics.jsonl" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"run ({path}) must be a run folder with metrics.jsonl, or such a file; give another.")
    lines = read_metrics(file)
    if not lines or not all(isinstance(line, dict) and _is_number(line.get("step")) for line in lines):
        raise ValueError(f"metrics ({file}) must have a JSON object with a step in each line; give those of a run.")
    return Run(str(path), lines)


def draw_loss_curve(lines: list[Line], path: Path) -> None:
    """Draw the training loss and the held-out loss over the tokens seen, as a PNG.

    Args:
        lines: Lines of metrics with `tokens` and `loss`, or `tokens` and `held_out_loss`.
        path: Where the picture goes.
    """
    figure = new_figure(7, 4)
    axes = figure.add_subplot()
    for name, label, style in (("loss", "training", "-"), ("held_out_loss", "held out", "o-")):
        points = _points(lines, name, over="tokens")
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, markersize=3, linewidth=1)
    _dress(axes, "loss", over="tokens")
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    save_picture(figure, path, dots_per_inch=120)


def draw_runs(runs: Sequence[Run], path: Path, *, over: Literal["tokens", "step", "seconds"] = "tokens") -> list[str]:
    """Draw the curves of runs, one colour each; panels for which no run has a number are left out.

    A step that moved nothing, as its loss or gradient was not finite, is a cross at the foot of the losses.

    Args:
        runs: What `read_run` gives.
        path: Where the picture goes, .png or .svg.
        over: What the curves are drawn over; a run whose metrics lack it cannot be drawn.

    Returns:
        Lines that say what was drawn of each run.

    Raises:
        ValueError: If the name ends otherwise, there are too many runs, or nothing can be drawn of one.
    """
    refuse_other_formats(path)
    if not 1 <= len(runs) <= MOST_RUNS:
        raise ValueError(f"runs ({len(runs)}) must be 1 to {MOST_RUNS}, so that colours differ; give fewer.")
    for run in runs:
        if not any(_points(run.lines, name, over=over) for name in (*PANELS, "held_out_loss")):
            raise ValueError(f"run ({run.name}) must have logged numbers over {over}; give another, or another --over.")
    panels = [name for name in PANELS if any(_points(run.lines, name, over=over) for run in runs)]
    if "loss" not in panels:
        panels.insert(0, "loss")  # for the held-out loss and the steps left out
    columns = min(2, len(panels))
    figure = new_figure(5.5 * columns, 3.4 * math.ceil(len(panels) / columns) + 0.25 * len(runs))
    grid = figure.subplots(math.ceil(len(panels) / columns), columns, sharex=True, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    axes_of = dict(zip(panels, grid, strict=False))
    handles = [_draw_run(run, axes_of, over, f"C{number}") for number, run in enumerate(runs)]
    for name, axes in axes_of.items():
        _dress(axes, name, over=over)
    _name_runs(figure, handles, _short_names(runs))
    save_picture(figure, path)
    return [*(_summary(run, panels) for run in runs), str(path)]


def _draw_run(run: Run, panels: dict[str, Any], over: str, colour: str) -> Any:
    """Draw a run into every panel, and give what stands for it in the legend."""
    from matplotlib.lines import Line2D

    for name, axes in panels.items():
        points = _points(run.lines, name, over=over)
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=1, alpha=0.85)
    held_out = _points(run.lines, "held_out_loss", over=over)
    if held_out:
        panels["loss"].plot(*zip(*held_out, strict=True), "o--", color=colour, markersize=3.5, linewidth=1)
    skipped = _points(run.lines, "skipped_steps", over=over)
    if skipped:
        # Heights in shares of the panel: a step that was left out has no loss.
        places = [place for place, _ in skipped]
        foot = panels["loss"].get_xaxis_transform()
        panels["loss"].plot(places, [0.02] * len(places), "x", color=colour, markersize=5, transform=foot)
    return Line2D([], [], color=colour)


def _name_runs(figure: Any, handles: list[Any], names: list[str]) -> None:
    from matplotlib.lines import Line2D

    kinds = {
        "training": Line2D([], [], color="0.4"),
        "held out": Line2D([], [], color="0.4", marker="o", linestyle="--", markersize=3.5),
        "step left out": Line2D([], [], color="0.4", marker="x", linestyle=""),
    }
    legend = figure.legend(
        [*handles, *kinds.values()], [*(["run"] * len(names)), *kinds], loc="outside upper center", ncols=3, fontsize=8
    )
    # Set afterwards, as a name that begins with an underscore would be left out.
    for text, name in zip(legend.get_texts(), names, strict=False):
        text.set(text=name, parse_math=False)


def _short_names(runs: Sequence[Run]) -> list[str]:
    """Name runs by the end of their path from where they differ; equal ones keep all of it."""
    paths = [Path(run.name).resolve() for run in runs]
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            return names
    return [run.name for run in runs]


def _points(lines: list[Line], name: str, *, over: str) -> list[tuple[float, float]]:
    """Collect what can be drawn: lines that lack one of the two, or whose number is not finite, are left out."""
    return [(line[over], line[name]) for line in lines if _is_number(line.get(over)) and _is_number(line.get(name))]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _summary(run: Run, panels: list[str]) -> str:
    """Say where a run stands, and what others have logged and it has not."""
    last = run.lines[-1]
    parts = [f"step {last['step']:,}"]
    parts += [f"loss {value:.3f}" for value in _last(run, "loss")]
    parts += [f"held-out loss {value:.3f}" for value in _last(run, "held_out_loss")]
    parts += [f"{value:.0f} steps left out" for value in _last(run, "skipped_steps")]
    parts += [f"no {name.replace('_', ' ')}" for name in panels if not list(_last(run, name))]
    return f"{run.name}: {', '.join(parts)}"


def _last(run: Run, name: str) -> Iterator[float]:
    found = [line[name] for line in run.lines if _is_number(line.get(name))]
    yield from found[-1:]


def _dress(axes: Any, name: str, *, over: str) -> None:
    from matplotlib.ticker import EngFormatter

    axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 1.2M, not 1.2 and 1e6 in a corner
    axes.set_xlabel(AXES[over])
    axes.tick_params(labelbottom=True)  # which panels that share an axis have in the last row only
    axes.set_ylabel(PANELS[name])
    axes.grid(alpha=0.3)
