"""Saved folders carry their code: they open where hf_minilm is not installed."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import hf_minilm
from hf_minilm.model.configuration_minilm import AUTO_MAP

HEADS = [name for name in hf_minilm.__all__ if "For" in name or name == "MiniLMModel"]
MODEL_FILES = {
    f"{name}.py"
    for name in (
        "attention",
        "configuration_minilm",
        "layers",
        "losses",
        "modeling_minilm",
        "positions",
        "variable_length",
    )
}

READER = """
import json, sys
from importlib.abc import MetaPathFinder
from pathlib import Path

class Blocker(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_minilm":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocker())

import torch
import transformers
from safetensors.torch import load_file, save_file

transformers.logging.set_verbosity_error()
folder, auto_map = Path(sys.argv[1]), json.loads(sys.argv[2])
inputs, outputs, classes = load_file(folder / "inputs.safetensors"), {}, {}
for head in json.loads(sys.argv[3]):
    config = transformers.AutoConfig.from_pretrained(folder / head, trust_remote_code=True)
    assert type(config).__module__.startswith("transformers_modules"), type(config).__module__
    for auto, target in auto_map.items():
        if auto == "AutoConfig":
            continue
        model = getattr(transformers, auto).from_pretrained(folder / head, trust_remote_code=True).eval()
        classes[f"{head} {auto}"] = type(model).__name__
        if type(model).__name__ == head:
            tokens = inputs["choices" if "Choice" in head else "tokens"]
            with torch.no_grad():
                outputs[f"{head} {auto}"] = model(tokens)[0].clone()
save_file(outputs, folder / "outputs.safetensors")
(folder / "classes.json").write_text(json.dumps(classes))
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Save every head and open all of them in one process that cannot import the package."""
    folder = tmp_path_factory.mktemp("remote")
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "tokens": torch.randint(1, 53, (2, 7), generator=generator),
        "choices": torch.randint(1, 53, (2, 3, 7), generator=generator),
    }
    save_file(inputs, folder / "inputs.safetensors")
    expected = {}
    for head in HEADS:
        torch.manual_seed(1)
        config = hf_minilm.MiniLMConfig(
            vocab_size=53, hidden_size=24, num_attention_heads=4, num_hidden_layers=2, initializer_range=0.3
        )
        model = getattr(hf_minilm, head)(config).eval()
        model.save_pretrained(folder / head)
        with torch.no_grad():
            expected[head] = model(inputs["choices" if "Choice" in head else "tokens"])[0]
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "home"),
        "HF_MODULES_CACHE": str(folder / "modules"),
        "OMP_NUM_THREADS": "1",
    }
    finished = subprocess.run(
        [sys.executable, "-c", READER, str(folder), json.dumps(AUTO_MAP), json.dumps(HEADS)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return folder, expected


def test_every_auto_class_opens_every_saved_head_without_the_package(saved):
    folder, _ = saved
    classes = json.loads((folder / "classes.json").read_text())
    assert classes == {
        f"{head} {auto}": target.split(".")[1]
        for head in HEADS
        for auto, target in AUTO_MAP.items()
        if auto != "AutoConfig"
    }


def test_code_from_a_folder_computes_exactly_what_the_package_computes(saved):
    folder, expected = saved
    outputs = load_file(folder / "outputs.safetensors")
    assert {name.split()[0] for name in outputs} == set(HEADS)
    for name, output in outputs.items():
        assert torch.equal(output, expected[name.split()[0]]), name


@pytest.mark.parametrize("head", HEADS)
def test_every_saved_folder_carries_all_files_of_the_model(saved, head):
    folder, _ = saved
    assert {path.name for path in (folder / head).glob("*.py")} == MODEL_FILES
