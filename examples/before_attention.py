"""What does attention buy? The models that came before it, on a causal run's own text, for as long as the run took.

    hf-minilm pretrain examples/recipes/causal.yaml
    python examples/before_attention.py runs/world_causal
    python examples/before_attention.py runs/world_causal --window 4 --output narrow.json

Three models are made of the training rows of a finished run, with its tokenizer:

- a trigram: counts of three tokens in a row, all of the training text read once;
- a feed-forward network over the last `--window` tokens (Bengio et al. 2003);
- a recurrent network, an LSTM (Hochreiter and Schmidhuber 1997), whose state carries the past.

The two networks have about as many parameters as the run's model, and train for `--seconds` on the run's batches in
their order, in float32, by AdamW, whose rate follows the run's schedule. The run's own time has its evaluations,
checkpoints and compilation in it; theirs has none of these. All four then predict the same held-out tokens, those of
the run's report. As rows are packed, a sequence begins anew for each model: none sees a token of another one.

On the built-in stories a verb must agree with its subject across 0, 1 or 2 other nouns, all of which ask for the wrong
form: follow a row of the table from left to right. The trigram sees two tokens, and a subject only next to its verb.
With the default vocabulary the window of 8 tokens holds every subject across one noun and 44 % of those across two,
one of 4 holds 39 % and none. A model whose view the subject has left must guess, for which 50 % is chance; and where
its view begins with another noun, it may take that for the subject, and fall below. The LSTM and attention see the
whole sequence: what they get wrong they have not learnt, and more seconds can teach it. The last line of the table is
the least possible loss, as the stories have a known entropy. A run on other text has neither verbs nor that line.
"""

import argparse
import dataclasses
import json
import math
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from compare_with_peers import Run, finished_recipe, read_run
from fine_tune import run as run_example
from torch import nn
from transformers import GenerationMixin
from transformers.modeling_outputs import CausalLMOutput
from transformers.utils import logging

from hf_minilm.benchmark.machine import measuring_device, synchronise
from hf_minilm.conversion import refuse_missing_folder
from hf_minilm.data.objectives import Batch
from hf_minilm.data.order import RowOrder
from hf_minilm.data.sequences import IGNORED
from hf_minilm.data.tokenizer import token_bytes
from hf_minilm.evaluation.minimal_pairs import minimal_pair_accuracy
from hf_minilm.training.launch import set_threads
from hf_minilm.training.optimizer import build_optimizer, set_learning_rate
from hf_minilm.training.pretrain import MOST_ROWS_REPORTED, PROBES_EACH, measure
from hf_minilm.training.schedule import learning_rate_factor

LEARNING_RATE = 1e-2
"""After 1.0M tokens of the built-in stories the LSTM loses 1.91, 1.66, 1.59, 1.53 at 2e-3, 5e-3, 1e-2, 2e-2, and the
feed-forward network 1.65, 1.56, 1.55, 1.57; after 5.0M the LSTM loses 1.29 at 1e-2 and 1.31 at 2e-2."""
ORDER = 3
"""Tokens in a row that the count-based model counts."""


class NextToken(GenerationMixin, nn.Module):
    """A causal model of any kind, in the form that the project's evaluation takes.

    It has two parts: `read` says what is known after each token, and `predict` turns that into logits of the next one.
    Shapes: B rows, T positions, V vocabulary, E width.
    """

    predict: Callable[[torch.Tensor], torch.Tensor]
    """Turns what is known at some positions into their logits, [..., V]."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(vocab_size=vocab_size)
        self.nothing = vocab_size  # the token that stands before a sequence

    def read(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """Say what is known after each token of `input_ids`, [B, T, ...]; positions count from 0 in each sequence."""
        raise NotImplementedError

    def get_output_embeddings(self) -> None:
        """Say that there is no projection to the vocabulary that may be given some positions only."""

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **_: Any,
    ) -> CausalLMOutput:
        """Return the logits [B, T, V]; or with labels, which are shifted here, the mean loss in nats instead."""
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        known = self.read(input_ids, position_ids)
        if labels is None:
            return CausalLMOutput(logits=self.predict(known))
        labels = labels[:, 1:]
        predicted = labels != IGNORED
        logits = self.predict(known[:, :-1][predicted])
        return CausalLMOutput(loss=nn.functional.cross_entropy(logits.float(), labels[predicted]))


def last_tokens(input_ids: torch.Tensor, position_ids: torch.Tensor, number: int, *, nothing: int) -> torch.Tensor:
    """List each position's token and those before it, the latest first, [B, T, number]; `nothing` before a sequence."""
    # As every row begins a sequence, what `roll` brings round from its end is never kept.
    earlier = [input_ids.roll(back, dims=1).masked_fill(position_ids < back, nothing) for back in range(number)]
    return torch.stack(earlier, dim=-1)


