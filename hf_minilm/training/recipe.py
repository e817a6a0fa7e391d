"""A recipe: everything that decides what a pre-training run does, as a frozen tree of settings.

Every setting has a default, so an empty recipe is the main job: a masked model with next-sentence prediction on the
built-in corpus. A YAML file holds only what differs. A name that does not exist, a value of the wrong type and a
setting that could not take effect are errors of one line that name the field.
"""

# ruff: noqa: RUF009 -- `_setting` makes a dataclass field, not a value that all recipes would share.
import dataclasses
import operator
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

from ..yaml_text import read_yaml, read_yaml_file, write_inline
from .recipe_values import (
    convert,
    describe_choices,
    describe_type,
    nearest,
    suggest,
    write_commented,
)
from .schedule import BUDGET_EXAMPLES, Budget, ScheduleName

Sections = dict[str, dict[str, Any]]


def _setting(
    default: Any,
    meaning: str,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    only: tuple[str, ...] = (),
    changeable: bool = False,
) -> Any:
    """Declare a field.

    Args:
        default: Its default.
        meaning: What it means, for a person; what `only` says is added.
        least: The range of its numbers (of each, in a list) begins here.
        most: And ends here.
        above: Or begins above this.
        only: Another setting, as `section.field`, and the values of it with which alone this one has an effect.
        changeable: Whether it may change while a run is under way; see `CHANGEABLE`.
    """
    if only:
        meaning = f"{meaning.removesuffix('.')}; {' and '.join(only[1:])} only."
    metadata = {"help": meaning, "least": least, "most": most, "above": above, "only": only, "changeable": changeable}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ModelSettings:
    """What is built."""

    preset: Literal["modern", "bert", "gpt2", "vaswani2017"] = _setting(
        "modern",
        "Architecture; modern is as ModernBERT, for causal as Llama; gpt2 is for causal; vaswani2017 is an "
        "encoder-decoder, for pairs and denoising.",
    )
    size: Literal["tiny", "mini", "small", "base"] = _setting(
        "tiny", "Layers, width and heads; of an encoder-decoder, those of each of the two."
    )
    overrides: dict[str, Any] = _setting(
        {},
        "Fields of MiniLMConfig, as position_embedding: alibi, that replace those of preset and size. For pairs and "
        "denoising they are fields of both stacks or of MiniLMSeq2SeqConfig; encoder and decoder hold those of one.",
    )


@dataclass(frozen=True)
class TokenizerSettings:
    """How text becomes token ids."""

    kind: Literal["auto", "wordpiece", "bytelevel_bpe", "unigram"] = _setting(
        "auto", "Which algorithm to train; auto is wordpiece for masked and bytelevel_bpe for the others."
    )
    vocab_size: int | Literal["auto"] = _setting(
        "auto", "Tokens in the vocabulary; auto chooses by the corpus.", least=8
    )
    lowercase: bool = _setting(False, "Whether text is lowercased first. Accents are kept either way.")
    folder: str | None = _setting(
        None, "Folder or Hub name of a trained tokenizer to use as it is; null trains one on the corpus."
    )


@dataclass(frozen=True)
class DataSettings:
    """Which text, and how long a row of it is."""

    corpus: str | tuple[str, ...] = _setting(
        "builtin:world", "A file, folder, glob, Hub data set or built-in corpus; or a list of them."
    )
    pair_fields: tuple[str, str] = _setting(
        ("source", "target"),
        "Names of the two texts of a record; for a TSV without names, its first two columns.",
        only=("objective.name", "pairs"),
    )
    languages: tuple[Literal["es", "en"], ...] = _setting(("es", "en"), "Languages of builtin:world.")
    world_documents: int = _setting(20_000, "Documents that builtin:world or builtin:pairs generates.", least=2)
    encoding_errors: Literal["strict", "replace"] = _setting(
        "strict",
        "A byte that is not UTF-8: strict stops and names the file; replace counts, and writes U+FFFD for up to 1 "
        "character in 1,000.",
    )
    validation_share: float = _setting(0.05, "Share of the documents held out, in (0, 0.5].", above=0.0, most=0.5)
    sequence_length: int = _setting(128, "Tokens in a row; rows are packed with several sequences.", least=8)
    cache_folder: str | None = _setting(
        None, "Where tokenised corpora are kept; null is the user's cache folder.", changeable=True
    )


