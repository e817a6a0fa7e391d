"""`hf-minilm resume-check`: prove that a killed run goes on as if nothing had happened, on this machine."""

import argparse
import json
import tempfile
from pathlib import Path

HELP = "Train, kill, go on, and compare with a training that was not killed, bit by bit."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument("recipe", nargs="?", help="a recipe in YAML; without one, that of the built-in corpus")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", help="replace one setting of the recipe"
    )
    parser.add_argument("--before", type=int, default=10, metavar="STEPS", help="until the kill; 10")
    parser.add_argument("--after", type=int, default=10, metavar="STEPS", help="after it; 10")
    parser.add_argument("--processes", type=int, default=1, metavar="NUMBER", help="that train together; 1")
    parser.add_argument(
        "--processes-after", type=int, metavar="NUMBER", help="that go on after the kill; as many as before"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there, too")


def run(arguments: argparse.Namespace) -> int:
    """Carry out the subcommand; the exit code is 0, or 1 if something differs."""
    from ..conversion import refuse_missing_folder
    from ..training.recipe import load_recipe
    from ..training.resume_check import Outcome, Plan, check_resume, to_json

    for name in ("before", "after", "processes", "processes_after"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} ({value}) must be at least 1; give a larger number.")
    refuse_missing_folder("--json", arguments.json)
    plan = Plan(
        load_recipe(arguments.recipe, arguments.set),
        arguments.before,
        arguments.after,
        arguments.processes,
        arguments.processes_after or arguments.processes,
    )
    with tempfile.TemporaryDirectory(prefix="hf-minilm-resume-check-") as folder:
        outcome: Outcome = check_resume(plan, Path(folder))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(to_json(plan, outcome), indent=1) + "\n", encoding="utf-8")
    how = "bit by bit" if plan.is_exact else "up to rounding"
    print(f"{plan.before} + {plan.after} steps in one go, against a kill -9 after step {outcome.killed_after}, {how}:")
    print(f"  losses of {outcome.losses} steps, {outcome.tensors} tensors of weights and moments")
    if outcome.difference is not None:
        print(f"  DIFFERENT: {outcome.difference}")
        return 1
    print(f"  equal; SHA-256 of the weights {outcome.sha256}")
    return 0
