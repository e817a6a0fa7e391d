"""Evaluate a model on suites, each named in a word: `KIND`, or `KIND:SOURCE`.

    evaluation = evaluate_model(model, tokenizer, ["heldout:novel.txt", "pairs:zorro/"])
    evaluation.save(Path("runs/mine/model/evaluation.json"))

`SUITES` lists them. What comes out is described in `evaluation_result`.
"""

import difflib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TypeVar

from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.corpus import Corpus
from ..data.objectives import SHORTEST_ROW
from ..data.world import LANGUAGES, World
from ..data.world_probes import PHENOMENA
from .answers import ARTICLES
from .evaluation_result import Evaluation, Figure, SuiteResult
from .fine_tuned import evaluate_classification, evaluate_spans, evaluate_tagging
from .held_out_text import HeldOutText, evaluate_held_out, evaluate_next_sentence, evaluate_pseudo_perplexity
from .labelled_files import read_labelled_texts, read_questions, read_tagged_sentences
from .language_model import predicts_next_token
from .minimal_pairs import minimal_pair_accuracy
from .pair_files import read_pairs
from .provenance import describe_hardware, describe_versions, source_name
from .run_corpus import corpus_with, find_recipe
from .saved_models import model_folder
from .sentence_pairs import evaluate_pairs, share_of, words_of
from .text_scores import SCORINGS, TextScorer, longest_text

Item = TypeVar("Item")

_WINDOWS, _SENTENCES = 4_096, 1_000
_PROBES_EACH = 100  # of each phenomenon, distance and language


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """How to evaluate.

    Attributes:
        scoring: How texts are scored: `auto`, `masked`, `causal` or `hybrid`; see `text_scores`.
        limit: Most examples of a suite: windows, sentences, pairs of each paradigm, probes of each kind, texts or
            questions. None: 4,096 windows, 1,000 sentences, 100 probes, and all of the others.
        length: Most tokens of a window of held-out text.
        language: Whose articles are left out of answers; see `answers.ARTICLES`.
        training_text: What the model was trained on, as `Corpus` takes it: then `pairs` says which of them have no word
            that is not in it.
        seed: Decides masks, pairs of segments, drawn sentences, probes and bootstraps.

    Raises:
        ValueError: If a number is too small, or a name unknown.
        FileNotFoundError: If there is no such training text.
    """

    scoring: str = "auto"
    limit: int | None = None
    length: int = 128
    language: str = "en"
    training_text: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit ({self.limit}) must be at least 1; leave it out for all examples.")
        if self.length < SHORTEST_ROW:
            raise ValueError(f"length ({self.length}) must be at least {SHORTEST_ROW}; give --length a larger number.")
        for name, value, known in (("scoring", self.scoring, SCORINGS), ("language", self.language, ARTICLES)):
            if value not in known:
                raise ValueError(f"{name} ({value}) must be one of {', '.join(known)}; choose one of them.")
        if self.training_text is not None:
            Corpus([self.training_text])  # which looks for its files


