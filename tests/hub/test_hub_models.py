"""A native model on a Hub becomes ours, at the revision that is asked for, in a process of its own."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForMaskedLM

CONFIG = BertConfig(vocab_size=67, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=31)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def save_bert(folder: Path, *, seed: int) -> Path:
    torch.manual_seed(seed)
    BertForMaskedLM(CONFIG).save_pretrained(folder)
    return folder


def run(hub: Any, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hf_minilm.cli.main", *words],
        env=hub.environment(home),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def test_a_model_of_the_hub_is_imported_at_the_revision_that_is_asked_for(hub: Any, tmp_path: Path) -> None:
    first = hub.commit("owner/bert", files_of(save_bert(tmp_path / "first", seed=1)), kind="models")
    hub.commit("owner/bert", files_of(save_bert(tmp_path / "second", seed=2)), kind="models")
    ours = tmp_path / "ours"
    finished = run(hub, tmp_path / "home", "import", "owner/bert", str(ours), "--revision", first)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "bert (BertForMaskedLM) -> hf_minilm (MiniLMForMaskedLM)" in finished.stdout
    tokens = load_file(ours / "model.safetensors")["model.embeddings.tokens.weight"]
    wanted = load_file(tmp_path / "first" / "model.safetensors")["bert.embeddings.word_embeddings.weight"]
    assert torch.equal(tokens, wanted)
    missing = run(hub, tmp_path / "home", "import", "owner/missing", str(tmp_path / "other"))
    assert missing.returncode == 2
    lines = [line for line in missing.stderr.splitlines() if line.startswith("hf-minilm: ")]
    assert len(lines) == 1
    assert "model (owner/missing) must be a folder with a model, or a Hub name that can be reached" in lines[0]
    assert not (tmp_path / "other").exists()
