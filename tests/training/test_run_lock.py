import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hf_minilm.training.run_lock import LOCK_FILE, RunLock, RunLockedError

HOLDER = """
import os, pathlib, sys, time
from hf_minilm.training.run_lock import RunLock
lock = RunLock(pathlib.Path(sys.argv[1]))
lock.acquire()
if os.fork() == 0:
    print(os.getpid(), flush=True)
    time.sleep(60)
os.wait()
"""


def test_a_second_writer_is_refused_with_the_holders_name_and_let_in_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with RunLock(folder):
        with pytest.raises(RunLockedError, match=f"process {os.getpid()} on {socket.gethostname()}") as caught:
            RunLock(folder).acquire()
        assert "\n" not in str(caught.value)
    with RunLock(folder):
        pass


def test_an_error_inside_gives_the_lock_back_and_releasing_twice_does_nothing(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    with pytest.raises(KeyError), lock:
        raise KeyError
    lock.release()
    with RunLock(tmp_path):
        lock.release()
        with pytest.raises(RunLockedError):
            lock.acquire()


def test_a_holder_whose_name_cannot_be_read_is_refused_all_the_same(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        (tmp_path / LOCK_FILE).write_text("not JSON")
        with pytest.raises(RunLockedError, match="another process is writing"):
            RunLock(tmp_path).acquire()


def test_two_run_folders_have_two_locks(tmp_path: Path) -> None:
    with RunLock(tmp_path / "a"), RunLock(tmp_path / "b"):
        pass


def test_kill_9_frees_the_lock_even_while_a_forked_worker_lives_on(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    worker = int(holder.stdout.readline())
    try:
        with pytest.raises(RunLockedError, match=f"process {holder.pid} on"):
            RunLock(tmp_path).acquire()
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        os.kill(worker, 0)
        with RunLock(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        holder.stdout.close()
