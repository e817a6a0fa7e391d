"""Corpora: what each kind of source gives, how it fails, and which documents are held out."""

import gzip
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from hf_minilm.data import corpus as corpus_module
from hf_minilm.data import limits, readers
from hf_minilm.data.corpus import Corpus
from hf_minilm.data.document import Document

NOVELS = [("Uno.", "Dos ñandúes."), ("Tres.",), ("Four and five.", "Six.", "Seven.")]


def paragraphs(corpus: Corpus) -> list[tuple[str, ...]]:
    """All documents, the held-out ones after the others."""
    return [document.paragraphs for split in ("train", "validation") for document in corpus.documents(split)]


def as_text(documents: list[tuple[str, ...]]) -> bytes:
    return "\n\n\n".join("\n\n".join(document) for document in documents).encode()


def as_lines(documents: list[tuple[str, ...]]) -> bytes:
    return "\n".join(json.dumps({"text": "\n\n".join(document)}) for document in documents).encode()


def as_array(documents: list[tuple[str, ...]]) -> bytes:
    return json.dumps([{"paragraphs": list(document)} for document in documents], indent=1).encode()


@pytest.mark.parametrize(
    ("suffix", "write"), [("txt", as_text), ("jsonl", as_lines), ("json", as_lines), ("json", as_array)]
)
@pytest.mark.parametrize("compressed", [False, True])
def test_every_kind_of_file_gives_the_same_documents(
    tmp_path: Path, suffix: str, write: Callable[[list[tuple[str, ...]]], bytes], compressed: bool
) -> None:
    path = tmp_path / (f"novels.{suffix}" + ".gz" * compressed)
    path.write_bytes(gzip.compress(write(NOVELS)) if compressed else write(NOVELS))
    assert sorted(paragraphs(Corpus([str(path)]))) == sorted(NOVELS)


@pytest.mark.parametrize("key", ["text", "paragraphs"])
def test_parquet_gives_the_documents_of_either_key(tmp_path: Path, key: str) -> None:
    values = [list(novel) if key == "paragraphs" else "\n\n".join(novel) for novel in NOVELS]
    path = tmp_path / "novels.parquet"
    parquet.write_table(pyarrow.table({"title": ["a", "b", "c"], key: values}), path)
    assert sorted(paragraphs(Corpus([str(path)]))) == sorted(NOVELS)


def test_lines_are_joined_and_line_ends_marks_and_control_characters_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf\r\n\r\nOne\r\nline\x00here. \r\n \r\nTwo.\r\n\r\n\t\r\n\r\nThree.")
    assert paragraphs(Corpus([str(path)])) == [("One line here.", "Two."), ("Three.",)]


@pytest.mark.parametrize("compressed", [False, True])
def test_a_byte_that_is_not_utf_8_is_named_and_replaced_on_demand(tmp_path: Path, compressed: bool) -> None:
    content = "\ufeffAño.\n\nB".encode() + b"\xf1o.\n\n\nC."
    path = tmp_path / ("a.txt" + ".gz" * compressed)
    path.write_bytes(gzip.compress(content) if compressed else content)
    message = f"{re.escape(str(path))}: byte {content.index(0xF1)} .*--set data.encoding_errors=replace"
    with pytest.raises(ValueError, match=message) as raised:
        paragraphs(Corpus([str(path)]))
    assert "\n" not in str(raised.value)
    assert paragraphs(Corpus([str(path)], encoding_errors="replace")) == [("Año.", "B\ufffdo."), ("C.",)]


SPANISH = "El niño comió maíz y María cantó después."


@pytest.mark.parametrize("suffix", ["txt", "txt.gz", "jsonl"])
def test_a_text_in_latin_1_is_refused_and_not_destroyed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    texts = [(f"{SPANISH} {number}.",) for number in range(200)]
    content = as_text(texts) if suffix != "jsonl" else b"\n".join(b'{"text": "%s"}' % t[0].encode() for t in texts)
    latin = content.decode().encode("latin-1")
    path.write_bytes(gzip.compress(latin) if suffix == "txt.gz" else latin)
    message = rf"\(1\d\d among [\d,]+ characters up to {re.escape(path.name)}:\d+\) must be at most 1 in 1,000; .*iconv"
    with pytest.raises(ValueError, match=message) as raised:
        paragraphs(Corpus([str(path)], encoding_errors="replace"))
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match=r"convert the text, .*iconv -f WINDOWS-1252 -t UTF-8"):
        paragraphs(Corpus([str(path)]))


