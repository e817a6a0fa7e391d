"""Keeps a small run of this version for the tests of later ones, as it lay after half of its steps.

    python tests/training/keep_run.py

For each objective it writes a file into `earlier_versions/`: the run's folder with a checkpoint, the losses of all
steps, and what the model of the checkpoint computes.
"""

import gzip
import io
import os
import sys
import tarfile
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoConfig

import hf_minilm
from hf_minilm.cli.main import main

KEPT = Path(__file__).parent / "earlier_versions"
RUN, LOGITS_FILE = "run", "logits.safetensors"
HALF, WHOLE = 2, 4
SMALL = {
    "model.overrides": '{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}',
    "tokenizer.vocab_size": "300",
    "data.world_documents": "60",
    "data.sequence_length": "32",
    "training.batch_rows": "4",
    "training.budget": f"{WHOLE}steps",
    "training.save_every": f"{HALF}steps",
    "training.log_every": "1",
    "training.precision": "fp32",
    "training.compile": "no",
    "training.threads": "1",
    "evaluation.rows": "8",
    "output.folder": RUN,
}
OBJECTIVES = {
    "masked": {},
    "causal": {"objective.name": "causal"},
    "pairs": {
        "objective.name": "pairs",
        "data.corpus": "builtin:pairs",
        "data.sequence_length": "128",
        "evaluation.translations": "2",
    },
}


@torch.no_grad()
def logits(checkpoint: Path) -> torch.Tensor:
    """Give what the model of a checkpoint computes, [1, tokens, vocabulary]."""
    (name,) = AutoConfig.from_pretrained(checkpoint).architectures
    ids = torch.arange(5, 25)[None]
    targets = {"decoder_input_ids": ids[:, :7]} if name.endswith("ConditionalGeneration") else {}
    outputs = getattr(hf_minilm, name).from_pretrained(checkpoint).eval()(input_ids=ids, **targets)
    return outputs["prediction_logits" if "prediction_logits" in outputs else "logits"]


def keep(path: Path, settings: dict[str, str]) -> None:
    """Make a run in the present folder, and write of it what a later version goes on from."""
    words = [f"--set={name}={value}" for name, value in {**SMALL, **settings}.items()]
    if main(["pretrain", *words]) != 0:
        sys.exit(1)
    run = Path(RUN)
    checkpoint = run / "checkpoints" / f"checkpoint-{HALF}"
    save_file({"logits": logits(checkpoint)}, run / LOGITS_FILE)
    singles = [run / name for name in ("recipe.yaml", "metrics.jsonl", LOGITS_FILE)]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for part in sorted([*singles, *checkpoint.iterdir(), *(run / "tokenizer").iterdir()]):
            entry = tarfile.TarInfo(part.as_posix())  # without the user and the time of the file
            entry.size = part.stat().st_size
            archive.addfile(entry, io.BytesIO(part.read_bytes()))
    path.write_bytes(gzip.compress(packed.getvalue(), mtime=0))


def keep_all() -> None:
    """Write a file for each objective, named by the version."""
    KEPT.mkdir(exist_ok=True)
    for objective, settings in OBJECTIVES.items():
        path = KEPT / f"{hf_minilm.__version__}-{objective}.tar.gz"
        if path.exists():
            sys.exit(f"{path} must not exist: what a version wrote stays as it is.")
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            keep(path, settings)


if __name__ == "__main__":
    keep_all()
