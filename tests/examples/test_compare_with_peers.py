"""The example that trains transformers' own models beside a run's, and measures both on the same tokens and pairs."""

import gzip
import json
import math
import runpy
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer, GenerationMixin

from hf_minilm.benchmark.peers import build_architecture
from hf_minilm.data.sequences import IGNORED
from hf_minilm.data.tokenizer import token_bytes
from hf_minilm.evaluation.language_model import held_out
from hf_minilm.evaluation.pair_files import SentencePair
from hf_minilm.training.pretrain import pretrain
from hf_minilm.training.recipe import load_recipe

SCRIPT = Path(__file__).parents[2] / "examples" / "compare_with_peers.py"
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SETTINGS = {
    # As wide as it takes to weigh half of GPT-2, whose table of 1,024 positions is the other half.
    "model.overrides": {**SIZES, "intermediate_size": 96},
    "tokenizer.vocab_size": 400,
    "data.world_documents": 120,
    "data.sequence_length": 96,
    "training.budget": "3steps",
    "training.batch_rows": 4,
    "training.precision": "fp32",
    "evaluation.rows": 4,
}
NAMES = runpy.run_path(str(SCRIPT))
"""What the script defines."""


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory):
    """Give the folder of a finished run, trained once, by its objective."""
    folder = tmp_path_factory.mktemp("runs")
    finished: dict[str, Path] = {}

    def give(objective: str) -> Path:
        if objective not in finished:
            settings = {"objective.name": objective, "output.folder": str(folder / objective), **SETTINGS}
            overrides = [f"{name}={json.dumps(value)}" for name, value in settings.items()]
            pretrain(load_recipe(None, [*overrides, f"data.cache_folder={folder / 'cache'}"]))
            finished[objective] = folder / objective
        return finished[objective]

    return give


@pytest.fixture
def open_run(run_folder):
    """Open a run as the script does."""
    return lambda peer: NAMES["open_run"](run_folder(NAMES["PEERS"][peer]), peer)


