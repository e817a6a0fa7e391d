"""Files of minimal pairs, in every published form."""

import gzip
import json

import pytest

from hf_minilm.evaluation.pair_files import SentencePair, read_pairs

PAIRS = [("The keys are old.", "The keys is old."), ('She said "no".', 'She "no" said.')]


def write(path, text):
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return str(path)


def as_json(*, good, bad, **more):
    return "".join(json.dumps({good: pair[0], bad: pair[1], **more}) + "\n" for pair in PAIRS)


FORMS = {
    "blimp.jsonl": as_json(good="sentence_good", bad="sentence_bad"),
    "short.jsonl.gz": as_json(good="good", bad="bad"),
    "array.json": json.dumps([{"sentence_good": good, "sentence_bad": bad} for good, bad in PAIRS]),
    "zorro.txt": "".join(f"{bad}\n{good}\n" for good, bad in PAIRS),
    "zorro.txt.gz": "".join(f" {bad} \r\n{good}\r\n" for good, bad in PAIRS),
    "table.tsv": "number\tbad\tgood\n" + "".join(f"1\t{bad}\t{good}\n" for good, bad in PAIRS),
    "table.csv": 'good,bad\nThe keys are old.,The keys is old.\n"She said ""no"".","She ""no"" said."\n',
}


@pytest.mark.parametrize("name", FORMS)
def test_each_form_holds_the_same_pairs_and_its_name_is_the_paradigm(tmp_path, name):
    source = write(tmp_path / name, FORMS[name])
    assert list(read_pairs(source)) == [SentencePair(name.split(".")[0], good, bad) for good, bad in PAIRS]


@pytest.mark.parametrize("name", ["table.csv", "table.tsv"])
def test_blank_lines_of_a_table_are_passed_over(tmp_path, name):
    source = write(tmp_path / name, "\n  \n" + FORMS[name].replace("\n", "\n\n") + " \n\n")
    assert [(pair.good, pair.bad) for pair in read_pairs(source)] == PAIRS


@pytest.mark.parametrize("key", ["UID", "paradigm", "phenomenon"])
def test_a_record_may_name_its_paradigm(tmp_path, key):
    source = write(tmp_path / "all.jsonl", as_json(good="good", bad="bad", **{key: "agreement"}))
    assert {pair.paradigm for pair in read_pairs(source)} == {"agreement"}


def test_a_folder_and_a_pattern_are_read_in_the_order_of_names_and_other_files_are_passed_over(tmp_path):
    write(tmp_path / "two.txt", "b\ng\n")
    write(tmp_path / "one.jsonl", as_json(good="good", bad="bad"))
    write(tmp_path / "NOTES", "not pairs")
    assert [pair.paradigm for pair in read_pairs(str(tmp_path))] == ["one", "one", "two"]
    assert [pair.paradigm for pair in read_pairs(str(tmp_path / "t*.txt"))] == ["two"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "bad\ngood\nbad\n", r"lines \(3\) must be even"),
        ("a.txt", "bad\n\ngood\n", r"a\.txt:2: line must be a sentence"),
        ("a.jsonl", '{"good": "a"}\n', r"a\.jsonl:1: keys \(good\) must have sentence_bad or bad"),
        ("a.jsonl", '{"good": "a", "bad": ""}\n', r"a\.jsonl:1: bad \(''\) must be a text"),
        ("a.jsonl", '{"good": "a", "bad": 3}\n', r"a\.jsonl:1: bad \(3\) must be a text"),
        ("a.jsonl", "[]\n", r"a\.jsonl:1: record \(list\) must be an object"),
        ("a.csv", "good,bad\na\n", r"a\.csv:2: cells \(1\) must be 2"),
        ("a.csv", 'good,bad\n"a\n', r"a\.csv:2: row must be CSV"),
        ("a.parquet", "", r"must end in one of \.jsonl"),
    ],
)
def test_a_malformed_file_is_named_with_the_place(tmp_path, name, text, message):
    source = write(tmp_path / name, text)
    with pytest.raises(ValueError, match=message):
        list(read_pairs(source))


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="must be a file, folder or glob that exists"):
        list(read_pairs(str(tmp_path / "nowhere.txt")))
    with pytest.raises(ValueError, match=r"source \(builtin:world\) must be a file, a folder or a pattern here"):
        list(read_pairs("builtin:world"))
