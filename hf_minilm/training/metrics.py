"""What a run writes down while it trains: one JSON line a logged step."""

import json
from pathlib import Path
from typing import Any

from ..data.whole_file import write_whole


class MetricsLog:
    """Lines of `metrics.jsonl`, in order of steps; a resumed run drops what was logged after its checkpoint.

    Args:
        path: The file; its folder exists.
        step: Steps already done: later lines are dropped.
    """

    def __init__(self, path: Path, *, step: int) -> None:
        self.path = path
        self.lines = [line for line in read_metrics(path) if line["step"] <= step]
        # What was logged before the checkpoint is nowhere else, should this process be killed.
        write_whole(path, "".join(json.dumps(line) + "\n" for line in self.lines))

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
