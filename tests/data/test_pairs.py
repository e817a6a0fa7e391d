"""Corpora of pairs: what each kind of source gives, how it fails, and that no source is on both sides of the split."""

import gzip
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from hf_minilm.data.limits import REPLACED
from hf_minilm.data.pairs import Pair, PairCorpus, read_pairs
from hf_minilm.data.world_pairs import WorldPairs

FIELDS = ("source", "target")
GREETINGS = [Pair("Hola.", "Hello."), Pair("¿Qué tal?", "How are you?"), Pair('Dijo "no', 'He said "no')]
MANY = [Pair(f"Fuente {number}.", f"Source {number}.") for number in range(400)]


def as_tsv(pairs: list[Pair], *, header: str = "") -> bytes:
    return (header + "".join(f"{pair.source}\t{pair.target}\n" for pair in pairs)).encode()


def as_lines(pairs: list[Pair]) -> bytes:
    return "\n".join(json.dumps({"source": pair.source, "target": pair.target, "id": 3}) for pair in pairs).encode()


def as_array(pairs: list[Pair]) -> bytes:
    return json.dumps([{"translation": {"source": pair.source, "target": pair.target}} for pair in pairs]).encode()


def as_parquet(pairs: list[Pair]) -> bytes:
    columns = {"n": [0] * len(pairs), **{side: [getattr(pair, side) for pair in pairs] for side in FIELDS}}
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table(columns), sink)
    return sink.getvalue().to_pybytes()


def as_nested_parquet(pairs: list[Pair]) -> bytes:
    translations = [{"target": pair.target, "fr": None, "source": pair.source} for pair in pairs]
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table({"translation": translations}), sink)
    return sink.getvalue().to_pybytes()


def read(path: Path, fields: tuple[str, str] = FIELDS, **settings: Any) -> list[Pair]:
    return list(read_pairs(path, fields, **settings))


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        ("tsv", as_tsv),
        ("tsv.gz", as_tsv),
        ("jsonl", as_lines),
        ("jsonl.gz", as_lines),
        ("json", as_lines),
        ("json.gz", as_array),
        ("parquet", as_parquet),
        ("parquet", as_nested_parquet),
    ],
)
def test_every_kind_of_file_gives_the_same_pairs(
    tmp_path: Path, suffix: str, write: Callable[[list[Pair]], bytes]
) -> None:
    path = written(tmp_path / f"greetings.{suffix}", write(GREETINGS))
    assert read(path) == GREETINGS
    assert read(path, ("target", "source")) == [Pair(pair.target, pair.source) for pair in GREETINGS]


def test_a_tsv_header_names_the_columns_wherever_they_are_and_what_they_are_called(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.tsv", "\ufeffid\ten\tnotes\tes\r\n1\tHello.\t\tHola.\r\n\r\n2\tBye.\t-\tAdiós.".encode()
    )
    assert read(path, ("es", "en")) == [Pair("Hola.", "Hello."), Pair("Adiós.", "Bye.")]
    assert read(path, ("en", "es")) == [Pair("Hello.", "Hola."), Pair("Bye.", "Adiós.")]


