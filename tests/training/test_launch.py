"""What a process settles before it trains: how many there are, the arithmetic and the attention kernel."""

import pytest
import torch

from hf_minilm.training.launch import check_processes, check_rows, resolve_attention, resolve_precision


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Pretend to have a GPU, or a CPU that multiplies bf16 matrices in hardware, or neither."""

    def pretend(*, cuda: bool = False, amx: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: cuda)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)

    return pretend


def test_bf16_is_chosen_where_the_hardware_is_fast_at_it(machine):
    chosen = []
    for hardware in ({"cuda": True}, {"amx": True}, {}):
        machine(**hardware)
        chosen.append(resolve_precision("auto"))
    assert chosen == ["bf16", "bf16", "fp32"]
    assert resolve_precision("bf16") == "bf16"


@pytest.mark.parametrize(
    ("cuda", "precision", "row_length", "expected"),
    [
        (False, "bf16", 128, "eager"),
        (False, "bf16", 1024, "sdpa"),
        (False, "no", 128, "sdpa"),
        (True, "bf16", 128, "sdpa"),
    ],
)
def test_the_formula_is_run_where_it_trains_faster_than_the_kernel(machine, cuda, precision, row_length, expected):
    machine(cuda=cuda, amx=True)
    assert resolve_attention("auto", precision=precision, row_length=row_length) == expected
    for asked in ("sdpa", "eager"):
        assert resolve_attention(asked, precision=precision, row_length=row_length) == asked


def test_another_number_of_processes_than_asked_for_is_refused_with_the_line_that_works():
    check_processes(2, 2, what="training.processes")
    with pytest.raises(ValueError, match=r"\(1\) must equal training.processes \(2\); .* --nproc_per_node 2 "):
        check_processes(1, 2, what="training.processes")


def test_every_process_must_have_a_row_of_each_step():
    check_rows(3, num_processes=3)
    with pytest.raises(ValueError, match=r"batch_rows \(2\) must be at least the number of processes \(3\)"):
        check_rows(2, num_processes=3)
