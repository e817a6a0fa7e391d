"""The result of an evaluation: its JSON, its file and its table."""

import json
import math

from hf_minilm.evaluation.evaluation_result import UNITS, Evaluation, Figure, SuiteResult


def evaluation(**figures):
    return Evaluation(
        model={"name": "mine", "class": "MiniLMForMaskedLM", "parameters": 1_234, "vocabulary": 99},
        suites={"pairs:zorro": SuiteResult(figures, ("masked scores",), 1.234)},
        seed=3,
        versions={"torch": "2"},
        hardware={"device": "cpu", "name": "a processor", "threads": 2},
        command="hf-minilm evaluate mine pairs:zorro",
    )


ACCURACY = Figure(value=0.5, low=0.25, high=0.75, n=10, counted="pairs", unit="share", interval="Wilson")


def test_the_json_leads_from_suite_to_metric_to_value(tmp_path):
    written = evaluation(accuracy=ACCURACY)
    written.save(tmp_path / "evaluation.json")
    read = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert read == written.to_json()
    assert read["results"]["pairs:zorro"]["accuracy"] == {
        "value": 0.5,
        "low": 0.25,
        "high": 0.75,
        "n": 10,
        "counted": "pairs",
        "unit": "share",
        "interval": "Wilson",
    }
    assert read["suites"] == {"pairs:zorro": {"seconds": 1.23, "notes": ["masked scores"]}}
    assert (read["schema"], read["seed"], read["model"]["name"]) == (1, 3, "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]


def test_what_is_no_finite_number_is_null(tmp_path):
    undefined = Figure(value=math.nan, n=2, counted="texts", unit="correlation")
    evaluation(pearson=undefined).save(tmp_path / "evaluation.json")
    read = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert read["results"]["pairs:zorro"]["pearson"]["value"] is None
    assert undefined.to_text() == "-"


def test_the_table_has_a_line_for_each_figure_and_note():
    perplexity = Figure(value=1234.56, n=7, counted="tokens", unit="perplexity")
    lines = evaluation(accuracy=ACCURACY, perplexity=perplexity).to_text().splitlines()
    assert lines[0] == "mine: MiniLMForMaskedLM of 1,234 parameters (95 % intervals)"
    assert lines[2] == "pairs:zorro (1.2 s)"
    assert lines[3].split() == ["accuracy", "50.0", "%", "(25.0-75.0)", "10", "pairs"]
    assert lines[4].split() == ["perplexity", "1,234.6", "7", "tokens"]
    assert lines[5].strip() == "masked scores"


def test_every_unit_has_a_meaning():
    assert ACCURACY.unit in UNITS
    assert all(UNITS.values())
