"""Processes agree, wait, and say which of them is missing."""

import os
import signal
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed

from hf_minilm.training.processes import Processes, ProcessLostError, end_with_launcher

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_together(folder: Path, number: int, action: Callable[[Processes], object]) -> dict[int, str]:
    """Fork processes that join over gloo, and give what each of them wrote down: a result, or an error's text."""
    port, children = free_port(), []
    for index in range(number):
        child = os.fork()
        if child == 0:
            try:
                torch.set_num_threads(1)
                address = f"tcp://127.0.0.1:{port}"
                torch.distributed.init_process_group(
                    "gloo", init_method=address, rank=index, world_size=number, timeout=timedelta(seconds=60)
                )
                said = str(action(Processes()))
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            (folder / str(index)).write_text(said)
            os._exit(0)
        children.append(child)
    deadline = time.monotonic() + 60
    waiting = set(children)
    while waiting and time.monotonic() < deadline:
        waiting -= {child for child in waiting if os.waitpid(child, os.WNOHANG)[0]}
        # One that stopped itself never ends by itself.
        stopped = {child for child in waiting if "(stopped)" in Path(f"/proc/{child}/status").read_text()}
        if waiting == stopped:
            break
        time.sleep(0.02)
    for child in waiting:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return {int(path.name): path.read_text() for path in folder.iterdir()}


def test_what_processes_find_each_by_itself_must_be_the_same(tmp_path: Path) -> None:
    def action(processes: Processes) -> None:
        processes.refuse_unlike("bits", 16, advice="set them")
        processes.refuse_unlike("bits", 16 * (processes.index + 1), advice="set them")

    said = run_together(tmp_path, 2, action)
    expected = "ValueError: bits (16 on process 0, 32 on process 1) must be the same on all processes; set them."
    assert said == {0: expected, 1: expected}


def test_one_process_agrees_with_itself() -> None:
    alone = Processes()
    assert (alone.index, alone.number, alone.is_main) == (0, 1, True)
    assert alone.gather([1, 2.5]).tolist() == [[1, 2.5]]
    assert alone.gather_rows(torch.ones(2, 3))[0].shape == (2, 3)
    alone.wait()
    alone.limit_silence(1.0)
    with alone.main_first():
        pass


def test_everyone_gets_the_numbers_of_all_in_their_order(tmp_path: Path) -> None:
    said = run_together(tmp_path, 3, lambda processes: processes.gather([processes.index, 2.0**60 + 2**9]).tolist())
    expected = str([[float(index), 2.0**60 + 2**9] for index in range(3)])
    assert said == dict.fromkeys(range(3), expected)


def test_each_may_have_another_number_of_rows_even_none(tmp_path: Path) -> None:
    def action(processes: Processes) -> object:
        own = torch.full((processes.index, 2), float(processes.index), dtype=torch.float64)
        return [rows.tolist() for rows in processes.gather_rows(own)]

    expected = str([[], [[1.0, 1.0]], [[2.0, 2.0], [2.0, 2.0]]])
    assert run_together(tmp_path, 3, action) == dict.fromkeys(range(3), expected)


def test_the_main_process_goes_first_however_long_it_takes(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    results = tmp_path / "results"
    results.mkdir()

    def action(processes: Processes) -> object:
        with processes.main_first():
            if processes.is_main:
                time.sleep(0.5)
                mark.touch()
            return mark.exists()

    assert run_together(results, 2, action) == {0: "True", 1: "True"}


def test_the_first_process_of_each_machine_goes_before_its_others(tmp_path: Path, monkeypatch) -> None:
    results, order = tmp_path / "results", tmp_path / "order"
    results.mkdir()
    order.touch()

    def action(processes: Processes) -> None:
        os.environ["LOCAL_RANK"] = str(processes.index % 2)  # two machines with two processes each
        with processes.main_first():
            time.sleep(0.1 * (processes.index % 2 == 0))
            with order.open("a") as file:
                file.write(f"{processes.index}\n")

    assert run_together(results, 4, action) == dict.fromkeys(range(4), "None")
    first, second, *others = map(int, order.read_text().split())
    assert (first, second, sorted(others)) == (0, 2, [1, 3])


def test_processes_with_the_same_numbers_are_counted(tmp_path: Path) -> None:
    said = run_together(tmp_path, 3, lambda processes: processes.count_like([4, processes.index // 2]))
    assert said == {0: "2", 1: "2", 2: "1"}
    assert Processes().count_like([4, 0]) == 1


def test_what_the_main_process_refuses_ends_the_others_at_once_without_its_block(tmp_path: Path) -> None:
    def action(processes: Processes) -> object:
        with processes.naming_the_missing(), processes.main_first():
            if processes.is_main:
                raise ValueError("data.corpus (nothing) must exist")
            raise AssertionError("the block was for the main process")

    said = run_together(tmp_path, 3, action)
    assert said[0] == "ValueError: data.corpus (nothing) must exist"
    assert (
        said[1]
        == said[2]
        == ("ProcessLostError: process 0 must prepare the run before the others, and could not; see its message.")
    )


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["frozen", "dead"])
def test_a_frozen_or_dead_process_is_named_in_time(tmp_path: Path, lost: int, number: int) -> None:
    def action(processes: Processes) -> object:
        processes.wait()
        processes.limit_silence(2.0)
        begin = time.monotonic()
        try:
            with processes.naming_the_missing():
                if processes.index == lost:
                    os.kill(os.getpid(), number)
                processes.gather([1.0])
        finally:
            (tmp_path / f"{processes.index}.seconds").write_text(str(time.monotonic() - begin))

    results = tmp_path / "results"
    results.mkdir()
    said = run_together(results, 3, action)
    assert said.keys() == {0, 1, 2} - {lost}
    for index, text in said.items():
        assert text.startswith("ProcessLostError: processes of the run (3) must all answer")
        # Without a launcher the store lives in process 0.
        assert f"and process {lost}{'' if lost else ' or the launcher'} did not" in text
        assert float((tmp_path / f"{index}.seconds").read_text()) < 2 + 4 + 2


def test_an_error_of_the_process_itself_is_not_taken_for_a_lost_one(tmp_path: Path) -> None:
    def action(processes: Processes) -> None:
        with processes.naming_the_missing():
            raise RuntimeError("shapes do not match")

    said = run_together(tmp_path, 2, action)
    assert set(said.values()) == {"RuntimeError: shapes do not match"}
    assert issubclass(ProcessLostError, OSError)


def test_a_process_whose_launcher_is_killed_is_asked_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "some")
    reading, writing = os.pipe()
    launcher = os.fork()
    if launcher == 0:
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, lambda *_: (os.write(writing, b"stopped"), os._exit(0)))
            end_with_launcher()
            os.write(writing, b"ready")
            time.sleep(30)
        time.sleep(30)
        os._exit(0)
    assert os.read(reading, 5) == b"ready"
    os.kill(launcher, signal.SIGKILL)
    os.waitpid(launcher, 0)
    assert os.read(reading, 7) == b"stopped"
    os.close(reading)
    os.close(writing)