@pytest.fixture
def pairs_folder(tmp_path: Path) -> Path:
    """A folder of two paradigms: the bad sentence first, once in another word and once in the order of words."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    (folder / "number.txt").write_text("The dogs is old .\nThe dogs are old .\n" * 3, encoding="utf-8")
    with gzip.open(folder / "order.txt.gz", "wt", encoding="utf-8") as stream:
        stream.write("Ana the sees dog .\nAna sees the dog .\nDog the sleeps .\nThe dog sleeps .\n")
    return folder


def build_peer(maker: str, tokenizer, **options):
    torch.manual_seed(1)
    model = build_architecture(maker, SIZES, len(tokenizer), positions=96, **options).eval()
    for parameter in model.parameters():
        # Initial weights are so small that a model hardly depends on what it reads.
        nn.init.normal_(parameter, std=0.3)
    return model


def sequences_of(run, peer: str, limit: int = 25):
    return NAMES["held_out_sequences"](run, peer, limit)


@pytest.mark.parametrize(
    ("peer", "form", "name"),
    [
        ("bert", (), "BertForMaskedLM"),
        ("bert-nsp", ("--tuned",), "BertForPreTraining"),
        ("modernbert", ("--tuned", "--learning-rate", "2e-3"), "ModernBertForMaskedLM"),
        ("gpt2", (), "GPT2LMHeadModel"),
        ("llama", ("--tuned",), "LlamaForCausalLM"),
    ],
)
def test_a_peer_is_trained_for_a_time_and_both_models_are_measured_on_the_same_tokens(
    run_folder, pairs_folder: Path, tmp_path: Path, run_script, peer: str, form: tuple[str, ...], name: str
) -> None:
    folder, output = run_folder(NAMES["PEERS"][peer]), tmp_path / "figures.json"
    words = ("--peer", peer, *form, "--minutes", 0.02, "--rows", 25, "--pairs", pairs_folder, "--pairs-each", 2)
    code, printed, _ = run_script(folder, *words, "--output", output, "--save", tmp_path / "peer")
    assert code == 0
    saved = AutoModel.from_pretrained(tmp_path / "peer")
    assert saved.config.vocab_size == len(AutoTokenizer.from_pretrained(tmp_path / "peer"))
    figures = json.loads(output.read_text(encoding="utf-8"))
    ours, theirs = figures["models"]
    assert [ours["name"], theirs["name"]] == ["hf_minilm", name]
    assert 0.5 < ours["parameters"] / theirs["parameters"] < 2
    assert figures["held_out_sequences"] == 25
    assert {key: ours["held_out"][key] for key in ("tokens", "bytes")} == {
        key: theirs["held_out"][key] for key in ("tokens", "bytes")
    }
    assert all(0 < each["held_out"]["nats_per_token"] < 9 for each in (ours, theirs))
    assert ours["training"]["steps"] == 3
    assert theirs["training"]["steps"] >= 1
    assert 0 < theirs["training"]["tokens"] <= theirs["training"]["steps"] * (4 if form else 8) * 96
    assert 1.2 <= theirs["training"]["seconds"] < 5
    for each in (ours, theirs):
        assert [(cell["paradigm"], cell["number"]) for cell in each["pairs"]] == [("number", 2), ("order", 2)]
        mean = sum(cell["accuracy"] for cell in each["pairs"]) / 2
        assert each["pairs_macro_accuracy"] == pytest.approx(mean)
    lines = [line for line in printed.splitlines() if line.startswith(f"| {name} |")]
    assert f"{theirs['held_out']['nats_per_token']:.3f}" in lines[0]
    assert figures["trainer_arguments"].get("learning_rate") == {(): None, ("--tuned",): 1e-3}.get(form, 2e-3)


@pytest.mark.parametrize("peer", ["bert", "bert-nsp", "gpt2"])
def test_sequences_one_by_one_lose_what_the_packed_rows_of_the_objective_lose(open_run, peer: str) -> None:
    run = open_run(peer)
    packed = run.data.held_out if peer == "gpt2" else NAMES["held_out_objective"](run, peer)
    measured = NAMES["measure"](run.model, run.data.tokenizer, sequences_of(run, peer, limit=10**6))
    batches = packed.evaluation_batches(run.recipe.training.batch_rows)
    expected = held_out(run.model, batches, token_bytes=token_bytes(run.data.tokenizer))
    assert measured["tokens"] == expected.num_tokens
    assert measured["nats_per_token"] == pytest.approx(expected.nats_per_token, rel=1e-5)
    assert measured["bits_per_byte"] == pytest.approx(expected.bits_per_byte, rel=1e-5)


def test_segments_come_in_pairs_only_where_both_models_know_them_and_15_percent_is_masked(open_run) -> None:
    for peer, segments in (("bert", {0}), ("bert-nsp", {0, 1})):
        sequences = sequences_of(open_run(peer), peer, limit=60)
        assert {kind for each in sequences for kind in each["token_type_ids"].tolist()} == segments
        labels = torch.cat([each["labels"] for each in sequences])
        assert 0.1 < (labels != IGNORED).double().mean() < 0.17


@pytest.mark.parametrize("peer", ["bert", "modernbert", "gpt2", "llama"])
def test_a_peer_loses_what_its_own_loss_says_of_each_sequence_alone(open_run, peer: str) -> None:
    run = open_run(peer)
    model, sequences = build_peer(peer, run.data.tokenizer), sequences_of(run, peer, limit=9)
    assert len({len(each["labels"]) for each in sequences}) > 1
    nats = number = 0
    with torch.no_grad():
        for each in sequences:
            predicted = int((each["labels"] != IGNORED).sum())
            inputs = {name: tensor[None] for name, tensor in each.items() if name != "token_type_ids"}
            nats += model(**inputs).loss.item() * predicted
            number += predicted
    measured = NAMES["measure"](model, run.data.tokenizer, sequences)
    assert measured["tokens"] == number
    assert measured["nats_per_token"] == pytest.approx(nats / number, rel=1e-4)


@pytest.mark.parametrize("peer", ["bert", "llama"])
def test_a_uniform_model_loses_the_logarithm_of_the_vocabulary_and_gets_half_of_the_pairs(open_run, peer: str) -> None:
    run = open_run(peer)
    model, tokenizer = build_peer(peer, run.data.tokenizer), run.data.tokenizer
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    measured = NAMES["measure"](model, tokenizer, sequences_of(run, peer))
    assert measured["nats_per_token"] == pytest.approx(math.log(len(tokenizer)), rel=1e-6)
    pairs = [SentencePair("order", "b a", "a b"), SentencePair("word", "a c", "a b")]
    cells = NAMES["pair_accuracies"](model, tokenizer, pairs)
    assert [(cell.phenomenon, cell.accuracy) for cell in cells] == [("order", 0.5), ("word", 0.5)]


class Knows(nn.Module):
    """A masked model that knows one text: what is hidden before a token of it is likely what stands there in it."""

    reads, base_model = 1, None

    def __init__(self, vocab_size: int, known: list[int]) -> None:
        super().__init__()
        self.config = SimpleNamespace(max_position_embeddings=64, vocab_size=vocab_size)
        self.likes = nn.Parameter(torch.zeros(vocab_size, vocab_size))  # [what is read, what is predicted]
        with torch.no_grad():
            for before, after in pairwise(known):
                read, predicted = (after, before) if self.reads else (before, after)
                self.likes[read, predicted] = 5.0

    def get_output_embeddings(self) -> None:
        """Say that the vocabulary's logits come from no module of their own."""

    def forward(self, input_ids: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.likes[torch.roll(input_ids, -self.reads, dims=1)])


