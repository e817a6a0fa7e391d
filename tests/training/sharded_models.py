"""Checks of a small sharded model against a whole one, in processes forked from this one.

    python sharded_models.py PROCESSES [DEVICE [PROCESSES_OF_A_COPY]]

A vocabulary of 99 cannot be shared out evenly, nor can other sizes here; some processes of four hold nothing of some.
"""

import copy
import itertools
import sys
from typing import Any

import torch
import torch.distributed
from forked_runs import launch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from hf_minilm import MiniLMConfig, MiniLMForPreTraining
from hf_minilm.training.optimizer import build_optimizer
from hf_minilm.training.recipe import OptimizerSettings
from hf_minilm.training.sharded_muon import orthogonalise
from hf_minilm.training.sharding import WholeModel, shard_model

SIZES = {"vocab_size": 99, "hidden_size": 30, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 45}
STILL = {"hidden_dropout": 0.0, "attention_dropout": 0.0}
DEVICE = torch.device(sys.argv[2] if len(sys.argv) > 2 else "cpu")
COPY_SIZE = int(sys.argv[3] if len(sys.argv) > 3 else sys.argv[1])


def build(**fields: Any) -> MiniLMForPreTraining:
    torch.manual_seed(0)
    return MiniLMForPreTraining(MiniLMConfig.preset("bert", "tiny", **SIZES, **STILL, **fields)).to(DEVICE)


def add_gradient(model: Any, rows: slice, *, step: int, weight: float) -> torch.Tensor:
    """Add the gradient of some of eight rows, whose labels are not equally many."""
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(5, 99, (8, 13), generator=generator)
    labels = ids.masked_fill(torch.rand(ids.shape, generator=generator) < 0.1 * torch.arange(8)[:, None], -100)
    order = torch.arange(8, device=DEVICE) % 2
    ids, labels = ids.to(DEVICE), labels.to(DEVICE)
    counts = {"num_items_in_batch": (labels != -100).sum(), "num_sequences_in_batch": 8}
    loss = model(input_ids=ids[rows], labels=labels[rows], next_sentence_label=order[rows], **counts).loss
    (weight * loss).backward()
    return loss.detach()


