"""Train one of transformers' own models for as long as a finished run took, and measure both on the same text.

    hf-minilm pretrain --set data.corpus=novels.jsonl --set training.budget=20min --set output.folder=runs/novels
    python examples/compare_with_peers.py runs/novels --peer bert
    python examples/compare_with_peers.py runs/novels --peer modernbert --tuned --pairs zorro/ --output novels.json

A masked run is compared with `bert`, `bert-nsp` (with the next-sentence head) or `modernbert`, a causal one with `gpt2`
or `llama`. The other model has the run's layers, width, heads, tokenizer and training documents, and begins with random
weights. Trainer trains it in one of two forms:

- as its users run it: TrainingArguments' defaults (batches of 8, fp32, AdamW at 5e-5 falling linearly), on full rows of
  the run's length cut from the joined documents as `run_mlm.py` and `run_clm.py` do, or on pairs of sentences;
- `--tuned`: the run's rows a step and its arithmetic, AdamW at 1e-3, betas 0.9 and 0.98, 5 % warm-up, falling likewise.

The other model's learning rate follows the share of the time that is used, as the run's does; Trainer's own would need
to know how many steps there will be. Tokenising counts for nobody. The run's time has its evaluations, checkpoints and
compilation in it; the other model has none of these.

Both then predict the same tokens of the same held-out rows, one sequence a row: masked ones from the same corrupted
input with 15 % to predict, and in pairs of segments only where both models were trained on pairs. `--pairs` adds
minimal pairs, in the forms that `hf-minilm evaluate` reads. See `pair_accuracies` for how a model is asked.
"""