class KnowsNext(Knows, GenerationMixin):
    """The same for the next token: it reads the one before."""

    reads = 0


@pytest.mark.parametrize(("kind", "peer"), [(Knows, "bert"), (KnowsNext, "gpt2")])
def test_a_model_that_knows_a_text_is_right_about_its_words_and_their_order(open_run, kind, peer: str) -> None:
    tokenizer = open_run(peer).data.tokenizer
    text = "The dogs are in the house ."
    model = kind(len(tokenizer), tokenizer(text)["input_ids"])
    bad = {"word": "The dogs is in the house .", "order": "The are dogs in the house ."}
    pairs = [SentencePair(name, text, other) for name, other in bad.items()]
    cells = NAMES["pair_accuracies"](model, tokenizer, [*pairs, pairs[0]])
    assert [(cell.phenomenon, cell.number, cell.accuracy) for cell in cells] == [("word", 2, 1.0), ("order", 1, 1.0)]
    assert all(cell.low < cell.high == 1.0 for cell in cells)
    turned = [SentencePair(pair.paradigm, pair.bad, pair.good) for pair in pairs]
    wrong = NAMES["pair_accuracies"](model, tokenizer, turned)
    assert [cell.accuracy for cell in wrong] == [0.0, 0.0]


def test_sentences_that_differ_in_one_word_are_asked_at_it_and_others_by_all_of_their_tokens() -> None:
    as_probe, make = NAMES["as_probe"], SentencePair
    probe = as_probe(make("number", "The dogs are old .", "The dogs is old ."), whole=False)
    assert (probe.prefix, probe.good, probe.bad, probe.suffix) == ("The dogs ", "are", "is", " old .")
    probe = as_probe(make("first", "They sleep", "Them sleep"), whole=False)
    assert (probe.prefix, probe.good, probe.bad, probe.suffix) == ("", "They", "Them", " sleep")
    assert as_probe(make("order", "Ana sees it", "sees Ana it"), whole=False) is None
    assert as_probe(make("length", "Ana sees it", "Ana sees"), whole=False) is None
    probe = as_probe(make("order", "Ana sees it", "sees Ana it"), whole=True)
    assert (probe.prefix, probe.good, probe.bad, probe.suffix) == ("", "Ana sees it", "sees Ana it", "")


def test_of_each_paradigm_so_many_pairs_are_taken_spread_evenly() -> None:
    pairs = [SentencePair(name, f"good {number}", "bad") for number in range(10) for name in ("some", "other")]
    taken = NAMES["spread_evenly"](pairs, 3)
    assert [(pair.paradigm, pair.good) for pair in taken] == [
        (name, f"good {number}") for name in ("some", "other") for number in (0, 3, 6)
    ]
    assert len(NAMES["spread_evenly"](pairs, 50)) == 20


def test_a_mistake_is_one_line_and_exit_code_2(run_folder, pairs_folder: Path, tmp_path: Path, run_script) -> None:
    causal, empty, odd, damaged = run_folder("causal"), *(tmp_path / name for name in ("empty", "odd", "damaged"))
    for folder in (empty, odd, damaged):
        folder.mkdir()
    (odd / "odd.txt").write_text("One .\nTwo .\nThree .\n", encoding="utf-8")
    (damaged / "damaged.txt.gz").write_bytes(gzip.compress(b"One .\nTwo .\n" * 99)[:-9])
    mistakes = {
        "nowhere": (tmp_path / "nowhere", "--peer", "gpt2"),
        "--peer (bert)": (causal, "--peer", "bert"),
        "--rows (0)": (causal, "--peer", "gpt2", "--rows", 0),
        "--minutes (-1.0)": (causal, "--peer", "gpt2", "--minutes", -1),
        "--output": (causal, "--peer", "gpt2", "--output", tmp_path / "nowhere" / "figures.json"),
        "nothing": (causal, "--peer", "gpt2", "--pairs", tmp_path / "nothing"),
        "must have files": (causal, "--peer", "gpt2", "--pairs", empty),
        "lines (3)": (causal, "--peer", "gpt2", "--pairs", odd),
        "damaged.txt.gz": (causal, "--peer", "gpt2", "--pairs", damaged),
    }
    for part, words in mistakes.items():
        code, printed, errors = run_script(*words)
        assert (code, printed) == (2, "")
        assert errors.startswith("compare_with_peers: ")
        assert part in errors
        assert errors.count("\n") == 1
