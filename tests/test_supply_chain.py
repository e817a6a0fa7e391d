"""What is installed, and what builds a release: exact versions, none with a known hole, and no key to steal."""

import importlib.metadata
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FIRST_SAFE = {"torch": "2.6", "transformers": "5.5"}
"""CVE-2025-32434, a checkpoint that runs code in spite of weights_only; CVE-2026-5241, a config that does."""
ANOTHER_BUILD = ("nvidia-", "cuda-", "triton")
"""What comes with a torch for GPUs only."""


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    named = map(Requirement, (*project["dependencies"], *extras["examples"], *extras["dev"]))
    return [requirement for requirement in named if requirement.name != project["name"]]  # dev asks for examples


def pinned() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [canonicalize_name(line.split("==")[0]) for line in lines if line and not line.startswith("#")]


def brought_by(requirement: Requirement, known: set[tuple[str, str]]) -> Iterator[str]:
    """Name all that a requirement installs on this machine, itself included."""
    for extra in ("", *requirement.extras):
        key = canonicalize_name(requirement.name), extra
        if key in known:
            continue
        known.add(key)
        yield key[0]
        for line in importlib.metadata.requires(key[0]) or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                yield from brought_by(needed, known)


def steps(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("name", sorted(FIRST_SAFE))
def test_no_version_with_a_known_hole_is_accepted(name: str) -> None:
    requirement = next(each for each in requirements() if each.name == name)
    lowest = [Version(part.version) for part in requirement.specifier if part.operator == ">="]
    assert lowest
    assert lowest[0] >= Version(FIRST_SAFE[name])


def test_all_that_is_installed_has_one_version() -> None:
    known: set[tuple[str, str]] = set()
    installed = {name for requirement in requirements() for name in brought_by(requirement, known)}
    assert len(installed) > len(requirements())
    assert {name for name in installed if not name.startswith(ANOTHER_BUILD)} <= set(pinned())
    assert len(set(pinned())) == len(pinned())


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_an_action_is_a_commit_and_not_a_name_that_can_be_moved(workflow: Path) -> None:
    actions = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert actions
    assert [action for action in actions if not re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", action)] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_tool_that_a_workflow_installs_has_one_version(workflow: Path) -> None:
    installs = [step["run"] for step in steps(workflow) if step.get("run", "").startswith("python -m pip install")]
    tools = [tool for line in installs for tool in line.removeprefix("python -m pip install").split()]
    assert tools
    assert [tool for tool in tools if "==" not in tool] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_read_and_only_publishing_may_more(workflow: Path) -> None:
    description = yaml.safe_load(workflow.read_text(encoding="utf-8"))
    assert description["permissions"] == {"contents": "read"}
    more = {name: job["permissions"] for name, job in description["jobs"].items() if "permissions" in job}
    assert more in ({}, {"publish": {"id-token": "write"}})
    assert "secrets." not in workflow.read_text(encoding="utf-8")
