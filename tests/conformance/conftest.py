"""Runs transformers' own tests when they are asked for, and says at the end what was skipped and why."""

import os
import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
ASKED_FOR = re.compile(r"(?<!not )\bconformance\b")


def is_asked_for(config: pytest.Config) -> bool:
    return ASKED_FOR.search(config.option.markexpr) is not None


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leave this folder alone in every other run: importing the suite fetches it."""
    return None if is_asked_for(config) else True


def pytest_configure(config: pytest.Config) -> None:
    if not is_asked_for(config):
        return
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("RUN_SLOW", "1")  # the suite skips what it calls slow
    sys.path.insert(0, str(FOLDER))  # the processes that tests start import from here too
    pytest.register_assert_rewrite("stand_ins", "seq2seq_tester")
    from source_distribution import tests_of_transformers

    try:
        tests = tests_of_transformers()
    except FileNotFoundError as error:
        raise pytest.UsageError(str(error)) from None
    for marker in markers_of(tests):
        config.addinivalue_line("markers", f"{marker}: of transformers")
    # The suite warns on purpose and is written for runs in which a warning is no error.
    config.addinivalue_line("filterwarnings", "default")
    config.pluginmanager.register(Outcomes())


def markers_of(tests: Path) -> set[str]:
    """Find the names of the markers that the suite gives, itself or through transformers' decorators."""
    import transformers.testing_utils

    files = [*tests.rglob("*.py"), Path(transformers.testing_utils.__file__)]
    return {name for file in files for name in re.findall(r"\bmark\.(\w+)", file.read_text(encoding="utf-8"))}


class Outcomes:
    """Counts tests by outcome, and those skipped by reason.

    A part of a test may be skipped as well (a `subTest`, for one class): a test counts as skipped when all of its parts
    are, and its name under the reason once.
    """

    def __init__(self) -> None:
        self.outcomes_of_parts: defaultdict[str, set[str]] = defaultdict(set)
        self.skipped_for: defaultdict[str, set[str]] = defaultdict(set)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if isinstance(report, pytest.SubtestReport):
            self.outcomes_of_parts[report.nodeid].add(report.outcome)
        if report.skipped:
            _, _, reason = report.longrepr
            self.skipped_for[in_general(reason)].add(report.nodeid)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        names = {
            outcome: {report.nodeid for report in terminalreporter.stats.get(outcome, [])}
            for outcome in ("passed", "failed", "error", "skipped")
        }
        empty = {name for name in names["passed"] if self.outcomes_of_parts[name] == {"skipped"}}
        skipped = (names["skipped"] - names["passed"]) | empty
        passed, failed = names["passed"] - empty, names["failed"] | names["error"]
        terminalreporter.section("transformers' own tests")
        terminalreporter.write_line(f"{len(passed)} passed, {len(failed)} failed, {len(skipped)} skipped")
        for reason, tests in sorted(self.skipped_for.items(), key=lambda entry: -len(entry[1])):
            terminalreporter.write_line(f"{len(tests):6d}  {reason}")


def in_general(reason: str) -> str:
    """Take out of a reason which test, class or task it was, so that equal reasons are counted together."""
    reason = re.sub(r"^Skipped: |\w+Test::\w+ is skipped: | for `\w+Test`", "", reason)
    reason = re.sub(r"<class '[\w.]*\.MiniLM\w+'>|\bMiniLM\w+( class)?", "the class", reason)
    return re.sub(r"`[a-z-]+` is not in", "the task is not in", reason)
