"""Does a folder, or a repository, open where the package is not installed, and compute what it computes here?"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from . import heads
from .heads import Place

_TOLERANCE = 1e-5
"""Largest difference, as a share of the largest output: the same code on the same processor differs by nothing."""
_LONGEST = 1800  # seconds
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@dataclass(frozen=True)
class Reopened:
    """What a process without the package made of a place.

    Attributes:
        heads: Through how many Auto classes it was opened.
        difference: The largest difference of an output from this process's.
        said: What the pipeline said.
    """

    heads: int
    difference: float
    said: str


def check_reopens(
    places: Sequence[Place], expected: Sequence[dict[str, torch.Tensor]], *, offline: bool
) -> tuple[Reopened, ...]:
    """Open places in a process that cannot import the package, and compare all their heads' outputs.

    Args:
        places: Folders, or repositories of the Hub; their own code is run.
        expected: What `heads.head_outputs` found here, for each place.
        offline: Whether the process may not ask the Hub; one that may has an empty cache, so that all is fetched.

    Raises:
        ValueError: If one does not open or computes something else.
    """
    with tempfile.TemporaryDirectory(prefix="hf-minilm-reopen-") as folder:
        job = Path(folder) / "job.json"
        job.write_text(heads.job(list(places)), encoding="utf-8")
        failure = _run([sys.executable, "-P", str(Path(heads.__file__)), str(job)], Path(folder), offline=offline)
        if failure is not None:
            names = ", ".join(place.name for place in places)
            raise ValueError(
                f"model ({names}) must open in a process without hf_minilm; save it with this version ({failure})."
            )
        said = json.loads((Path(folder) / "said.json").read_text(encoding="utf-8"))
        found = [load_file(Path(folder) / f"outputs-{number}.safetensors") for number in range(len(places))]
    return tuple(
        Reopened(len({name.split("/")[0] for name in here}), _difference(place, here, there), text)
        for place, here, there, text in zip(places, expected, found, said, strict=True)
    )


def _run(command: list[str], folder: Path, *, offline: bool) -> str | None:
    """Run a command in a folder, and return the last line of what it has against it, or None."""
    try:
        finished = subprocess.run(
            command,
            cwd=folder,
            env=_environment(folder, offline=offline),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LONGEST,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it took longer than {_LONGEST} seconds"
    if finished.returncode == 0:
        return None
    lines = finished.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit code {finished.returncode}"


def _environment(folder: Path, *, offline: bool) -> dict[str, str]:
    """Return this process's environment without GPUs and with places of its own for what it keeps."""
    kept = {name: value for name, value in os.environ.items() if name not in _OFFLINE}
    own = {"HF_HUB_CACHE": str(folder / "hub"), "HF_MODULES_CACHE": str(folder / "modules")}
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # the same ones, for the same bits
    return {**kept, **own, **threads, **(_OFFLINE if offline else {}), "CUDA_VISIBLE_DEVICES": ""}


def _difference(place: Place, here: dict[str, torch.Tensor], there: dict[str, torch.Tensor]) -> float:
    """Return the largest difference of any output, once all are the same but for rounding."""
    if here.keys() != there.keys():
        odd = sorted(here.keys() ^ there.keys())[0]
        raise ValueError(f"model ({place.name}) must have the same heads without hf_minilm; {odd} is not in both.")
    largest = 0.0
    for name, wanted in here.items():
        got = there[name]
        difference = float((got - wanted).abs().max()) if got.shape == wanted.shape else float("inf")
        if not difference <= _TOLERANCE * max(1.0, float(wanted.abs().max())):
            raise ValueError(
                f"output {name} of the model ({place.name}) must be the same without hf_minilm, and differs by "
                f"{difference:.2g}; save the model again with this version."
            )
        largest = max(largest, difference)
    return largest