def test_another_encoding_is_seen_in_a_folder_of_small_files_too(tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / f"{number:02}.txt").write_bytes(f"{SPANISH} {number}.".encode("latin-1"))
    with pytest.raises(ValueError, match=r"up to 16\.txt:1\)"):  # the hundredth accent, at six a file
        paragraphs(Corpus([str(tmp_path)], encoding_errors="replace"))


def test_few_damaged_bytes_are_borne_and_counted_anew_in_each_pass(tmp_path: Path) -> None:
    good = "\n\n\n".join(f"{SPANISH} {number}." for number in range(24_000)).encode()
    (tmp_path / "a.txt").write_bytes(good + b"\n\n\n" + b"One\xf1." + b" x\xff" * 600 + good[:-1])
    corpus = Corpus([str(tmp_path / "a.txt")], encoding_errors="replace")
    for _ in range(3):
        assert sum("\ufffd" in text for document in paragraphs(corpus) for text in document) == 1
        assert corpus.changed == {limits.REPLACED: 1}


def test_a_bad_byte_in_parquet_and_a_lone_surrogate_in_json_are_named_and_replaced(tmp_path: Path) -> None:
    column = pyarrow.array([b"a\xff", b"b"], pyarrow.binary())
    parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text('{"text": "c"}\n{"text": "d\\ud800"}')
    for name, place, expected in (("a.parquet", 1, "a\ufffd"), ("b.jsonl", 2, "d\ufffd")):
        path = str(tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name}:{place}: .*encoding_errors=replace"):
            paragraphs(Corpus([path]))
        assert (expected,) in paragraphs(Corpus([path], encoding_errors="replace"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", r"a\.txt\) must have text"),
        ("a.txt", b"\n \x00\n\n\n", r"a\.txt\) must have text"),
        ("a.jsonl", b'{"text": "x"}\n\n{"text": \n', r"a\.jsonl:3: column \d+ must be JSON"),
        ("a.json", b'\n[{"text": "x"},\n{"text" 1}]', r"a\.json:3: column \d+ must be JSON"),
        ("a.jsonl", b'{"title": "x", "body": 3}', r"a\.jsonl:1: keys \(title, body\) must have text or paragraphs"),
        ("a.jsonl", b'{"text": 3}', r"a\.jsonl:1: text \(int\) must be a string"),
        ("a.jsonl", b'{"paragraphs": ["x", 3]}', r"paragraphs \(list\) must be a list of strings"),
        ("a.jsonl", b"[1]", r"record \(list\) must be an object"),
        ("a.jsonl", b"[" * 200_000, r"a\.jsonl:1: "),
        ("a.txt.gz", gzip.compress(b"One.\n\nTwo.", mtime=0)[:-9], r"must be a whole gzip file"),
        ("a.txt.gz", b"One.\n\nTwo.", r"must be a whole gzip file"),
        ("a.parquet", b"One.", r"must be Parquet"),
        ("a.csv", b"One.", r"a\.csv\) must end in one of \.txt"),
        ("a.txt", b"One paragraph\nand no more.", r"must have at least 2 paragraphs"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line_of_error(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        paragraphs(Corpus([str(tmp_path / name)]))
    assert "\n" not in str(raised.value)


def test_control_characters_in_json_become_spaces(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a\\u0000b\x01c\\r\\n\\r\\nd"}\n{"text": "e\\ff"}')
    assert paragraphs(Corpus([str(tmp_path / "a.jsonl")])) == [("a b c", "d"), ("e f",)]


def test_parquet_without_text_names_its_columns(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"title": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet: keys \(title\) must have text"):
        paragraphs(Corpus([str(tmp_path / "a.parquet")]))


@pytest.mark.parametrize("number", [2, 3, 1501])
def test_the_parts_share_no_document_and_lose_none(tmp_path: Path, number: int) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"Text {index}."}) for index in range(number)))
    corpus = Corpus([str(path)], validation_share=0.1)
    train, held_out = ([document.source for document in corpus.documents(split)] for split in ("train", "validation"))
    assert sorted(train + held_out) == sorted(f"a.jsonl:{index + 1}" for index in range(number))
    assert train
    assert held_out
    if number > 1000:
        assert len(held_out) / number == pytest.approx(0.1, abs=0.03)


def test_equal_documents_are_in_the_same_part_wherever_they_stand(tmp_path: Path) -> None:
    texts = ["First."] * 3 + [f"Text {index % 40}." for index in range(400)] + ["First.", "Text 0."]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    corpus = Corpus([str(path)], validation_share=0.2)
    train, held_out = ([document.text for document in corpus.documents(split)] for split in ("train", "validation"))
    assert sorted(train + held_out) == sorted(texts)
    assert not set(train) & set(held_out)
    assert "First." in train
    path.write_text("\n".join(json.dumps({"text": text}) for text in [*texts[:4], *reversed(texts[4:])]))
    assert {document.text for document in corpus.documents("validation")} == set(held_out)


@pytest.mark.parametrize(("number", "expected"), [(2, 1), (15, 1), (16, 2), (40, 2), (64, 3)])
def test_a_small_corpus_holds_out_what_the_share_asks_for_but_one_or_two_at_least(
    tmp_path: Path, number: int, expected: int
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"Text {index}."}) for index in range(number)))
    assert len(list(Corpus([str(path)]).documents("validation"))) == expected


