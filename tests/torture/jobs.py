"""Runs that can be injured: started with several ranks, watched, killed, gone on with, and compared to the bit."""

import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from hf_minilm.data.world import World
from hf_minilm.data.world_pairs import WorldPairs
from hf_minilm.training.checkpoint import find_damage, list_checkpoints, remove_leftovers
from hf_minilm.training.recipe import TrainingSettings
from hf_minilm.training.schedule import Budget

CORPUS_FILE, PAIRS_FILE = "stories.jsonl", "pairs.tsv"
LONGEST_WAIT = 120.0
"""Seconds after which nothing more is expected of a run, on an idle machine."""

TINY = {
    "model.preset": "bert",  # dropout and biases, so that every source of randomness takes part
    "model.overrides": '{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}',
    "tokenizer.vocab_size": "300",
    "data.sequence_length": "32",
    "data.validation_share": "0.2",
    "objective.next_sentence": "false",
    "training.precision": "fp32",
    "training.batch_rows": "6",
    "training.log_every": "1",
    "training.budget": "40steps",
    "training.save_every": "never",
    "training.compile": "no",
    "evaluation.every": "never",
    "evaluation.rows": "8",
}
OBJECTIVES: dict[str, dict[str, str]] = {
    "masked": {},
    "masked + next sentence": {"objective.next_sentence": "true"},
    "causal": {"objective.name": "causal", "model.preset": "gpt2", "tokenizer.vocab_size": "400"},
    "pairs": {
        "objective.name": "pairs",
        "model.preset": "vaswani2017",
        "tokenizer.vocab_size": "400",
        "data.sequence_length": "40",
        "evaluation.translations": "1",
        "evaluation.num_beams": "1",
    },
}
STILL = {
    "model.overrides": TINY["model.overrides"][:-1] + ', "hidden_dropout": 0.0, "attention_dropout": 0.0}',
    "optimizer.name": "adamw",
    "optimizer.learning_rate": "2e-3",
}
"""Without dropout, which is drawn by process, and without Muon, whose iterations in bf16 make more of a rounding."""
EACH_STEP = {"training.save_every": "1steps", "training.keep_last": "1"}
"""Saving all the time, so that whatever happens is likely to happen in a save."""

# torch 2.13 keeps one store for all restarts and puts no attempt before its keys (torch/distributed/rendezvous.py,
# `_create_c10d_store`). So a rank that starts before another may read where that one was before the restart, and fail;
# and a host that comes later waits for an address that is not told anew.
OWN_STORE_EACH_TIME = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


