"""R12: two hosts, as network namespaces of one: one dies, comes back, or the line between them breaks."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from jobs import (
    OWN_STORE_EACH_TIME,
    STILL,
    Launched,
    Workplace,
    descendants,
    free_port,
    kill_if_alive,
    logged,
    slowness,
    timeout_settings,
)
from tries import MARKS, Row

from hf_minilm.training.recipe import TrainingSettings

pytestmark = MARKS

TIMEOUT = 8
SETTINGS = {**STILL, "training.budget": "150steps", "training.save_every": "5steps"}
ADDRESSES = {"a": "10.77.0.1", "b": "10.77.0.2"}
LONGEST_SHRINKING = 15.0


class Hosts:
    """Two network namespaces with a line between them."""

    def __init__(self, prefix: str) -> None:
        self.names = {host: f"{prefix}{host}" for host in ADDRESSES}
        self.ends = {host: f"{prefix}v{host}" for host in ADDRESSES}

    def build(self) -> bool:
        """Make both; tells whether that is allowed here."""
        if os.geteuid() != 0 or shutil.which("ip") is None:
            return False
        a, b = self.ends["a"], self.ends["b"]
        made = [f"ip netns add {name}" for name in self.names.values()]
        made.append(f"ip link add {a} type veth peer name {b}")
        for host, name in self.names.items():
            made.append(f"ip link set {self.ends[host]} netns {name}")
            made.append(f"ip -n {name} addr add {ADDRESSES[host]}/24 dev {self.ends[host]}")
            made += [f"ip -n {name} link set {end} up" for end in ("lo", self.ends[host])]
        return all(subprocess.run(line.split(), capture_output=True, check=False).returncode == 0 for line in made)

    def set_line(self, state: str) -> None:
        """Take the line between them `down`, or `up` again."""
        subprocess.run(["ip", "-n", self.names["b"], "link", "set", self.ends["b"], state], check=True)

    def remove(self) -> None:
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def launch(self, workplace: Workplace, folder: Path, settings: dict[str, str]) -> dict[str, Launched]:
        """Start one agent a host, which go on with one host when the other is lost, and with both when it is back."""
        self.port = free_port()
        return {host: self.start_agent(host, workplace, folder, settings) for host in self.names}

    def start_agent(self, host: str, workplace: Workplace, folder: Path, settings: dict[str, str]) -> Launched:
        options = ["--nnodes", "1:2", "--max-restarts", "3", "--nproc_per_node", "1", "--rdzv_backend", "c10d"]
        options += ["--rdzv_endpoint", f"{ADDRESSES['a']}:{self.port}", "--rdzv_id", folder.name]
        options += ["--rdzv_conf", f"is_host={'true' if host == 'a' else 'false'},last_call_timeout=3"]
        options += ["--local_addr", ADDRESSES[host]]
        launcher = ["ip", "netns", "exec", self.names[host], "torchrun", *options]
        environment = {**workplace.environment, **OWN_STORE_EACH_TIME, "GLOO_SOCKET_IFNAME": self.ends[host]}
        return Launched(launcher, folder, settings, environment, name=host)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    hosts = Hosts(f"t{os.getpid() % 10_000}")
    try:
        if not hosts.build():
            pytest.skip("two network namespaces need root and iproute2")
        yield hosts
    finally:
        hosts.remove()


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in logged(folder) if "loss" in line]


@pytest.mark.parametrize("what", ["host dead", "line down for 5 s", "line down for good"])
def test_a_run_on_two_hosts_goes_on_when_one_is_lost(workplace: Workplace, hosts: Hosts, what: str) -> None:
    with Row("R12", what, tries=10, few=1) as row:
        settings, longest = SETTINGS, LONGEST_SHRINKING
        if what == "line down for good":
            assert hasattr(TrainingSettings(), "timeout"), "training.timeout is missing, and 2 h are too long to wait"
            settings, longest = {**SETTINGS, **timeout_settings(TIMEOUT)}, LONGEST_SHRINKING + TIMEOUT
        expected = losses(workplace.finish(workplace.new_folder("whole"), SETTINGS))
        for number in range(row.tries):
            with row.attempt(f"try {number}"):
                agents = hosts.launch(workplace, workplace.new_folder("two-hosts"), settings)
                try:
                    slow = slowness()
                    row.measure("slowness", slow)
                    took = lose_a_host(hosts, agents, what, row)
                    assert took <= longest * slow, f"{took:.1f} s until a new rank on the host that is left"
                    assert losses(agents["a"].folder) == pytest.approx(expected, rel=1e-5)
                finally:
                    hosts.set_line("up")
                    for each in agents.values():
                        each.kill_all()


def test_a_host_that_comes_back_trains_along_again(workplace: Workplace, hosts: Hosts) -> None:
    settings = {**SETTINGS, "training.budget": "2000steps", "training.save_every": "100steps"}
    with Row("R12", "host dead and back", tries=10, few=1) as row:
        expected = losses(workplace.finish(workplace.new_folder("whole"), settings))
        for number in range(row.tries):
            with row.attempt(f"try {number}"):
                folder = workplace.new_folder("two-hosts")
                agents = hosts.launch(workplace, folder, settings)
                first = agents["a"]
                try:
                    first.wait_for_step(120)
                    ranks = first.workers()
                    kill_host(agents["b"])
                    agents["b"].process.wait(30)
                    alone = first.wait_for_new_workers(ranks)
                    first.wait_for_text("processes: 1, threads: 1 (before: processes: 2")
                    agents["b"] = hosts.start_agent("b", workplace, folder, settings)
                    begin = time.monotonic()
                    first.wait_for_new_workers([*ranks, *alone])
                    row.measure("both", time.monotonic() - begin)
                    assert [each.wait() for each in agents.values()] == [0, 0], first.text
                    assert "processes: 2, threads: 1 (before: processes: 1" in first.text + agents["b"].text
                    assert losses(folder) == pytest.approx(expected, rel=1e-5)
                finally:
                    for each in agents.values():
                        each.kill_all()


def kill_host(agent: Launched) -> None:
    """Kill all processes of a host, the agent first."""
    for pid in [agent.process.pid, *descendants(agent.process.pid)]:
        kill_if_alive(pid)


def lose_a_host(hosts: Hosts, agents: dict[str, Launched], what: str, row: Row) -> float:
    """Kill a host, or break the line to it, and wait for the end; gives the seconds until a new rank, if one comes."""
    first, second = agents["a"], agents["b"]
    first.wait_for_step(12)
    assert "processes: 2" in first.text + second.text
    begin, ranks, took = time.monotonic(), first.workers(), 0.0
    if what == "host dead":
        kill_host(second)
    else:
        hosts.set_line("down")
    if what == "line down for 5 s":
        time.sleep(5)
        hosts.set_line("up")
    else:
        first.wait_for_new_workers(ranks)
        took = time.monotonic() - begin
        row.measure("new rank", took)
    code = first.wait()
    row.measure("end", time.monotonic() - begin)
    assert code == 0, first.text
    assert ("processes: 1" in first.text) == (what != "line down for 5 s"), first.text
    return took
