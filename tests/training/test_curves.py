"""The curves are of the numbers that were logged, whatever is missing of them."""

import json
import math
import xml.etree.ElementTree as ElementTree

import pytest

from hf_minilm.training import curves
from hf_minilm.training.curves import draw_loss_curve, draw_runs, read_run

SVG = "{http://www.w3.org/2000/svg}"


def line(step, **more):
    return {"step": step, "tokens": 100 * step, "seconds": 2.0 * step, "loss": 5 / step, **more}


FULL = {"learning_rate": 0.1, "gradient_norm": 2.0, "tokens_per_second": 50.0}


@pytest.fixture
def make_run(tmp_path):
    def make(name, lines, *, end=""):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        text = "".join(json.dumps(entry) + "\n" for entry in lines) + end
        (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
        return folder

    return make


@pytest.fixture
def drawn(monkeypatch):
    """The last figure that was saved, as its panels with their curves."""
    figures = []
    save = curves.save_picture

    def note(figure, path, **options):
        figures.append(figure)
        save(figure, path, **options)

    monkeypatch.setattr(curves, "save_picture", note)

    def panels():
        return {
            axes.get_ylabel().split(" [")[0]: [[*zip(*curve.get_data(), strict=True)] for curve in axes.lines]
            for axes in figures[-1].axes
            if axes.get_visible()
        }

    return panels


def words_in(path):
    return [text.text for text in ElementTree.parse(path).iter(f"{SVG}text")]


def test_every_number_that_was_logged_is_drawn_at_its_place(make_run, drawn, tmp_path):
    lines = [line(step, **FULL) for step in (1, 2, 3)] + [{"step": 3, "tokens": 300, "held_out_loss": 4.5}]
    printed = draw_runs([read_run(make_run("a", lines))], tmp_path / "p.png")
    panels = drawn()
    assert list(panels) == [
        "loss",
        "learning rate",
        "gradient norm before clipping",
        "tokens a second since the process began",
    ]
    assert panels["loss"] == [[(100, 5), (200, 2.5), (300, 5 / 3)], [(300, 4.5)]]
    assert panels["learning rate"] == [[(100, 0.1), (200, 0.1), (300, 0.1)]]
    assert printed == [f"{tmp_path / 'a'}: step 3, loss 1.667, held-out loss 4.500", str(tmp_path / "p.png")]


@pytest.mark.parametrize(("over", "places"), [("step", [1, 2]), ("seconds", [2.0, 4.0]), ("tokens", [100, 200])])
def test_curves_may_be_over_steps_seconds_or_tokens(make_run, drawn, tmp_path, over, places):
    draw_runs([read_run(make_run("a", [line(1), line(2)]))], tmp_path / "p.png", over=over)
    assert [place for place, _ in drawn()["loss"][0]] == places


def test_steps_left_out_are_crosses_at_the_foot_of_the_losses_and_counted(make_run, drawn, tmp_path):
    lines = [line(1), {"step": 2, "tokens": 200, "skipped_steps": 1}, {"step": 3, "tokens": 300, "skipped_steps": 2}]
    printed = draw_runs([read_run(make_run("a", lines))], tmp_path / "p.png")
    assert drawn()["loss"] == [[(100, 5)], [(200, 0.02), (300, 0.02)]]
    assert printed[0].endswith("step 3, loss 5.000, 2 steps left out")


def test_missing_and_broken_numbers_leave_a_gap_and_a_panel_without_any_is_not_drawn(make_run, drawn, tmp_path):
    lines = [
        line(1, gradient_norm=1.0),
        {"step": 2},
        line(3, loss=math.nan, gradient_norm=None),
        line(4, loss=True, gradient_norm="2"),
        line(5, gradient_norm=math.inf),
    ]
    draw_runs([read_run(make_run("a", lines, end='{"step": 6, "los'))], tmp_path / "p.png")
    panels = drawn()
    assert panels == {"loss": [[(100, 5), (500, 1)]], "gradient norm before clipping": [[(100, 1.0)]]}


def test_what_one_run_has_logged_and_another_has_not_is_said(make_run, tmp_path):
    runs = [read_run(make_run(name, [line(1, **more)])) for name, more in (("a", FULL), ("b", {"learning_rate": 0.0}))]
    printed = draw_runs(runs, tmp_path / "p.png")
    assert printed[0].endswith("a: step 1, loss 5.000")
    assert printed[1].endswith("b: step 1, loss 5.000, no gradient norm, no tokens per second")


def test_a_run_with_only_held_out_losses_is_drawn(make_run, drawn, tmp_path):
    lines = [{"step": 1, "tokens": 10, "held_out_loss": 2.0}]
    draw_runs([read_run(make_run("a", lines))], tmp_path / "p.png")
    assert drawn() == {"loss": [[(10, 2.0)]]}


def test_runs_are_told_apart_by_the_end_of_their_path_whatever_characters_it_has(make_run, tmp_path):
    folders = [make_run(name, [line(1), line(2)]) for name in ("x/a", "y/a", "_b", "$c$")]
    draw_runs([read_run(folder) for folder in folders], tmp_path / "p.svg")
    end = [f"{tmp_path.name}/_b", f"{tmp_path.name}/$c$"]
    assert [word for word in words_in(tmp_path / "p.svg") if "/" in (word or "")] == ["x/a", "y/a", *end]


def test_a_run_may_be_named_by_its_metrics_and_twice(make_run, drawn, tmp_path):
    folder = make_run("a", [line(1), line(2)])
    draw_runs([read_run(folder / "metrics.jsonl"), read_run(folder)], tmp_path / "p.png")
    assert len(drawn()["loss"]) == 2


def test_the_loss_curve_of_a_run_has_the_training_and_the_held_out_loss(drawn, tmp_path):
    draw_loss_curve(
        [line(1), line(2, loss=math.nan), {"step": 2, "tokens": 200, "held_out_loss": 3.0}], tmp_path / "p.png"
    )
    assert drawn() == {"loss": [[(100, 5)], [(200, 3.0)]]}
    draw_loss_curve([], tmp_path / "p.png")
    assert drawn() == {"loss": []}


def test_what_is_no_run_is_refused(make_run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^run \(.*absent\) must be a run folder with metrics\.jsonl, or such"):
        read_run(tmp_path / "absent")
    for name, lines in (("empty", []), ("list", [[1]]), ("stepless", [{"loss": 1}]), ("word", [{"step": "1"}])):
        with pytest.raises(ValueError, match=r"^metrics \(.*\) must have a JSON object with a step in each line; give"):
            read_run(make_run(name, lines))


def test_what_cannot_be_drawn_is_refused(make_run, tmp_path):
    run = read_run(make_run("a", [{"step": 1, "tokens": 10, "loss": 2.0}]))
    with pytest.raises(ValueError, match=r"^run \(.*a\) must have logged numbers over seconds; give another, or"):
        draw_runs([run], tmp_path / "p.png", over="seconds")
    with pytest.raises(ValueError, match=r"^picture \(.*p\.pdf\) must end in \.png or \.svg; give another name\.$"):
        draw_runs([run], tmp_path / "p.pdf")
    with pytest.raises(ValueError, match=r"^runs \(11\) must be 1 to 10, so that colours differ; give fewer\.$"):
        draw_runs([run] * 11, tmp_path / "p.png")