def check(*, tied: bool, name: Any, bf16: bool) -> None:
    rank, processes = torch.distributed.get_rank(), torch.distributed.get_world_size()
    model = build(tie_word_embeddings=tied)
    twin, whole = copy.deepcopy(model), WholeModel(model)
    assert all(parameter.is_meta for parameter in whole.model.parameters())
    mesh = shard_model(model, DEVICE, num_processes=processes, copy_size=COPY_SIZE)
    assert mesh.shape == ((processes,) if processes == COPY_SIZE else (processes // COPY_SIZE, COPY_SIZE))
    settings = OptimizerSettings(name=name, learning_rate=1e-2, weight_decay=0.1)
    optimizer, other = build_optimizer(model, settings), build_optimizer(twin, settings)
    rows = 8 // processes
    micro_batches = [slice(start, start + 1) for start in range(rank * rows, rank * rows + rows)]
    tolerance = {"rtol": 1e-4, "atol": 2e-2 if bf16 else 2e-5}
    for step in range(3):
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=bf16):
            sums = [add_gradient(model, part, step=step, weight=processes) for part in micro_batches]
            expected = add_gradient(twin, slice(0, 8), step=step, weight=1)
        found = torch.stack(sums).sum()
        torch.distributed.all_reduce(found)
        torch.testing.assert_close(found, expected, rtol=2e-2 if bf16 else 2e-6, atol=0)
        compare_gradients(model, twin, **tolerance)
        norms = [torch.nn.utils.clip_grad_norm_(each.parameters(), 0.5) for each in (model, twin)]
        assert norms[1] > 0.5
        torch.testing.assert_close(norms[0].full_tensor(), norms[1], rtol=2e-2 if bf16 else 1e-5, atol=0)
        compare_gradients(model, twin, **tolerance)
        give_gradients(model, twin)  # what is left to rounding grows in the first steps of both optimizers
        for each in (optimizer, other):
            each.step()
            each.zero_grad()
    assert (model.lm_head.weight is model.model.embeddings.tokens.weight) == tied
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    assert sum(p.to_local().numel() for p in model.parameters()) < 1.1 * model.num_parameters() / COPY_SIZE + 99
    check_gathered(model, twin, whole, optimizer, other, settings)


def compare_gradients(model: Any, twin: Any, **tolerance: float) -> None:
    for (label, parameter), answer in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert isinstance(parameter.grad, DTensor), label
        gathered = parameter.grad.full_tensor()
        torch.testing.assert_close(gathered, answer.grad, **tolerance, msg=lambda text, label=label: f"{label}: {text}")


def give_gradients(model: Any, twin: Any) -> None:
    for parameter, answer in zip(model.parameters(), twin.parameters(), strict=True):
        parameter.grad = distribute_tensor(answer.grad, parameter.device_mesh, parameter.placements)


def check_gathered(model: Any, twin: Any, whole: WholeModel, optimizer: Any, other: Any, settings: Any) -> None:
    with whole.gathered(model):
        gathered = dict(whole.model.named_parameters())
        assert gathered.keys() == dict(twin.named_parameters()).keys()
        for label, answer in twin.named_parameters():
            assert type(gathered[label]) is torch.nn.Parameter
            torch.testing.assert_close(gathered[label], answer, rtol=0, atol=1e-6)
        full = whole.gather_optimizer(optimizer, settings, keeps=True)
        assert type(full) is type(other)
        for group, answer in zip(full.param_groups, other.param_groups, strict=True):
            assert group["param_names"] == answer["param_names"]
            for label, mine, yours in zip(group["param_names"], group["params"], answer["params"], strict=True):
                assert full.state.get(mine, {}).keys() == other.state.get(yours, {}).keys(), label
                for key, value in other.state.get(yours, {}).items():
                    torch.testing.assert_close(full.state[mine][key], value.cpu(), rtol=0, atol=1e-6)
        ids = torch.arange(5, 18, device=DEVICE)[None]
        torch.testing.assert_close(
            whole.model.eval()(input_ids=ids).prediction_logits,
            twin.eval()(input_ids=ids).prediction_logits,
            rtol=0,
            atol=1e-4,
        )
    assert all(parameter.is_meta for parameter in whole.model.parameters())


def check_exchange(shapes: list[torch.Size]) -> None:
    """A sum down the columns needs all rows; there may be fewer matrices, or rows of one, than processes."""
    mesh = init_device_mesh(DEVICE.type, (torch.distributed.get_world_size(),))
    matrices = [torch.arange(1.0, 1 + shape.numel(), device=DEVICE).view(shape) for shape in shapes]
    rows = [distribute_tensor(matrix, mesh, [Shard(0)]).to_local() for matrix in matrices]
    found = orthogonalise(rows, shapes, mesh.get_group(), lambda wholes: [whole.cumsum(dim=0) for whole in wholes])
    for matrix, part in zip(matrices, found, strict=True):
        assert torch.equal(part, distribute_tensor(matrix.cumsum(dim=0), mesh, [Shard(0)]).to_local())


def check_all() -> int:
    torch.distributed.init_process_group("nccl" if DEVICE.type == "cuda" else "gloo")
    check_exchange([torch.Size((5, 3))])
    check_exchange([torch.Size(each) for each in [(5, 3), (1, 4), (7, 2), (8, 8), (3, 9)]])
    for tied, name, bf16 in itertools.product((True, False), ("adamw", "muon"), (False, True)):
        check(tied=tied, name=name, bf16=bf16)
    return 0


if __name__ == "__main__":
    sys.exit(launch(check_all, int(sys.argv[1])))