import argparse
import dataclasses
import inspect
import itertools
import json
import math
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import datasets
import torch
from fine_tune import run as run_example
from torch import nn
from transformers import (
    DataCollatorForLanguageModeling,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.utils import logging

from hf_minilm.benchmark.machine import measuring_device, synchronise
from hf_minilm.benchmark.ours import MASK_RATE
from hf_minilm.benchmark.peer_data import grouped_rows, sentence_pairs
from hf_minilm.benchmark.peers import build_architecture, remove_what_is_not_taken
from hf_minilm.conversion import refuse_missing_folder, refuse_used_folder
from hf_minilm.data.document import Document
from hf_minilm.data.objectives import Batch, CausalObjective, MaskedObjective
from hf_minilm.data.sequences import IGNORED
from hf_minilm.data.tokenizer import special_tokens, token_bytes
from hf_minilm.data.world_probes import Probe
from hf_minilm.evaluation.intervals import wilson_interval
from hf_minilm.evaluation.language_model import evaluating, prediction_logits, predicts_next_token, summed_loss
from hf_minilm.evaluation.minimal_pairs import PairAccuracy, minimal_pair_accuracy, points_of
from hf_minilm.evaluation.pair_files import SentencePair, read_pairs
from hf_minilm.evaluation.run_corpus import refuse_another_corpus
from hf_minilm.evaluation.text_scores import TextScorer
from hf_minilm.evaluation.unpacking import unpacked_sequences
from hf_minilm.training.batches_ahead import resolve_batch_processes
from hf_minilm.training.launch import resolve_precision
from hf_minilm.training.preparation import Data, build_objective, model_class, prepare_data
from hf_minilm.training.recipe import Recipe, load_recipe
from hf_minilm.training.schedule import learning_rate_factor

PEERS = {"bert": "masked", "bert-nsp": "masked", "modernbert": "masked", "gpt2": "causal", "llama": "causal"}
"""The models to compare with, and the objective of each."""
_CHARACTERS_AT_ONCE = 4_000_000
_POSITIONS_AT_ONCE = 4096
_MOST_STEPS = 10**8  # the clock ends a training before


@dataclass(frozen=True)
class Run:
    """A finished run: its settings, its text, its model, and its `report.json`."""

    recipe: Recipe
    data: Data
    model: PreTrainedModel
    report: dict[str, Any]


@dataclass(frozen=True)
class Form:
    """How the other model is trained.

    Attributes:
        peer: A name in `PEERS`.
        tuned: Whether it has the run's batches and a learning rate for small models, or Trainer's defaults.
        seconds: Wall-clock time.
        learning_rate: Peak of the learning rate; None for that of the form.
    """

    peer: str
    tuned: bool
    seconds: float
    learning_rate: float | None = None


@dataclass(frozen=True)
class Trained:
    """A model, and what its training was: steps, tokens without padding, and seconds."""

    name: str
    model: PreTrainedModel
    steps: int
    tokens: int
    seconds: float


def finished_recipe(folder: Path) -> Recipe:
    """Read the recipe of a finished run.

    Raises:
        ValueError: If the folder has none.
    """
    for name in ("recipe.yaml", "report.json", "model", "report.txt"):  # what a run writes last, last
        if not (folder / name).exists():
            raise ValueError(f"run ({folder}) must be the folder of a finished run, and has no {name}; name another.")
    return load_recipe(folder / "recipe.yaml")


def read_run(folder: Path, recipe: Recipe) -> Run:
    """Open the model and the text of a finished run.

    Raises:
        ValueError: If its text has changed.
        OSError: If one of its files cannot be read.
    """
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    model = model_class(recipe).from_pretrained(folder / "model", dtype=torch.float32)
    data = prepare_data(recipe, folder, quiet=True)
    refuse_another_corpus(folder, data.corpus.fingerprint())
    return Run(recipe, data, model, report)


def open_run(folder: Path, peer: str) -> Run:
    """Open a finished run that a peer can be compared with.

    Raises:
        ValueError: If the run is not finished, or its objective is not the peer's.
        OSError: If one of its files cannot be read.
    """
    recipe = finished_recipe(folder)
    objective = recipe.objective.name
    if objective != PEERS[peer]:
        fitting = [name for name, own in PEERS.items() if own == objective]
        advice = f"use --peer {' or '.join(fitting)}" if fitting else "compare translators by compare_with_marian.py"
        raise ValueError(f"--peer ({peer}) must be trained as the run is, whose objective is {objective}; {advice}.")
    return read_run(folder, recipe)


def training_rows(run: Run, peer: str) -> datasets.Dataset:
    """Turn the run's training documents into a peer's examples.

    A text is a whole document, as the run has it and as the held-out rows do; a decoder's ends with its end token.

    Raises:
        ValueError: If the documents do not fill a row.
    """
    tokenizer, length = run.data.tokenizer, run.recipe.data.sequence_length
    end = tokenizer.eos_token if PEERS[peer] == "causal" else ""
    options: dict[str, Any] = {"length": length, "return_special_tokens_mask": PEERS[peer] == "masked"}
    parts = []
    for documents in portions(run.data.corpus.documents("train")):
        if peer == "bert-nsp":
            columns = sentence_pairs(documents, tokenizer, **options)
        else:
            columns = grouped_rows([document.text + end for document in documents], tokenizer, **options)
        if columns["input_ids"]:
            parts.append(datasets.Dataset.from_dict(columns))
    if not parts:
        raise ValueError(f"training rows of {length} tokens (0) must be at least 1; give the run a longer corpus.")
    return datasets.concatenate_datasets(parts)


def portions(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Divide documents into lists of some million characters, which are tokenised at once."""
    portion: list[Document] = []
    characters = 0
    for document in documents:
        portion.append(document)
        characters += len(document.text)
        if characters >= _CHARACTERS_AT_ONCE:
            yield portion
            portion, characters = [], 0
    if portion:
        yield portion


class Clock(TrainerCallback):
    """Counts steps and time, and stops the training when the time is used."""

    def __init__(self, limit: float, device: torch.device) -> None:
        self.limit, self.device = limit, device
        self.start: float | None = None
        self.steps, self.seconds = 0, 0.0

    @property
    def progress(self) -> float:
        """The share of the time that is used, in [0, 1]."""
        return 0.0 if self.start is None else min((time.monotonic() - self.start) / self.limit, 1.0)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        synchronise(self.device)
        self.start = time.monotonic()

    def on_step_end(self, _: Any, state: TrainerState, control: TrainerControl, **__: Any) -> None:
        """Ask for the end when the time is used."""
        self.steps = state.global_step
        control.should_training_stop = self.progress >= 1.0

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Stop the clock, once the device has done what it was told to."""
        synchronise(self.device)
        assert self.start is not None
        self.seconds = time.monotonic() - self.start


class TimedTrainer(Trainer):
    """Trainer whose learning rate follows a clock, as nobody knows how many steps there will be.

    It counts the tokens that are not padding, on the device, so that nothing waits for the number.
    """

    def __init__(self, *, clock: Clock, **arguments: Any) -> None:
        super().__init__(callbacks=[clock], **arguments)
        self.clock = clock
        self.tokens: torch.Tensor | int = 0

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:  # noqa: ARG002
        """Make the schedule that the arguments name one of the share of time that is used."""
        kind, warmup_share = self.args.lr_scheduler_type.value, self.args.warmup_steps

        def factor(_: int) -> float:
            shares = {"warmup_share": warmup_share, "decay_share": 0.0, "final_share": 0.0}
            return learning_rate_factor(kind, self.clock.progress, **shares)

        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, factor)
        return self.lr_scheduler

    def training_step(self, model: nn.Module, inputs: Any, *arguments: Any, **options: Any) -> torch.Tensor:
        """Count, and make the step's gradient."""
        self.tokens = self.tokens + inputs["attention_mask"].sum()
        return super().training_step(model, inputs, *arguments, **options)


def train_peer(run: Run, form: Form) -> Trained:
    """Train a new model for a time."""
    say("tokenising the peer's examples")
    rows = training_rows(run, form.peer)
    seed, tokenizer, config = run.recipe.training.seed, run.data.tokenizer, run.model.config
    set_seed(seed)
    model = build_architecture(
        form.peer.removesuffix("-nsp"),
        {name: getattr(config, name) for name in ("num_hidden_layers", "hidden_size", "num_attention_heads")},
        len(tokenizer),
        positions=run.recipe.data.sequence_length,
        next_sentence=form.peer == "bert-nsp",
        sparse=form.tuned,
        pad_token_id=tokenizer.pad_token_id,
    )
    masked = PEERS[form.peer] == "masked"
    clock = Clock(form.seconds, measuring_device())
    say(f"training it for {form.seconds:,.0f} s")
    with tempfile.TemporaryDirectory() as folder:
        trainer = TimedTrainer(
            clock=clock,
            model=model,
            args=TrainingArguments(output_dir=folder, max_steps=_MOST_STEPS, seed=seed, **trainer_arguments(run, form)),
            train_dataset=remove_what_is_not_taken(rows, model) if form.tuned else rows,
            data_collator=DataCollatorForLanguageModeling(
                tokenizer, mlm=masked, mlm_probability=MASK_RATE if masked else None
            ),
            processing_class=tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return Trained(type(model).__name__, model, clock.steps, int(trainer.tokens), clock.seconds)


def trainer_arguments(run: Run, form: Form) -> dict[str, Any]:
    """Write the arguments of a form of training: the defaults, or those that make it fast and good."""
    has_gpu = torch.cuda.is_available()
    arguments: dict[str, Any] = {
        "use_cpu": not has_gpu,
        # Pinned memory needs a GPU, and Trainer warns where there is none.
        "dataloader_pin_memory": has_gpu,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    if form.tuned:
        arguments |= {
            "bf16": resolve_precision(run.recipe.training.precision) == "bf16",
            "per_device_train_batch_size": run.recipe.training.batch_rows,
            "learning_rate": 1e-3,
            "warmup_steps": 0.05,  # below 1: a share
            "weight_decay": 0.01,
            "adam_beta2": 0.98,
            # The marks of special tokens would be removed, and the collator would find them again token by token.
            "remove_unused_columns": False,
            "dataloader_num_workers": resolve_batch_processes(None, measuring_device(), num_sharing=1),
            "logging_nan_inf_filter": False,  # or a GPU would be waited for at every step
        }
        if form.peer == "bert-nsp":
            arguments["train_sampling_strategy"] = "group_by_length"
    if form.learning_rate is not None:
        arguments["learning_rate"] = form.learning_rate
    return arguments


def held_out_objective(run: Run, peer: str) -> MaskedObjective | CausalObjective:
    """Put held-out text into packed rows, with 15 % of the tokens masked whatever the run had.

    Segments come in pairs only where both models were trained on pairs: the others know one text a sequence.
    """
    recipe, store = run.recipe, run.data.held_out.store
    if recipe.objective.name == "causal":
        # No token pads, as one that also begins a text would make the text pass for padding.
        special = dataclasses.replace(special_tokens(run.data.tokenizer), pad=-1)
        return CausalObjective(store, special, row_length=recipe.data.sequence_length, seed=recipe.training.seed)
    pairs = recipe.next_sentence and peer == "bert-nsp"
    objective = dataclasses.replace(recipe.objective, mask_rate=MASK_RATE, next_sentence=pairs)
    recipe = dataclasses.replace(recipe, objective=objective)
    return cast(MaskedObjective, build_objective(recipe, [store], run.data.tokenizer))


def held_out_sequences(run: Run, peer: str, limit: int) -> list[Batch]:
    """Give each held-out sequence a row of its own, so that no model sees another one.

    Returns:
        `input_ids`, `labels` and of an encoder `token_type_ids` of each sequence that has a token to predict, [length];
        `limit` at most.
    """
    names = ("input_ids", "labels", *(["token_type_ids"] if PEERS[peer] == "masked" else []))
    sequences = unpacked_sequences(held_out_objective(run, peer))
    asked = (sequence for sequence in sequences if (sequence.labels != IGNORED).any())
    return [{name: getattr(sequence, name) for name in names} for sequence in itertools.islice(asked, limit)]


def padded_batches(sequences: Sequence[Batch], pad_token_id: int) -> Iterator[Batch]:
    """Put sequences of similar length into batches [B, T], with an attention mask."""
    filling = {"input_ids": pad_token_id, "labels": IGNORED, "token_type_ids": 0, "attention_mask": 0}
    longest_first = sorted(sequences, key=lambda sequence: -len(sequence["input_ids"]))
    while longest_first:
        number = max(1, _POSITIONS_AT_ONCE // len(longest_first[0]["input_ids"]))
        chosen, longest_first = longest_first[:number], longest_first[number:]
        rows = [{**each, "attention_mask": torch.ones_like(each["input_ids"])} for each in chosen]
        yield {
            name: nn.utils.rnn.pad_sequence([row[name] for row in rows], batch_first=True, padding_value=filling[name])
            for name in rows[0]
        }


def measure(model: PreTrainedModel, tokenizer: Any, sequences: Sequence[Batch]) -> dict[str, float]:
    """Measure any model of transformers by its logits, in float32, as the losses of two models need not be the same.

    Returns:
        `nats_per_token`, `bits_per_byte` (infinite if no predicted token has text), `tokens` and `bytes`, the number of
        predicted tokens and of the bytes of their text.
    """
    sizes = torch.as_tensor(token_bytes(tokenizer))
    shift, nats, tokens, num_bytes = int(predicts_next_token(model)), 0.0, 0, 0
    with evaluating(model) as device:
        taken = inspect.signature(model.forward).parameters
        for batch in padded_batches(sequences, tokenizer.pad_token_id):
            inputs = {name: tensor.to(device) for name, tensor in batch.items() if name != "labels" and name in taken}
            logits = prediction_logits(model(**inputs))
            labels = batch["labels"][:, shift:]
            predicted = labels[labels != IGNORED]
            nats += summed_loss(logits[:, : labels.shape[1]], labels.to(device))
            tokens += len(predicted)
            num_bytes += int(sizes[predicted].sum())
    bits_per_byte = nats / math.log(2) / num_bytes if num_bytes else math.inf
    return {"nats_per_token": nats / tokens, "bits_per_byte": bits_per_byte, "tokens": tokens, "bytes": num_bytes}


def spread_evenly(pairs: Iterable[SentencePair], each: int) -> list[SentencePair]:
    """Take so many pairs of a paradigm at most, spread evenly over it: its file may be sorted."""
    by_paradigm: dict[str, list[SentencePair]] = defaultdict(list)
    for pair in pairs:
        by_paradigm[pair.paradigm].append(pair)
    numbers = {name: min(each, len(found)) for name, found in by_paradigm.items()}
    return [
        found[len(found) * index // numbers[name]]
        for name, found in by_paradigm.items()
        for index in range(numbers[name])
    ]


def short_pairs(pairs: Sequence[SentencePair], tokenizer: Any, longest: int) -> list[SentencePair]:
    """Leave out the pairs with a sentence that is longer than the rows of the training, for all models alike.

    Raises:
        ValueError: If none is left.
    """
    kept = [
        pair for pair in pairs if max(len(tokenizer(text)["input_ids"]) for text in (pair.good, pair.bad)) <= longest
    ]
    if not kept:
        raise ValueError(f"pairs of at most {longest} tokens (0) must be at least 1; give shorter sentences.")
    return kept


def pair_accuracies(model: PreTrainedModel, tokenizer: Any, pairs: Sequence[SentencePair]) -> tuple[PairAccuracy, ...]:
    """Score minimal pairs by paradigm, in the order in which the paradigms first occur; a tie counts half.

    A causal model is asked for the log-probability of each whole sentence. A masked one is asked at the word, where the
    sentences differ in a single one: both words are then judged in the same context, and nothing that the sentences
    share adds noise. Where they differ in more, as in word order, masking all of these together would hide the very
    thing that is asked, so that the two pseudo-log-likelihoods are compared instead; see `text_scores`.
    """
    probes = [as_probe(pair, whole=predicts_next_token(model)) for pair in pairs]
    right, number = defaultdict(float), defaultdict(int)
    for cell in minimal_pair_accuracy(model, tokenizer, [probe for probe in probes if probe is not None]):
        right[cell.phenomenon] += cell.accuracy * cell.number
        number[cell.phenomenon] += cell.number
    others = [pair for pair, probe in zip(pairs, probes, strict=True) if probe is None]
    texts = [text for pair in others for text in (pair.good, pair.bad)]
    scores: Any = TextScorer(model, tokenizer, scoring="masked").score(texts) if others else []
    for pair, good, bad in zip(others, scores[::2], scores[1::2], strict=True):
        right[pair.paradigm] += points_of(good.nats, bad.nats)
        number[pair.paradigm] += 1
    return tuple(
        PairAccuracy(name, 0, number[name], right[name] / number[name], *wilson_interval(right[name], number[name]))
        for name in dict.fromkeys(pair.paradigm for pair in pairs)
    )


def as_probe(pair: SentencePair, *, whole: bool) -> Probe | None:
    """Make whole sentences, or the one word in which they differ, the question; None where they differ in more."""
    if whole:
        return Probe("", "", pair.good, pair.bad, "", 0, pair.paradigm)
    good, bad = pair.good.split(), pair.bad.split()
    places = [place for place, words in enumerate(zip(good, bad, strict=False)) if words[0] != words[1]]
    if len(good) != len(bad) or len(places) != 1:
        return None
    place = places[0]
    before, after = ("".join(f"{word} " for word in good[:place]), "".join(f" {word}" for word in good[place + 1 :]))
    return Probe("", before, good[place], bad[place], after, 0, pair.paradigm)


def result(
    trained: Trained, tokenizer: Any, sequences: Sequence[Batch], pairs: Sequence[SentencePair]
) -> dict[str, Any]:
    """Measure a model, and give all that is known of it by name."""
    model = trained.model.to(measuring_device())
    cells = pair_accuracies(model, tokenizer, pairs) if pairs else ()
    training = {name: getattr(trained, name) for name in ("steps", "tokens", "seconds")}
    figures = ("number", "accuracy", "low", "high")
    return {
        "name": trained.name,
        "parameters": model.num_parameters(),
        "training": training,
        "held_out": measure(model, tokenizer, sequences),
        "pairs_macro_accuracy": fmean(cell.accuracy for cell in cells) if cells else None,
        "pairs": [{"paradigm": cell.phenomenon, **{name: getattr(cell, name) for name in figures}} for cell in cells],
    }


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure the run's model, train the other one, measure it likewise.

    Raises:
        ValueError: If an argument cannot be used, or the run.
        OSError: If a file cannot be read.
    """
    check(arguments)
    pairs = spread_evenly(read_pairs(arguments.pairs), arguments.pairs_each) if arguments.pairs else []
    run = open_run(arguments.run, arguments.peer)
    tokenizer, facts = run.data.tokenizer, run.report["facts"]
    pairs = short_pairs(pairs, tokenizer, run.recipe.data.sequence_length) if pairs else []
    sequences = held_out_sequences(run, arguments.peer, arguments.rows)
    seconds = facts["seconds"] if arguments.minutes is None else 60 * arguments.minutes
    say("measuring the run's model")
    ours = Trained("hf_minilm", run.model, facts["steps"], facts["tokens"], facts["seconds"])
    results = [result(ours, tokenizer, sequences, pairs)]
    form = Form(arguments.peer, arguments.tuned, seconds, arguments.learning_rate)
    theirs = train_peer(run, form)
    if arguments.save is not None:
        theirs.model.save_pretrained(arguments.save)
        tokenizer.save_pretrained(arguments.save)
    say("measuring the peer")
    results.append(result(theirs, tokenizer, sequences, pairs))
    return {
        "peer": arguments.peer,
        "tuned": arguments.tuned,
        "seconds": seconds,
        "trainer_arguments": trainer_arguments(run, form),
        "objective": facts["objective"],
        "corpus": facts["corpus"],
        "device": str(measuring_device()),
        "run_device": facts["device"],
        "held_out_sequences": len(sequences),
        "models": results,
    }


def check(arguments: argparse.Namespace) -> None:
    """Raise ValueError for arguments that cannot be used, before anything long begins."""
    for name, least in (("rows", 1), ("pairs_each", 1)):
        value = getattr(arguments, name)
        if value < least:
            raise ValueError(f"--{name.replace('_', '-')} ({value}) must be at least {least}; give a larger number.")
    for name in ("minutes", "learning_rate"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"--{name.replace('_', '-')} ({value}) must be above 0; leave it out for the usual one.")
    refuse_missing_folder("--output", arguments.output)
    if arguments.save is not None:
        refuse_used_folder(arguments.save)


def tables(compared: dict[str, Any]) -> str:
    """Lay the figures out as Markdown."""
    lines = [
        "| Model | Parameters | Steps | Tokens | Seconds | Nats per token | Bits per byte | Pairs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in compared["models"]:
        training, held_out, macro = each["training"], each["held_out"], each["pairs_macro_accuracy"]
        cells = [
            each["name"],
            f"{each['parameters']:,}",
            f"{training['steps']:,}",
            f"{training['tokens']:,}",
            f"{training['seconds']:,.1f}",
            f"{held_out['nats_per_token']:.3f}",
            f"{held_out['bits_per_byte']:.3f}",
            "-" if macro is None else f"{macro:.1%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    ours, theirs = compared["models"]
    tokens, sequences = ours["held_out"]["tokens"], compared["held_out_sequences"]
    lines += ["", f"{tokens:,} predicted tokens of {sequences:,} held-out sequences"]
    if ours["pairs"]:
        lines += ["", f"| Paradigm | Pairs | {ours['name']} | {theirs['name']} |", "|---|---|---|---|"]
    for own, other in zip(ours["pairs"], theirs["pairs"], strict=True):
        shares = [f"{cell['accuracy']:.1%} ({cell['low']:.0%}-{cell['high']:.0%})" for cell in (own, other)]
        lines.append(f"| {own['paradigm']} | {own['number']} | {' | '.join(shares)} |")
    return "\n".join(lines)


def say(text: str) -> None:
    """Tell how far the work is, beside the result."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run with objective masked or causal")
    parser.add_argument("--peer", choices=PEERS, required=True, help="the other model")
    parser.add_argument("--tuned", action="store_true", help="train it in a good form, and not by Trainer's defaults")
    parser.add_argument("--minutes", type=float, help="training of the other model; the run's own time without it")
    parser.add_argument("--learning-rate", type=float, help="of the other model; 5e-5, or 1e-3 with --tuned")
    parser.add_argument("--rows", type=int, default=2000, help="most held-out sequences")
    parser.add_argument("--pairs", help="a file, a folder or a pattern of minimal pairs")
    parser.add_argument("--pairs-each", type=int, default=200, help="most pairs of a paradigm")
    parser.add_argument("--output", type=Path, help="a JSON file to write, with all figures")
    parser.add_argument("--save", type=Path, help="new folder for the other model, to be fine-tuned beside the run's")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    compared = compare(arguments)
    print(tables(compared))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(compared, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run_example(main))
