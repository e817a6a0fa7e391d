"""The example that fine-tunes two models alike: a model equals itself, and a native one has its place in the table."""

import json
from pathlib import Path

import compare_fine_tuned
import made_examples
import pytest
from transformers import AutoTokenizer, BertConfig, BertForPreTraining

SCRIPT = Path(compare_fine_tuned.__file__)
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.fixture
def data(tmp_path: Path) -> list[Path]:
    """Write a file for each of two tasks."""
    paths = []
    for name, records in (("topics.jsonl", made_examples.topics(50)), ("names.jsonl", made_examples.named(50))):
        paths.append(tmp_path / name)
        paths[-1].write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    lines = "\n\n".join(
        "\n".join(f"{word} {tag}" for word, tag in zip(record["tokens"], record["tags"], strict=True))
        for record in made_examples.named(50)
    )
    (tmp_path / "names.conll").write_text(lines, encoding="utf-8")
    return [tmp_path / "topics.jsonl", tmp_path / "names.conll"]


def test_a_model_compared_with_itself_differs_by_nothing(encoder: Path, data: list[Path], run_script) -> None:
    code, printed, errors = run_script(encoder, encoder, *data, "--seeds", 2, "--epochs", 1, "--max-length", 64)
    assert code == 0, errors
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines()[2:]]
    assert [row[0] for row in rows] == ["topics.jsonl (45, 5)"] * 2 + ["names.conll (45, 5)"]
    assert [row[1] for row in rows] == ["accuracy", "Matthews correlation", "F1 of names"]
    for row in rows:
        assert row[2] == row[3]
        assert row[4] == "+0.000 (+0.000 to +0.000)"


def test_a_native_model_chooses_its_own_learning_rate_and_all_figures_are_written(
    encoder: Path, data: list[Path], tmp_path: Path, run_script
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    BertForPreTraining(BertConfig(vocab_size=len(tokenizer), **SIZES)).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    options = ("--seeds", 1, "--epochs", 1, "--learning-rates", 1e-4, 4e-3, "--json", tmp_path / "figures.json")
    code, _, errors = run_script(encoder, tmp_path / "bert", data[0], *options)
    assert code == 0, errors
    (figures,) = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert set(figures["learning_rates"]) <= {1e-4, 4e-3}
    assert figures["examples"] == [45, 5]
    for row in figures["rows"]:
        assert row["means"] == [values[0] for values in row["values"]]
        assert row["difference"][0] == pytest.approx(row["means"][0] - row["means"][1])
        for mean, (low, high) in zip(row["means"], row["intervals"], strict=True):
            assert low <= mean <= high


def test_a_file_of_no_task_is_one_line_and_exit_code_2(encoder: Path, run_script) -> None:
    code, printed, errors = run_script(encoder, encoder, "texts.csv")
    assert (code, printed) == (2, "")
    assert errors == (
        "compare_fine_tuned: data (texts.csv) must end in one of .jsonl, .tsv, .conllu, .iob2, .conll, .json, or that "
        "with .gz; convert it.\n"
    )
