"""`hf-minilm pretrain`: train a model on a text, or go on with a training that stopped."""

import argparse

HELP = "Train a model on a text, or go on with a training that stopped."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument("recipe", nargs="?", help="a recipe in YAML; without one, the built-in corpus is trained on")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", help="replace one setting of the recipe"
    )
    parser.add_argument(
        "--accept-changes",
        action="store_true",
        help="go on with the folder's run although its recipe or its text was another, as with a larger budget",
    )
    parser.add_argument("--print-recipe", action="store_true", help="print all settings with their meaning, and stop")


def run(arguments: argparse.Namespace) -> int:
    """Carry out the subcommand; the exit code is 0, or 128 + the number of the signal that stopped the training."""
    from ..training.recipe import describe_recipe, load_recipe

    recipe = load_recipe(arguments.recipe, arguments.set)
    if arguments.print_recipe:
        print(describe_recipe(recipe), end="")
        return 0
    from ..hub.card import save_run_card
    from ..training.launch import ask_for_reproducible_products
    from ..training.loop import Stopped
    from ..training.memory import keep_freed_memory
    from ..training.pretrain import pretrain

    keep_freed_memory()
    ask_for_reproducible_products()
    try:
        report = pretrain(recipe, accept_changes=arguments.accept_changes)
    except Stopped as stopped:
        print(f"hf-minilm: {stopped}")
        return 128 + stopped.signal_number
    if report:  # of several processes, the main one's
        save_run_card(recipe.output_folder)
        print(report, end="")
    return 0
