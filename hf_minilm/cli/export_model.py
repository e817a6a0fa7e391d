"""`hf-minilm export`: make one of our models a native one, exactly, which opens wherever transformers is."""

import argparse
from pathlib import Path

HELP = "Make one of our models a native one, such as a BERT or a Llama, that computes the same."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument("model", help="folder or Hub name of one of our models")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to save it in, new or empty")
    parser.add_argument("--to", required=True, metavar="ARCHITECTURE", help="what to make of it, such as bert or llama")
    parser.add_argument("--revision", help="branch, tag or commit of a Hub name")


def run(arguments: argparse.Namespace) -> int:
    """Carry out the subcommand; the exit code is 0."""
    from ..conversion import refuse_used_folder, save, to_native

    refuse_used_folder(arguments.out)
    converted = to_native(arguments.model, arguments.to, revision=arguments.revision)
    save(converted, arguments.out)
    print(*converted.to_text(), f"saved: {arguments.out}", sep="\n")
    return 0
