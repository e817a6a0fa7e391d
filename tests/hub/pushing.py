"""Pushes to a Hub on loopback, each in a process that knows no other."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from writable_hub import WritableHub

TOKEN = "hf_" + "aB3dE5fG7h" * 3  # of the form that is looked for
PUSHED = ("--checkpoints", "--tag", "v1", "--license", "apache-2.0")
SEVERAL = """
import contextlib, io, json, os, sys
from hf_minilm.cli.main import main

finished = []
for words, token in json.loads(sys.argv[1]):
    os.environ.pop("HF_TOKEN", None)
    if token is not None:
        os.environ["HF_TOKEN"] = token
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    finished.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(finished))
"""


def run(hub: WritableHub, folder: Path, *words: str, token: str | None = TOKEN, background: bool = False) -> Any:
    """Run Python in a folder, where its home is too."""
    environment = hub.environment(folder / "home") | {"HOME": str(folder / "home")}
    if token is not None:
        environment["HF_TOKEN"] = token
    options: dict[str, Any] = {"cwd": folder, "env": environment, "stdin": subprocess.DEVNULL, "text": True}
    if background:
        return subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    return subprocess.run([sys.executable, *words], capture_output=True, timeout=240, **options)


@dataclass
class Finished:
    """What one of several commands of a process left."""

    returncode: int
    stdout: str
    stderr: str


def push_several(hub: WritableHub, folder: Path, commands: list[tuple[list[str], str | None]]) -> list[Finished]:
    """Push in one process, once for each command and token."""
    words = [(["push", *command], token) for command, token in commands]
    finished = run(hub, folder, "-c", SEVERAL, json.dumps(words))
    assert finished.returncode == 0, finished.stderr[-3000:]
    return [Finished(*each) for each in json.loads(finished.stdout.splitlines()[-1])]


def refusal(finished: Any) -> str:
    """The one line of a push that was refused."""
    assert finished.returncode == 2, finished.stderr[-3000:]
    assert "Traceback" not in finished.stderr
    lines = [line for line in finished.stderr.splitlines() if line.startswith("hf-minilm: ")]
    assert len(lines) == 1
    return lines[0]
