"""The report at the end of a run: what the model can do, how far it is from what is possible, and how to use it."""

import json
import textwrap
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..data.best_prediction import MASK
from .language_model import HeldOut
from .minimal_pairs import PairAccuracy
from .samples import FilledMask, GeneratedText
from .translation import Translation, TranslationScores
from .world_floor import MaskedFloor

_WIDTH = 100


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What was trained, on what, and for how long.

    Attributes:
        objective: "masked", "masked + next sentence" or "causal", as a person reads it.
        corpus: The corpus's name or path.
        steps: Optimizer steps.
        tokens: Token positions trained on, padding left out.
        seconds: Wall-clock time of the training.
        parameters: Parameters of the model, shared ones counted once.
        device: What it ran on.
        skipped: Steps among them that left the weights as they were, as a loss or gradient was not finite.
    """

    objective: str
    corpus: str
    steps: int
    tokens: int
    seconds: float
    parameters: int
    device: str = "cpu"
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class BetterCheckpoint:
    """A checkpoint that predicts held-out text better than the run's last step does.

    Attributes:
        folder: Where it lies.
        held_out_loss: In nats per predicted token.
        last_held_out_loss: That of the last step on the same rows.
    """

    folder: str
    held_out_loss: float
    last_held_out_loss: float


@dataclass(frozen=True, slots=True)
class Report:
    """Everything measured at the end of a run.

    Attributes:
        facts: The run.
        held_out: Losses on held-out text.
        floor: The least possible loss: for masked models `MaskedFloor`, for causal ones nats per token; a string says
            why it is not known; None where nothing is said about it.
        probes: Accuracy on minimal pairs.
        filled: Masked words, for masked models.
        texts: Continued texts, for causal models.
        scores: Scores of translated held-out texts, one for each number of beams, for encoder-decoders.
        translations: Some of those translations, found with the last number of beams.
        model_folder: Where the model lies.
        task: What the model is used for: transformers' name of the pipeline, or of the one that it had.
        better: An earlier checkpoint with a lower held-out loss, None where the last one is the best.
        mask_token: What the model's tokenizer has for `[MASK]`.
        notes: What a reader of the figures has to know besides.
    """

    facts: RunFacts
    held_out: HeldOut
    floor: MaskedFloor | float | str | None
    model_folder: str
    task: Literal["fill-mask", "text-generation", "translation"]
    probes: tuple[PairAccuracy, ...] = ()
    filled: tuple[FilledMask, ...] = ()
    texts: tuple[GeneratedText, ...] = ()
    scores: tuple[TranslationScores, ...] = ()
    translations: tuple[Translation, ...] = ()
    better: BetterCheckpoint | None = None
    mask_token: str = MASK
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return all figures as dictionaries, lists, strings and numbers, ready for `json.dump`."""
        return _plain(asdict(self))

    def to_text(self) -> str:
        """Return the report for a person to read, in at most 100 columns but for a long model folder."""
        parts = [
            list(_fact_lines(self.facts)),
            list(_loss_lines(self)),
            list(_probe_lines(self.probes)),
            list(_mask_lines(self.filled)),
            list(_text_lines(self.texts)),
            list(_translation_lines(self.scores, self.translations)),
            list(_usage_lines(self)),
        ]
        return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def _plain(value: Any) -> Any:
    """Turn tuples into lists all the way down, as JSON would, so that what is read back equals what was written."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _wrapped(text: str, *, indent: str = "  ") -> Iterator[str]:
    yield from textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent + "  ")


def _fact_lines(facts: RunFacts) -> Iterator[str]:
    speed = facts.tokens / facts.seconds if facts.seconds > 0 else 0.0
    yield "Trained"
    yield from _wrapped(f"{facts.objective} model of {facts.parameters:,} parameters on {facts.corpus}")
    yield from _wrapped(
        f"{facts.steps:,} steps, {facts.tokens:,} tokens, {_duration(facts.seconds)} on {facts.device} "
        f"({speed:,.0f} tokens a second)"
    )
    if facts.skipped:
        yield from _wrapped(f"{facts.skipped:,} steps left out, as a loss or gradient was not finite")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def _loss_lines(report: Report) -> Iterator[str]:
    figures, floor = report.held_out, report.floor
    best = f" (floor {floor:.2f})" if isinstance(floor, float) else ""
    yield f"On held-out text ({figures.num_tokens:,} predicted tokens)"
    yield from _wrapped(f"held-out loss {figures.nats_per_token:.2f} nats per predicted token{best}")
    if figures.bits_per_byte is not None:
        yield from _wrapped(f"{figures.bits_per_byte:.2f} bits per byte of the predicted text")
    if figures.next_sentence_accuracy is not None:
        yield from _wrapped(
            f"next sentence: {figures.next_sentence_accuracy:.1%} right of {figures.num_sequences:,} pairs (always the "
            f"commoner answer: {figures.next_sentence_majority:.1%}), loss {figures.next_sentence_loss:.2f} nats"
        )
    if isinstance(floor, MaskedFloor):
        yield from _floor_lines(floor)
    elif isinstance(floor, str):
        yield from _wrapped(floor)
    for note in report.notes:
        yield from _wrapped(note)


def _floor_lines(floor: MaskedFloor) -> Iterator[str]:
    yield from _wrapped(
        f"on {floor.num_sequences} of its sequences, {floor.num_tokens:,} masked tokens: loss "
        f"{floor.model_nats_per_token:.2f} nats per predicted token (floor {floor.nats_per_token:.2f})"
    )
    if floor.next_sentence_accuracy is not None:
        yield from _wrapped(
            f"on their {floor.num_pairs} pairs: next sentence {floor.model_next_sentence_accuracy:.1%} right (best "
            f"possible {floor.next_sentence_accuracy:.1%}), loss {floor.model_next_sentence_loss:.2f} nats (floor "
            f"{floor.next_sentence_loss:.2f})"
        )


def _probe_lines(probes: tuple[PairAccuracy, ...]) -> Iterator[str]:
    """Make a table of phenomena by distances."""
    if not probes:
        return
    table: dict[str, dict[int, PairAccuracy]] = defaultdict(dict)
    for cell in probes:
        table[cell.phenomenon][cell.distance] = cell
    distances = sorted({cell.distance for cell in probes})
    yield "Minimal pairs: right word over wrong word, by what stands between (chance 50 %; 95 % interval)"
    yield f"  {'':<18}{'pairs':>6}" + "".join(f"{f'distance {distance}':>22}" for distance in distances)
    for phenomenon, row in table.items():
        cells = [_cell(row[distance]) if distance in row else "-" for distance in distances]
        number = sum(cell.number for cell in row.values())
        yield f"  {phenomenon.replace('_', ' '):<18}{number:>6}" + "".join(f"{cell:>22}" for cell in cells)


def _cell(cell: PairAccuracy) -> str:
    return f"{cell.accuracy:.1%} ({cell.low:.0%}-{cell.high:.0%})"


def _mask_lines(filled: tuple[FilledMask, ...]) -> Iterator[str]:
    if not filled:
        return
    yield "Masks filled in"
    for mask in filled:
        yield from _wrapped(mask.text)
        yield from _wrapped(", ".join(f"{word} {share:.1%}" for word, share in mask.guesses), indent="    ")
        if mask.answers:
            yield from _wrapped(f"may stand there: {', '.join(mask.answers[:5])}", indent="    ")


def _text_lines(texts: tuple[GeneratedText, ...]) -> Iterator[str]:
    if not texts:
        return
    yield "Texts continued after |"
    for text in texts:
        yield from _wrapped(f"{text.prompt}|{text.continuation}")


def _translation_lines(scores: tuple[TranslationScores, ...], translations: tuple[Translation, ...]) -> Iterator[str]:
    if scores:
        yield f"Translations of {scores[0].number:,} held-out texts"
    elif translations:
        yield "Gaps filled in"
    for score in scores:
        search = "greedy" if score.num_beams == 1 else f"{score.num_beams} beams"
        yield f"  {search:<9}chrF {score.chrf:5.1f}, BLEU {score.bleu:5.1f}, exact match {score.exact_match:.1%}"
    for translation in translations:
        yield from _wrapped(translation.source)
        yield from _wrapped(f"output:    {translation.output}", indent="    ")
        yield from _wrapped(f"reference: {translation.target}", indent="    ")


def _usage_lines(report: Report) -> Iterator[str]:
    yield f"The model lies in {report.model_folder}"
    if report.better is not None:
        yield from _wrapped(
            f"an earlier state predicts held-out text better ({report.better.held_out_loss:.2f} nats against "
            f"{report.better.last_held_out_loss:.2f} on the same rows): {report.better.folder}"
        )
    yield "  import hf_minilm  # registers the architecture with transformers"
    yield from _seq2seq_lines(report) if report.task == "translation" else _pipeline_lines(report)


def _pipeline_lines(report: Report) -> Iterator[str]:
    if report.task == "text-generation":
        example = report.texts[0].prompt if report.texts else "A"
    else:
        example = (report.filled[0].text if report.filled else MASK).replace(MASK, report.mask_token)
    yield "  from transformers import pipeline"
    yield f'  model = pipeline("{report.task}", model={_quoted(report.model_folder)})'
    yield f"  print(model({_quoted(example)}))"


def _seq2seq_lines(report: Report) -> Iterator[str]:
    # transformers 5 has no pipeline for translation any more.
    folder = _quoted(report.model_folder)
    example = report.translations[0].source if report.translations else "A"
    yield "  from transformers import AutoModelForSeq2SeqLM, AutoTokenizer"
    yield f"  tokenizer = AutoTokenizer.from_pretrained({folder})"
    yield f"  model = AutoModelForSeq2SeqLM.from_pretrained({folder})"
    yield f'  source = tokenizer({_quoted(example)}, return_tensors="pt")'
    # A model that says nothing about it ends its output after 20 tokens, with a warning.
    yield "  output = model.generate(**source, max_new_tokens=60)"
    yield "  print(tokenizer.decode(output[0], skip_special_tokens=True))"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
