"""What the loop does where something goes wrong: numbers that are not finite, and a recipe that changed."""

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from hf_minilm.cli.main import main
from hf_minilm.data.corpus import Corpus
from hf_minilm.data.order import RowKey
from hf_minilm.data.tokenizer import load_tokenizer, tokenizer_fingerprint
from hf_minilm.data.world import World
from hf_minilm.evaluation import language_model
from hf_minilm.evaluation.language_model import HeldOut, measure_batches
from hf_minilm.training import assembly, loop
from hf_minilm.training import pretrain as pretrain_module
from hf_minilm.training.checkpoint import TrainingState, list_checkpoints, load_training_state
from hf_minilm.training.gradient import own_parts
from hf_minilm.training.launch import start_accelerator
from hf_minilm.training.loop import Interval, with_best
from hf_minilm.training.schedule import Budget

SETTINGS = {
    "data.sequence_length": 32,
    "model.overrides": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    "objective.next_sentence": False,
    "training.batch_rows": 4,
    "training.log_every": 1,
    "training.budget": "8steps",
    "training.save_every": "1steps",
    "training.keep_last": 99,
    "training.compile": "no",
    "evaluation.every": "never",
    "evaluation.rows": 8,
}


@pytest.fixture
def pretrain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run `hf-minilm pretrain` in this process on a small corpus, in a folder of a given name."""
    monkeypatch.setenv("HF_MINILM_CACHE", str(tmp_path / "cache"))
    lines = [json.dumps({"text": document.text}) for document in World(("es", "en")).documents(60)]
    (tmp_path / "stories.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def run(name: str, *words: str, **settings: Any) -> int:
        fixed = {"data.corpus": str(tmp_path / "stories.jsonl"), "output.folder": str(tmp_path / name)}
        merged = {**SETTINGS, **fixed, **{key.replace("__", "."): value for key, value in settings.items()}}
        return main(["pretrain", *words, *(f"--set={key}={json.dumps(value)}" for key, value in merged.items())])

    return run


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch):
    """Make a gradient NaN or infinite, or a loss, at some steps."""
    add_up_gradient = loop.add_up_gradient

    def at(steps: set[int], *, value: float = math.nan, loss_alone: bool = False) -> None:
        def poisoned(model: torch.nn.Module, parts: Any, *, step: int, **arguments: Any) -> Any:
            losses = add_up_gradient(model, parts, step=step, **arguments)
            if step in steps:
                if loss_alone:
                    losses[0]["loss"] = torch.full_like(losses[0]["loss"], value)
                else:
                    next(each.grad for each in model.parameters() if each.grad is not None).flatten()[3] = value
            return losses

        monkeypatch.setattr(loop, "add_up_gradient", poisoned)

    return at


def weights(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / f"checkpoint-{step}" / "model.safetensors")


def optimizer_state(folder: Path, step: int) -> list[bytes]:
    checkpoint = folder / "checkpoints" / f"checkpoint-{step}"
    scalars = json.loads((checkpoint / "optimizer.json").read_text(encoding="utf-8"))["scalars"]
    return [(checkpoint / "optimizer.safetensors").read_bytes(), json.dumps(scalars).encode()]


def are_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first.keys() | second.keys())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("device", ["cpu", "cpu that decides alone", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(
    "kind", [{"value": math.nan}, {"value": -math.inf}, {"loss_alone": True}], ids=["nan", "infinite", "loss"]
)
def test_a_step_that_is_not_finite_moves_nothing_and_is_counted(
    pretrain,
    poison,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kind: dict[str, Any],
    device: str,
    optimizer: str,
) -> None:
    if torch.cuda.is_available() != (device == "cuda"):
        pytest.skip(f"a run here is none on {device}")
    if device == "cpu that decides alone":
        monkeypatch.setattr(loop, "skips_by_itself", lambda training: True)
    poison({3, 5}, **kind)
    assert pretrain("run", optimizer__name=optimizer) == 0
    folder = tmp_path / "run"
    assert optimizer_state(folder, 3) == optimizer_state(folder, 4) != optimizer_state(folder, 5)
    assert are_equal(weights(folder, 3), weights(folder, 4))
    assert are_equal(weights(folder, 5), weights(folder, 6))
    assert not are_equal(weights(folder, 4), weights(folder, 5))
    states = [load_training_state(path) for path in list_checkpoints(folder / "checkpoints")]
    assert [state.skipped for state in states] == [0, 0, 0, 1, 1, 2, 2, 2]
    assert [state.skipped_in_a_row for state in states] == [0, 0, 0, 1, 0, 1, 0, 0]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "skipped_steps" in line] == [4, 6]
    said = capsys.readouterr()
    assert "left out: step 3, whose rows begin with" in said.err
    assert "2 steps left out" in said.out


def noting(function: Callable[..., Any], order: list[str], letter: str) -> Callable[..., Any]:
    """Have a function write a letter when it is called."""

    def noted(*arguments: Any, **named: Any) -> Any:
        order.append(letter)
        return function(*arguments, **named)

    return noted


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_is_given_before_the_last_ones_numbers_are_read_and_nothing_else_changes(
    pretrain, poison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    poison({3, 5})
    order: list[str] = []
    for owner, name in ((loop, "add_up_gradient"), (loop, "move_weights"), (loop.Move, "read")):
        monkeypatch.setattr(owner, name, noting(getattr(owner, name), order, name[0]))
    settings = {"training__save_every": "6steps", "training__log_every": 100, "optimizer__name": optimizer}
    monkeypatch.setattr(loop, "skips_by_itself", lambda training: False)
    assert pretrain("waits", **settings) == 0
    waits, order[:] = "".join(order), []
    monkeypatch.setattr(loop, "skips_by_itself", lambda training: True)
    assert pretrain("goes_on", **settings) == 0
    assert waits == 8 * "amr"
    assert "".join(order) == "am" + 5 * "arm" + "r" + "am" + "arm" + "r"  # all is read before a checkpoint is written
    assert are_equal(weights(tmp_path / "waits", 8), weights(tmp_path / "goes_on", 8))
    states = [load_training_state(tmp_path / name / "checkpoints" / "checkpoint-8") for name in ("waits", "goes_on")]
    assert [state.skipped for state in states] == [2, 2]


def test_too_many_steps_in_a_row_that_are_not_finite_end_the_run_in_one_line(
    pretrain, poison, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poison({3, 4, 5})
    assert pretrain("run", training__most_skipped=2) == 2
    last = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hf-minilm: ")]
    assert len(last) == 1
    assert "those of 3 steps in a row are not, the last of them step 5" in last[0]
    assert "optimizer.learning_rate" in last[0]
    newest = list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    assert newest.name == "checkpoint-5"
    assert all(bool(torch.isfinite(tensor).all()) for tensor in load_file(newest / "model.safetensors").values())
    assert all(bool(torch.isfinite(tensor).all()) for tensor in load_file(newest / "optimizer.safetensors").values())


def test_a_run_goes_on_with_a_changed_way_of_working_and_says_so(
    pretrain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrain("run") == 0
    assert pretrain("run", training__micro_batch_rows=2, training__save_every="never") == 0
    said = capsys.readouterr()
    assert "changed: training.micro_batch_rows: null -> 2; training.save_every: 1steps -> never" in said.err
    assert "finished before" in said.out
    assert "micro_batch_rows: 2" in (tmp_path / "run" / "recipe.yaml").read_text(encoding="utf-8")


def test_a_finished_run_goes_on_with_a_larger_budget_if_changes_are_accepted(
    pretrain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    constant = {"optimizer__schedule": "constant", "optimizer__warmup_share": 0.0}
    assert pretrain("run", **constant) == 0
    assert pretrain("run", **constant, training__budget="12steps") == 2
    assert "--accept-changes" in capsys.readouterr().err
    assert pretrain("run", "--accept-changes", **constant, training__budget="12steps") == 0
    assert "resuming after step 8" in capsys.readouterr().err
    assert pretrain("whole", **constant, training__budget="12steps") == 0
    assert are_equal(weights(tmp_path / "run", 12), weights(tmp_path / "whole", 12))


@pytest.mark.parametrize(
    "changed", [{"training__seed": 1}, {"model__preset": "bert"}, {"tokenizer__lowercase": True}], ids=str
)
def test_another_model_tokenizer_or_seed_is_another_run_whatever_is_accepted(
    pretrain, capsys: pytest.CaptureFixture[str], changed: dict[str, Any]
) -> None:
    assert pretrain("run") == 0
    assert pretrain("run", "--accept-changes", **changed) == 2
    assert "must be new or hold this same run" in capsys.readouterr().err


def test_a_run_whose_text_changed_goes_on_only_where_changes_are_accepted_and_keeps_both_fingerprints(
    pretrain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, run = tmp_path / "stories.jsonl", tmp_path / "run"

    def fingerprints() -> list[str]:
        return json.loads((run / "corpus.json").read_text(encoding="utf-8"))["fingerprints"]

    def interrupted() -> None:
        (run / "report.txt").unlink()

    assert pretrain("run") == 0
    first = Corpus([str(corpus)]).fingerprint()
    assert fingerprints() == [first]
    interrupted()
    corpus.rename(tmp_path / "other.jsonl")
    corpus.write_bytes((tmp_path / "other.jsonl").read_bytes())
    assert pretrain("run") == 0  # another file with the same bytes
    interrupted()
    corpus.write_text(f"{json.dumps({'text': 'El perro ladra.'})}\n{corpus.read_text()}", encoding="utf-8")
    capsys.readouterr()
    assert pretrain("run") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hf-minilm: ")]
    assert "documents of data.corpus must be those that the run" in line
    assert fingerprints() == [first]
    assert pretrain("run", "--accept-changes") == 0
    assert "changed: the documents of data.corpus" in capsys.readouterr().err
    assert fingerprints() == [first, Corpus([str(corpus)]).fingerprint()]


@pytest.mark.parametrize("has_files", [True, False])
def test_a_run_of_a_version_that_divided_files_otherwise_goes_on_only_where_that_is_accepted(
    pretrain, tmp_path: Path, has_files: bool
) -> None:
    settings = {} if has_files else {"data__corpus": "builtin:world", "data__world_documents": 60}
    assert pretrain("run", **settings) == 0
    for name in ("corpus.json", "report.txt"):
        (tmp_path / "run" / name).unlink()
    assert pretrain("run", **settings) == (2 if has_files else 0)
    assert not (tmp_path / "run" / "corpus.json").exists()
    if has_files:
        assert pretrain("run", "--accept-changes", **settings) == 0
        first, second = json.loads((tmp_path / "run" / "corpus.json").read_text())["fingerprints"]
        assert first == "not kept by an earlier version"
        assert second == Corpus([str(tmp_path / "stories.jsonl")]).fingerprint()


def test_a_run_without_a_checkpoint_begins_anew_with_the_text_that_there_is(pretrain, tmp_path: Path) -> None:
    assert pretrain("run") == 0
    (tmp_path / "run" / "report.txt").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with (tmp_path / "stories.jsonl").open("a", encoding="utf-8") as corpus:
        corpus.write(json.dumps({"text": "El perro ladra."}) + "\n")
    assert pretrain("run") == 0
    fingerprint = Corpus([str(tmp_path / "stories.jsonl")]).fingerprint()
    assert json.loads((tmp_path / "run" / "corpus.json").read_text())["fingerprints"] == [fingerprint]


def test_a_run_whose_model_an_earlier_version_built_otherwise_says_how_it_goes_on(
    pretrain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"optimizer__schedule": "constant", "optimizer__warmup_share": 0.0}
    sizes = [{**SETTINGS["model.overrides"], "intermediate_size": width} for width in (24, 40)]
    narrow, wide = ({**changes, "model__overrides": each} for each in sizes)
    longer = {"training__budget": "10steps"}
    assert pretrain("run", **narrow) == 0
    recipe = tmp_path / "run" / "recipe.yaml"
    before = recipe.read_text(encoding="utf-8")
    recipe.write_text(before.replace("intermediate_size: 24", "intermediate_size: 40"), encoding="utf-8")
    assert pretrain("run", "--accept-changes", **wide, **longer) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hf-minilm: ")]
    assert "its intermediate_size is 24 (by the recipe 40): if an earlier version began this run" in line
    recipe.write_text(before, encoding="utf-8")
    assert pretrain("run", "--accept-changes", **narrow, **longer) == 0
    assert "resuming after step 8" in capsys.readouterr().err


@pytest.mark.parametrize("budget", ["8steps", "1024tokens"])
def test_the_rate_of_a_step_is_that_of_its_middle_in_steps_and_in_tokens(pretrain, tmp_path: Path, budget: str) -> None:
    settings = {"optimizer__warmup_share": 0.5, "optimizer__schedule": "linear", "training__save_every": "never"}
    assert pretrain("run", training__budget=budget, **settings) == 0
    rates = [line["learning_rate"] for line in logged_lines(tmp_path / "run") if "learning_rate" in line]
    assert rates == pytest.approx([5e-3 * share for share in (1 / 8, 3 / 8, 5 / 8, 7 / 8, 7 / 8, 5 / 8, 3 / 8, 1 / 8)])


def test_the_first_step_which_compiles_takes_nothing_of_a_schedule_in_time(
    pretrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, add_up_gradient = [0.0], loop.add_up_gradient

    def slow(*arguments: Any, step: int, **options: Any) -> Any:
        now[0] += 60.0 if step == 0 else 1.0
        return add_up_gradient(*arguments, step=step, **options)

    monkeypatch.setattr(loop, "add_up_gradient", slow)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now[0]))
    settings = {"optimizer__warmup_share": 0.5, "optimizer__schedule": "linear", "training__save_every": "never"}
    assert pretrain("run", training__budget="70s", **settings) == 0
    rates = [line["learning_rate"] for line in logged_lines(tmp_path / "run") if "learning_rate" in line]
    assert rates == pytest.approx([5e-3 * share for share in (0, 0, 0.2, 0.4, 0.6, 0.8, 1, 0.8, 0.6, 0.4, 0.2)])
    (checkpoint,) = list_checkpoints(tmp_path / "run" / "checkpoints")
    assert load_training_state(checkpoint).opening_seconds == 60.0


def test_a_held_out_loss_that_is_no_number_is_never_the_best() -> None:
    state = TrainingState(step=4, tokens=0, seconds=0.0, recipe={})
    assert with_best(state, math.nan) == state
    best = with_best(state, 2.0)
    assert best.losses == {"best_held_out_loss": 2.0, "best_step": 4}
    assert with_best(best, math.nan) == with_best(best, 2.0) == best
    known = dataclasses.replace(state, losses={"measured": "rows"})
    assert with_best(known, 2.0).losses == {"measured": "rows", **best.losses}


@pytest.mark.parametrize(
    ("changed", "best_step"), [({}, 4), ({"optimizer__weight_decay": 0.2}, 4), ({"evaluation__rows": 2}, 6)], ids=str
)
def test_a_loss_on_other_rows_is_not_compared_with_the_best_so_far(
    pretrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], best_step: int
) -> None:
    losses = iter([1.0, 3.0])
    settings = {"training__save_every": "never", "evaluation__every": "never"}
    monkeypatch.setattr(assembly, "measure_together", lambda *_, **__: HeldOut(next(losses), None, 1, *[None] * 3, 0))
    assert pretrain("run", training__budget="4steps", **settings) == 0
    assert pretrain("run", "--accept-changes", training__budget="6steps", **settings, **changed) == 0
    state = load_training_state(list_checkpoints(tmp_path / "run" / "checkpoints")[-1])
    assert (state.losses["best_step"], state.recipe["training"]["budget"]) == (best_step, "6steps")


def test_a_run_whose_steps_change_their_size_goes_on_with_the_rows_that_were_due(
    pretrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, list[RowKey]] = {}

    def noted(*arguments: Any, rows: list[RowKey], step: int, **named: Any) -> Any:
        seen[step] = rows
        return own_parts(*arguments, rows=rows, step=step, **named)

    monkeypatch.setattr(loop, "own_parts", noted)
    rows: dict[str, list[RowKey]] = {}
    for name, sizes in {"changed": (2, 4), "steady": (2, 2)}.items():
        seen.clear()
        pretrain(name, training__budget="4steps", training__batch_rows=sizes[0])
        steps = 4 + 8 // sizes[1]
        pretrain(name, "--accept-changes", training__budget=f"{steps}steps", training__batch_rows=sizes[1])
        rows[name] = [row for step in range(steps) for row in seen[step]]
    assert rows["changed"] == rows["steady"]
    assert len(set(rows["changed"])) == len(rows["changed"]) == 16


def test_a_run_computes_with_its_own_threads_whatever_accelerate_takes(
    pretrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()

    def takes_two(*arguments: Any, **options: Any) -> Any:
        torch.set_num_threads(2)
        return start_accelerator(*arguments, **options)

    monkeypatch.setattr(pretrain_module, "start_accelerator", takes_two)
    try:
        assert pretrain("run", training__budget="1steps", training__gradient_parts=2) == 0
    finally:
        torch.set_num_threads(before)
    assert load_training_state(list_checkpoints(tmp_path / "run" / "checkpoints")[-1]).threads == 1


def test_an_evaluation_takes_no_more_rows_at_once_than_training(pretrain, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()

    def noted(model: Any, batches: Any, **options: Any) -> Any:
        return measure_batches(model, (seen.add(len(batch["input_ids"])) or batch for batch in batches), **options)

    monkeypatch.setattr(language_model, "measure_batches", noted)
    monkeypatch.setattr(assembly, "measure_batches", noted)
    assert pretrain("run", training__budget="1steps", training__batch_rows=8, training__micro_batch_rows=2) == 0
    assert max(seen) == 2


@pytest.mark.parametrize(
    ("every", "due", "after_step_4"),
    [("3steps", [3, 6, 9], [6, 9]), ("250tokens", [3, 5, 8, 10], [5, 8, 10]), ("5s", [3, 5, 8, 10], [5, 8, 10])],
)
def test_an_interval_ends_after_steps_tokens_or_seconds_also_in_a_run_that_goes_on(
    every: str, due: list[int], after_step_4: list[int]
) -> None:
    states = [TrainingState(step, tokens=100 * step, seconds=2.1 * step, recipe={}) for step in range(11)]
    for first, expected in ((0, due), (4, after_step_4)):
        interval = Interval(Budget.parse(every), states[first])
        assert [state.step for state in states[first + 1 :] if interval.due(state)] == expected
    never = Interval("never", states[0])
    assert not any(never.due(state) for state in states)


@pytest.mark.parametrize("clip", [0.01, 0])
def test_the_gradient_is_clipped_as_the_recipe_says_and_logged_as_it_was(pretrain, tmp_path: Path, clip: float) -> None:
    seen = []

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        gradients = [each.grad for group in optimizer.param_groups for each in group["params"] if each.grad is not None]
        seen.append(torch.nn.utils.get_total_norm(gradients).item())

    handle = register_optimizer_step_pre_hook(note)
    try:
        code = pretrain("run", optimizer__name="adamw", optimizer__gradient_clip=clip, training__save_every="never")
    finally:
        handle.remove()
    assert code == 0
    norms = [line["gradient_norm"] for line in logged_lines(tmp_path / "run") if "gradient_norm" in line]
    assert min(norms) > 0.02
    assert seen == pytest.approx([min(norm, clip or math.inf) for norm in norms], rel=1e-3)


def test_a_run_takes_the_tokenizer_of_a_folder_as_it_is(pretrain, tmp_path: Path) -> None:
    assert pretrain("first", tokenizer__vocab_size=300) == 0
    assert pretrain("second", tokenizer__folder=str(tmp_path / "first" / "tokenizer")) == 0
    names = ("first/tokenizer", "first/model", "second/model")
    assert len({tokenizer_fingerprint(load_tokenizer(tmp_path / name)) for name in names}) == 1
    assert len(load_tokenizer(tmp_path / "second" / "model")) == 300


def test_what_is_logged_is_told_to_the_trackers_too(pretrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, dict[str, Any]]] = []
    monkeypatch.setattr("accelerate.Accelerator.log", lambda _, values, step: told.append((step, dict(values))))
    assert pretrain("run", training__save_every="never") == 0
    lines = logged_lines(tmp_path / "run")
    assert [step for step, _ in told] == [line["step"] for line in lines]
    assert all(
        line[name] == value for line, (_, values) in zip(lines, told, strict=True) for name, value in values.items()
    )


def logged_lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