@dataclass(frozen=True)
class ObjectiveSettings:
    """What the model is asked to predict."""

    name: Literal["masked", "causal", "pairs", "denoising"] = _setting(
        "masked",
        "Hidden tokens (encoder), the next token (decoder), a target from its source, or the gaps of a text "
        "(encoder-decoder).",
    )
    next_sentence: bool = _setting(True, "Also predict whether two segments are neighbours; masked only.")
    mask_rate: float = _setting(
        0.3,
        "Share of the tokens to predict, in (0, 1]; BERT's is 0.15.",
        above=0.0,
        most=1.0,
        only=("objective.name", "masked"),
    )
    mask_share: float = _setting(
        0.8, "Of those, the share shown as [MASK].", least=0.0, most=1.0, only=("objective.name", "masked")
    )
    random_share: float = _setting(
        0.1,
        "Of those, the share shown as a random token; the rest is shown as it is.",
        least=0.0,
        most=1.0,
        only=("objective.name", "masked"),
    )
    whole_word: bool = _setting(
        True, "Whether all tokens of a word are chosen together.", only=("objective.name", "masked")
    )
    noise_share: float = _setting(
        0.15,
        "Share of the tokens that the gaps take, in (0, 0.5].",
        above=0.0,
        most=0.5,
        only=("objective.name", "denoising"),
    )
    span_length: float = _setting(
        3.0, "Mean number of tokens in a gap.", least=1.0, only=("objective.name", "denoising")
    )
    label_smoothing: float = _setting(
        0.0,
        "Share of a target's probability spread over all tokens.",
        least=0.0,
        most=0.5,
        only=("objective.name", "pairs", "denoising"),
    )


@dataclass(frozen=True)
class OptimizerSettings:
    """How a gradient becomes a step."""

    name: Literal["adamw", "muon"] = _setting(
        "muon", "Optimizer; muon is Muon for the matrices of the layers and AdamW for all else."
    )
    learning_rate: float | Literal["auto"] = _setting(
        "auto", "Peak of the learning rate; auto is 5e-3 for muon, and 2e-3 for adamw on its own.", above=0.0
    )
    betas: tuple[float, float] = _setting((0.9, 0.98), "Decay of the two moments, each in [0, 1).", least=0.0, most=1.0)
    epsilon: float = _setting(1e-8, "Added to the root of the second moment.", above=0.0)
    momentum: float = _setting(
        0.95, "Decay of Muon's momentum, in [0, 1).", least=0.0, most=1.0, only=("optimizer.name", "muon")
    )
    weight_decay: float = _setting(0.01, "Decoupled decay; not for norms, biases and embeddings.", least=0.0)
    gradient_clip: float = _setting(1.0, "Longest norm of the whole gradient; 0 does not clip.", least=0.0)
    schedule: ScheduleName = _setting("linear", "How the learning rate falls after the warm-up.")
    warmup_share: float = _setting(0.05, "Share of the budget in which the rate rises from 0.", least=0.0, most=1.0)
    final_share: float = _setting(
        0.0, "Last learning rate as a share of the peak; not for constant and noam.", least=0.0, most=1.0
    )
    decay_share: float = _setting(
        0.2, "Share of the budget in which the rate falls.", least=0.0, most=1.0, only=("optimizer.schedule", "wsd")
    )

    @property
    def peak(self) -> float:
        """The learning rate with auto resolved."""
        if self.learning_rate == "auto":
            return 5e-3 if self.name == "muon" else 2e-3
        return self.learning_rate


