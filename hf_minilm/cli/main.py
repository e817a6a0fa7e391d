"""The command `hf-minilm`: one subcommand a task; a user's mistake is one line and exit code 2."""

import argparse
import signal
import sys
import traceback
from collections.abc import Sequence

from .. import __version__
from ..one_line import one_line
from . import bench, card, check, evaluate, export_model, import_model, plot, pretrain, push, resume_check, view

SUBCOMMANDS = {
    "pretrain": pretrain,
    "resume-check": resume_check,
    "evaluate": evaluate,
    "view": view,
    "plot": plot,
    "check": check,
    "bench": bench,
    "import": import_model,
    "export": export_model,
    "card": card,
    "push": push,
}

_LONGEST_LINE = 2_000  # characters


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        arguments: The words after the command's name; None: those of the command line.

    Returns:
        The exit code: 0; 1 where what was checked does not hold; 2 for a mistake that one line explains; 128 + the
        signal's number where one stopped it, as 130 for Ctrl-C.
    """
    parser = argparse.ArgumentParser(prog="hf-minilm", description="Small language models of your own.")
    parser.add_argument("--version", action="version", version=f"hf-minilm {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in SUBCOMMANDS.items():
        module.add_arguments(subparsers.add_parser(name, help=module.HELP, description=module.HELP))
    parsed = parser.parse_args(arguments)
    try:
        return SUBCOMMANDS[parsed.command].run(parsed)
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        print(f"hf-minilm: {one_line(error, _LONGEST_LINE)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "hf-minilm: interrupted; the same command starts again, or goes on from the last checkpoint",
            file=sys.stderr,
        )
        return 128 + signal.SIGINT


if __name__ == "__main__":
    from ..training.processes import end_process

    try:
        code = main()
    except Exception:
        traceback.print_exc()
        code = 1
    end_process(code)
    sys.exit(code)
