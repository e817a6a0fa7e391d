"""What a process settles before it trains: how many there are, the arithmetic and the attention kernel."""

import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, DynamoBackend

from hf_minilm import MiniLMConfig, MiniLMSeq2SeqConfig
from hf_minilm.data.order import share
from hf_minilm.training import launch
from hf_minilm.training.launch import (
    bf16_speedup,
    check_gpus,
    check_micro_batches,
    check_plugins,
    check_processes,
    check_rows,
    fix_order_of_sums,
    resolve_attention,
    resolve_precision,
    set_threads,
)
from hf_minilm.training.recipe import TrainingSettings, load_recipe


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Pretend to have a GPU, recent or not, or a CPU with tiles, or with bf16 so much faster, or neither."""

    def pretend(*, cuda: bool = False, recent: bool = True, amx: bool = False, speedup: float | None = None) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation or recent)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0) if recent else (7, 5))
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: speedup is not None)
        monkeypatch.setattr(launch, "bf16_speedup", lambda: speedup)

    return pretend


def test_bf16_is_chosen_where_the_hardware_is_fast_at_it(machine):
    chosen = []
    recent, older = {"cuda": True}, {"cuda": True, "recent": False}
    for hardware in (recent, older, {"amx": True}, {"speedup": 2.5}, {"speedup": 0.8}, {}):
        machine(**hardware)
        chosen.append(resolve_precision("auto"))
    assert chosen == ["bf16", "fp32", "bf16", "bf16", "fp32", "fp32"]
    assert resolve_precision("bf16") == "bf16"


def test_the_speed_of_bf16_is_measured_once():
    assert bf16_speedup() > 0
    assert bf16_speedup() == bf16_speedup()


@pytest.mark.parametrize(
    ("cuda", "precision", "row_length", "expected"),
    [
        (False, "bf16", 128, "eager"),
        (False, "bf16", 1024, "sdpa"),
        (False, "no", 128, "sdpa"),
        (True, "bf16", 128, "minilm_varlen"),
        (True, "no", 128, "sdpa"),
    ],
)
def test_attention_is_the_one_that_trains_fastest(machine, cuda, precision, row_length, expected):
    machine(cuda=cuda, amx=True)
    settings = {"precision": precision, "row_length": row_length, "config": MiniLMConfig()}
    assert resolve_attention("auto", **settings) == expected
    for asked in ("sdpa", "eager"):
        assert resolve_attention(asked, **settings) == asked


def test_a_gpu_without_the_kernel_for_unequal_lengths_has_sdpa(machine):
    machine(cuda=True, recent=False)
    assert resolve_attention("auto", precision="bf16", row_length=128, config=MiniLMConfig()) == "sdpa"


@pytest.mark.parametrize(
    "config",
    [
        MiniLMConfig(attention_dropout=0.1),
        MiniLMConfig(position_embedding="alibi"),
        MiniLMConfig(head_dim=20),
        MiniLMConfig(head_dim=264),
        MiniLMConfig(cross_attention_hidden_size=8),
        MiniLMSeq2SeqConfig.preset("modern", "tiny"),
    ],
    ids=["dropout", "bias", "odd head", "large head", "another text", "encoder-decoder"],
)
def test_what_the_kernel_on_cuda_does_not_know_is_left_to_sdpa(machine, config):
    machine(cuda=True)
    assert resolve_attention("auto", precision="bf16", row_length=128, config=config) == "sdpa"


@pytest.mark.parametrize(("precision", "recent"), [("no", True), ("bf16", False)])
def test_the_kernel_for_unequal_lengths_is_refused_on_a_gpu_where_it_cannot_compute(machine, precision, recent):
    settings = {"precision": precision, "row_length": 128, "config": MiniLMConfig()}
    machine(cuda=True, recent=recent)
    with pytest.raises(ValueError, match=r"training.attention \(minilm_varlen\) must have training.precision bf16"):
        resolve_attention("minilm_varlen", **settings)
    machine()
    assert resolve_attention("minilm_varlen", **settings) == "minilm_varlen"


def test_a_gpu_that_accelerate_is_told_not_to_take_decides_nothing(machine, monkeypatch):
    machine(cuda=True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert resolve_precision("auto") == "fp32"
    assert resolve_attention("auto", precision="bf16", row_length=128, config=MiniLMConfig()) == "eager"


def test_only_the_main_process_needs_the_trackers(monkeypatch):
    monkeypatch.setattr(launch, "get_available_trackers", list)
    for rank, fails in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setattr(launch, "Accelerator", lambda **_: Accelerator(cpu=True))
        with pytest.raises(ValueError, match="must be installed") if fails else nullcontext():
            launch.start_accelerator("fp32", trackers=("wandb",), folder="runs")


def test_products_do_not_depend_on_where_their_numbers_lie():
    script = (
        "import torch\n"
        "from hf_minilm.training.launch import ask_for_reproducible_products\n"
        "ask_for_reproducible_products()\n"
        "left, right, found = torch.randn(6, 24), torch.randn(53, 24), []\n"
        "for shift in range(16):\n"
        "    moved = [torch.empty(each.numel() + 16)[shift:][:each.numel()].view_as(each) for each in (left, right)]\n"
        "    found.append(moved[0].copy_(left) @ moved[1].copy_(right).T)\n"
        "assert all(torch.equal(each, found[0]) for each in found)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    finished = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


def test_another_number_of_processes_than_asked_for_is_refused_with_the_line_that_works():
    check_processes(2, 2, what="training.processes")
    with pytest.raises(ValueError, match=r"\(1\) must equal training.processes \(2\); .* --nproc_per_node 2 "):
        check_processes(1, 2, what="training.processes")


def test_every_process_must_have_a_row_of_each_step():
    check_rows(3, num_processes=3)
    with pytest.raises(ValueError, match=r"batch_rows \(2\) must be at least the number of processes \(3\)"):
        check_rows(2, num_processes=3)


@pytest.mark.parametrize(("rows", "micro", "processes"), [(7, 3, 2), (7, 2, 3), (7, 2, 2), (8, 3, 2), (7, None, 2)])
def test_processes_that_share_a_model_out_have_as_many_micro_batches_each(rows, micro, processes):
    settings = TrainingSettings(batch_rows=rows, micro_batch_rows=micro, parallelism="sharded")
    own = [share(range(rows), index, num_processes=processes) for index in range(processes)]
    numbers = {len(range(0, len(each), micro or rows)) for each in own}
    if len(numbers) == 1:
        check_micro_batches(settings, num_processes=processes)
    else:
        with pytest.raises(ValueError, match=rf"micro_batch_rows \({micro}\) must divide the rows of each process"):
            check_micro_batches(settings, num_processes=processes)
    check_micro_batches(replace(settings, parallelism="data"), num_processes=processes)


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, 1),
        ({"WORLD_SIZE": "3", "MASTER_PORT": "29500"}, 3),
        ({"ACCELERATE_MIXED_PRECISION": "no"}, 1),
        # What `accelerate launch --cpu --num_processes 2` gives its single process.
        ({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}, 2),
        ({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_PORT": "29500", "WORLD_SIZE": "2"}, 2),
        ({"MASTER_PORT": "29500"}, 1),
    ],
    ids=str,
)
def test_how_many_processes_were_asked_for_is_read_from_what_launchers_leave(environment, asked):
    assert launch.processes_asked_for(environment) == asked


def test_processes_without_a_gpu_of_their_own_are_refused_with_the_line_that_works():
    check_gpus(2, 2)
    with pytest.raises(ValueError, match=r"\(4\) must be at most that of its GPUs \(2\); .*--nproc_per_node 2 "):
        check_gpus(4, 2)


@pytest.mark.parametrize(
    ("kind", "compiler", "message"),
    [
        (DistributedType.FSDP, DynamoBackend.NO, r"^distribution \(FSDP\) of .* must stay NO, .*=sharded shares"),
        (DistributedType.DEEPSPEED, DynamoBackend.NO, r"^distribution \(DEEPSPEED\) "),
        (
            DistributedType.NO,
            DynamoBackend.INDUCTOR,
            r"^dynamo backend \(INDUCTOR\) .* training.compile compiles; start",
        ),
    ],
)
def test_what_accelerate_would_put_around_the_model_unseen_is_refused(kind, compiler, message):
    plugin = SimpleNamespace(backend=compiler)
    asked = SimpleNamespace(distributed_type=kind, num_processes=2, state=SimpleNamespace(dynamo_plugin=plugin))
    with pytest.raises(ValueError, match=message):
        check_plugins(asked)


def test_an_accelerator_without_plugins_is_taken():
    check_plugins(Accelerator(cpu=True))


@pytest.mark.parametrize(("cuda", "parts", "expected"), [(True, 8, True), (True, None, None), (False, 8, None)])
def test_sums_have_a_fixed_order_on_a_gpu_where_the_bits_are_to_be_the_same(
    machine, monkeypatch, cuda, parts, expected
):
    asked = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda mode, *, warn_only: asked.append(mode))
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    machine(cuda=cuda)
    fix_order_of_sums(load_recipe(None, [] if parts is None else [f"training.gradient_parts={parts}"]))
    assert asked == ([] if expected is None else [expected])
    assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) is (expected is not None)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


@pytest.mark.parametrize(
    ("cuda", "settings", "expected"),
    [
        (False, [], 3),
        (False, ["training.gradient_parts=2"], 1),
        (True, [], 1),
        (True, ["training.threads=2"], 2),
    ],
)
def test_the_host_of_a_gpu_and_a_run_of_fixed_bits_compute_on_one_thread(machine, cuda, settings, expected):
    machine(cuda=cuda)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        set_threads(load_recipe(None, settings))
        assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)
