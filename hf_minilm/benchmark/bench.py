"""A run of the bench: prepare what is read, hold one contest after the other, and report each when it is over."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..conversion import refuse_missing_folder
from ..evaluation.provenance import describe_versions
from ..training.recipe_values import nearest
from .contests import BY_DEFAULT, DESCRIPTIONS, Contest, build_contest
from .machine import Machine, measuring_device
from .processes import carry_out
from .report import FOOTNOTE, header, table, to_json, write_json
from .rounds import Results, hold
from .settings import BenchSettings
from .work import MachineWork, TrainingWork
from .working_folder import WorkingFolder, open_working_folder, prepare


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Give the contests that are asked for, in their own order; without a name, the usual ones.

    Raises:
        ValueError: If there is no such contest.
    """
    for name in names:
        if name not in DESCRIPTIONS:
            raise ValueError(
                f"contest ({name}) must be one of {', '.join(DESCRIPTIONS)}; did you mean "
                f"{nearest(name, [*DESCRIPTIONS])}?"
            )
    return tuple(name for name in DESCRIPTIONS if name in names) if names else BY_DEFAULT


def check_settings(names: Sequence[str], settings: BenchSettings) -> None:
    """Make sure, before anything is prepared, that our recipes can be built and that each of `peers` names a peer.

    Args:
        names: As `check_names` gives them.
        settings: What the user chose.

    Raises:
        ValueError: If a setting of our recipe is wrong or nobody's, or a text is in no name.
    """
    from .ours import check_recipe

    # With the peers of every precision: which of them take part is known once the machine is measured.
    machine = Machine(measuring_device().type, name="this one", threads=1, fast_bf16=True, **describe_versions())
    contests = [build_contest(name, replace(settings, peers=()), machine) for name in names]
    contestants = [each for contest in contests for each in contest.contestants]
    trained = [each.work for each in contestants if each.against is None and isinstance(each.work, TrainingWork)]
    if settings.recipe and not trained:
        raise ValueError(f"--set ({settings.recipe[0]}) must have a contest of training to act on; add one, as causal.")
    for work in trained:
        check_recipe(work)
    peers = [each.name for each in contestants if each.against is not None]
    for text in settings.peers:
        if not any(map(replace(settings, peers=(text,)).takes_part, peers)):
            known = ", ".join(dict.fromkeys(peers)) or "those of another contest"
            raise ValueError(f"--peers ({text}) must be words of a peer's name; choose from {known}.")


def run_bench(
    names: Sequence[str], settings: BenchSettings, *, folder: Path | None = None, output: Path | None = None
) -> bool:
    """Hold contests, and print a table of each.

    Args:
        names: As `check_names` gives them.
        settings: What the user chose.
        folder: Where the prepared corpus is kept; None for the cache.
        output: A file of JSON, written anew after each contest; None for none.

    Returns:
        Whether all contestants lived.

    Raises:
        ValueError: If the corpus or a setting cannot be used.
        OSError: If a file cannot be read or written.
    """
    refuse_missing_folder("--output", output)
    check_settings(names, settings)
    working_folder = open_working_folder(settings, folder)
    machine, rates = measure_machine(working_folder)
    contests = [build_contest(name, settings, machine) for name in names]
    prepare_all(contests, working_folder, settings)
    print(header(machine, settings, rates), flush=True)
    finished: list[Results] = []
    for contest in contests:
        if finished:
            _, rates = measure_machine(working_folder)
        results = hold(contest, settings.rounds, partial(carry_out, folder=working_folder), first_rates=rates)
        finished.append(results)
        print(f"\n{table(results)}", flush=True)
        if output is not None:
            write_json(output, to_json(machine, settings, finished))
    print(f"\n{FOOTNOTE}", flush=True)
    return all(results.all_lived for results in finished)


def measure_machine(folder: WorkingFolder) -> tuple[Machine, dict[str, float]]:
    """Describe the machine, and measure its matrix rates, in a process of their own.

    Raises:
        ChildProcessError: If that process dies.
    """
    outcome = carry_out(MachineWork(), folder)
    if outcome.figures is None:
        raise ChildProcessError(f"matrix rate (none) must be measured first, and its process died: {outcome.error}")
    figures: dict[str, Any] = outcome.figures
    return Machine(**figures["machine"]), figures["matrix_rates"]


def prepare_all(contests: Sequence[Contest], folder: WorkingFolder, settings: BenchSettings) -> None:
    """Make what all contestants read, so that none of them has to while it is measured."""
    for contest in contests:
        for contestant in contest.contestants:
            prepare(contestant.work, folder, vocabulary=settings.vocabulary)
