"""Measure what `hf-minilm import` costs beside loading the same model in transformers.

    python examples/measure_import.py path/to/a/native/model --runs 5

Each run is a process of its own, the kinds in turn. Seconds are of one thread's processor time, which other
processes on the machine change least, and of the clock; memory is the most that was resident. transformers maps the
file of weights and reads none of it until the model is run, so loading is also measured with a run on two tokens.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

LOADING = """
import sys
import torch
import transformers
config = transformers.AutoConfig.from_pretrained(sys.argv[1])
model = getattr(transformers, config.architectures[0]).from_pretrained(sys.argv[1])
if sys.argv[2] == "run":
    names = ["input_ids", "decoder_input_ids"] if config.is_encoder_decoder else ["input_ids"]
    with torch.no_grad():
        model(**dict.fromkeys(names, torch.tensor([[1, 2]])))
"""
KINDS = ("loaded", "loaded and run", "imported")
ROWS = ("processor seconds", "seconds", "memory, MiB")


class Cost(NamedTuple):
    """What a process took."""

    processor_seconds: float
    seconds: float
    mebibytes: float


def cost_of(command: list[str]) -> Cost:
    """Run a command in a process of its own.

    Its memory counts from that of this process, from which it is made: so nothing large is imported here.

    Raises:
        RuntimeError: If it fails, with what it said.
    """
    with tempfile.TemporaryFile() as said:
        start = time.monotonic()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"command ({' '.join(command)}) must succeed: {said.read().decode(errors='replace')}")
    return Cost(usage.ru_utime + usage.ru_stime, seconds, usage.ru_maxrss / 1024)


def measure(folder: str, runs: int) -> dict[str, list[Cost]]:
    """Load a model, load it and run it on two tokens, and import it, so many times in turn."""
    costs: dict[str, list[Cost]] = {kind: [] for kind in KINDS}
    for _ in range(runs):
        for kind in KINDS[:2]:
            costs[kind].append(cost_of([sys.executable, "-c", LOADING, folder, kind.split()[-1]]))
        with tempfile.TemporaryDirectory() as out:
            command = [sys.executable, "-m", "hf_minilm.cli.main", "import", folder, str(Path(out) / "ours")]
            costs["imported"].append(cost_of(command))
    return costs


def spread(values: list[float]) -> str:
    """Write a median and the range."""
    return f"{statistics.median(values):.4g} ({min(values):.4g} to {max(values):.4g})"


def main() -> int:
    """Print the table; the exit code is 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="folders of native models")
    parser.add_argument("--runs", type=int, default=5, help="processes of each kind")
    arguments = parser.parse_args()
    columns = ("Model", "What", *(kind.capitalize() for kind in KINDS), "Ratio to loaded", "Ratio to loaded and run")
    print("| " + " | ".join(columns) + " |", "|---" * len(columns) + "|", sep="\n")
    for folder in arguments.models:
        costs = measure(folder, arguments.runs)
        for row, what in enumerate(ROWS):
            values = [[cost[row] for cost in costs[kind]] for kind in KINDS]
            loaded, run, imported = map(statistics.median, values)
            ratios = f"{imported / loaded:.2f} | {imported / run:.2f}"
            print(f"| {folder} | {what} | {' | '.join(map(spread, values))} | {ratios} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
