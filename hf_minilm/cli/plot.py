"""`hf-minilm plot`: the curves of one run, or of several to compare."""

import argparse
from pathlib import Path

HELP = "Draw losses, learning rates, gradient norms and throughput of one run, or of several to compare."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, or their metrics.jsonl")
    parser.add_argument("--output", type=Path, default=Path("plot.png"), help="the picture, .png or .svg; plot.png")
    parser.add_argument("--over", choices=["tokens", "step", "seconds"], default="tokens", help="the x axis; tokens")


def run(arguments: argparse.Namespace) -> int:
    """Carry out the subcommand; the exit code is 0."""
    from ..training.curves import draw_runs, read_run

    drawn = draw_runs([read_run(path) for path in arguments.runs], arguments.output, over=arguments.over)
    print("\n".join(drawn))
    return 0
