"""`hf-minilm bench`: measure our models beside the peers that a user would take otherwise, and print the ratios."""

import argparse
from pathlib import Path
from typing import Any

HELP = "Measure our models beside transformers' own, in turn on this machine, and print the ratios."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument("contests", nargs="*", metavar="CONTEST", help="what to measure; all but utilisation without")
    parser.add_argument("--list", action="store_true", help="print the contests, and stop")
    parser.add_argument("--corpus", help="text to train on and to encode, as data.corpus of a recipe; builtin:docs")
    parser.add_argument("--size", help="layers, width and heads of all models: tiny, mini, small or base; mini")
    _add_numbers(parser)
    parser.add_argument(
        "--peers", action="append", metavar="TEXT", help="leave out peers whose name does not have these words"
    )
    parser.add_argument(
        "--set", action="append", dest="recipe", metavar="SECTION.FIELD=VALUE", help="one setting of our recipe"
    )
    parser.add_argument(
        "--set-peer", action="append", dest="trainer", metavar="FIELD=VALUE", help="one of tuned peers' Trainer"
    )
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="write all figures there")
    parser.add_argument("--folder", type=Path, help="keep the prepared corpus there; without, among the caches")


def _add_numbers(parser: argparse.ArgumentParser) -> None:
    for name, meaning in (
        ("rounds", "how often each contestant is measured; 3"),
        ("steps", "measured steps of a training; 12 on a CPU, 150 on CUDA"),
        ("rows", "rows of a training step; 16"),
        ("length", "most tokens of a row; 128"),
        ("vocabulary", "tokens of the vocabulary; 30522"),
        ("texts", "texts that are encoded; 2000"),
        ("new-tokens", "tokens that are generated; 256"),
    ):
        parser.add_argument(f"--{name}", type=int, metavar="NUMBER", help=meaning)


def run(arguments: argparse.Namespace) -> int:
    """Carry out the subcommand; the exit code is 0, or 1 if a contestant died."""
    from ..benchmark.bench import check_names, run_bench
    from ..benchmark.contests import DESCRIPTIONS
    from ..benchmark.settings import BenchSettings

    if arguments.list:
        print("\n".join(f"{name:<22}{description}" for name, description in DESCRIPTIONS.items()))
        return 0
    names = check_names(arguments.contests)
    chosen: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(arguments).items()
        if name in BenchSettings.__dataclass_fields__ and value is not None
    }
    lived = run_bench(names, BenchSettings(**chosen), folder=arguments.folder, output=arguments.output)
    return 0 if lived else 1
