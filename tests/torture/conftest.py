"""What all rows share: the corpora, and the process from which ranks are forked."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "hostile")]
pytest.register_assert_rewrite("jobs")

from jobs import ForkServer, Workplace, write_corpora  # noqa: E402 (found by the path above)
from tries import LINES, sentence  # noqa: E402


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in LINES:
        terminalreporter.write_line(sentence(line))


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of all runs: no GPU, no network, one thread, and one cache of tokenised corpora."""
    cache = os.environ.get("HF_MINILM_CACHE") or str(tmp_path_factory.mktemp("cache"))
    own = {"HF_MINILM_CACHE": cache, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own, "TOKENIZERS_PARALLELISM": "false"}


@pytest.fixture(scope="session")
def server(environment: dict[str, str]) -> Iterator[ForkServer]:
    server = ForkServer(environment)
    yield server
    server.close()


@pytest.fixture
def workplace(tmp_path: Path, server: ForkServer, environment: dict[str, str]) -> Workplace:
    """A folder for run folders, with the corpora that they train on."""
    write_corpora(tmp_path)
    return Workplace(tmp_path, server, environment)
