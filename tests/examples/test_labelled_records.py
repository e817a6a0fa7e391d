"""Labelled examples are read from JSON lines, TSV and CoNLL files, whole or by columns, and divided once for all."""

import gzip
import json
from pathlib import Path

import pytest
from labelled_records import load_parts, read_records, read_tagged

CONLLU = """# sent_id = 1
1\tVa\tir\tVERB\t_\t_\t0\troot\t_\t_
2-3\tdel\t_\t_\t_\t_\t_\t_\t_\t_
2\tde\tde\tADP\t_\t_\t4\tcase\t_\t_
3\tel\tel\tDET\t_\t_\t4\tdet\t_\t_
3.1\t_\t_\tNOUN\t_\t_\t_\t_\t_\t_

# sent_id = 2
1\tFin\tfin\tNOUN\t_\t_\t0\troot\t_\t_
"""


def write(path: Path, text: str) -> str:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_json_lines_are_read_by_their_own_names_or_by_named_ones(name: str, tmp_path: Path) -> None:
    path = write(
        tmp_path / name, '{"text": "Sí.", "stars": 5, "label": 1}\n\n{"text": "No.", "stars": 1, "label": 0}\n'
    )
    assert read_records(path, ("text", "label")) == [{"text": "Sí.", "label": 1}, {"text": "No.", "label": 0}]
    assert read_records(f"{path}#text,stars", ("text", "label"))[0] == {"text": "Sí.", "label": 5}


def test_a_table_is_read_by_names_or_by_numbers_and_quotation_marks_are_text(tmp_path: Path) -> None:
    named = write(tmp_path / "named.tsv", 'label\tother\ttext\n1\tx\tShe said "no\n0\ty\tBye\n')
    expected = [{"text": 'She said "no', "label": "1"}, {"text": "Bye", "label": "0"}]
    assert read_records(named, ("text", "label")) == expected
    bare = write(tmp_path / "bare.tsv", 'x\t1\t\tShe said "no\ny\t0\t\tBye\n')
    assert read_records(f"{bare}#4,2", ("text", "label")) == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("bad.jsonl", r"bad.jsonl:2: field label \(absent\) must be there"),
        ("bad.jsonl#text", r"columns \(text\) must be 2, for text, label"),
        ("bad.csv", r"file \(.*bad.csv\) must end in .jsonl"),
        ("short.tsv#3,1", r"short.tsv:1: field 3 \(absent\) must be there"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(source: str, message: str, tmp_path: Path) -> None:
    write(tmp_path / "bad.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}\n')
    write(tmp_path / "short.tsv", "a\tb\n")
    with pytest.raises(ValueError, match=message):
        read_records(str(tmp_path / source), ("text", "label"))


def test_universal_dependencies_have_words_and_parts_of_speech_without_what_is_no_word(tmp_path: Path) -> None:
    assert read_tagged(write(tmp_path / "a.conllu.gz", CONLLU)) == [
        {"tokens": ["Va", "de", "el"], "tags": ["VERB", "ADP", "DET"]},
        {"tokens": ["Fin"], "tags": ["NOUN"]},
    ]


def test_names_are_read_from_iob2_from_any_conll_file_and_from_json_lines(tmp_path: Path) -> None:
    expected = [{"tokens": ["New", "York", "#1"], "tags": ["B-LOC", "I-LOC", "O"]}]
    iob2 = write(
        tmp_path / "a.iob2", "# text = New York #1\n1\tNew\tB-LOC\t-\t-\n2\tYork\tI-LOC\t-\tx\n3\t#1\tO\t-\t-\n"
    )
    conll = write(tmp_path / "a.conll", "-DOCSTART- -X- O O\n\nNew NNP I-NP B-LOC\nYork NNP I-NP I-LOC\n#1 CD I-NP O\n")
    jsonl = write(tmp_path / "a.jsonl", json.dumps(expected[0]) + "\n")
    assert [read_tagged(path) for path in (iob2, conll, jsonl)] == [expected] * 3


def numbered(number: int) -> list[dict[str, int]]:
    return [{"place": place} for place in range(number)]


def test_a_tenth_is_held_out_always_the_same_and_nothing_is_in_both() -> None:
    first, again = (load_parts("x", lambda _: numbered(50), numbered, limit=None) for _ in range(2))
    assert first["test"]["place"] == again["test"]["place"]
    assert len(first["test"]) == 5
    assert sorted([*first["train"]["place"], *first["test"]["place"]]) == list(range(50))
    assert first["test"]["place"] != list(range(5))


def test_a_folder_has_its_own_parts_and_columns_hold_for_both(tmp_path: Path) -> None:
    for part, number in (("train", 3), ("test", 2)):
        write(tmp_path / f"{part}.tsv", "".join(f"{label}\t{part} {label}\n" for label in range(number)))
    source = f"{tmp_path}#2,1"
    parts = load_parts(source, lambda file: read_records(file, ("text", "label")), numbered, limit=None)
    assert parts["train"]["text"] == ["train 0", "train 1", "train 2"]
    assert parts["test"]["label"] == ["0", "1"]
    (tmp_path / "test.tsv").unlink()
    with pytest.raises(ValueError, match=r"files test\.\* in .* \(0\) must be 1"):
        load_parts(source, lambda file: read_records(file, ("text", "label")), numbered, limit=None)


def test_examples_are_made_where_no_source_is_given_and_too_few_are_refused() -> None:
    assert load_parts(None, lambda _: [], numbered, limit=20).num_rows == {"train": 18, "test": 2}
    with pytest.raises(ValueError, match=r"--limit \(1\) must be at least 2"):
        load_parts(None, lambda _: [], numbered, limit=1)
    with pytest.raises(ValueError, match=r"examples of x for train \(0\) must be at least 1"):
        load_parts("x", lambda _: [], numbered, limit=None)
