"""What the tests of the examples share."""

import runpy
import sys
from collections.abc import Callable, Iterator

import pytest
from transformers.utils import logging


@pytest.fixture
def run_script(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Run the script that the test file names as `SCRIPT`; its exit code, and what it printed on both streams."""

    script = str(request.module.SCRIPT)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(script, run_name="__main__")
        return int(ended.value.code or 0), *capsys.readouterr()

    verbosity = logging.get_verbosity()
    yield run
    logging.set_verbosity(verbosity)
    logging.enable_progress_bar()