@dataclass(frozen=True)
class TrainingSettings:
    """How long, how wide and how exactly."""

    budget: Budget = _setting(
        Budget("seconds", 220),
        f"When to stop: {BUDGET_EXAMPLES}; a bare number counts steps. Tokens are those of rows.",
    )
    batch_rows: int = _setting(16, "Rows a step, over all processes together.", least=1)
    micro_batch_rows: int | None = _setting(
        None,
        "Most rows a process puts through the model at once; null is its whole share of the step.",
        least=1,
        changeable=True,
    )
    gradient_parts: int | None = _setting(
        None,
        "Divides a step into so many parts, a power of 2, whose gradients are added up in a fixed order: the same bits "
        "on any number of processes that divides it; null is the fastest order.",
        least=1,
        most=2**16,
    )
    precision: Literal["auto", "fp32", "bf16"] = _setting(
        "auto", "Arithmetic; auto is bf16 where the device is fast at it.", changeable=True
    )
    seed: int = _setting(0, "Decides the weights, the order, the masks and dropout.", least=0, most=2**32 - 1)
    log_every: int = _setting(10, "Steps between two lines of metrics.jsonl.", least=1, changeable=True)
    save_every: Budget | Literal["never"] = _setting(
        Budget("seconds", 120),
        "Between two checkpoints, as 5min or 1000steps; never leaves the last one only.",
        changeable=True,
    )
    keep_last: int = _setting(2, "Newest checkpoints to keep.", least=1, changeable=True)
    processes: int | None = _setting(
        None,
        "Processes the run must have, or it stops at once; null takes what the launcher gives.",
        least=1,
        changeable=True,
    )
    parallelism: Literal["data", "sharded"] = _setting(
        "data",
        "What several processes hold: the whole model each, or weights, gradients and moments shared out (FSDP2).",
        changeable=True,
    )
    shard_over: int | None = _setting(
        None,
        "Processes that share one copy of the model, such as those of a machine, while other copies train beside it; "
        "null is all.",
        least=2,
        only=("training.parallelism", "sharded"),
        changeable=True,
    )
    threads: int | None = _setting(
        None,
        "Threads of a process on a CPU, which decide the last bits; null takes what the environment gives, and 1 with "
        "gradient_parts and beside a GPU.",
        least=1,
        most=4096,
        changeable=True,
    )
    batch_processes: int | None = _setting(
        None,
        "Processes that make the batches of the steps to come; null is none on a CPU, and on a GPU up to 4, as cores "
        "allow.",
        least=0,
        most=256,
        changeable=True,
    )
    timeout: float = _setting(
        120.0,
        "Seconds after which a process that does not answer is given up; 600 in its first step.",
        least=1.0,
        changeable=True,
    )
    most_skipped: int = _setting(
        3,
        "Steps in a row that may be left out, as a loss or gradient is not finite, before the run stops.",
        least=0,
        changeable=True,
    )
    attention: Literal["auto", "sdpa", "eager", "minilm_varlen"] = _setting(
        "auto",
        "Attention kernel; eager is the written-out formula, minilm_varlen never looks across sequences, auto is the "
        "one that trains fastest here.",
        changeable=True,
    )
    compile: Literal["auto", "yes", "no"] = _setting(
        "auto", "Whether torch.compile fuses the layers; auto where the time that it takes comes back.", changeable=True
    )
    vocabulary_loss: Literal["auto", "chunked", "plain", "torch", "liger"] = _setting(
        "auto",
        "How the loss over the vocabulary is computed: chunked, by all logits at once, or another's kernel; liger is "
        "the package liger-kernel, on CUDA.",
        changeable=True,
    )

    @property
    def evaluation_rows(self) -> int:
        """Rows of an evaluation's batch: as many as a process trains on at once, whatever the number of processes."""
        return min(self.batch_rows, self.micro_batch_rows or _ROWS_EVALUATED_AT_ONCE)


@dataclass(frozen=True)
class EvaluationSettings:
    """How often the held-out text is looked at."""

    every: Budget | Literal["never"] = _setting(
        Budget("steps", 200), "Between two evaluations, as 200steps or 5min; never evaluates at the end only."
    )
    rows: int = _setting(512, "Most held-out rows an evaluation reads.", least=1)
    translations: int = _setting(
        500,
        "Most held-out sources that the report translates.",
        least=1,
        only=("objective.name", "pairs"),
        changeable=True,
    )
    num_beams: int = _setting(
        4,
        "Beams of its second translation, beside the greedy one.",
        least=1,
        only=("objective.name", "pairs"),
        changeable=True,
    )


@dataclass(frozen=True)
class OutputSettings:
    """Where the results go."""

    folder: str = _setting("auto", "Run folder; auto is runs/ and the name of the corpus.", changeable=True)
    trackers: tuple[str, ...] = _setting((), "Accelerate trackers to log to, such as tensorboard.", changeable=True)


@dataclass(frozen=True)
class CardSettings:
    """What the model's card says and no run can measure."""

    license: str | None = _setting(
        None,
        "Licence of the model, by the Hub's name for it, as apache-2.0 or cc-by-4.0; null leaves it unsaid.",
        changeable=True,
    )
    data_license: str | None = _setting(
        None, "Licence of the corpus, likewise; that of builtin:world and builtin:pairs is known.", changeable=True
    )
    languages: tuple[str, ...] = _setting(
        (),
        "Languages of the corpus by their ISO 639 codes, as [es, qu]; those of the built-in corpora are known.",
        changeable=True,
    )