class ForkServer:
    """The process that forks ranks, from this side; see `fork_server`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fork_server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self._unread = b""
        self._started: list[int] = []
        self._ended: dict[int, tuple[int, float]] = {}
        self._await(lambda: self._started, seconds=patience())
        self.pid = self._started.pop()

    def start(self, request: Mapping[str, Any]) -> "ForkedRank":
        """Fork a rank."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        self._await(lambda: self._started, seconds=30)
        return ForkedRank(self, self._started.pop(), Path(request["output"]))

    def end_of(self, pid: int, *, seconds: float) -> tuple[int, float] | None:
        """Give the exit code and the moment of a rank's end, None if it still lives after some seconds."""
        self._await(lambda: pid in self._ended, seconds=seconds, must=False)
        return self._ended.get(pid)

    def close(self) -> None:
        """Kill all ranks, and end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def _await(self, condition: Callable[[], Any], *, seconds: float, must: bool = True) -> None:
        assert self._process.stdout is not None
        end = time.monotonic() + seconds
        while True:
            left = max(end - time.monotonic(), 0)
            if not condition() or left == 0:
                readable = select.select([self._process.stdout], [], [], left)[0]
            else:
                readable = select.select([self._process.stdout], [], [], 0)[0]
            if readable:
                received = os.read(self._process.stdout.fileno(), 65_536)
                if not received:
                    raise RuntimeError("the fork server has ended")
                *lines, self._unread = (self._unread + received).split(b"\n")
                for line in lines:
                    self._note(json.loads(line))
            elif condition():
                return
            elif time.monotonic() >= end:
                if must:
                    raise TimeoutError(f"the fork server did not answer in {seconds} s")
                return

    def _note(self, message: dict[str, Any]) -> None:
        if "ready" in message or "started" in message:
            pid = message.get("ready") or message["started"]
            self._ended.pop(pid, None)  # of an earlier rank with the same number
            self._started.append(pid)
        else:
            self._ended[message["pid"]] = message["code"], message["at"]


@dataclass
class ForkedRank:
    """A rank that the fork server forked."""

    server: ForkServer
    pid: int
    output: Path

    def end(self, seconds: float = 0.0) -> tuple[int, float] | None:
        """Give the exit code, negative for a signal, and the moment of its end; None if it still lives."""
        return self.server.end_of(self.pid, seconds=seconds)


@dataclass
class Fault:
    """What goes wrong, where and in which rank: the `count`-th passage of `at` does `do`; see `fork_server.perform`."""

    rank: int
    at: str
    count: int
    do: str
    seconds: float = 0.0
    mark: Path | None = None

    @property
    def happened(self) -> float | None:
        """The moment at which it happened, None while it did not."""
        assert self.mark is not None
        return float(self.mark.read_text()) if self.mark.exists() else None


@dataclass
class Job:
    """The ranks of a run."""

    folder: Path
    ranks: list[ForkedRank]
    faults: list[Fault] = field(default_factory=list)

    def kill(self, rank: int, number: int = signal.SIGKILL) -> float:
        """Send a signal to one rank, if it still lives; gives the moment."""
        if self.ranks[rank].end() is None:
            os.kill(self.ranks[rank].pid, number)
        return time.monotonic()

    def wait(self, seconds: float | None = None) -> list[int]:
        """Wait for the end of all ranks; gives their exit codes.

        Raises:
            AssertionError: If one still lives after so many seconds; all are killed first.
        """
        seconds = seconds or patience()
        deadline = time.monotonic() + seconds
        codes = []
        for rank in self.ranks:
            ended = rank.end(max(deadline - time.monotonic(), 0))
            codes.append(None if ended is None else ended[0])
        if None in codes:
            where = self.where_it_is()
            self.kill_all()
            raise AssertionError(f"exit codes {codes} after {seconds} s\n{where}")
        return [code for code in codes if code is not None]

    def where_it_is(self) -> str:
        """Say where the ranks that live are, with the processor time that they had, and what all printed."""
        lines = []
        for number, rank in enumerate(self.ranks):
            if rank.end() is None and is_running(rank.pid):
                ticks = Path(f"/proc/{rank.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
                seconds = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
                lines.append(f"rank {number} lives and had {seconds:.1f} s of processor time")
                os.kill(rank.pid, signal.SIGUSR2)
        time.sleep(1)
        return "\n".join([*lines, self.text])

    def kill_all(self) -> None:
        """End all ranks at once."""
        for number in range(len(self.ranks)):
            self.kill(number)
        for rank in self.ranks:
            assert rank.end(30) is not None

    @property
    def last_end(self) -> float:
        """The moment at which the last rank that has ended did."""
        return max(ended[1] for rank in self.ranks if (ended := rank.end()) is not None)

    @property
    def is_alive(self) -> bool:
        """Whether all ranks live."""
        return all(rank.end() is None for rank in self.ranks)

    def wait_for_step(self, step: int) -> None:
        """Wait until a step is logged while all ranks live."""
        self._wait_for(lambda: step_of(self.folder) >= step, while_=lambda: self.is_alive)

    def wait_for_fault(self, number: int = 0) -> float:
        """Wait until a fault has happened; gives the moment. Its rank may have ended of it."""
        self._wait_for(
            lambda: self.faults[number].happened, while_=lambda: any(each.end() is None for each in self.ranks)
        )
        return cast(float, self.faults[number].happened)

    def _wait_for(self, condition: Callable[[], Any], *, while_: Callable[[], bool]) -> None:
        deadline = time.monotonic() + patience()
        while not condition():
            if (not while_() and not condition()) or time.monotonic() > deadline:
                why = "took too long" if while_() else "ended early"
                where = self.where_it_is()
                self.kill_all()
                raise AssertionError(f"the run {why}\n{where}")
            time.sleep(0.01)

    @property
    def text(self) -> str:
        """What the ranks printed, the last of each."""
        return "\n".join(
            f"--- rank {number} ---\n{rank.output.read_text(errors='replace')[-2500:]}"
            for number, rank in enumerate(self.ranks)
            if rank.output.exists()
        )


def write_corpora(folder: Path) -> None:
    """Write the corpora beside which run folders lie: about 80 rows of 32 tokens, three epochs in 40 steps of 6."""
    stories = [json.dumps({"text": document.text}) for document in World(("es", "en")).documents(24)]
    (folder / CORPUS_FILE).write_text("\n".join(stories) + "\n", encoding="utf-8")
    pairs = ["\t".join(text.split(". ")[0] for text in pair) for pair in WorldPairs().pairs(200)]
    (folder / PAIRS_FILE).write_text("\n".join(pairs) + "\n", encoding="utf-8")


def words(folder: Path, settings: Mapping[str, str]) -> list[str]:
    """The command line of a run, after the program's name."""
    corpus = PAIRS_FILE if settings.get("objective.name") == "pairs" else CORPUS_FILE
    merged = {**TINY, "data.corpus": str(folder.parent / corpus), **settings, "output.folder": str(folder)}
    return ["pretrain", *(f"--set={name}={value}" for name, value in merged.items())]


