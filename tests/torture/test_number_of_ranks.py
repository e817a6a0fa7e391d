"""R3, R4 and R17: rows, masks, rates and gradients of a step are the same for any number of ranks, and none waits.

All in one process: the parts of the ranks are made one after the other by the functions that the loop uses.
"""

import contextlib
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from jobs import OBJECTIVES, STILL, words, write_corpora
from tries import MARKS, Row

from hf_minilm.data.objectives import Batch, Objective
from hf_minilm.data.order import RowKey, RowOrder, share
from hf_minilm.data.sequences import IGNORED
from hf_minilm.training.checkpoint import TrainingState
from hf_minilm.training.gradient import add_up_gradient, count_labels, own_parts, part_of
from hf_minilm.training.loop import set_rate
from hf_minilm.training.preparation import Data, build_model, prepare_data
from hf_minilm.training.recipe import Recipe, load_recipe

pytestmark = MARKS

WORLDS = (1, 2, 3, 4, 8)
SCHEDULES = ("cosine", "linear", "wsd", "noam", "constant")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    write_corpora(folder)
    return folder


def prepared(folder: Path, settings: dict[str, str]) -> tuple[Recipe, Data]:
    """A recipe and its data; runs with the same objective share a tokenizer."""
    name = f"{settings.get('objective.name', 'masked')}"
    overrides = [word.removeprefix("--set=") for word in words(folder / name, settings)[1:]]
    recipe = load_recipe(None, [*overrides, f"data.cache_folder={folder / 'cache'}"])
    (folder / name).mkdir(exist_ok=True)
    return recipe, prepare_data(recipe, folder / name, quiet=True)


def batches_of(
    recipe: Recipe, objective: Objective, rows: list[RowKey], *, step: int, rank: int, world: int
) -> list[Batch]:
    """The micro-batches of one of the ranks."""
    processes: Any = SimpleNamespace(index=rank, number=world)
    parts = own_parts(objective, recipe.training, processes, rows=rows, step=step)
    return [batch for part in parts for batch in part.batches]


def figures_of_step(recipe: Recipe, objective: Objective, step: int, *, world: int) -> dict[str, Any]:
    """The rate, the rows, their tokens and the masked ones of a step."""
    order = RowOrder(objective.rows_in_epoch, recipe.training.batch_rows, seed=recipe.training.seed)
    rows, found = order.rows(step), list[list[int]]()
    predicted, rates, sizes = 0, set(), set()
    for rank in range(world):
        optimizer = torch.optim.SGD([torch.zeros(1)])
        batches = batches_of(recipe, objective, rows, step=step, rank=rank, world=world)
        predicted += count_labels([part_of(rank, batches)])[0]
        found += [
            [*ids[labels != IGNORED].tolist(), *labels.tolist()]
            for batch in batches
            for ids, labels in zip(batch[_ids_of(batch)], batch["labels"], strict=True)
        ]
        state = TrainingState(step, tokens=step * len(rows) * objective.positions_per_row, seconds=0.0, recipe={})
        training: Any = SimpleNamespace(recipe=recipe, objective=objective, optimizer=optimizer)
        rates.add((set_rate(training, state), optimizer.param_groups[0]["lr"]))
        sizes.add(sum(len(batch["labels"]) for batch in batches))
    return {"rows": rows, "rates": rates, "predicted": predicted, "rows' ids": found}


def _ids_of(batch: Batch) -> str:
    return "input_ids" if batch["input_ids"].shape == batch["labels"].shape else "labels"


def test_rates_rows_and_masks_are_functions_of_the_step_whatever_the_number_of_ranks(folder: Path) -> None:
    with Row("R3", tries=1000, few=40) as row:
        for _ in range(row.tries):
            name = row.random.choice(list(OBJECTIVES))
            budget = row.random.choice(
                [f"{row.random.randrange(20, 400)}steps", f"{row.random.randrange(50, 900)}ktokens"]
            )
            settings = {
                **OBJECTIVES[name],
                "training.batch_rows": f"{row.random.randrange(8, 30)}",
                "training.micro_batch_rows": row.random.choice(["null", "1", "2", "3"]),
                "training.seed": f"{row.random.randrange(2**32)}",
                "training.budget": budget,
                "optimizer.schedule": row.random.choice(SCHEDULES),
                "optimizer.warmup_share": f"{row.random.uniform(0.01, 0.5)}",
            }
            with row.attempt(f"{settings}"):
                recipe, data = prepared(folder, settings)
                for step in row.random.sample(range(20), 3):
                    one = figures_of_step(recipe, data.train, step, world=1)
                    for world in WORLDS[1:]:
                        assert figures_of_step(recipe, data.train, step, world=world) == one, f"step {step}, {world}"


def with_few_labels(batches: Sequence[Batch], row: Row) -> list[Batch]:
    """Leave from 1 to 31 labels in each row."""
    thinned = []
    for batch in batches:
        labels = batch["labels"].clone()
        for line in labels:
            places = (line != IGNORED).nonzero().flatten().tolist()
            kept = row.random.sample(places, min(row.random.randrange(1, 32), len(places)))
            line[[place for place in places if place not in kept]] = IGNORED
        thinned.append({**batch, "labels": labels})
    return thinned


