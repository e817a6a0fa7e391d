"""The gradient of a step does not depend on how its rows are divided, in a fixed tree not even in its last bits."""

import copy
from typing import Any

import pytest
import torch
from accelerate import Accelerator, debug_launcher

from hf_minilm import MiniLMConfig, MiniLMForMaskedLM
from hf_minilm.data.order import RowKey, share
from hf_minilm.training.gradient import add_up_gradient, count_labels, own_parts, part_of
from hf_minilm.training.processes import Processes
from hf_minilm.training.recipe import TrainingSettings

ROWS, LENGTH, VOCABULARY = 8, 12, 31


class Rows:
    """Rows with unequal numbers of labels, each a function of its number alone."""

    row_length = positions_per_row = LENGTH

    def batch(self, step: int, rows: list[RowKey]) -> dict[str, torch.Tensor]:
        batches = [self._row(key.row) for key in rows]
        return {name: torch.stack([row[name] for row in batches]) for name in batches[0]}

    def _row(self, row: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(row)
        ids = torch.randint(VOCABULARY, (LENGTH,), generator=generator)
        return {"input_ids": ids, "labels": torch.where(torch.arange(LENGTH) <= row, ids, -100)}


def model_with_dropout(dropout: float) -> MiniLMForMaskedLM:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = MiniLMConfig(vocab_size=VOCABULARY, hidden_dropout=dropout, **sizes)
    return MiniLMForMaskedLM(config).train()


def gradient(model: torch.nn.Module, **settings: Any) -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
    """Compute the gradient of a step of eight rows in one process or in those that call it together."""
    training, processes = TrainingSettings(batch_rows=ROWS, **settings), Processes()
    rows = [RowKey(0, row) for row in range(ROWS)]
    parts = own_parts(Rows(), training, processes, rows=rows, step=3)  # type: ignore[arg-type]
    labels = processes.gather(count_labels(parts))[:, 0].sum().item()
    accelerator = Accelerator(cpu=True)
    prepared = accelerator.prepare(model)
    losses = add_up_gradient(
        prepared,
        parts,
        accelerator=accelerator,
        processes=processes,
        settings=training,
        step=3,
        arguments={"num_items_in_batch": labels},
    )
    return torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None]), losses


def expected_gradient(model: MiniLMForMaskedLM) -> torch.Tensor:
    """Backpropagate the mean over all labels of all rows at once, as torch computes it from the logits."""
    batch = Rows().batch(0, [RowKey(0, row) for row in range(ROWS)])
    logits = model(input_ids=batch["input_ids"]).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten()).backward()
    return torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])


@pytest.mark.parametrize("micro_batch_rows", [None, 1, 3])
@pytest.mark.parametrize("gradient_parts", [None, 1, 2, 8])
def test_any_division_of_a_step_gives_the_mean_over_all_its_labels(
    micro_batch_rows: int | None, gradient_parts: int | None
) -> None:
    model = model_with_dropout(0.0)
    expected = expected_gradient(copy.deepcopy(model))
    found, losses = gradient(model, micro_batch_rows=micro_batch_rows, gradient_parts=gradient_parts)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    assert len(losses) == (gradient_parts or 1)


def test_parts_are_added_up_two_by_two_and_not_one_after_the_other() -> None:
    model = model_with_dropout(0.3)
    parts = [gradient_of_part(copy.deepcopy(model), number) for number in range(4)]
    found, _ = gradient(model, gradient_parts=4)
    assert torch.equal(found, (parts[0] + parts[1]) + (parts[2] + parts[3]))
    assert not torch.equal(found, ((parts[0] + parts[1]) + parts[2]) + parts[3])


def gradient_of_part(model: torch.nn.Module, number: int) -> torch.Tensor:
    settings = TrainingSettings(batch_rows=ROWS)
    rows = share([RowKey(0, row) for row in range(ROWS)], number, num_processes=4)
    part = part_of(number, [Rows().batch(3, rows)])
    labels = sum(count_labels([part_of(0, [Rows().batch(3, [RowKey(0, row)])])])[0] for row in range(ROWS))
    add_up_gradient(
        model,
        [part],
        accelerator=Accelerator(cpu=True),
        processes=Processes(),
        settings=settings,
        step=3,
        arguments={"num_items_in_batch": labels},
    )
    return torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])


def _write_gradient(folder: str) -> None:
    torch.set_num_threads(1)
    found, _ = gradient(model_with_dropout(0.3), gradient_parts=8)
    processes = Processes()
    torch.save(found, f"{folder}/{processes.number}-{processes.index}.pt")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_one_two_and_four_processes_have_the_same_bits_with_dropout_on(tmp_path) -> None:
    for number in (1, 2, 4):
        debug_launcher(_write_gradient, args=(str(tmp_path),), num_processes=number)
    gradients = {path.stem: torch.load(path) for path in sorted(tmp_path.iterdir())}
    assert list(gradients) == ["1-0", "2-0", "2-1", "4-0", "4-1", "4-2", "4-3"]
    assert {torch.equal(gradients["1-0"], each) for each in gradients.values()} == {True}
