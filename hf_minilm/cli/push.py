"""`hf-minilm push`: publish a model on the Hub, with its code, its recipe and a card."""

import argparse
from pathlib import Path

HELP = "Publish a model on the Hub, with its code, its recipe and a card that says what was measured."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder of a run or of a model")
    parser.add_argument("repo_id", metavar="REPO_ID", help="owner/name on the Hub; made, and private, if need be")
    parser.add_argument(
        "--dry-run", type=Path, metavar="FOLDER", help="write into this folder what would be uploaded, and stop"
    )
    parser.add_argument("--public", action="store_true", help="let everybody read it once all of it is there")
    parser.add_argument("--checkpoints", action="store_true", help="give each checkpoint of the run a branch")
    parser.add_argument("--tag", metavar="NAME", help="name the commit, as v1")
    add_statements(parser)


def add_statements(parser: argparse.ArgumentParser) -> None:
    """Declare what a card says and no run can measure; without it the recipe's section `card` says it."""
    parser.add_argument("--license", metavar="NAME", help="licence of the model, as the Hub names it: apache-2.0")
    parser.add_argument("--data-license", metavar="NAME", help="licence of the text that it was trained on, likewise")
    parser.add_argument(
        "--language", action="append", default=[], metavar="CODE", help="language by its ISO 639 code; may be repeated"
    )
    parser.add_argument("--base-model", metavar="REPO_ID", help="the Hub's name of the model that it was made from")


def run(arguments: argparse.Namespace) -> int:
    """Carry out the subcommand; the exit code is 0."""
    from ..hub.record import Statements
    from ..hub.upload import Plan, dry_run, push

    statements = Statements(arguments.license, arguments.data_license, tuple(arguments.language), arguments.base_model)
    plan = Plan(arguments.model, arguments.repo_id, statements, arguments.public, arguments.checkpoints, arguments.tag)
    if arguments.dry_run is not None:
        dry_run(plan, arguments.dry_run)
        print(arguments.dry_run)
    else:
        print(push(plan))
    return 0