def test_a_tsv_without_a_header_ignores_further_columns_and_takes_no_other_names(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tsv", b"Hola.\tHello.\tCC-BY\tmore\nUno.\tOne.\n")
    assert read(path) == [Pair("Hola.", "Hello."), Pair("Uno.", "One.")]
    with pytest.raises(ValueError, match=r"a\.tsv:1: the first line must have the names es and en in it; add them"):
        read(path, ("es", "en"))


def test_quotes_are_text_and_white_space_and_control_characters_become_one_space(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tsv", '"a\t b\x00 \u00a0c"  \n"x" "y"\t\'z\n'.encode())
    assert read(path) == [Pair('"a', 'b c"'), Pair('"x" "y"', "'z")]
    path = written(tmp_path / "a.jsonl", b'{"source": "\\ufeffa\\tb\\r\\n\\nc\\u0007", "target": null}')
    assert read(path) == [Pair("a b c", "")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", b"a\tb\nc\n", r"a\.tsv:2: columns \(1\) must be at least 2; put a tab"),
        ("a.tsv", b"a\n", r"a\.tsv:1: columns \(1\) must be at least 2"),
        ("a.tsv", b"id\tsource\ttarget\n1\ta\tb\n\n2\ta\n", r"a\.tsv:4: columns \(2\) must be at least 3"),
        ("a.tsv", b"source\ttarget\tsource\na\tb\tc\n", r"a\.tsv:1: columns called source \(2\) must be 1; rename"),
        (
            "a.jsonl",
            b'{"source": "a", "target": "b"}\n{"source": "a"}',
            r"a\.jsonl:2: keys \(source\) must have source",
        ),
        ("a.jsonl", b'{"translation": {"es": "a", "en": "b"}}', r"a\.jsonl:1: keys \(es, en\) must have source and"),
        ("a.jsonl", b'{"source": "a", "target": 3}', r"a\.jsonl:1: target \(int\) must be a string"),
        ("a.jsonl", b'["a", "b"]', r"a\.jsonl:1: record \(list\) must be an object"),
        ("a.jsonl", b'{"source": ', r"a\.jsonl:1: column \d+ must be JSON"),
        ("a.tsv.gz", gzip.compress(as_tsv(GREETINGS), mtime=0)[:-9], r"must be a whole gzip file"),
        ("a.parquet", b"a\tb", r"must be Parquet"),
        ("a.csv", b"a,b", r"a\.csv\) must end in one of \.tsv"),
        ("a.tsv", b"", r"a\.tsv\) must have a pair"),
        ("a.tsv", b"a\t\n\tb\n \t \n", r"a\.tsv\) must have a pair"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line_of_error(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        list(PairCorpus([str(tmp_path / name)]).pairs("train"))
    assert "\n" not in str(raised.value)


def test_parquet_without_the_columns_names_those_it_has(tmp_path: Path) -> None:
    for columns in ({"es": ["a"], "en": ["b"]}, {"translation": ["a"], "es": ["b"]}):
        parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
        with pytest.raises(ValueError, match=rf"a\.parquet: keys \({', '.join(columns)}\) must have source and target"):
            read(tmp_path / "a.parquet")


def test_a_byte_that_is_not_utf_8_is_named_and_replaced_on_demand(tmp_path: Path) -> None:
    column = pyarrow.array([b"a\xff"], pyarrow.binary())
    parquet.write_table(pyarrow.table({"source": column, "target": column}), tmp_path / "a.parquet")
    written(tmp_path / "a.tsv.gz", b"a\xff\ta\xff")
    written(tmp_path / "a.jsonl", b'{"source": "a\\ud800", "target": "a\\ud800"}')
    for name, place in (("a.parquet", ":1: byte 1 "), ("a.tsv.gz", ": byte 1 "), ("a.jsonl", ":1: source must be")):
        with pytest.raises(ValueError, match=rf"{re.escape(name)}{place}.*encoding_errors=replace"):
            read(tmp_path / name)
        assert read(tmp_path / name, encoding_errors="replace") == [Pair("a\ufffd", "a\ufffd")]


def test_pairs_in_latin_1_are_refused_and_few_damaged_bytes_are_counted(tmp_path: Path) -> None:
    lines = [f"El niño comió {number}.\tThe boy ate {number}." for number in range(4_000)]
    path = written(tmp_path / "a.tsv", "\n".join(lines).encode("latin-1"))
    message = rf"\(100 among [\d,]+ characters up to {re.escape(str(path))}\) must be at most 1 in 1,000; .*iconv"
    with pytest.raises(ValueError, match=message) as raised:
        list(PairCorpus([str(path)], encoding_errors="replace").pairs("train"))
    assert "\n" not in str(raised.value)
    written(path, "\n".join(lines).encode() + b"\nlast\xff\tlast")
    corpus = PairCorpus([str(path)], encoding_errors="replace")
    assert sum(1 for split in ("train", "validation") for _ in corpus.pairs(split)) == 4_001
    assert corpus.changed == {REPLACED: 1}


def test_a_folder_is_read_in_order_and_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    written(tmp_path / "b.tsv.gz", as_tsv(MANY))
    written(tmp_path / "a.jsonl", b'{"source": "A.", "target": " "}\n{"source": null, "target": "a"}')
    written(tmp_path / "c.txt", b"not pairs")
    corpus = PairCorpus([str(tmp_path), str(tmp_path / "*.tsv.gz")], validation_share=0.5)
    found = [*corpus.pairs("validation"), *corpus.pairs("train")]
    assert Counter(found) == Counter(MANY)
    assert corpus.skipped == {
        "unknown files": 1,
        "repeated sources": 1,
        "empty files": 1,
        "pairs with an empty side": 2,
    }


@pytest.mark.parametrize("fields", [FIELDS, ("target", "source")])
def test_no_source_is_on_both_sides_of_the_split_and_repeated_pairs_are_repeated(
    tmp_path: Path, fields: tuple[str, str]
) -> None:
    pairs = [Pair(f"Source {number % 700}.", f"Target {number % 1100}.") for number in range(5000)]
    path = written(tmp_path / "a.tsv", as_tsv(pairs))
    corpus = PairCorpus([str(path)], fields=fields, validation_share=0.2)
    train, held_out = (list(corpus.pairs(split)) for split in ("train", "validation"))
    expected = pairs if fields == FIELDS else [Pair(pair.target, pair.source) for pair in pairs]
    assert Counter(train + held_out) == Counter(expected)
    assert {pair.source for pair in train}.isdisjoint(pair.source for pair in held_out)
    assert len(held_out) / len(pairs) == pytest.approx(0.2, abs=0.05)
    assert list(corpus.pairs("train")) == train
    # More pairs move none of those before.
    more = written(tmp_path / "b.tsv", as_tsv(MANY))
    larger = PairCorpus([str(path), str(more)], fields=fields, validation_share=0.2)
    assert list(larger.pairs("validation"))[: len(held_out)] == held_out


def test_a_part_without_a_pair_is_one_line_of_error(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tsv", as_tsv(GREETINGS[:1]))
    corpus = PairCorpus([str(path)])
    assert list(corpus.pairs("train")) == GREETINGS[:1]
    with pytest.raises(ValueError, match=r"pairs of the validation part \(0\) must be at least 1; give more pairs"):
        list(corpus.pairs("validation"))


def test_the_fingerprint_changes_with_bytes_order_and_settings_and_with_nothing_else(tmp_path: Path) -> None:
    for name in ("a", "b"):
        written(tmp_path / f"{name}.tsv", as_tsv([*GREETINGS, Pair(name, name)]))
    sources = [str(tmp_path / "a.tsv"), str(tmp_path / "b.tsv")]
    prints = [
        PairCorpus(sources).fingerprint(),
        PairCorpus(sources[::-1]).fingerprint(),
        PairCorpus(sources, fields=("target", "source")).fingerprint(),
        PairCorpus(sources, validation_share=0.1).fingerprint(),
        PairCorpus(sources, encoding_errors="replace").fingerprint(),
        PairCorpus(["builtin:pairs"]).fingerprint(),
        PairCorpus(["builtin:pairs"], fields=("target", "source")).fingerprint(),
        PairCorpus(["builtin:pairs"], seed=1).fingerprint(),
        PairCorpus(["builtin:pairs"], world_documents=7).fingerprint(),
    ]
    assert len(set(prints)) == len(prints)
    assert PairCorpus(sources, seed=5, world_documents=5).fingerprint() == prints[0]
    written(tmp_path / "b.tsv", as_tsv(GREETINGS))
    assert PairCorpus(sources).fingerprint() != prints[0]


def test_the_built_in_stories_have_a_split_of_their_own_and_either_direction(tmp_path: Path) -> None:
    stories = [Pair(*story) for story in WorldPairs(seed=3).pairs(11)]
    corpus = PairCorpus(["builtin:pairs"], world_documents=11, seed=3)
    assert corpus.is_builtin
    assert list(corpus.pairs("train")) == stories
    held_out = [Pair(*story) for story in WorldPairs(seed=3).pairs(200, split="validation")]
    assert list(corpus.pairs("validation")) == held_out
    turned = PairCorpus(["builtin:pairs"], fields=("target", "source"), world_documents=11, seed=3)
    assert list(turned.pairs("train")) == [Pair(story.target, story.source) for story in stories]
    path = written(tmp_path / "a.tsv", as_tsv(MANY))
    both = PairCorpus([str(path), "builtin:pairs"], world_documents=11, seed=3)
    assert not both.is_builtin
    assert list(both.pairs("train"))[:11] == stories
    assert set(both.pairs("train")) - set(stories) <= set(MANY)


def test_settings_out_of_range_are_refused() -> None:
    for settings in ({"validation_share": 1.0}, {"encoding_errors": "ignore"}, {"world_documents": 0}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            PairCorpus(["builtin:pairs"], **settings)
    for fields in (("es", "es"), ("es",), "es", ("es", "")):
        with pytest.raises(ValueError, match=r"fields \(es.*\) must be two different names"):
            PairCorpus(["builtin:pairs"], fields=fields)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"fields \(es, en\) must be source and target, in either order"):
        PairCorpus(["builtin:pairs"], fields=("es", "en"))
    with pytest.raises(ValueError, match=r"sources \(\[\]\) must be a list .*builtin:pairs"):
        PairCorpus([])
    with pytest.raises(ValueError, match=r"source \(builtin:world\) must be builtin:pairs"):
        PairCorpus(["builtin:world"])
    with pytest.raises(ValueError, match=r"split \(test\) must be"):
        PairCorpus(["builtin:pairs"]).pairs("test")  # type: ignore[arg-type]


def test_a_hub_data_set_is_streamed_at_one_revision_with_its_translations(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    def load_dataset(*arguments: Any, **settings: Any) -> Iterator[dict[str, Any]]:
        calls.append((*arguments, settings))
        return iter(
            {"id": str(number), "translation": {"es": f"a {number}", "en": f"b {number}"}} for number in range(50)
        )

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda self, name: SimpleNamespace(sha=f"of {name}"))
    corpus = PairCorpus(["hub:owner/name:en-es@test"], fields=("es", "en"), validation_share=0.5)
    found = {pair for split in ("train", "validation") for pair in corpus.pairs(split)}
    assert found == {Pair(f"a {number}", f"b {number}") for number in range(50)}
    assert calls[0] == ("owner/name", "en-es", {"split": "test", "revision": "of owner/name", "streaming": True})
    assert corpus.fingerprint() != PairCorpus(["hub:owner/name"], fields=("es", "en")).fingerprint()
    with pytest.raises(ValueError, match=r"hub:owner/name:0: keys \(es, en\) must have source and target"):
        list(PairCorpus(["hub:owner/name"]).pairs("train"))
