"""What becomes of a contestant's process, however it ends."""

import os
import signal
import sys
import time

import pytest

from hf_minilm.benchmark import processes
from hf_minilm.benchmark.work import MachineWork


@pytest.fixture
def run_as_contestant(monkeypatch, folder):
    """Runs Python code in the place of a contestant."""

    def run(code):
        monkeypatch.setattr(processes, "contestant_command", lambda *_: [sys.executable, "-c", code])
        return processes.carry_out(MachineWork(), folder)

    return run


def test_the_last_line_is_the_figures(run_as_contestant):
    assert run_as_contestant("print('noise'); print('{\"speed\": 3}')").figures == {"speed": 3}


def test_one_that_dies_gives_its_last_error_line(run_as_contestant):
    outcome = run_as_contestant("raise ValueError('rows (3) must be even')")
    assert outcome.figures is None
    assert outcome.error == "ValueError: rows (3) must be even"


def test_one_that_is_killed_says_by_what(run_as_contestant):
    assert "SIGKILL" in run_as_contestant("import os, signal; os.kill(os.getpid(), signal.SIGKILL)").error


def test_one_that_hangs_is_ended(run_as_contestant, monkeypatch):
    monkeypatch.setattr(processes, "LONGEST_HOURS", 0.0001)
    begin = time.monotonic()
    assert run_as_contestant("import time; time.sleep(60)").error == "not done in 0.0001 hours"
    assert time.monotonic() - begin < 30


def test_one_that_says_nothing_has_no_figures(run_as_contestant):
    assert run_as_contestant("").error == "no figures were printed"


@pytest.fixture
def sent_in_a_second():
    """Send this process a signal in a second, or once a file is written, and restore its handlers afterwards.

    Python raises KeyboardInterrupt at SIGINT only if the shell did not begin it with that signal ignored, as shells do
    in the background.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGALRM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def send(number, told):
        def send_once_told(*_):
            if told.exists() and told.read_text():
                os.kill(os.getpid(), number)
            else:
                signal.setitimer(signal.ITIMER_REAL, 0.1)

        signal.signal(signal.SIGALRM, send_once_told)
        signal.setitimer(signal.ITIMER_REAL, 1.0)

    yield send
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_when_the_bench_is_stopped_no_process_is_left(run_as_contestant, sent_in_a_second, tmp_path, number):
    told = tmp_path / "pid"
    code = f"import os, time; open({str(told)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    sent_in_a_second(number, told)
    begin = time.monotonic()
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run_as_contestant(code)
    assert time.monotonic() - begin < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text()), 0)
