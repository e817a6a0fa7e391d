"""`hf-minilm import`: make a native model one of ours, exactly."""

import argparse
from pathlib import Path

HELP = "Make a native model, such as a BERT or a Llama, one of ours that computes the same."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument("model", help="folder or Hub name of a native model")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to save it in, new or empty")
    parser.add_argument("--revision", help="branch, tag or commit of a Hub name")


def run(arguments: argparse.Namespace) -> int:
    """Carry out the subcommand; the exit code is 0."""
    from ..conversion import from_native, refuse_used_folder, save

    refuse_used_folder(arguments.out)
    converted = from_native(arguments.model, revision=arguments.revision)
    save(converted, arguments.out)
    print(*converted.to_text(), f"saved: {arguments.out}", sep="\n")
    return 0
