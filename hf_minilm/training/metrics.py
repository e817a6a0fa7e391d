"""What a run writes down while it trains: one JSON line a logged step, and the loss as a picture."""

import json
import math
from pathlib import Path
from typing import Any


class MetricsLog:
    """Lines of `metrics.jsonl`, in order of steps; a resumed run drops what was logged after its checkpoint.

    Args:
        path: The file; its folder exists.
        step: Steps already done: later lines are dropped.
    """

    def __init__(self, path: Path, *, step: int) -> None:
        self.path = path
        self.lines = [line for line in read_metrics(path) if line["step"] <= step]
        # Beside its place first: what was logged before the checkpoint is nowhere else, should this process be killed.
        writing = path.with_name(f".{path.name}.writing")
        writing.write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")
        writing.replace(path)

    def write(self, line: dict[str, Any]) -> None:
        """Add one line; it holds `step`, and plain numbers."""
        self.lines.append(line)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the lines of `metrics.jsonl`, as far as they are whole: a killed run may leave half a line at the end."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def draw_loss_curve(lines: list[dict[str, Any]], path: Path) -> None:
    """Draw the training loss and the held-out loss over the tokens seen, as a PNG.

    Args:
        lines: Lines of metrics with `tokens` and `loss`, or `tokens` and `held_out_loss`.
        path: Where the picture goes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, label, style in (("loss", "training", "-"), ("held_out_loss", "held out", "o-")):
        points = [(line["tokens"], line[name]) for line in lines if name in line and math.isfinite(line[name])]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, markersize=3, linewidth=1)
    axes.set_xlabel("tokens seen")
    axes.set_ylabel("loss [nats per predicted token]")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    figure.savefig(path, dpi=120)
