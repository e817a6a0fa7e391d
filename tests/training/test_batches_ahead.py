"""Batches that other processes make are those that this one makes, and those processes end with the run."""

import json
import os
import resource
import signal
import time
from multiprocessing.context import ForkProcess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_minilm.cli.main import main
from hf_minilm.data.world import World
from hf_minilm.training.batches_ahead import BatchesAhead, resolve_batch_processes
from hf_minilm.training.gradient import Part


def parts_of(step: int) -> list[Part]:
    if step == 9:
        raise ValueError("step (9) must not be made; stop before it.")
    return [Part(0, [{"input_ids": torch.arange(step, step + 5), "made_by": torch.tensor(os.getpid())}], 0, None)]


def many_parts_of(step: int) -> list[Part]:
    return [Part(number, [{"input_ids": torch.full((2, 3), step + number)}] * 5, 0, None) for number in range(40)]


def children() -> list[int]:
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="utf-8").split()
    return [int(pid) for pid in listed]


@pytest.mark.parametrize("processes", [0, 1, 2])
def test_steps_come_in_order_and_are_made_elsewhere_where_that_is_asked_for(processes):
    with BatchesAhead(parts_of, first_step=4, processes=processes) as batches:
        found = [batches.next()[0].batches[0] for _ in range(5)]
    assert [each["input_ids"].tolist() for each in found] == [list(range(step, step + 5)) for step in range(4, 9)]
    makers = {int(each["made_by"]) for each in found}
    assert len(makers) == max(processes, 1)
    assert (os.getpid() in makers) == (processes == 0)


@pytest.mark.parametrize("processes", [0, 2])
def test_an_error_is_raised_where_the_step_is_asked_for_and_says_the_same(processes):
    with BatchesAhead(parts_of, first_step=8, processes=processes) as batches:
        batches.next()
        with pytest.raises(ValueError, match=r"^step \(9\) must not be made; stop before it\.$"):
            batches.next()


def test_the_processes_outlive_a_stop_signal_and_end_with_the_run():
    before = set(children())
    with BatchesAhead(parts_of, first_step=0, processes=2) as batches:
        batches.next()
        makers = set(children()) - before
        assert len(makers) == 2
        for pid in makers:
            os.kill(pid, signal.SIGTERM)
        for _ in range(7):
            batches.next()
    assert not set(children()) & makers


def test_a_step_of_many_micro_batches_needs_no_more_files_than_one_of_few():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        with BatchesAhead(many_parts_of, first_step=0, processes=2) as batches:
            steps = [batches.next() for _ in range(6)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for step, parts in enumerate(steps):
        assert [part.number for part in parts] == list(range(40))
        assert all(part.batches[4]["input_ids"].tolist() == [[step + part.number] * 3] * 2 for part in parts)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_the_processes_die_with_the_one_that_is_killed():
    reading, writing = os.pipe()
    run = os.fork()
    if run == 0:
        try:
            with BatchesAhead(parts_of, first_step=0, processes=2) as batches:
                makers = [int(batches.next()[0].batches[0]["made_by"]) for _ in range(2)]
                os.write(writing, json.dumps(makers).encode())
                time.sleep(60)
        finally:
            os._exit(0)
    os.close(writing)
    makers = json.loads(os.read(reading, 100))
    os.kill(run, signal.SIGKILL)
    os.waitpid(run, 0)
    deadline = time.monotonic() + 5
    while (alive := [pid for pid in makers if lives(pid)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.close(reading)
    assert len(set(makers)) == 2
    assert not alive


def test_a_process_that_cannot_be_started_ends_those_that_were(monkeypatch: pytest.MonkeyPatch) -> None:
    before, start, started = set(children()), ForkProcess.start, []

    def fail_later(process: ForkProcess) -> None:
        if started:
            raise OSError("no more processes")
        started.append(process)
        start(process)

    monkeypatch.setattr(ForkProcess, "start", fail_later)
    with pytest.raises(OSError, match="no more processes"), BatchesAhead(parts_of, first_step=0, processes=2):
        pass
    assert set(children()) == before


def lives(pid: int) -> bool:
    """Tell whether a process is there, and not only its entry that nobody has read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def go_on_after_a_process_died() -> None:
    before = set(children())
    with BatchesAhead(lambda step: parts_of(step % 9), first_step=0, processes=1) as batches:
        batches.next()
        (maker,) = set(children()) - before
        os.kill(maker, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            batches.next()


def test_a_process_that_dies_ends_the_run_and_is_named():
    with pytest.raises(ChildProcessError, match=r"training.batch_processes \(1\) must all live"):
        go_on_after_a_process_died()


def test_a_run_gives_the_same_bits_whoever_makes_its_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_MINILM_CACHE", str(tmp_path / "cache"))
    lines = [json.dumps({"text": document.text}) for document in World(("es", "en")).documents(60)]
    (tmp_path / "stories.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {
        "data.corpus": str(tmp_path / "stories.jsonl"),
        "data.sequence_length": 32,
        "model.overrides": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
        "training.batch_rows": 4,
        "training.budget": "6steps",
        "training.compile": "no",
        "evaluation.every": "never",
        "evaluation.rows": 8,
    }
    weights = []
    for processes in (0, 2):
        own = {"output.folder": str(tmp_path / f"run{processes}"), "training.batch_processes": processes}
        assert main(["pretrain", *(f"--set={key}={json.dumps(value)}" for key, value in (settings | own).items())]) == 0
        weights.append(load_file(tmp_path / f"run{processes}" / "checkpoints" / "checkpoint-6" / "model.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_gpu_gets_what_the_cores_allow_and_a_cpu_none(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for cores, processes, expected in ((16, 1, 4), (16, 4, 3), (2, 1, 1), (1, 1, 0), (8, 8, 0)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        assert resolve_batch_processes(None, gpu, num_sharing=processes) == expected
    assert resolve_batch_processes(None, cpu, num_sharing=1) == 0
    assert resolve_batch_processes(3, cpu, num_sharing=1) == 3
