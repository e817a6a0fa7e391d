"""The example that trains what came before attention on a causal run's rows, and measures all on the same tokens."""

import json
import math
import shutil
from collections import Counter, defaultdict
from fractions import Fraction
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import before_attention
import pytest
import torch
from before_attention import FeedForward, Recurrent, Trigram
from torch import nn

from hf_minilm.data.order import RowOrder
from hf_minilm.data.sequences import IGNORED
from hf_minilm.data.tokenizer import token_bytes
from hf_minilm.data.world import World
from hf_minilm.evaluation.unpacking import unpacked_sequences
from hf_minilm.evaluation.world_floor import causal_floor
from hf_minilm.training.pretrain import pretrain
from hf_minilm.training.recipe import load_recipe

SCRIPT = Path(before_attention.__file__)
SETTINGS = {
    "objective.name": "causal",
    "model.overrides": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
    "tokenizer.vocab_size": 400,
    "data.sequence_length": 256,
    "training.budget": "3steps",
    "training.batch_rows": 4,
    "training.precision": "fp32",
    "evaluation.every": "never",
}
VOCAB_SIZE = 5
POSITIONS = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 0]])
"""Two rows of five sequences."""
REACH = {"trigram": 2, "feed-forward": 3, "recurrent": 99}
"""How many tokens each model sees."""