class Trigram(NextToken):
    """Counts of up to three tokens in a row, interpolated as Witten and Bell 1991 do.

    p(w | h) = (c(h w) + n(h) p(w | h')) / (c(h) + n(h)), where c counts, h' is the history h without its earliest token
    and n(h) is the number of different tokens that were seen after h: the more of them, the likelier is a new one.
    Below the counts of single tokens, p(w | h') is 1 / V.

    Args:
        vocab_size: Tokens of the vocabulary, V.
        batches: The training rows, each once.
    """

    def __init__(self, vocab_size: int, batches: Iterable[Batch]) -> None:
        super().__init__(vocab_size)
        self.base = vocab_size + 1  # a gram is a number in this base, whose last digit is its last token
        grams = torch.cat([self._grams(batch) for batch in batches])
        listed = [(grams % self.base**order).unique(return_counts=True) for order in range(1, ORDER + 1)]
        self.grams = [gram for gram, _ in listed]  # ascending: what may follow a history stands together
        self.counts = nn.ParameterList(nn.Parameter(count.float(), requires_grad=False) for _, count in listed)

    def _grams(self, batch: Batch) -> torch.Tensor:
        labels = batch["labels"][:, 1:]
        predicted = labels != IGNORED
        histories = self.read(batch["input_ids"], batch["position_ids"])[:, :-1]
        return histories[predicted] * self.base + labels[predicted]

    def read(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """Give the number of the history at each position, [B, T]."""
        history = last_tokens(input_ids, position_ids, ORDER - 1, nothing=self.nothing)
        return (history * self.base ** torch.arange(ORDER - 1)).sum(-1)

    def predict(self, known: torch.Tensor) -> torch.Tensor:
        """Give the logarithms of the probabilities, which are logits too."""
        probabilities = torch.full((*known.shape, self.nothing), 1.0 / self.nothing)
        for order in range(1, ORDER + 1):
            # Positions with the same history, as all have without one, share the work.
            histories, which = (known % self.base ** (order - 1)).unique(return_inverse=True)
            count, different = self._followers(histories, order)
            weight = (count.sum(-1, keepdim=True) + different).clamp(min=1)
            # A history that was never seen leaves the whole matter to the shorter one.
            left = torch.where(different > 0, different / weight, 1.0)
            probabilities = (count / weight)[which] + left[which] * probabilities
        return probabilities.log()

    def _followers(self, histories: torch.Tensor, order: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Count what follows each history, [histories, V], and how many different tokens do, [histories, 1]."""
        grams, counts = self.grams[order - 1], self.counts[order - 1]
        first, stop = (torch.searchsorted(grams, each * self.base) for each in (histories, histories + 1))
        followers = torch.zeros(len(histories), self.nothing)
        for row, (start, end) in enumerate(zip(first.tolist(), stop.tolist(), strict=True)):
            followers[row, grams[start:end] % self.base] = counts[start:end]
        return followers, (stop - first)[:, None]


class FeedForward(NextToken):
    """The neural model of Bengio et al. 2003, equation 1: y = b + U tanh(d + H x), x the last tokens' embeddings.

    The direct connections W x, which the paper leaves open, are left out. Places before a sequence have an embedding of
    their own.

    Args:
        vocab_size: Tokens of the vocabulary.
        width: Of an embedding and of the hidden layer.
        window: Tokens that it sees.
    """

    def __init__(self, vocab_size: int, width: int, *, window: int) -> None:
        super().__init__(vocab_size)
        self.window = window
        self.embedding = nn.Embedding(vocab_size + 1, width)
        self.hidden = nn.Linear(window * width, width)
        self.predict = nn.Linear(width, vocab_size)

    def read(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """Give the hidden layer, [B, T, E]."""
        tokens = last_tokens(input_ids, position_ids, self.window, nothing=self.nothing)
        return torch.tanh(self.hidden(self.embedding(tokens).flatten(-2)))


class Recurrent(NextToken):
    """A layer of LSTM, which reads a sequence token by token and keeps what it has read in a vector.

    Args:
        vocab_size: Tokens of the vocabulary.
        width: Of an embedding and of the state.
    """

    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__(vocab_size)
        self.embedding = nn.Embedding(vocab_size, width)
        self.layer = nn.LSTM(width, width, batch_first=True)
        self.predict = nn.Linear(width, vocab_size)

    def read(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """Give the state after each token, [B, T, E], which begins with zeros in each sequence."""
        starts = (position_ids.flatten() == 0).nonzero().flatten()
        lengths = starts.diff(append=starts.new_tensor([input_ids.numel()]))
        sequences = nn.utils.rnn.pad_sequence(input_ids.flatten().split(lengths.tolist()), batch_first=True)
        # What fills a sequence up stands after it, where no state that is kept has been.
        states, _ = self.layer(self.embedding(sequences))
        is_token = torch.arange(sequences.shape[1], device=lengths.device) < lengths[:, None]
        return states[is_token].unflatten(0, input_ids.shape)


@dataclass(frozen=True)
class Trained:
    """A model, and what its training was: tokens without padding, and seconds."""

    name: str
    model: nn.Module
    tokens: int
    seconds: float


def open_run(folder: Path) -> Run:
    """Open a finished causal run.

    Raises:
        ValueError: If the run is not finished, or of another objective, or its text has changed.
        OSError: If one of its files cannot be read.
    """
    recipe = finished_recipe(folder)
    if recipe.objective.name != "causal":
        raise ValueError(
            f"objective of the run ({recipe.objective.name}) must be causal, as all models here predict the next "
            "token; name a run of examples/recipes/causal.yaml."
        )
    return read_run(folder, recipe)


def num_parameters(model: nn.Module) -> int:
    """Count the numbers that a model has learnt, shared ones once; of a count-based one, its counts."""
    return sum(parameter.numel() for parameter in model.parameters())


def widest(build: Callable[[int], NextToken], limit: int) -> int:
    """Find the largest width, a multiple of 8, with which a model has at most so many parameters; at least 8."""

    def size(eighth: int) -> int:
        with torch.device("meta"):
            return num_parameters(build(8 * eighth))

    return 8 * max(1, bisect_right(range(1, 4096), limit, key=size))


def train(model: NextToken, run: Run, seconds: float) -> tuple[int, float]:
    """Train on the run's rows in the run's order for a time; its steps and seconds."""
    recipe, data = run.recipe, run.data
    settings = dataclasses.replace(recipe.optimizer, name="adamw", learning_rate=LEARNING_RATE)
    shares = {name: getattr(settings, name) for name in ("warmup_share", "decay_share", "final_share")}
    device = measuring_device()
    optimizer = build_optimizer(model.to(device).train(), settings)
    order = RowOrder(data.train.rows_in_epoch, recipe.training.batch_rows, seed=recipe.training.seed)
    step, used, start = 0, 0.0, time.monotonic()
    while used < seconds:
        set_learning_rate(optimizer, settings.peak * learning_rate_factor(settings.schedule, used / seconds, **shares))
        batch = data.train.batch(step, order.rows(step))
        model(**{name: tensor.to(device) for name, tensor in batch.items()}).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip or math.inf)
        optimizer.step()
        optimizer.zero_grad()
        synchronise(device)
        step, used = step + 1, time.monotonic() - start
    return step, used


def trained_models(run: Run, *, seconds: float, window: int) -> Iterator[Trained]:
    """Make the models one after another, the oldest first and the run's own last."""
    recipe, data, facts = run.recipe, run.data, run.report["facts"]
    vocab_size, seed = len(data.tokenizer), recipe.training.seed
    rows = data.train.evaluation_batches(recipe.training.evaluation_rows)
    start = time.monotonic()
    trigram = Trigram(vocab_size, rows)
    yield Trained("trigram", trigram, data.train.describe().num_tokens, time.monotonic() - start)
    builders: dict[str, Callable[[int], NextToken]] = {
        f"feed-forward over {window}": lambda width: FeedForward(vocab_size, width, window=window),
        "recurrent (LSTM)": lambda width: Recurrent(vocab_size, width),
    }
    used_share = 1 - data.train.describe().wasted_share
    for name, build in builders.items():
        width = widest(build, facts["parameters"])
        print(f"training {name}, {width} wide, for {seconds:,.0f} s", file=sys.stderr, flush=True)
        torch.manual_seed(seed)
        model = build(width)
        steps, used = train(model, run, seconds)
        positions = steps * recipe.training.batch_rows * data.train.row_length
        yield Trained(name, model, round(positions * used_share), used)
    yield Trained("the run's, with attention", run.model.to(measuring_device()), facts["tokens"], facts["seconds"])


def result(trained: Trained, run: Run) -> dict[str, Any]:
    """Measure a model as the run's report does, and give all that is known of it by name."""
    data, sizes = run.data, token_bytes(run.data.tokenizer)
    max_rows = None if data.world is not None else MOST_ROWS_REPORTED
    held_out = measure(trained.model, data, run.recipe, sizes, max_rows=max_rows)
    probes = data.world.agreement_probes(6 * PROBES_EACH) if data.world is not None else []
    return {
        "name": trained.name,
        "parameters": num_parameters(trained.model),
        "tokens": trained.tokens,
        "seconds": trained.seconds,
        "nats_per_token": held_out.nats_per_token,
        "bits_per_byte": held_out.bits_per_byte,
        "held_out_tokens": held_out.num_tokens,
        "agreement": [
            dataclasses.asdict(cell) for cell in minimal_pair_accuracy(trained.model, data.tokenizer, probes)
        ],
    }


def compare(folder: Path, *, seconds: float | None, window: int) -> dict[str, Any]:
    """Train and measure; the least possible loss is that of the run's report.

    Raises:
        ValueError: If the run cannot be used.
        OSError: If a file cannot be read.
    """
    run = open_run(folder)
    set_threads(run.recipe)
    seconds = run.report["facts"]["seconds"] if seconds is None else seconds
    return {
        "corpus": run.report["facts"]["corpus"],
        "window": window,
        "learning_rate": LEARNING_RATE,
        "threads": torch.get_num_threads(),
        "models": [result(trained, run) for trained in trained_models(run, seconds=seconds, window=window)],
        "floor": run.report["floor"],
    }


def table(compared: dict[str, Any]) -> str:
    """Lay the figures out as Markdown."""
    models, floor = compared["models"], compared["floor"]
    distances = [cell["distance"] for cell in models[0]["agreement"]]
    header = ["Model", "Parameters", "Tokens read", "Seconds", "Nats per token", "Bits per byte"]
    rows = [
        header + [f"Agreement across {distance}" for distance in distances],
        ["---"] * (len(header) + len(distances)),
    ]
    for each in models:
        numbers = [f"{each['parameters']:,}", f"{each['tokens']:,}", f"{each['seconds']:,.1f}"]
        losses = [f"{each['nats_per_token']:.3f}", bits(each["bits_per_byte"])]
        shares = [f"{cell['accuracy']:.1%} ({cell['low']:.0%}-{cell['high']:.0%})" for cell in each["agreement"]]
        rows.append([each["name"], *numbers, *losses, *shares])
    if isinstance(floor, float):
        least = bits(models[-1]["bits_per_byte"], times=floor / models[-1]["nats_per_token"])
        rows.append(["least possible", *["-"] * 3, f"{floor:.3f}", least, *["-"] * len(distances)])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", f"{models[0]['held_out_tokens']:,} held-out tokens"]
    if distances:
        pairs = " + ".join(str(cell["number"]) for cell in models[0]["agreement"])
        lines[-1] += f"; {pairs} verbs across {', '.join(map(str, distances))} other nouns, 95 % intervals"
    return "\n".join([*lines, floor] if isinstance(floor, str) else lines)


def bits(per_byte: float | None, *, times: float = 1.0) -> str:
    """Write bits per byte, of which tokens without text have none."""
    return "-" if per_byte is None else f"{per_byte * times:.3f}"


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run with objective causal")
    parser.add_argument("--seconds", type=float, help="training of each network; the run's own time without it")
    parser.add_argument("--window", type=int, default=8, help="tokens that the feed-forward network sees")
    parser.add_argument("--output", type=Path, help="a JSON file to write, with all figures")
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    if arguments.seconds is not None and not 0 < arguments.seconds < math.inf:
        raise ValueError(f"--seconds ({arguments.seconds}) must be above 0; leave it out for the run's own time.")
    if arguments.window < 1:
        raise ValueError(f"--window ({arguments.window}) must be at least 1; give the tokens to see.")
    refuse_missing_folder("--output", arguments.output)
    compared = compare(arguments.run, seconds=arguments.seconds, window=arguments.window)
    print(table(compared))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(compared, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run_example(main))