@dataclass(frozen=True, slots=True)
class _Task:
    """A model, and how and on what it is to be evaluated."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    settings: EvaluationSettings
    source: str
    notes: list[str] = field(default_factory=list)

    def text(self, part: str = "all") -> HeldOutText:
        """Return the source; for the part that was held out, as the run that made the model divided it."""
        length, trained_on = min(self.settings.length, longest_text(self.model, self.tokenizer)), None
        if part == "validation":
            folder = str(self.model.name_or_path)
            recipe = find_recipe(model_folder(folder)) if folder else None
            trained_on, words = corpus_with(self.source, recipe)
            self.notes.append(words)
        return HeldOutText(
            self.source, self.tokenizer, part=part, length=length, seed=self.settings.seed, trained_on=trained_on
        )

    def first(self, items: Iterable[Item]) -> list[Item]:
        """Return the items that are to be looked at; raises ValueError if there are none."""
        found = list(items)
        if not found:
            raise ValueError(f"examples in {self.source} (0) must be at least 1; give another file.")
        kept = found[: self.settings.limit]
        if len(kept) < len(found):
            self.notes.append(f"the first {len(kept):,} of {len(found):,}")
        return kept


@dataclass(frozen=True, slots=True)
class Suite:
    """What can be measured.

    Attributes:
        argument: What stands after the colon; with the colon in brackets where it may be left out.
        description: What it measures.
        measure: Measures it.
        reads: The settings that it reads, besides `limit` and `seed`.
    """

    argument: str
    description: str
    measure: Callable[[_Task], dict[str, Figure]]
    reads: tuple[str, ...] = ()

    def word(self, kind: str) -> str:
        """Return how a suite of this kind is named."""
        return kind + self.argument if self.argument.startswith("[") else f"{kind}:{self.argument}"


def evaluate_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    suites: Sequence[str],
    *,
    settings: EvaluationSettings | None = None,
    name: str | None = None,
    command: str | None = None,
    say: Callable[[str], None] | None = None,
) -> Evaluation:
    """Evaluate a model, of this package or of transformers, on suites, in its own precision and where it lies.

    Args:
        model: With the head that the suites ask for; float32 for figures to be published.
        tokenizer: Its tokenizer, a fast one.
        suites: Such as `pairs:zorro/` or `probes`; see `SUITES`.
        settings: How to evaluate.
        name: What to call the model; None: the last part of where it was loaded from.
        command: The command line, without folders.
        say: Told the name of each suite when it begins.

    Raises:
        ValueError: If a suite is unknown or named twice, or the model or a file does not suit it.
        FileNotFoundError: If a file does not exist.
    """
    settings = settings or EvaluationSettings()
    results: dict[str, SuiteResult] = {}
    for label, (suite, source) in _parsed(suites).items():
        if say is not None:
            say(label)
        begin = time.perf_counter()
        task = _Task(model, tokenizer, settings, source)
        figures = suite.measure(task)
        results[label] = SuiteResult(figures, tuple(task.notes), time.perf_counter() - begin)
    return Evaluation(
        model={
            "name": name or PurePath(str(model.name_or_path)).name or type(model).__name__,
            "class": type(model).__name__,
            "parameters": model.num_parameters(),
            "vocabulary": len(tokenizer),
        },
        suites=results,
        seed=settings.seed,
        versions=describe_versions(),
        hardware=describe_hardware(model.device),
        command=command,
    )


def check_suites(words: Sequence[str], *, chosen: Mapping[str, object] | None = None) -> tuple[str, ...]:
    """Return the labels of the suites' results.

    Args:
        words: The suites.
        chosen: The settings that somebody has chosen.

    Raises:
        ValueError: If a suite is unknown, lacks what stands after its colon, or is named twice, or if no suite reads
            what was chosen.
    """
    found = _parsed(words)
    read = {"limit", "seed"}.union(*(suite.reads for suite, _ in found.values()))
    for name, value in (chosen or {}).items():
        if name not in read:
            readers = " or ".join(suite.word(kind) for kind, suite in SUITES.items() if name in suite.reads)
            option = f"--{name.replace('_', '-')} ({value})"
            raise ValueError(f"{option} must be read by a suite, and is not by these; leave it out, or name {readers}.")
    return tuple(found)


def _parsed(words: Sequence[str]) -> dict[str, tuple[Suite, str]]:
    """Return suites and sources by the labels of their results."""
    if not words:
        raise ValueError(f"suites (none) must be at least one of {_known()}; name one.")
    found: dict[str, tuple[Suite, str]] = {}
    for word in words:
        kind, _, source = word.partition(":")
        if kind not in SUITES:
            nearest = difflib.get_close_matches(kind, SUITES, n=1)
            hint = f"try {nearest[0]}" if nearest else "choose one of them"
            raise ValueError(f"suite ({word}) must be one of {_known()}; {hint}.")
        suite = SUITES[kind]
        if not source and not suite.argument.startswith("["):
            raise ValueError(f"suite ({word}) must say on what to measure; write {suite.word(kind)}.")
        label = f"{kind}:{source_name(source)}" if source else kind
        if label in found:
            raise ValueError(f"suites ({label}) must differ in more than folders; evaluate one after the other.")
        found[label] = suite, source
    return found


def _known() -> str:
    return ", ".join(suite.word(kind) for kind, suite in SUITES.items())


def _held_out(task: _Task, *, part: str = "all") -> dict[str, Figure]:
    settings, limit = task.settings, task.settings.limit or _WINDOWS
    how = "each token from those before it" if predicts_next_token(task.model) else "15 % masked, in whole words"
    length = min(settings.length, longest_text(task.model, task.tokenizer))
    task.notes.append(f"windows of at most {length} tokens, {limit:,} windows at most, {how}")
    return evaluate_held_out(task.model, task.tokenizer, task.text(part), seed=settings.seed, limit=limit)


def _validation(task: _Task) -> dict[str, Figure]:
    return _held_out(task, part="validation")


def _pseudo_perplexity(task: _Task) -> dict[str, Figure]:
    if predicts_next_token(task.model):
        raise ValueError(f"model (a {type(task.model).__name__}) must be a masked one; measure heldout:SOURCE.")
    limit = task.settings.limit or _SENTENCES
    task.notes.append(f"within-word left-to-right, {limit:,} sentences at most, each by itself")
    scorer = TextScorer(task.model, task.tokenizer)
    return evaluate_pseudo_perplexity(scorer, task.tokenizer, task.text(), seed=task.settings.seed, limit=limit)


def _next_sentence(task: _Task) -> dict[str, Figure]:
    limit = task.settings.limit or _WINDOWS
    task.notes.append(f"{limit:,} pairs of segments at most, nothing masked")
    return evaluate_next_sentence(task.model, task.text(), limit=limit)


def _pairs(task: _Task) -> dict[str, Figure]:
    settings = task.settings
    known = None
    if settings.training_text is not None:
        documents = Corpus([settings.training_text], seed=settings.seed).documents("train")
        known = frozenset(word for document in documents for word in words_of(document.text))
    scorer = TextScorer(task.model, task.tokenizer, scoring=settings.scoring)
    begin = time.perf_counter()
    # Without a terminal nothing is shown.
    pairs = tqdm(read_pairs(task.source), unit=" pairs", disable=None)
    measured = evaluate_pairs(scorer, pairs, seed=settings.seed, limit=settings.limit, known_words=known)
    speed = measured.num_pairs / (time.perf_counter() - begin)
    task.notes.append(f"{scorer.scoring} scores of whole sentences; a tie counts one half: {measured.num_ties:,}")
    task.notes.append(f"{speed:,.1f} pairs a second")
    if measured.num_left_out:
        task.notes.append(f"left out, as the model cannot read so long a sentence: {measured.num_left_out:,} pairs")
    return measured.figures


def _probes(task: _Task) -> dict[str, Figure]:
    languages = tuple(task.source.split(",")) if task.source else LANGUAGES
    world = World(languages, seed=task.settings.seed)
    figures: dict[str, Figure] = {}
    for name, phenomenon in PHENOMENA.items():
        present = [language for language in world.languages if language in phenomenon.languages]
        if not present:
            continue
        number = (task.settings.limit or _PROBES_EACH) * len(phenomenon.distances) * len(present)
        table = minimal_pair_accuracy(task.model, task.tokenizer, world.probes(name, number))
        won, asked = sum(cell.accuracy * cell.number for cell in table), sum(cell.number for cell in table)
        if not asked:
            task.notes.append(f"{name}: the model can read none of its {number:,} probes")
            continue
        figures[name] = share_of(won, asked, counted="probes")
        figures |= {
            f"{name}/distance_{cell.distance}": share_of(cell.accuracy * cell.number, cell.number, counted="probes")
            for cell in table
        }
    return figures


def _classification(task: _Task) -> dict[str, Figure]:
    examples = task.first(read_labelled_texts(task.source))
    return evaluate_classification(task.model, task.tokenizer, examples, seed=task.settings.seed)


def _tagging(task: _Task) -> dict[str, Figure]:
    sentences = task.first(read_tagged_sentences(task.source))
    return evaluate_tagging(task.model, task.tokenizer, sentences, seed=task.settings.seed)


def _spans(task: _Task) -> dict[str, Figure]:
    questions, settings = task.first(read_questions(task.source)), task.settings
    return evaluate_spans(task.model, task.tokenizer, questions, language=settings.language, seed=settings.seed)


SUITES: dict[str, Suite] = {
    "heldout": Suite("TEXT", "loss, perplexity and bits per byte of a text", _held_out, ("length",)),
    "validation": Suite(
        "TEXT",
        "the same of what its run held out of the text; without its recipe.yaml, of 5 %",
        _validation,
        ("length",),
    ),
    "pseudo-perplexity": Suite(
        "TEXT", "the same of sentences, every token masked in turn; masked models", _pseudo_perplexity
    ),
    "next-sentence": Suite("TEXT", "next sentences told from those of other documents", _next_sentence, ("length",)),
    "pairs": Suite(
        "FILES", "minimal pairs of sentences: BLiMP, Zorro, JSON, CSV, TSV", _pairs, ("scoring", "training_text")
    ),
    "probes": Suite("[:es,en]", "the built-in minimal pairs: agreement by distance, coreference, senses", _probes),
    "classification": Suite("FILES", "records with text and label", _classification),
    "tagging": Suite("FILES", "words with tags: .conllu, .iob2, .conll, JSON", _tagging),
    "spans": Suite("FILES", "questions whose answers are parts of a text, in SQuAD's JSON", _spans, ("language",)),
}
"""What can be measured, by name."""