def slowness() -> float:
    """How many times longer than alone a computation takes now, as others compute too; 1 on an idle machine.

    The promises in seconds are those of an idle machine.
    """
    begin, computed = time.monotonic(), time.process_time()
    while time.process_time() < computed + 0.1:
        pass
    return max(1.0, (time.monotonic() - begin) / 0.1)


def patience() -> float:
    """Seconds after which nothing more is expected of a run."""
    return LONGEST_WAIT * slowness()


def free_port() -> int:
    """Find a port that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@dataclass
class Workplace:
    """Where run folders lie, with the corpora, and who starts the ranks."""

    folder: Path
    server: ForkServer
    environment: dict[str, str]
    number: int = 0
    secrets: Mapping[str, str] = field(default_factory=dict)
    """What else is in the environment of the ranks."""

    def new_folder(self, name: str = "run") -> Path:
        """Name a run folder that does not exist."""
        self.number += 1
        return self.folder / f"{name}-{self.number}"

    def start(
        self, folder: Path, settings: Mapping[str, str], *, processes: int = 1, faults: Sequence[Fault] = ()
    ) -> Job:
        """Start a run with some processes, with faults."""
        self.number += 1
        shared = {"WORLD_SIZE": f"{processes}", "LOCAL_WORLD_SIZE": f"{processes}", "MASTER_ADDR": "127.0.0.1"}
        shared["MASTER_PORT"] = f"{free_port()}"
        ranks = []
        for fault in faults:
            fault.mark = self.folder / f"fault-{self.number}-{fault.rank}-{fault.at}"
        for rank in range(processes):
            place = {**shared, "RANK": f"{rank}", "LOCAL_RANK": f"{rank}"} if processes > 1 else {}
            request = {
                "words": words(folder, settings),
                "environment": {**self.secrets, **place},
                "output": str(self.folder / f"output-{self.number}-{rank}"),
                "faults": [{**vars(fault), "mark": str(fault.mark)} for fault in faults if fault.rank == rank],
            }
            ranks.append(self.server.start(request))
        return Job(folder, ranks, list(faults))

    def finish(self, folder: Path, settings: Mapping[str, str], *, processes: int = 1) -> Path:
        """Start a run or go on with it, to its end; gives its folder."""
        job = self.start(folder, settings, processes=processes)
        codes = job.wait()
        assert codes == [0] * processes, f"exit codes {codes}\n{job.text}"
        return folder


class Launched:
    """A run under a real launcher, in a session of its own; what it prints lies beside its folder."""

    def __init__(
        self,
        launcher: Sequence[str],
        folder: Path,
        settings: Mapping[str, str],
        environment: Mapping[str, str],
        *,
        name: str = "launcher",
    ) -> None:
        self.folder, self.output = folder, folder.with_name(f"{folder.name}-{name}.txt")
        command = [*launcher, "-m", "hf_minilm.cli.main", *words(folder, settings)]
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(
                command, env=environment, stdout=file, stderr=file, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def workers(self) -> list[int]:
        """The process ids of the ranks, by local rank."""
        ranks = {}
        for pid in descendants(self.process.pid):
            rank = environment_of(pid).get("LOCAL_RANK")
            if rank is not None:
                ranks.setdefault(int(rank), pid)
        return [ranks[rank] for rank in sorted(ranks)]

    def wait(self) -> int:
        """Wait for the end, and give the exit code; everything is killed if it takes too long."""
        seconds = patience()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill_all()
            raise AssertionError(f"the launcher must end within {seconds} s\n{self.text}") from None

    def wait_for_step(self, step: int) -> None:
        """Wait until a step is logged while the launcher lives."""
        self._wait_for(lambda: step_of(self.folder) >= step)

    def wait_for_text(self, text: str) -> None:
        """Wait until something is printed while the launcher lives."""
        self._wait_for(lambda: text in self.output.read_text(errors="replace"))

    def wait_for_new_workers(self, old: Collection[int]) -> list[int]:
        """Wait until there are ranks and none is one of these; gives their process ids."""
        self._wait_for(lambda: (new := self.workers()) and not set(new) & set(old))
        return self.workers()

    def _wait_for(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + patience()
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill_all()
                raise AssertionError(f"the run ended early or took too long\n{self.text}")
            time.sleep(0.01)

    def kill_all(self) -> None:
        """Kill the launcher and its ranks."""
        for pid in [*descendants(self.process.pid), self.process.pid]:
            kill_if_alive(pid)
        self.process.wait(30)

    @property
    def text(self) -> str:
        """The last that it printed."""
        return self.output.read_text(errors="replace")[-5000:]


def kill_if_alive(pid: int, number: int = signal.SIGKILL) -> bool:
    """Send a signal to a process that may have ended; tells whether it lived."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def is_running(pid: int) -> bool:
    """Whether a process exists and has not ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def descendants(pid: int) -> list[int]:
    """All living processes below one."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, unseen = [], [pid]
    while unseen:
        children = parents.get(unseen.pop(), [])
        found += children
        unseen += children
    return found


