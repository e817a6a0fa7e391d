import errno
import json
import os
from pathlib import Path

import pytest

from hf_minilm.training.metrics import MetricsLog


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsLog(path, step=0)
    for step in range(1, 6):
        metrics.write({"step": step, "loss": 1 / step})
    return path


def test_a_resumed_run_drops_what_was_logged_after_its_checkpoint_and_half_a_line(log: Path) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write('{"step": 6, "lo')
    metrics = MetricsLog(log, step=3)
    metrics.write({"step": 4})
    assert steps(log) == [1, 2, 3, 4] == [line["step"] for line in metrics.lines]
    assert [path.name for path in log.parent.iterdir()] == [log.name]


@pytest.mark.parametrize("cut", [0, 10])
def test_a_resumed_run_that_dies_while_it_opens_its_log_loses_none_of_it(
    log: Path, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text = Path.write_text

    def write_some(path: Path, text: str, **options: str) -> int:
        write_text(path, text[:cut], **options)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", write_some)
    with pytest.raises(OSError, match="No space left"):
        MetricsLog(log, step=5)
    assert steps(log) == [1, 2, 3, 4, 5]
    monkeypatch.undo()
    assert [line["step"] for line in MetricsLog(log, step=5).lines] == [1, 2, 3, 4, 5]