@dataclass(frozen=True)
class Recipe:
    """All settings of a run. Checked when made, so that a recipe that exists is a valid one.

    Raises:
        ValueError: If a number is out of its range or two settings contradict each other.
    """

    model: ModelSettings = field(default_factory=ModelSettings)
    tokenizer: TokenizerSettings = field(default_factory=TokenizerSettings)
    data: DataSettings = field(default_factory=DataSettings)
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    output: OutputSettings = field(default_factory=OutputSettings)
    card: CardSettings = field(default_factory=CardSettings)

    def __post_init__(self) -> None:
        self.validate()

    @property
    def preset(self) -> str:
        """The preset's name with modern resolved: a decoder's modern architecture has a name of its own."""
        is_decoder = self.objective.name == "causal"
        return "modern_decoder" if is_decoder and self.model.preset == "modern" else self.model.preset

    @property
    def tokenizer_kind(self) -> Literal["wordpiece", "bytelevel_bpe", "unigram"]:
        """The tokenizer's kind with auto resolved."""
        if self.tokenizer.kind != "auto":
            return self.tokenizer.kind
        return "wordpiece" if self.objective.name == "masked" else "bytelevel_bpe"

    @property
    def next_sentence(self) -> bool:
        """Whether next-sentence prediction really takes part: it is asked for and the objective is masked."""
        return self.objective.next_sentence and self.objective.name == "masked"

    @property
    def is_sequence_to_sequence(self) -> bool:
        """Whether the model is an encoder-decoder."""
        return self.objective.name in ("pairs", "denoising")

    @property
    def corpora(self) -> tuple[str, ...]:
        """The corpus or corpora as a tuple."""
        return (self.data.corpus,) if isinstance(self.data.corpus, str) else self.data.corpus

    @property
    def output_folder(self) -> Path:
        """The run folder with auto resolved: `runs/world` for builtin:world, `runs/novels` for novels.jsonl.gz."""
        if self.output.folder != "auto":
            return Path(self.output.folder).expanduser()
        name = Path(self.corpora[0].removeprefix("builtin:")).name.split(".")[0].strip("*?[]") or "text"
        return Path("runs") / name

    def validate(self) -> None:
        """Check every range and every rule between fields.

        Raises:
            ValueError: With one line that names the field, its value and what to do.
        """
        for section, item, value in _fields(self):
            _check_range(f"{section}.{item.name}", value, item.metadata)
            _check_characters(f"{section}.{item.name}", value)
        self._check_data()
        self._check_objective()
        self._check_optimizer()
        self._check_batch()
        self._check_effect()
        self._check_card()

    def _check_data(self) -> None:
        if not all(self.corpora) or not self.corpora:
            raise ValueError("data.corpus ('') must name at least one source; builtin:world needs no files.")
        self._check_form_of_corpus()
        if not self.data.languages:
            raise ValueError("data.languages ([]) must name at least one of es, en; remove it for both.")
        if not self.output.folder:
            raise ValueError("output.folder ('') must be a path or auto; remove it for runs/ and the corpus's name.")

    def _check_form_of_corpus(self) -> None:
        name = self.objective.name
        for corpus in self.corpora:
            if name == "pairs" and corpus in ("builtin:world", "builtin:docs"):
                raise ValueError(
                    f"data.corpus ({corpus}) must hold pairs with objective.name pairs; "
                    "use builtin:pairs, or a TSV or JSONL file."
                )
            if name != "pairs" and corpus == "builtin:pairs":
                raise ValueError(
                    f"data.corpus (builtin:pairs) must hold texts with objective.name {name}; use builtin:world."
                )

    def _check_objective(self) -> None:
        shares = self.objective.mask_share + self.objective.random_share
        if shares > 1.0 + 1e-9:
            raise ValueError(
                f"objective.mask_share + objective.random_share ({shares:g}) must be at most 1; lower one of them."
            )
        if self.objective.name == "masked" and self.tokenizer_kind == "bytelevel_bpe":
            raise ValueError(
                "tokenizer.kind (bytelevel_bpe) must have a [MASK] token with objective.name masked; "
                "choose wordpiece, unigram or auto."
            )
        if self.objective.name == "causal" and self.tokenizer_kind != "bytelevel_bpe":
            raise ValueError(
                f"tokenizer.kind ({self.tokenizer_kind}) must have tokens for a text's two ends with objective.name "
                "causal; choose bytelevel_bpe or auto."
            )
        self._check_architecture()

    def _check_optimizer(self) -> None:
        if max(self.optimizer.betas) >= 1.0:
            raise ValueError(f"optimizer.betas ({list(self.optimizer.betas)}) must be below 1; try [0.9, 0.98].")
        if self.optimizer.momentum >= 1.0:
            raise ValueError(f"optimizer.momentum ({self.optimizer.momentum}) must be below 1; try 0.95.")
        if self.optimizer.schedule == "noam" and self.optimizer.warmup_share == 0:
            raise ValueError("optimizer.warmup_share (0) must be above 0 with optimizer.schedule noam; try 0.1.")
        falling = self.optimizer.warmup_share + self.optimizer.decay_share
        if self.optimizer.schedule == "wsd" and falling > 1.0:
            raise ValueError(
                f"optimizer.warmup_share + optimizer.decay_share ({falling:g}) must be at most 1; lower one of them."
            )

    def _check_architecture(self) -> None:
        preset, name = self.model.preset, self.objective.name
        if name not in _OBJECTIVES_OF[preset]:
            known = [preset for preset, objectives in _OBJECTIVES_OF.items() if name in objectives]
            raise ValueError(
                f"model.preset ({preset}) must be {' or '.join(known)} with objective.name {name}; change one of them, "
                f"{preset} learns from objective.name {' or '.join(_OBJECTIVES_OF[preset])}."
            )
        if self.is_sequence_to_sequence and self.tokenizer_kind == "wordpiece":
            raise ValueError(
                f"tokenizer.kind (wordpiece) must spell every text with objective.name {name}; "
                "choose bytelevel_bpe, unigram or auto."
            )

    def _check_batch(self) -> None:
        rows, micro, processes = self.training.batch_rows, self.training.micro_batch_rows, self.training.processes
        if micro is not None and micro > rows:
            raise ValueError(
                f"training.micro_batch_rows ({micro}) must be at most training.batch_rows ({rows}); lower it."
            )
        if processes is not None and processes > rows:
            raise ValueError(
                f"training.processes ({processes}) must be at most training.batch_rows ({rows}); "
                "give every process a row."
            )
        self._check_parts()

    def _check_parts(self) -> None:
        parts, rows, processes = self.training.gradient_parts, self.training.batch_rows, self.training.processes
        if parts is None:
            return
        if parts & (parts - 1):
            raise ValueError(
                f"training.gradient_parts ({parts}) must be a power of 2, so that they add up two by two; try "
                f"{2 ** (parts.bit_length() - 1)}."
            )
        if self.training.parallelism == "sharded":
            raise ValueError(
                f"training.gradient_parts ({parts}) must stay null with training.parallelism sharded, whose sums have "
                "an order of their own; remove one of them."
            )
        if parts > rows:
            raise ValueError(
                f"training.gradient_parts ({parts}) must be at most training.batch_rows ({rows}); lower it."
            )
        if processes is not None:
            check_divides(processes, parts)

    def _check_card(self) -> None:
        for name in ("license", "data_license"):
            check_license(f"card.{name}", getattr(self.card, name))
        check_languages("card.languages", self.card.languages)

    def _check_effect(self) -> None:
        causes = self._without_effect()
        for section, item, value in _fields(self):
            path = f"{section}.{item.name}"
            if path in causes and value != item.default:
                raise ValueError(
                    f"{path} ({write_inline(_plain(value))}) must stay {write_inline(_plain(item.default))} with "
                    f"{causes[path]}, where it has no effect; remove it."
                )

    def _without_effect(self) -> dict[str, str]:
        """Map each field that another one leaves without effect to that other one and its value."""
        causes: dict[str, str] = {}
        for section, item, _ in _fields(self):
            if item.metadata["only"]:
                other, *fitting = item.metadata["only"]
                value = operator.attrgetter(other)(self)
                if value not in fitting:
                    causes[f"{section}.{item.name}"] = f"{other} {value}"
        if "builtin:world" not in self.corpora:
            causes["data.languages"] = "a data.corpus that is not builtin:world"
            if "builtin:pairs" not in self.corpora:
                causes["data.world_documents"] = "a data.corpus that is neither builtin:world nor builtin:pairs"
        if self.tokenizer.folder is not None:
            causes |= dict.fromkeys(_TRAINED_TOKENIZER_ONLY, "tokenizer.folder")
        if self.optimizer.schedule in ("constant", "noam"):
            causes["optimizer.final_share"] = f"optimizer.schedule {self.optimizer.schedule}"
        return causes


