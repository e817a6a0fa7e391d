"""`hf-minilm evaluate`: measure a saved model on suites; one JSON and one table."""

import argparse
import sys
from pathlib import Path

HELP = "Measure a model: held-out loss, minimal pairs, built-in probes, next sentences, classes, tags and answers."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument("model", nargs="?", help="folder or Hub name of a model, of this package or of transformers")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="what to measure, as pairs:FILES; see --list")
    parser.add_argument("--list", action="store_true", help="print the suites, and stop")
    parser.add_argument("--scoring", help="how sentences of pairs are scored: auto, masked, causal or hybrid; auto")
    parser.add_argument("--limit", type=int, metavar="NUMBER", help="most examples of a suite, or pairs of a paradigm")
    parser.add_argument("--length", type=int, metavar="TOKENS", help="most tokens of a window of held-out text; 128")
    parser.add_argument("--language", help="whose articles do not count in answers: en, es, de or hi; en")
    parser.add_argument(
        "--training-text",
        metavar="TEXT",
        help="what the model was trained on: then pairs:FILES also counts those that have no other words",
    )
    parser.add_argument("--seed", type=int, help="decides masks, samples and intervals; 0")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE.json",
        help="write all figures there, in the place of what the file holds; evaluation.json in the model's folder",
    )


def run(arguments: argparse.Namespace) -> int:
    """Carry out the subcommand; the exit code is 0."""
    from ..conversion import refuse_missing_folder
    from ..evaluation.evaluation_result import EVALUATION_FILE, written_suites
    from ..evaluation.provenance import describe_command
    from ..evaluation.saved_models import model_folder, open_model
    from ..evaluation.suites import SUITES, EvaluationSettings, check_suites, evaluate_model

    if arguments.list or arguments.model is None:
        print("\n".join(f"{suite.word(kind):<30}{suite.description}" for kind, suite in SUITES.items()))
        return 0
    chosen = {
        name: value
        for name, value in vars(arguments).items()
        if name in EvaluationSettings.__dataclass_fields__ and value is not None
    }
    labels = check_suites(arguments.suites, chosen=chosen)
    settings = EvaluationSettings(**chosen)
    output = arguments.output or (model_folder(arguments.model) or Path()) / EVALUATION_FILE
    refuse_missing_folder("--output", output)
    replaced = [suite for suite in written_suites(output) if suite not in labels]
    if replaced:
        print(f"{output} holds {', '.join(replaced)} and will be replaced", file=sys.stderr, flush=True)
    model, tokenizer = open_model(arguments.model)
    evaluation = evaluate_model(
        model,
        tokenizer,
        arguments.suites,
        settings=settings,
        command=describe_command(_words(arguments, chosen)),
        say=lambda suite: print(f"measuring {suite}", file=sys.stderr, flush=True),
    )
    print(evaluation.to_text(), end="")
    evaluation.save(output)
    print(f"\nAll figures lie in {output}")
    return 0


def _words(arguments: argparse.Namespace, chosen: dict[str, object]) -> list[str]:
    """Return the words of a command line that measures the same."""
    options = [word for name, value in chosen.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return ["hf-minilm", "evaluate", arguments.model, *arguments.suites, *options]