def train_run(folder: Path, cache: Path, **settings: object) -> Path:
    settings = {**SETTINGS, "data.cache_folder": str(cache), "output.folder": str(folder), **settings}
    pretrain(load_recipe(None, [f"{name}={json.dumps(value)}" for name, value in settings.items()]))
    return folder


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a finished causal run on the built-in stories."""
    folder = tmp_path_factory.mktemp("runs")
    return train_run(folder / "causal", folder / "cache", **{"data.world_documents": 120})


@pytest.fixture(scope="module")
def opened(run_folder: Path) -> before_attention.Run:
    return before_attention.open_run(run_folder)


def draw_tokens(seed: int = 0) -> torch.Tensor:
    return torch.randint(VOCAB_SIZE, POSITIONS.shape, generator=torch.Generator().manual_seed(seed))


def make_batch(input_ids: torch.Tensor, position_ids: torch.Tensor) -> dict[str, torch.Tensor]:
    labels = input_ids.masked_fill(position_ids == 0, IGNORED)
    return {"input_ids": input_ids, "position_ids": position_ids, "labels": labels}


@pytest.fixture(params=list(REACH))
def model(request: pytest.FixtureRequest) -> before_attention.NextToken:
    """Give each of the models, the trigram with so many counts that each history is a different one."""
    torch.manual_seed(0)
    if request.param == "trigram":
        made = Trigram(VOCAB_SIZE, [make_batch(draw_tokens(seed), POSITIONS) for seed in range(60)])
    else:
        made = FeedForward(VOCAB_SIZE, 8, window=3) if request.param == "feed-forward" else Recurrent(VOCAB_SIZE, 8)
    made.reach = REACH[request.param]
    return made.eval()


def test_a_token_changes_what_is_predicted_after_it_within_reach_in_its_own_sequence_and_nothing_else(model) -> None:
    tokens = draw_tokens(seed=100)
    before = model(input_ids=tokens, position_ids=POSITIONS).logits
    assert before.shape == (*POSITIONS.shape, VOCAB_SIZE)
    sequence = torch.cumsum(POSITIONS == 0, dim=1)
    for row in range(tokens.shape[0]):
        for place in range(tokens.shape[1]):
            other = tokens.clone()
            other[row, place] = (other[row, place] + 1) % VOCAB_SIZE
            after = model(input_ids=other, position_ids=POSITIONS).logits
            distance = torch.arange(tokens.shape[1]) - place
            is_reached = torch.zeros_like(POSITIONS, dtype=torch.bool)
            is_reached[row] = (distance >= 0) & (distance < model.reach) & (sequence[row] == sequence[row, place])
            assert torch.equal((after != before).any(-1), is_reached)


def test_a_packed_sequence_is_predicted_as_it_is_alone(model) -> None:
    tokens = draw_tokens(seed=101)
    packed = model(input_ids=tokens, position_ids=POSITIONS).logits
    for row, (start, stop) in ((0, (0, 5)), (0, (5, 12)), (1, (0, 9)), (1, (9, 11)), (1, (11, 12))):
        alone = model(input_ids=tokens[row : row + 1, start:stop]).logits[0]
        torch.testing.assert_close(packed[row, start:stop], alone)


def test_the_loss_is_the_mean_over_all_tokens_but_each_sequence_s_first(model) -> None:
    batch = make_batch(draw_tokens(seed=102), POSITIONS)
    logs = model(input_ids=batch["input_ids"], position_ids=POSITIONS).logits.double().log_softmax(-1)
    losses = [
        -logs[row, place - 1, batch["input_ids"][row, place]].item()
        for row, place in (POSITIONS > 0).nonzero().tolist()
    ]
    assert len(losses) == POSITIONS.numel() - 5
    assert model(**batch, return_logits=False).loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-6)


@pytest.mark.parametrize("build", [lambda: FeedForward(VOCAB_SIZE, 8, window=3), lambda: Recurrent(VOCAB_SIZE, 8)])
def test_a_loss_gives_no_gradient_to_what_it_may_not_depend_on(build) -> None:
    torch.manual_seed(0)
    network = build()
    tokens = torch.tensor([[0, 1, 2, 3, 3, 2, 4]])  # the token 4 is the last one, and 0 and 1 another sequence
    positions = torch.tensor([[0, 1, 0, 1, 2, 3, 4]])
    network(input_ids=tokens, position_ids=positions).logits[0, 5].square().sum().backward()
    moved = network.embedding.weight.grad[:VOCAB_SIZE].abs().sum(-1) > 0
    assert moved.tolist() == [False, False, True, True, False]


def test_the_trigram_s_probabilities_are_those_computed_by_hand() -> None:
    trigram = Trigram(3, [make_batch(torch.tensor([[0, 1, 2, 1, 2]]), torch.arange(5)[None])])
    # Single tokens: 1 and 2 twice each, so (2 + 2/3) / (4 + 2) each. After 1 came 2 twice; after 0, 1 came 2 once.
    expected = {
        (0, 1): (Fraction(1, 54), Fraction(2, 27), Fraction(49, 54)),
        (1, 1): (Fraction(1, 27), Fraction(4, 27), Fraction(22, 27)),  # never seen: as after 1
        (2, 0): (Fraction(1, 18), Fraction(13, 18), Fraction(2, 9)),  # never seen: as after 0
    }
    for history, probabilities in expected.items():
        logits = trigram(input_ids=torch.tensor([history])).logits[0, -1]
        assert logits.exp().tolist() == pytest.approx([float(each) for each in probabilities], rel=1e-6)
    assert before_attention.num_parameters(trigram) == 2 + 3 + 4


def test_the_trigram_s_probabilities_sum_to_1_whatever_the_history() -> None:
    trigram = Trigram(VOCAB_SIZE + 3, [make_batch(draw_tokens(), POSITIONS)])  # three tokens were never seen
    pairs = torch.cartesian_prod(torch.arange(VOCAB_SIZE + 3), torch.arange(VOCAB_SIZE + 3))
    logits = trigram(input_ids=pairs).logits
    torch.testing.assert_close(logits.exp().sum(-1), torch.ones(len(pairs), 2))
    assert logits.isfinite().all()


def test_the_trigram_loses_on_held_out_stories_what_a_slow_computation_does(opened) -> None:
    data, size = opened.data, len(opened.data.tokenizer)
    followers: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for sequence in unpacked_sequences(data.train):
        padded = [-1, *sequence.true_ids]
        for place in range(2, len(padded)):
            for length in (0, 1, 2):
                followers[tuple(padded[place - length : place])][padded[place]] += 1

    def probability(token: int, history: tuple[int, ...] | None) -> float:
        if history is None:
            return 1 / size
        counts = followers.get(history, Counter())
        shorter = probability(token, history[1:] if history else None)
        number = counts.total() + len(counts)
        return (counts[token] + len(counts) * shorter) / number if number else shorter

    nats = []
    for sequence in unpacked_sequences(data.held_out):
        padded = [-1, *sequence.true_ids]
        nats += [-math.log(probability(padded[at], tuple(padded[at - 2 : at]))) for at in range(2, len(padded))]
    trigram = Trigram(size, data.train.evaluation_batches(3))
    measured = before_attention.measure(trigram, data, opened.recipe, token_bytes(data.tokenizer), max_rows=None)
    assert measured.num_tokens == len(nats)
    assert measured.nats_per_token == pytest.approx(sum(nats) / len(nats), rel=1e-5)


@pytest.mark.parametrize("limit", [20_000, 1_234_567])
def test_a_network_is_as_wide_as_its_number_of_parameters_lets_it(limit: int) -> None:
    for build in (lambda width: FeedForward(400, width, window=6), lambda width: Recurrent(400, width)):
        width = before_attention.widest(build, limit)
        assert width % 8 == 0
        sizes = [before_attention.num_parameters(build(each)) for each in (width, width + 8)]
        assert sizes[0] <= limit < sizes[1]


def test_a_network_reads_the_run_s_rows_in_the_run_s_order_and_learns(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    class Watched(Recurrent):
        def forward(self, **inputs: torch.Tensor):
            output = super().forward(**inputs)
            seen.append((inputs["input_ids"].clone(), output.loss.item()))
            return output

    seen: list[tuple[torch.Tensor, float]] = []
    clock = count()
    monkeypatch.setattr(before_attention, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    torch.manual_seed(0)
    network = Watched(len(opened.data.tokenizer), 16)
    assert before_attention.train(network, opened, 60.0) == (60, 60.0)
    order = RowOrder(opened.data.train.rows_in_epoch, 4, seed=0)
    for step, (input_ids, _) in enumerate(seen):
        assert torch.equal(input_ids, opened.data.train.batch(step, order.rows(step))["input_ids"])
    assert seen[-1][1] < seen[0][1] - 0.1
    assert all(nn.utils.parameters_to_vector([each]).isfinite().all() for each in network.parameters())


def test_all_models_predict_the_tokens_of_the_run_s_report(run_folder, opened, tmp_path: Path, run_script) -> None:
    output = tmp_path / "figures.json"
    code, printed, errors = run_script(run_folder, "--seconds", 0.05, "--window", 3, "--output", output)
    assert code == 0, errors
    figures = json.loads(output.read_text(encoding="utf-8"))
    models, report = figures["models"], json.loads((run_folder / "report.json").read_text(encoding="utf-8"))
    assert [each["name"] for each in models] == [
        *("trigram", "feed-forward over 3", "recurrent (LSTM)", "the run's, with attention")
    ]
    own = models[-1]
    for name in ("nats_per_token", "bits_per_byte"):
        assert own[name] == pytest.approx(report["held_out"][name], rel=1e-5)
    assert own["agreement"] == report["probes"]
    assert {name: own[name] for name in ("parameters", "tokens", "seconds")} == {
        name: report["facts"][name] for name in ("parameters", "tokens", "seconds")
    }
    assert {each["held_out_tokens"] for each in models} == {report["held_out"]["num_tokens"]}
    assert [[cell["number"] for cell in each["agreement"]] for each in models] == [[200, 200, 200]] * 4
    for network in models[1:3]:
        assert 0.5 * own["parameters"] < network["parameters"] <= own["parameters"]
        assert 0.05 <= network["seconds"] < 5
        assert network["tokens"] > 0
    documents = opened.data.held_out_documents()
    assert figures["floor"] == pytest.approx(causal_floor(World(), documents, own["held_out_tokens"]))
    assert f"| least possible | - | - | - | {figures['floor']:.3f} |" in printed
    assert printed.count(f"| {models[0]['nats_per_token']:.3f} |") == 1
    assert "Agreement across 2" in printed


def test_a_run_on_other_text_has_neither_probes_nor_a_least_possible_loss(tmp_path: Path, run_script) -> None:
    text = tmp_path / "stories.txt"
    text.write_text("\n\n\n".join(each.text for each in World(["es"]).documents(80)) + "\n", encoding="utf-8")
    folder = train_run(tmp_path / "run", tmp_path / "cache", **{"data.corpus": str(text), "data.sequence_length": 32})
    code, printed, errors = run_script(folder, "--seconds", 0.05)
    assert code == 0, errors
    header, _, *rows = printed.splitlines()
    assert header.endswith("| Nats per token | Bits per byte |")
    assert [row.split("|")[1].strip() for row in rows if row.startswith("|")] == [
        *("trigram", "feed-forward over 8", "recurrent (LSTM)", "the run's, with attention")
    ]
    assert "least possible" not in printed
    assert printed.endswith(" held-out tokens\n")


def test_a_mistake_is_one_line_and_exit_code_2(run_folder: Path, tmp_path: Path, run_script) -> None:
    unfinished, masked = (shutil.copytree(run_folder, tmp_path / name) for name in ("unfinished", "masked"))
    (unfinished / "report.txt").unlink()
    recipe = (masked / "recipe.yaml").read_text(encoding="utf-8")
    (masked / "recipe.yaml").write_text(recipe.replace("name: causal", "name: masked"), encoding="utf-8")
    mistakes = {
        "nowhere": (tmp_path / "nowhere",),
        "has no report.txt": (unfinished,),
        "objective of the run (masked)": (masked,),
        "--seconds (0.0)": (run_folder, "--seconds", 0),
        "--seconds (nan)": (run_folder, "--seconds", "nan"),
        "--window (0)": (run_folder, "--window", 0),
        "--output": (run_folder, "--output", tmp_path / "nowhere" / "figures.json"),
    }
    for part, words in mistakes.items():
        code, printed, errors = run_script(*words)
        assert (code, printed) == (2, "")
        assert errors.startswith("before_attention: ")
        assert part in errors
        assert errors.count("\n") == 1