def check_divides(processes: int, parts: int) -> None:
    """Make sure that every process has as many parts of a step.

    Raises:
        ValueError: If the number of processes does not divide that of the parts.
    """
    if parts % processes:
        raise ValueError(
            f"number of processes ({processes}) must divide training.gradient_parts ({parts}); start 1, 2, 4 ... "
            "processes, at most as many as parts."
        )


def check_license(name: str, value: str | None) -> None:
    """Make sure that a licence is written as the Hub writes its names.

    Raises:
        ValueError: If it is not.
    """
    if value is not None and not _LICENSE.fullmatch(value):
        raise ValueError(
            f"{name} ({value}) must be the Hub's name of a licence, in small letters without spaces, as apache-2.0 or "
            "other; correct it."
        )


def check_languages(name: str, values: Sequence[str]) -> None:
    """Make sure that languages are codes of ISO 639, or one of the Hub's two words for none and many.

    Raises:
        ValueError: If one is not.
    """
    for value in values:
        if not _LANGUAGE.fullmatch(value):
            raise ValueError(f"{name} ({value}) must be codes of ISO 639 in small letters, as es or quy; correct it.")


_ROWS_EVALUATED_AT_ONCE = 64
"""Most rows of a batch in an evaluation, where a recipe does not say how many fit."""
_OBJECTIVES_OF = {
    "modern": ("masked", "causal", "pairs", "denoising"),
    "bert": ("masked", "causal"),
    "gpt2": ("causal",),
    "vaswani2017": ("pairs", "denoising"),
}
"""What each preset's model can be trained to predict; the direction that it reads in follows from that."""
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_LANGUAGE = re.compile(r"[a-z]{2,3}|code|multilingual")
_PATHS = ("data.corpus", "data.cache_folder", "tokenizer.folder", "output.folder")
_TRAINED_TOKENIZER_ONLY = ("tokenizer.kind", "tokenizer.vocab_size", "tokenizer.lowercase")
_LIMITS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "least": ("at least", operator.ge),
    "most": ("at most", operator.le),
    "above": ("above", operator.gt),
}
_TYPES: dict[str, type[Any]] = {item.name: cast(type[Any], item.default_factory) for item in dataclasses.fields(Recipe)}
CHANGEABLE = frozenset(
    f"{section}.{item.name}"
    for section, declared in _TYPES.items()
    for item in dataclasses.fields(declared)
    if item.metadata["changeable"]
)
"""Settings that may change while a run is under way: they say how it works, and only rounding depends on them."""