def gradient(recipe: Recipe, model: torch.nn.Module, shares: list[list[Batch]]) -> torch.Tensor:
    """The gradient of a step that so many ranks share, each with its micro-batches."""
    world, parts = len(shares), [part_of(rank, batches) for rank, batches in enumerate(shares)]
    predicted, sequences = count_labels(parts)
    arguments: dict[str, float] = {"num_items_in_batch": predicted}
    if parts[0].sequences is not None:
        arguments["num_sequences_in_batch"] = sequences
    accelerator: Any = SimpleNamespace(
        device=torch.device("cpu"),
        no_sync=lambda model: contextlib.nullcontext(),
        backward=lambda loss: loss.backward(),
    )
    model.zero_grad()
    for part in parts:
        processes: Any = SimpleNamespace(index=part.number, number=world)
        add_up_gradient(
            model,
            [part],
            accelerator=accelerator,
            processes=processes,
            settings=recipe.training,
            step=0,
            arguments=arguments,
        )
    # What data-parallel training does: the mean over the ranks.
    return torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None]) / world


def divided(batch: Batch, sizes: Sequence[int]) -> list[Batch]:
    """Cut a batch into others of so many rows."""
    parts = {name: values.split(list(sizes)) for name, values in batch.items()}
    return [{name: parts[name][index] for name in batch} for index in range(len(sizes))]


def random_sizes(total: int, number: int, row: Row) -> list[int]:
    """Divide a number of rows at random places; no part is empty."""
    places = [0, *sorted(row.random.sample(range(1, total), number - 1)), total]
    return [stop - start for start, stop in itertools.pairwise(places)]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_gradient_is_that_of_one_big_batch_however_it_is_divided(folder: Path, name: str) -> None:
    with Row("R4", name, tries=50, few=12) as row:
        recipe, data = prepared(folder, {**OBJECTIVES[name], **STILL, "training.batch_rows": "16"})
        model = build_model(recipe, data.tokenizer, attention="sdpa").double().train()
        for step in range(row.tries):
            world = row.random.choice(WORLDS)
            with row.attempt(f"step {step}, {world} ranks"):
                order = RowOrder(data.train.rows_in_epoch, 16, seed=step)
                (whole,) = with_few_labels([data.train.batch(step, order.rows(step))], row)
                shares = []
                for part in divided(whole, random_sizes(16, world, row)):
                    size = len(part["labels"])
                    shares.append(divided(part, random_sizes(size, row.random.randrange(1, size + 1), row)))
                expected = gradient(recipe, model, [[whole]])
                found = gradient(recipe, model, shares)
                error = float((found - expected).norm() / expected.norm())
                row.measure("error x 1e15", error * 1e15)
                assert error < 1e-6, f"relative error {error:.2e}"


def test_each_row_is_seen_once_an_epoch_and_every_rank_has_one_of_each_step() -> None:
    with Row("R17", tries=400, few=400) as row:
        for _ in range(row.tries):
            epochs = [row.random.randrange(1, 71) for _ in range(4)]
            world = row.random.randrange(1, 5)
            batch = row.random.randrange(world, 10)
            with row.attempt(f"epochs of {epochs} rows, {batch} a step, {world} ranks"):
                order = RowOrder(lambda epoch, epochs=epochs: epochs[epoch % 4], batch, seed=row.random.randrange(99))
                seen, number = Counter[RowKey](), order.num_steps(4)
                for step in range(number):
                    parts = [share(order.rows(step), rank, num_processes=world) for rank in range(world)]
                    assert all(parts), "a rank has nothing to do, and the others would wait for it"
                    seen.update(key for part in parts for key in part)
                expected = Counter(RowKey(epoch, each) for epoch, rows in enumerate(epochs) for each in range(rows))
                assert {key: count for key, count in seen.items() if key.epoch < 4} == expected


@pytest.mark.parametrize("name", OBJECTIVES)
def test_each_row_of_an_objective_is_seen_once_an_epoch_by_any_number_of_ranks(folder: Path, name: str) -> None:
    with Row("R17", name, tries=100, few=10) as row:
        for _ in range(row.tries):
            world, seed = row.random.randrange(1, 5), row.random.randrange(2**32)
            settings = {"training.batch_rows": f"{row.random.randrange(world, 10)}", "training.seed": f"{seed}"}
            with row.attempt(f"{settings}, {world} ranks"):
                recipe, data = prepared(folder, {**OBJECTIVES[name], **settings})
                order = RowOrder(data.train.rows_in_epoch, recipe.training.batch_rows, seed=seed)
                rows, numbers = Counter[RowKey](), list[int]()
                for step in range(order.num_steps(1)):
                    for rank in range(world):
                        batches = batches_of(recipe, data.train, order.rows(step), step=step, rank=rank, world=world)
                        numbers.append(sum(len(batch["labels"]) for batch in batches))
                    rows.update(order.rows(step))
                assert min(numbers) >= 1
                assert sum(numbers) == rows.total()
                first = Counter({key: count for key, count in rows.items() if key.epoch == 0})
                assert first == Counter(RowKey(0, each) for each in range(data.train.rows_in_epoch(0)))
