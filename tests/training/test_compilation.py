"""Compiled layers: when they are chosen, and that they compute what they computed before."""

import shutil
from pathlib import Path

import pytest
import torch

from hf_minilm import MiniLMConfig, MiniLMForCausalLM
from hf_minilm.training import compilation
from hf_minilm.training.compilation import can_compile, compile_layers, resolve_compilation
from hf_minilm.training.schedule import Budget


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Pretend to have a GPU or not, recent or not, and a compiler and Python's headers or not."""

    def pretend(*, cuda: bool = False, recent: bool = True, compiler: bool = True, headers: bool = True) -> None:
        (tmp_path / "Python.h").touch()
        include = tmp_path if headers else tmp_path / "elsewhere"
        monkeypatch.setattr(compilation.sysconfig, "get_path", lambda name: str(include))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 0) if recent else (6, 1))
        monkeypatch.setattr(compilation.shutil, "which", lambda name: f"/bin/{name}" if compiler else None)

    return pretend


@pytest.mark.parametrize(
    ("hardware", "precision", "budget", "expected"),
    [
        ({}, "bf16", Budget("seconds", 220), True),
        ({}, "bf16", Budget("seconds", 60), False),
        ({}, "bf16", Budget("steps", 1000), True),
        ({}, "bf16", Budget("steps", 999), False),
        ({}, "bf16", Budget("tokens", 2_048_000), True),
        ({}, "bf16", Budget("tokens", 2_047_000), False),
        ({}, "no", Budget("seconds", 220), False),
        ({"compiler": False}, "bf16", Budget("seconds", 220), False),
        ({"cuda": True}, "no", Budget("seconds", 220), True),
        ({"cuda": True, "compiler": False}, "bf16", Budget("seconds", 220), False),
        ({"cuda": True}, "bf16", Budget("seconds", 60), False),
        ({"cuda": True, "recent": False}, "no", Budget("seconds", 220), False),
        ({"headers": False}, "bf16", Budget("seconds", 220), False),
        ({"cuda": True, "headers": False}, "bf16", Budget("seconds", 220), False),
    ],
    ids=str,
)
def test_layers_are_compiled_where_the_time_comes_back(machine, hardware, precision, budget, expected):
    machine(**hardware)
    settings = {"precision": precision, "budget": budget, "positions_per_step": 2048}
    assert resolve_compilation("auto", **settings) is expected
    assert resolve_compilation("no", **settings) is False
    if can_compile():
        assert resolve_compilation("yes", **settings) is True


@pytest.mark.parametrize("missing", ["compiler", "headers"])
def test_compiling_without_what_it_takes_is_refused_in_one_line(machine, missing):
    machine(**{missing: False})
    with pytest.raises(ValueError, match=r"training.compile \(yes\) must have a compiler, g\+\+ or clang\+\+"):
        resolve_compilation("yes", precision="bf16", budget=Budget("steps", 5), positions_per_step=1)


@pytest.mark.filterwarnings("ignore")  # of torch's compiler, which warns of what it does itself
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler")
def test_compiled_layers_give_the_same_loss_and_gradients_under_the_same_names():
    input_ids = torch.randint(1, 97, (3, 17), generator=torch.Generator().manual_seed(1))
    results = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = MiniLMForCausalLM(MiniLMConfig.preset("modern_decoder", "tiny", vocab_size=97)).train()
        names = list(model.state_dict())
        if compiled:
            compile_layers(model)
        loss = model(input_ids, labels=input_ids).loss
        loss.backward()
        assert list(model.state_dict()) == names
        results.append([loss.detach(), *(parameter.grad for parameter in model.parameters())])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)
