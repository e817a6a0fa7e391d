"""Runs of `hf-minilm pretrain`, one after the other, each over processes forked from this one: it imports once.

    python forked_runs.py '[{"processes": 2, "words": ["pretrain", "--set=..."]}, {"rewind": FOLDER, "to": 4, ...}]'

It stops with the exit code of the first run that fails. With 0 processes a run has one and no launcher.
"""

import json
import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hf_minilm.training.pretrain  # noqa: F401 (so that the forked processes have all of it)
from hf_minilm.cli.main import main
from hf_minilm.training.processes import end_process

Leg = dict[str, Any]
"""One of the runs, or `rewound`, as `python forked_runs.py` reads it."""


def rewound(folder: Path, step: int, *, keep: str) -> Leg:
    """Make a run one that was killed after a step; what it was is kept beside it under another name."""
    return {"rewind": str(folder), "to": step, "keep": str(folder.parent / keep)}


def launch(function: Callable[[], int], processes: int) -> int:
    """Call a function in each of so many processes that can join, and give the greatest exit code."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    children = [fork(function, rank, processes, port) for rank in range(max(processes, 1))]
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) % 256 for child in children)


def fork(function: Callable[[], int], rank: int, processes: int, port: str) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        if processes:
            places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
            os.environ |= {name: str(value) for name, value in places.items()}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
        code = function()
        end_process(code)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def rewind(folder: Path, step: int, keep: Path) -> None:
    """Make a run's folder that of one which was killed after a step, and keep what it was."""
    shutil.copytree(folder, keep)
    for path in (folder / "checkpoints").iterdir():
        if int(path.name.removeprefix("checkpoint-")) > step:
            shutil.rmtree(path)
    shutil.rmtree(folder / "model")
    (folder / "report.txt").unlink()


if __name__ == "__main__":
    for each in json.loads(sys.argv[1]):
        if "rewind" in each:
            rewind(Path(each["rewind"]), each["to"], Path(each["keep"]))
            continue
        failed = launch(lambda words=each["words"]: main(words), each["processes"])
        if failed:
            sys.exit(failed)