def load_recipe(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply overrides to it.

    Args:
        path: A YAML file with any part of the sections and fields; None for the defaults alone.
        overrides: Texts `section.field=value`, the value in YAML; a later one wins. One level more,
            `model.overrides.hidden_size=64`, sets one key of a mapping.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file or an override is not a valid recipe, with one line that names the field.
    """
    tree = {} if path is None else read_yaml_file(Path(path))
    for override in overrides:
        _apply_override(tree, override)
    return recipe_from_dict(tree)


def recipe_from_dict(tree: Mapping[str, Any]) -> Recipe:
    """Build the recipe that a tree of plain values describes; what is missing takes its default.

    Raises:
        ValueError: If a name does not exist, a value has the wrong type, or the recipe is not valid.
    """
    sections: dict[str, Any] = {}
    for name, values in tree.items():
        if name not in _TYPES:
            raise ValueError(_unknown(str(name), values))
        if not isinstance(values, Mapping | None):
            raise ValueError(
                f"{name} ({write_inline(values)}) must be a section with fields; write {name}.FIELD: value."
            )
        sections[name] = _section_from_dict(name, values or {})
    return Recipe(**sections)


def _section_from_dict(name: str, values: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(_TYPES[name])
    converted = {}
    for key, value in values.items():
        if key not in hints:
            raise ValueError(_unknown(f"{name}.{key}", value))
        try:
            converted[key] = convert(value, hints[key])
        except ValueError as error:
            expected = describe_type(hints[key])
            hint = suggest(value, hints[key])
            raise ValueError(f"{name}.{key} ({write_inline(value)}) must be {expected}; {hint}") from error
        if f"{name}.{key}" in _PATHS:
            converted[key] = _without_home(converted[key])
    return _TYPES[name](**converted)


def _without_home(value: Any) -> Any:
    """Write ~ for the user's home in a path or several, so that no file of a run says who made it where."""
    if isinstance(value, tuple):
        return tuple(map(_without_home, value))
    home = f"{Path.home()}/"
    return f"~/{value.removeprefix(home)}" if isinstance(value, str) and value.startswith(home) else value


def recipe_to_dict(recipe: Recipe) -> Sections:
    """Write the whole recipe as plain values that YAML and JSON can hold; `recipe_from_dict` reads them back."""
    tree: Sections = {name: {} for name in _TYPES}
    for section, item, value in _fields(recipe):
        tree[section][item.name] = _plain(value)
    return tree


def difference(before: Recipe, after: Recipe) -> dict[str, str]:
    """Map the fields that differ to `section.field: before -> after`, in the order of the sections.

    A learning rate that is written out does not differ from an `auto` that chooses it.
    """
    before, after = (
        replace(recipe, optimizer=replace(recipe.optimizer, learning_rate=recipe.optimizer.peak))
        for recipe in (before, after)
    )
    return {
        f"{section}.{item.name}": f"{section}.{item.name}: {write_inline(_plain(old))} -> {write_inline(_plain(new))}"
        for (section, item, old), (_, _, new) in zip(_fields(before), _fields(after), strict=True)
        if old != new
    }


def describe_recipe(recipe: Recipe | None = None) -> str:
    """Write every field with its meaning and choices as commented YAML; without a recipe, the defaults."""
    lines: list[str] = []
    tree = recipe_to_dict(recipe or Recipe())
    for name, section in _TYPES.items():
        lines += ["", f"{name}:  # {section.__doc__}"]
        hints = typing.get_type_hints(section)
        for item in dataclasses.fields(section):
            choices = describe_choices(hints[item.name])
            comment = f"{item.metadata['help']}{choices}"
            lines += write_commented(item.name, tree[name][item.name], comment)
    return "\n".join(lines[1:]) + "\n"


def _fields(recipe: Recipe) -> Iterator[tuple[str, "dataclasses.Field[Any]", Any]]:
    """Every field in order, as its section's name, its declaration and its value."""
    for section in _TYPES:
        values = getattr(recipe, section)
        for item in dataclasses.fields(values):
            yield section, item, getattr(values, item.name)


def _plain(value: Any) -> Any:
    if isinstance(value, Budget):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return {} if value is MISSING else value


def _check_range(path: str, value: Any, limits: Mapping[str, Any]) -> None:
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        for name, (words, holds) in _LIMITS.items():
            if limits[name] is not None and not holds(number, limits[name]):
                raise ValueError(f"{path} ({number}) must be {words} {limits[name]}; it is: {limits['help']}")


def _check_characters(path: str, value: Any) -> None:
    for text in value if isinstance(value, tuple) else (value,):
        if isinstance(text, str) and _UNPRINTABLE.search(text):
            raise ValueError(f"{path} ({text!a}) must not have control characters; correct it.")


def _apply_override(tree: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or len(keys) < 2:
        known = nearest(path.strip(), _all_paths())
        raise ValueError(f"override ({override}) must be section.field=value; is {known}=... meant?")
    inner = tree
    for depth, key in enumerate(keys[:-1]):
        if inner.get(key) is None:
            inner[key] = {}
        inner = inner[key]
        if not isinstance(inner, dict) or (depth > 0 and _field_type(keys) is not dict):
            raise ValueError(_unknown(path.strip(), text))
    inner[keys[-1]] = read_yaml(text, name=f"override {path.strip()}")


def _field_type(keys: list[str]) -> Any:
    """The outer type of the field that `section.field.key` reaches into, or None where there is no such field."""
    if keys[0] not in _TYPES:
        return None
    return typing.get_origin(typing.get_type_hints(_TYPES[keys[0]]).get(keys[1]))


def _all_paths() -> list[str]:
    return [f"{name}.{item.name}" for name, section in _TYPES.items() for item in dataclasses.fields(section)]


def _unknown(path: str, value: Any) -> str:
    candidates = _all_paths() if "." in path else [*_TYPES, *_all_paths()]
    return f"{path} ({write_inline(value)}) must be a field of a recipe; did you mean {nearest(path, candidates)}?"