def test_documents_with_one_text_cannot_be_divided(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.\n\n\nOne.\n\n\nOne.")
    with pytest.raises(ValueError, match=r"documents \(3, all with one text\) must have at least 2 texts"):
        list(Corpus([str(tmp_path / "a.txt")]).documents("validation"))


@pytest.mark.parametrize("suffix", ["txt", "jsonl"])
@pytest.mark.parametrize("others", [0, 3])
def test_of_a_text_that_is_read_in_pieces_the_share_is_held_out_and_not_a_whole_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, others: int
) -> None:
    for module in (limits, readers):
        monkeypatch.setattr(module, "LONGEST_DOCUMENT", 1_000)
    long = tuple(f"Paragraph {number:03}." for number in range(150))  # 15 characters each
    short = [(f"Alone {number}.",) for number in range(others)]
    path = tmp_path / f"a.{suffix}"
    path.write_bytes((as_text if suffix == "txt" else as_lines)([long, *short]))
    corpus = Corpus([str(path)], validation_share=0.1)
    train, held_out = (list(corpus.documents(split)) for split in ("train", "validation"))
    kept, given = ([each for document in part for each in document.paragraphs] for part in (train, held_out))
    assert sorted(kept + given) == sorted([*long, *(text for (text,) in short)])
    own = [each for each in given if each in long]
    assert len(own) == pytest.approx(15, abs=2)
    assert len([document for document in held_out if document.is_cut]) == 3


def test_the_end_of_a_single_document_is_held_out(tmp_path: Path) -> None:
    texts = [f"Paragraph {number}." for number in range(11)]
    (tmp_path / "a.txt").write_text("\n\n".join(texts))
    corpus = Corpus([str(tmp_path / "a.txt")], validation_share=0.3)
    assert paragraphs(corpus) == [tuple(texts[:8]), tuple(texts[8:])]


def test_the_fingerprint_changes_with_bytes_order_and_settings_and_with_nothing_else(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"{name}.\n\n\nx.")
    sources = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
    prints = [
        Corpus(sources).fingerprint(),
        Corpus(sources[::-1]).fingerprint(),
        Corpus(sources, validation_share=0.1).fingerprint(),
        Corpus(sources, encoding_errors="replace").fingerprint(),
        Corpus(["builtin:world"]).fingerprint(),
        Corpus(["builtin:world"], seed=1).fingerprint(),
        Corpus(["builtin:world"], languages=("en",)).fingerprint(),
        Corpus(["builtin:world"], world_documents=7).fingerprint(),
        Corpus(["builtin:docs"]).fingerprint(),
    ]
    assert len(set(prints)) == len(prints)
    assert Corpus(sources, seed=5).fingerprint() == prints[0]
    (tmp_path / "b.txt").write_text("b.\n\n\ny.")
    assert Corpus(sources).fingerprint() != prints[0]


