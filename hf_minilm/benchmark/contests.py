"""What is measured: each contest, who takes part in it, and which figures are compared.

A training contest has each peer in two forms. *As its users run it*: Trainer's defaults (fp32, AdamW) and the data as
the usual scripts make it. *Tuned*: what Trainer offers for speed with any model, see `peers`. Ours is trained by this
package's own loop with its default recipe. Layers, width and heads, vocabulary, rows a step, longest row and
learning rate are the same for all; the feed-forward and dropout are those that each architecture's users have.
"""

from dataclasses import dataclass, replace
from typing import Any

from .machine import Machine
from .settings import BenchSettings
from .work import EncodingWork, GenerationWork, Maker, ObjectiveName, PeerData, TrainingWork, Work

MEMORY_SHAPE = {"vocab_size": 32_000, "rows": 64, "length": 256, "warmup_steps": 0, "steps": 2}
"""Rows and vocabulary at which the logits of a causal step take most of its memory."""
GENERATION_BATCHES = (1, 16)
# Enough tokens that a GPU is not kept waiting by its driver, in the memory that most have for a peer's logits.
_TRAINING_ROWS, _TRAINING_LENGTH = {"cpu": 16, "cuda": 64}, {"cpu": 128, "cuda": 256}
_STEPS = {"cpu": 12, "cuda": 150}
_UTILISATION_ROWS, _UTILISATION_LENGTH = {"cpu": 16, "cuda": 64}, {"cpu": 128, "cuda": 1024}
_OBJECTIVES: dict[ObjectiveName, dict[str, tuple[Maker, PeerData]]] = {
    "masked_next_sentence": {"bert": ("bert", "pairs"), "bert filled": ("bert", "filled_pairs")},
    "masked": {
        "modernbert padded": ("modernbert", "paragraphs"),
        "modernbert grouped": ("modernbert", "grouped"),
        "bert padded": ("bert", "paragraphs"),
        "bert grouped": ("bert", "grouped"),
    },
    "causal": {"gpt2": ("gpt2", "grouped"), "llama": ("llama", "grouped")},
}


@dataclass(frozen=True)
class Contestant:
    """One who takes part.

    Attributes:
        name: Its name in the table.
        work: What it does.
        against: The contestant of ours that it is compared with; None for ours.
    """

    name: str
    work: Work
    against: str | None = None


@dataclass(frozen=True)
class Figure:
    """A measured figure that is shown with its spread, and as a ratio ours / peer.

    Attributes:
        key: Its name in what a contestant measures.
        title: Its name in the table, with the unit.
        scale: What it is multiplied by for the table.
        digits: Decimals in the table.
        more_is_better: Whether a ratio above 1 is good for ours.
    """

    key: str
    title: str
    scale: float = 1.0
    digits: int = 0
    more_is_better: bool = True


@dataclass(frozen=True)
class Contest:
    """A named piece of work with those who do it in turn."""

    name: str
    description: str
    contestants: tuple[Contestant, ...]
    figures: tuple[Figure, ...]


_SPEED = Figure("tokens_per_second", "tokens/s")
_PEAK = Figure("peak_memory", "peak MB", scale=1e-6, more_is_better=False)
DESCRIPTIONS = {
    "masked_next_sentence": "training on masked tokens and next sentences, beside BertForPreTraining under Trainer",
    "masked": "training on masked tokens, beside ModernBertForMaskedLM and BertForMaskedLM under Trainer",
    "causal": "training on the next token, beside GPT2LMHeadModel and LlamaForCausalLM under Trainer, full rows",
    "memory": "peak memory of causal steps of 64 rows x 256 tokens, vocabulary at least 32,000, beside GPT2LMHeadModel",
    "encode": "vectors of texts of unequal length in the given order, beside BertModel",
    "generate": "greedy writing after a prompt of 16 tokens, beside GPT2LMHeadModel.generate",
    "utilisation": "training steps of base size in bf16, and their share of the machine's matrix rate; no peer",
}
"""The contests by name, in the order in which they run."""
BY_DEFAULT = tuple(name for name in DESCRIPTIONS if name != "utilisation")


def build_contest(name: str, settings: BenchSettings, machine: Machine) -> Contest:
    """Build a contest for a machine; peers that the settings leave out are left out."""
    build = {"memory": _memory, "encode": _encode, "generate": _generate, "utilisation": _utilisation}.get(name)
    contestants = build(settings, machine) if build else _training(name, settings, machine)
    figures: dict[str, tuple[Figure, ...]] = {
        "memory": (_PEAK,),
        "encode": (Figure("texts_per_second", "texts/s", digits=1), _SPEED),
        "generate": (
            Figure("token_seconds", "ms/token", scale=1e3, digits=2, more_is_better=False),
            Figure("first_token_seconds", "first token ms", scale=1e3, digits=1, more_is_better=False),
        ),
    }
    chosen = tuple(each for each in contestants if each.against is None or settings.takes_part(each.name))
    return Contest(name, DESCRIPTIONS[name], chosen, figures.get(name, (_SPEED,)))