def environment_of(pid: int) -> dict[str, str]:
    """The environment that a process was started with."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return {}
    return dict(entry.decode(errors="replace").split("=", 1) for entry in entries if b"=" in entry)


def weights(folder: Path) -> str:
    """The SHA-256 of a finished run's weights."""
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()


def bits(checkpoint: Path) -> dict[str, str]:
    """The SHA-256 of all in a checkpoint that training goes on from, and of nothing that a clock decides."""
    names = ("model.safetensors", "optimizer.safetensors", "optimizer.json", "config.json")
    found = {name: hashlib.sha256((checkpoint / name).read_bytes()).hexdigest() for name in names}
    state = json.loads((checkpoint / "training_state.json").read_text(encoding="utf-8"))
    return {**found, "step": state["step"], "tokens": state["tokens"]}


def logged(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics, without what a clock decides; half a line at the end is left out."""
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    clocked = {"seconds", "tokens_per_second", "waiting_share"}
    return [{name: value for name, value in json.loads(line).items() if name not in clocked} for line in lines if line]


def step_of(folder: Path) -> int:
    """The last step that a run logged, 0 before the first."""
    lines = logged(folder)
    return lines[-1]["step"] if lines else 0


def assert_checkpoints_are_whole(folder: Path) -> list[int]:
    """Nothing torn lies under a checkpoint's name; gives the steps. Clears what a killed save left, as a run does."""
    checkpoints = folder / "checkpoints"
    remove_leftovers(checkpoints)
    found = list_checkpoints(checkpoints)
    damage = {path.name: find_damage(path) for path in found}
    assert not any(damage.values()), f"damaged checkpoints: {damage}"
    return [int(path.name.partition("-")[2]) for path in found]


def timeout_settings(seconds: int) -> dict[str, str]:
    """The setting for how long a silent rank is waited for, in the form that its type asks for."""
    default = getattr(TrainingSettings(), "timeout", None)
    return {"training.timeout": f"{seconds}s" if isinstance(default, Budget) else f"{seconds}"}
