"""Which position scheme still works on texts longer than those of the training?

    python examples/position_lab.py
    python examples/position_lab.py --corpus novels.jsonl.gz --budget 5min --output runs/position_lab_novels

Trains the same small model with every position scheme on rows of 128 tokens, masked and causal, and measures each on
the same held-out tokens cut into windows of 128, 256, 512 and 1024. A scheme that reaches further than it was trained
gains from the longer context or at least loses nothing. It trains twelve models, 18 minutes in all as it stands. Causal
ones show it by then; masked ones have learnt nothing that a position could help before some 4,000 steps: `--objectives
masked --budget 4000steps`. Writes `table.md`, `losses.json` and `losses.png`.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from fine_tune import run
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from hf_minilm.data.corpus import Corpus
from hf_minilm.model.positions import POSITION_SCHEMES
from hf_minilm.training.pretrain import pretrain
from hf_minilm.training.recipe import load_recipe

LENGTHS = (128, 256, 512, 1024)
OBJECTIVES = ("masked", "causal")
_LONGEST = LENGTHS[-1]
_SPANS = 48  # held-out stretches of 1024 tokens

Losses = dict[str, dict[str, dict[int, float]]]
"""Nats per predicted token, by objective, scheme and window length."""


def train(objective: str, scheme: str, arguments: argparse.Namespace) -> Path:
    """Train one model, or take the one that an earlier call left; its folder."""
    folder = arguments.output / f"{objective}_{scheme}"
    settings = {
        "data.corpus": arguments.corpus,
        "objective.name": objective,
        "training.budget": arguments.budget,
        "tokenizer.vocab_size": arguments.vocab_size,
        "model.overrides": {"position_embedding": scheme, "max_position_embeddings": _LONGEST},
        "evaluation.every": "never",
        "training.save_every": "never",
        "output.folder": str(folder),
        **({"objective.next_sentence": False} if objective == "masked" else {}),
    }
    pretrain(load_recipe(None, [f"{name}={json.dumps(value)}" for name, value in settings.items()]))
    return folder / "model"


def held_out_spans(corpus: str, tokenizer: Any) -> torch.Tensor:
    """Cut stretches of 1024 tokens out of held-out documents that are long enough, [spans, 1024]."""
    spans: list[list[int]] = []
    for document in Corpus([corpus]).documents("validation"):
        ids = tokenizer(document.text, add_special_tokens=False, verbose=False)["input_ids"]
        spans += [ids[start : start + _LONGEST] for start in range(0, len(ids) - _LONGEST + 1, _LONGEST)]
        if len(spans) >= _SPANS:
            break
    if not spans:
        raise ValueError(f"corpus ({corpus}) must have held-out documents of {_LONGEST} tokens; give longer texts.")
    return torch.tensor(spans[:_SPANS])


@torch.inference_mode()
def losses_by_length(folder: Path, objective: str, corpus: str) -> dict[int, float]:
    """Measure a model on the same tokens in windows of each length, in nats per predicted token."""
    auto = AutoModelForMaskedLM if objective == "masked" else AutoModelForCausalLM
    model, tokenizer = auto.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    tokens = held_out_spans(corpus, tokenizer)
    labels = tokens
    if objective == "masked":
        chosen = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(0)) < 0.15
        labels = tokens.masked_fill(~chosen, -100)
        tokens = tokens.masked_fill(chosen, tokenizer.mask_token_id)
    # The first token of a window of 128 is nobody's to predict, so that all lengths predict the same tokens.
    labels = labels.unflatten(1, (-1, LENGTHS[0])).clone()
    labels[..., 0] = -100
    labels = labels.flatten(1)
    losses = {}
    for length in LENGTHS:
        total = count = 0.0
        for seen, asked in zip(tokens.reshape(-1, length).split(8), labels.reshape(-1, length).split(8), strict=True):
            number = int((asked != -100).sum())
            total += model(input_ids=seen, labels=asked, return_logits=False).loss.item() * number
            count += number
        losses[length] = total / count
    return losses


def table(losses: Losses) -> str:
    """Lay the losses out as Markdown."""
    lines = ["| Objective | Scheme | " + " | ".join(map(str, LENGTHS)) + " |", "|---|---" + "|---" * len(LENGTHS) + "|"]
    for objective, schemes in losses.items():
        for scheme, by_length in schemes.items():
            lines.append(f"| {objective} | `{scheme}` | " + " | ".join(f"{by_length[n]:.2f}" for n in LENGTHS) + " |")
    return "\n".join(lines) + "\n"


def draw(losses: Losses, path: Path) -> None:
    """Draw the losses over the window's length, a panel an objective."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (objective, schemes) in zip(
        figure.subplots(1, len(losses), squeeze=False)[0], losses.items(), strict=True
    ):
        for scheme, by_length in schemes.items():
            axes.plot(LENGTHS, [by_length[length] for length in LENGTHS], "o-", label=scheme, markersize=3)
        axes.set_xscale("log", base=2)
        axes.set_xticks(LENGTHS, [str(length) for length in LENGTHS])
        axes.set_title(f"{objective}, trained on 128 tokens")
        axes.set_xlabel("tokens in a window")
        axes.set_ylabel("loss [nats per predicted token]")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="builtin:docs", help="a corpus with documents of over 1024 tokens")
    parser.add_argument("--budget", default="90s", help="training of each model, as 90s or 1000steps")
    parser.add_argument("--vocab-size", type=int, default=4000, help="tokens in the vocabulary; fewer train faster")
    parser.add_argument("--schemes", nargs="+", default=list(POSITION_SCHEMES), choices=list(POSITION_SCHEMES))
    parser.add_argument("--objectives", nargs="+", default=list(OBJECTIVES), choices=OBJECTIVES)
    parser.add_argument("--output", type=Path, default=Path("runs/position_lab"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    losses: Losses = {}
    for objective in arguments.objectives:
        for scheme in arguments.schemes:
            folder = train(objective, scheme, arguments)
            losses.setdefault(objective, {})[scheme] = losses_by_length(folder, objective, arguments.corpus)
    (arguments.output / "losses.json").write_text(json.dumps(losses, indent=1), encoding="utf-8")
    (arguments.output / "table.md").write_text(table(losses), encoding="utf-8")
    draw(losses, arguments.output / "losses.png")
    print(table(losses), end="")


if __name__ == "__main__":
    sys.exit(run(main))
