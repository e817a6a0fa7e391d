"""`hf-minilm card`: write the cards of finished runs from their recipes and results."""

import argparse
from pathlib import Path

from .push import add_statements

HELP = "Write the model card of each run from its recipe and its results."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="folder of a run or of a model")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="write NAME.md, NAME.png and NAME.yaml of each run there; without it, README.md beside each model",
    )
    parser.add_argument("--repo-id", metavar="REPO_ID", help="where the one model is, or will be, on the Hub")
    add_statements(parser)


def run(arguments: argparse.Namespace) -> int:
    """Carry out the subcommand; the exit code is 0."""
    from ..hub.card import describe, save_card
    from ..hub.record import CARD_FILE, Statements, check_hub_name, read_record

    if arguments.repo_id is not None and len(arguments.models) > 1:
        raise ValueError(f"--repo-id ({arguments.repo_id}) must go with one model; leave it out, or give one.")
    check_hub_name("--repo-id", arguments.repo_id)
    statements = Statements(arguments.license, arguments.data_license, tuple(arguments.language), arguments.base_model)
    records = [read_record(model) for model in arguments.models]
    names = [record.name for record in records]
    twice = next((name for name in names if names.count(name) > 1), None)
    if arguments.output is not None and twice is not None:
        raise ValueError(f"name of a run ({twice}) must be given once with --output; write the cards in two commands.")
    for record in records:
        described = describe(record, statements=statements, repo_id=arguments.repo_id)
        name = CARD_FILE if arguments.output is None else f"{record.name}.md"
        print(save_card(described, arguments.output or record.model_folder, name=name))
    return 0
