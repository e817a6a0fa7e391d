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
from hf_minilm.model.configuration_minilm_seq2seq import SEQ2SEQ_AUTO_MAP

CLASSES = [name for name in hf_minilm.__all__ if not name.endswith(("Config", "PreTrainedModel"))]
SEQ2SEQ = [name for name in CLASSES if getattr(hf_minilm, name).config_class is hf_minilm.MiniLMSeq2SeqConfig]
HEADS = [name for name in CLASSES if name not in SEQ2SEQ]
AUTO_MAPS = {**dict.fromkeys(HEADS, AUTO_MAP), **dict.fromkeys(SEQ2SEQ, SEQ2SEQ_AUTO_MAP)}
WRITES = {"max_new_tokens": 5, "do_sample": False}
MODEL_FILES = {
    f"{name}.py"
    for name in (
        "attention",
        "configuration_minilm",
        "decoding",
        "decoding_on_gpu",
        "input_checks",
        "layers",
        "losses",
        "modeling_minilm",
        "positions",
        "variable_length",
        "vocabulary_loss",
        "vocabulary_loss_kernel",
    )
}
SEQ2SEQ_FILES = {"configuration_minilm_seq2seq.py", "modeling_minilm_seq2seq.py"}

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
folder = Path(sys.argv[1])
inputs, outputs, classes = load_file(folder / "inputs.safetensors"), {}, {}
for head, auto_map in json.loads(sys.argv[2]).items():
    config = transformers.AutoConfig.from_pretrained(folder / head, trust_remote_code=True)
    assert type(config).__module__.startswith("transformers_modules"), type(config).__module__
    for auto, target in auto_map.items():
        if auto == "AutoConfig":
            continue
        model = getattr(transformers, auto).from_pretrained(folder / head, trust_remote_code=True).eval()
        classes[f"{head} {auto}"] = type(model).__name__
        if type(model).__name__ == head:
            given = {"input_ids": inputs["choices" if "Choice" in head else "tokens"]}
            with torch.no_grad():
                if "ConditionalGeneration" in head:
                    outputs[f"{head} generate"] = model.generate(**given, **json.loads(sys.argv[3]))
                if config.is_encoder_decoder:
                    given["decoder_input_ids"] = inputs["target"]
                outputs[f"{head} {auto}"] = model(**given)[0].clone()
save_file(outputs, folder / "outputs.safetensors")
(folder / "classes.json").write_text(json.dumps(classes))
shifted = transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
assert "MiniLMForCausalLM" in shifted.values(), "Trainer would not shift the labels that it smooths"
"""


def build(name: str) -> torch.nn.Module:
    """Build a class in evaluation mode; the encoder-decoder has unlike stacks."""
    fields = {"vocab_size": 53, "hidden_size": 24, "num_attention_heads": 4, "num_hidden_layers": 2}
    config = hf_minilm.MiniLMConfig(**fields, initializer_range=0.3)
    if name in SEQ2SEQ:
        decoder = {**config.to_dict(), "num_hidden_layers": 1, "layer_types": None, "position_embedding": "alibi"}
        decoder["rope_parameters"] = None
        config = hf_minilm.MiniLMSeq2SeqConfig(encoder=config, decoder=decoder)
    torch.manual_seed(1)
    return getattr(hf_minilm, name)(config).eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Save every class and open all of them in one process that cannot import the package."""
    folder = tmp_path_factory.mktemp("remote")
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "tokens": torch.randint(1, 53, (2, 7), generator=generator),
        "choices": torch.randint(1, 53, (2, 3, 7), generator=generator),
        "target": torch.randint(1, 53, (2, 5), generator=generator),
    }
    save_file(inputs, folder / "inputs.safetensors")
    expected = {}
    for head in CLASSES:
        model = build(head)
        model.save_pretrained(folder / head)
        given = {"input_ids": inputs["choices" if "Choice" in head else "tokens"]}
        with torch.no_grad():
            if head == "MiniLMForConditionalGeneration":
                expected[f"{head} generate"] = model.generate(**given, **WRITES)
            if head in SEQ2SEQ:
                given["decoder_input_ids"] = inputs["target"]
            expected[head] = model(**given)[0]
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "home"),
        "HF_MODULES_CACHE": str(folder / "modules"),
        "OMP_NUM_THREADS": "1",
    }
    finished = subprocess.run(
        [sys.executable, "-c", READER, str(folder), json.dumps(AUTO_MAPS), json.dumps(WRITES)],
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
        for head, auto_map in AUTO_MAPS.items()
        for auto, target in auto_map.items()
        if auto != "AutoConfig"
    }


def test_code_from_a_folder_computes_exactly_what_the_package_computes(saved):
    folder, expected = saved
    outputs = load_file(folder / "outputs.safetensors")
    assert {name.split()[0] for name in outputs} == set(CLASSES)
    for name, output in outputs.items():
        wanted = name if name in expected else name.split()[0]
        assert torch.equal(output, expected[wanted]), name


def test_code_from_a_folder_writes_what_the_package_writes(saved):
    folder, expected = saved
    written = load_file(folder / "outputs.safetensors")["MiniLMForConditionalGeneration generate"]
    assert written.tolist() == expected["MiniLMForConditionalGeneration generate"].tolist()
    assert len(set(written.flatten().tolist())) > 2


@pytest.mark.parametrize("head", CLASSES)
def test_every_saved_folder_carries_all_files_of_the_model(saved, head):
    folder, _ = saved
    files = MODEL_FILES | SEQ2SEQ_FILES if head in SEQ2SEQ else MODEL_FILES
    assert {path.name for path in (folder / head).glob("*.py")} == files