def test_the_world_holds_out_documents_of_its_own_split() -> None:
    corpus = Corpus(["builtin:world"], languages=("es",), world_documents=11, seed=3)
    assert [document.source for document in corpus.documents("train")] == [f"world:es:train:{n}" for n in range(11)]
    held_out = list(corpus.documents("validation"))
    assert len(held_out) == 200
    assert held_out[0].source == "world:es:validation:0"
    assert corpus.world is not None
    assert corpus.world.seed == 3


def test_the_world_and_a_file_are_both_divided_and_there_is_no_world_to_compare_with(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A.\n\n\nB.")
    corpus = Corpus([str(tmp_path / "a.txt"), "builtin:world"], world_documents=3)
    assert corpus.world is None
    assert [document.source.split(":")[0] for document in corpus.documents("train")] == ["world"] * 3 + ["a.txt"]
    assert [document.source for document in corpus.documents("validation")][-1] == "a.txt:2"


def test_what_is_held_out_of_one_source_is_its_share_of_what_is_held_out_of_all(tmp_path: Path) -> None:
    for name in "ac":
        (tmp_path / f"{name}.txt").write_bytes(as_text([(f"{name}{number}",) for number in range(60)]))
    corpus = Corpus([f"{tmp_path}/a.txt", "builtin:world", f"{tmp_path}/c.txt"], validation_share=0.3)
    texts = [document.text for document in corpus.documents("validation")]
    for name in "ac":
        other = Corpus([f"{tmp_path}/../{tmp_path.name}/{name}.txt"])
        found = [document.text for document in corpus.held_out_of(other)]
        assert found == [text for text in texts if len(text) < 4 and text[0] == name]
        assert len(found) > 9
        assert corpus.sources_shared_with(other) == other.num_sources == 1
    stories = [document.text for document in corpus.held_out_of(Corpus(["builtin:world"]))]
    assert stories == [text for text in texts if len(text) > 3]
    (tmp_path / "b.txt").write_text("Alone.", encoding="utf-8")
    with pytest.raises(ValueError, match=r"held-out documents of 1 sources \(0\) must be at least 1"):
        next(Corpus([f"{tmp_path}/b.txt", "builtin:world"]).held_out_of(Corpus([f"{tmp_path}/b.txt"])))


def test_the_documentation_is_divided_like_files(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [Document(("A.",), "docs:a"), Document(("B.",), "docs:b")]
    monkeypatch.setattr(corpus_module, "installed_documentation", lambda: tuple(documents))
    assert paragraphs(Corpus(["builtin:docs"])) == [("A.",), ("B.",)]


def test_settings_out_of_range_are_refused() -> None:
    for settings in ({"validation_share": 0.0}, {"encoding_errors": "ignore"}, {"world_documents": 0}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            Corpus(["builtin:world"], **settings)
    with pytest.raises(ValueError, match="sources"):
        Corpus([])
    with pytest.raises(ValueError, match="split"):
        Corpus(["builtin:world"]).documents("test")  # type: ignore[arg-type]


def test_a_hub_data_set_is_streamed_at_one_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    def load_dataset(*arguments: Any, **settings: Any) -> Iterator[dict[str, str]]:
        calls.append((*arguments, settings))
        return iter([{"text": "A.\n\nB."}, {"text": ""}, {"text": "C."}])

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda self, name: SimpleNamespace(sha=f"of {name}"))
    corpus = Corpus(["hub:owner/name:small@test"])
    assert paragraphs(corpus) == [("A.", "B."), ("C.",)]
    assert calls[0] == ("owner/name", "small", {"split": "test", "revision": "of owner/name", "streaming": True})
    assert corpus.fingerprint() != Corpus(["hub:owner/name"]).fingerprint()


def test_a_hub_that_cannot_be_reached_is_one_line_of_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def dataset_info(self: object, name: str) -> None:
        raise RuntimeError("no\nconnection")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", dataset_info)
    with pytest.raises(OSError, match=r"hub source \(owner/name\) .*\(no connection\)"):
        paragraphs(Corpus(["hub:owner/name"]))
    with pytest.raises(ValueError, match="must be hub:owner/name"):
        Corpus(["hub:owner/name@a@b"])