def _shape(settings: BenchSettings, machine: Machine) -> dict[str, Any]:
    """Size, rows and steps of a training contest. Warm-up is a third of the measured steps.

    That is also the length in steps over which Trainer sorts texts by length, the longest first, in a data set of as
    many batches as there are steps: so whole such runs are measured, and not their beginnings alone.
    """
    steps = settings.steps or _STEPS[machine.device]
    warmup_steps = min(max(steps // 3, 1), 50)
    return {
        "size": settings.size,
        "vocab_size": settings.vocabulary,
        "rows": settings.rows or _TRAINING_ROWS[machine.device],
        "length": settings.length or _TRAINING_LENGTH[machine.device],
        "warmup_steps": warmup_steps,
        "steps": max(steps // warmup_steps, 1) * warmup_steps,
    }


def _training(name: str, settings: BenchSettings, machine: Machine) -> list[Contestant]:
    objective: ObjectiveName = name  # type: ignore[assignment]  # a contest of training is called by its objective
    shape = _shape(settings, machine)
    ours = TrainingWork("ours", objective, **shape, settings=settings.recipe)
    peers = [
        (title, TrainingWork(maker, objective, **shape, precision="fp32", data=data))
        for title, (maker, data) in _OBJECTIVES[objective].items()
    ]
    return [Contestant("ours", ours), *_in_two_forms(peers, settings, machine)]


def _in_two_forms(peers: list[tuple[str, TrainingWork]], settings: BenchSettings, machine: Machine) -> list[Contestant]:
    """List each peer as its users run it, and tuned: then in bf16 where the device is fast at it."""
    precision = "bf16" if machine.fast_bf16 else "fp32"
    listed = []
    for title, work in peers:
        tuned = replace(work, tuned=True, precision=precision, settings=settings.trainer)
        listed += [Contestant(title, work, against="ours"), Contestant(f"{title} tuned", tuned, against="ours")]
    return listed


def _memory(settings: BenchSettings, machine: Machine) -> list[Contestant]:
    vocab_size = max(MEMORY_SHAPE["vocab_size"], settings.vocabulary)  # the data have the ids of the latter
    shape: dict[str, Any] = {"size": settings.size, **MEMORY_SHAPE, "vocab_size": vocab_size}
    peer = TrainingWork("gpt2", "causal", **shape, precision="fp32")
    ours = TrainingWork("ours", "causal", **shape, settings=settings.recipe)
    return [Contestant("ours", ours), *_in_two_forms([("gpt2", peer)], settings, machine)]


def _encode(settings: BenchSettings, machine: Machine) -> list[Contestant]:
    contestants = []
    for precision in _precisions(machine):
        work = EncodingWork("ours", settings.size, settings.vocabulary, settings.texts, precision=precision)
        ours = Contestant(f"ours {precision}", work)
        peer = Contestant(f"bert {precision}", replace(work, maker="bert"), against=ours.name)
        contestants += [ours, peer]
    return contestants


def _generate(settings: BenchSettings, machine: Machine) -> list[Contestant]:
    contestants = []
    for precision in _precisions(machine):
        for batch_rows in GENERATION_BATCHES:
            work = GenerationWork(
                "ours",
                settings.size,
                settings.vocabulary,
                batch_rows,
                new_tokens=settings.new_tokens,
                precision=precision,
            )
            ours = Contestant(f"ours {precision} batch {batch_rows}", work)
            peer = Contestant(f"gpt2 {precision} batch {batch_rows}", replace(work, maker="gpt2"), against=ours.name)
            contestants += [ours, peer]
    return contestants


def _precisions(machine: Machine) -> tuple[str, ...]:
    return ("fp32", "bf16") if machine.fast_bf16 else ("fp32",)


def _utilisation(settings: BenchSettings, machine: Machine) -> list[Contestant]:
    shape = _shape(settings, machine) | {
        "size": "base",
        "rows": settings.rows or _UTILISATION_ROWS[machine.device],
        "length": settings.length or _UTILISATION_LENGTH[machine.device],
        "precision": "bf16",
        "settings": settings.recipe,
    }
    return [
        Contestant("ours masked", TrainingWork("ours", "masked", **shape)),
        Contestant("ours causal", TrainingWork("ours", "causal", **shape)),
    ]
