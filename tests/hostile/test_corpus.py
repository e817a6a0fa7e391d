"""Forty corpora that nobody would write by intent: each is read with a count, or refused in one line; none hangs."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from corpora import GOOD, MILLION, READ, REFUSED, SPOILT, lines, texts, word
from pyarrow import parquet

from hf_minilm.cli.main import main
from hf_minilm.data.corpus import Corpus
from hf_minilm.data.limits import LONG_DOCUMENTS, LONGEST_PARAGRAPH
from hf_minilm.data.pairs import PairCorpus
from hf_minilm.training import preparation
from hf_minilm.training.preparation import prepare_data
from hf_minilm.training.recipe import recipe_from_dict


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_MINILM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def prepare(name: str, *, kind: str = "wordpiece", replaces: bool = False, **data: object) -> preparation.Data:
    """Go through all that a run does with its corpus before it trains."""
    causal = kind == "bytelevel_bpe"
    errors = {"encoding_errors": "replace"} if replaces else {}
    recipe = recipe_from_dict(
        {
            "data": {"corpus": name, **errors, **data},
            "tokenizer": {"kind": kind},
            "objective": {"name": "causal" if causal else "masked", **({} if causal else {"next_sentence": False})},
        }
    )
    return prepare_data(recipe, Path("run"), quiet=True)


@pytest.mark.parametrize("kind", READ)
def test_what_can_be_read_is_read_with_a_count_of_what_was_changed(kind: str, bounded: Callable) -> None:
    name, content, replaces, counted = READ[kind]
    Path(name).write_bytes(content)
    with bounded(seconds=20, megabytes=500):
        data = prepare(name, replaces=bool(replaces))
        assert data.train.describe().num_rows > 0
        assert (
            max(max(map(len, document.paragraphs)) for document in data.corpus.documents("train")) <= LONGEST_PARAGRAPH
        )
    assert set(counted) <= {*data.corpus.changed, *data.corpus.skipped}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_one_line_that_names_the_file(kind: str, bounded: Callable) -> None:
    name, content, message = REFUSED[kind]
    Path(name).write_bytes(content)
    with bounded(seconds=20, megabytes=500), pytest.raises((ValueError, OSError), match=message) as refused:
        prepare(name)
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 1_000
    assert not list(Path("cache").rglob("tokens.arrow"))


@pytest.mark.parametrize("kind", ["bytelevel_bpe", "unigram"])
def test_a_long_word_does_not_stop_the_other_tokenizers(kind: str, bounded: Callable) -> None:
    Path("a.txt").write_bytes(SPOILT + word(120_000).encode())
    with bounded(seconds=30, megabytes=500):
        assert prepare("a.txt", kind=kind).train.describe().num_rows > 0


def test_a_pipe_a_device_a_socket_and_a_circle_of_links_are_passed_over() -> None:
    folder = Path("folder")
    (folder / "inner").mkdir(parents=True)
    (folder / "good.txt").write_text(GOOD, encoding="utf-8")
    os.mkfifo(folder / "pipe.txt")
    (folder / "zero.txt").symlink_to("/dev/zero")
    (folder / "nowhere.txt").symlink_to("nowhere")
    (folder / "self.txt").symlink_to("self.txt")
    for name in ("a", "b", "c"):
        (folder / name).symlink_to(folder.resolve())
        (folder / "inner" / name).symlink_to(folder.resolve())
    for source in ("folder", "folder/**/*.txt", "folder/**", str(folder.resolve() / "**" / "*.txt")):
        documents = [*Corpus([source]).documents("train"), *Corpus([source]).documents("validation")]
        assert len(documents) == 8
        assert {document.source.split(":")[0] for document in documents} == {"good.txt"}


@pytest.mark.parametrize("name", ["pipe.txt", "/dev/zero", "/dev/stdin", "nul\0.txt", "x" * 5000 + ".txt"])
def test_what_is_no_file_is_refused_by_name(name: str) -> None:
    os.mkfifo("pipe.txt")
    with pytest.raises((ValueError, OSError)):
        Corpus([name])


def test_a_folder_whose_name_is_that_of_a_file_is_a_folder() -> None:
    Path("folder.txt").mkdir()
    with pytest.raises(ValueError, match="must have files ending in"):
        Corpus(["folder.txt"])
    (Path("folder.txt") / "a.txt").write_text(GOOD, encoding="utf-8")
    corpus = Corpus(["folder.txt"])
    assert sum(1 for split in ("train", "validation") for _ in corpus.documents(split)) == 8


def test_a_file_and_a_folder_that_may_not_be_read_are_errors_and_no_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    (Path("folder") / "closed").mkdir(parents=True)
    (Path("folder") / "a.txt").write_text(GOOD, encoding="utf-8")
    opened, listed = Path.open, os.scandir

    def open_but_one(path: Path, *arguments: object, **settings: object) -> object:
        if path.name == "a.txt":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **settings)

    def list_but_one(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "open", open_but_one)
    with pytest.raises(PermissionError, match=r"a\.txt"):
        list(Corpus(["folder"]).documents("train"))
    monkeypatch.setattr(os, "scandir", list_but_one)
    with pytest.raises(PermissionError, match="closed"):
        Corpus(["folder"])


@pytest.mark.parametrize("change", ["shrinks", "grows", "other"])
def test_a_file_that_changes_while_it_is_read_leaves_no_store_under_the_name_of_its_old_bytes(change: str) -> None:
    path = Path("a.txt")
    path.write_text(GOOD, encoding="utf-8")
    corpus = Corpus(["a.txt"])
    corpus.fingerprint()
    with path.open("r+", encoding="utf-8") as file:
        file.truncate(len(GOOD) // 2 if change == "shrinks" else len(GOOD))
        file.seek(0, 0 if change == "other" else 2)
        file.write("Otra" if change != "shrinks" else "")
    os.utime(path, ns=(1, 1))
    with pytest.raises(ValueError, match=r"a\.txt\) must stay as it is while it is read"):
        list(preparation._texts(corpus, "train", None))


@pytest.mark.parametrize("number", [1_000, pytest.param(10**5, marks=pytest.mark.slow)])
def test_a_folder_of_very_many_files_is_read_in_order(number: int, bounded: Callable) -> None:
    for folder in range(number // 500):
        Path("many", str(folder)).mkdir(parents=True)
        for file in range(500):
            Path("many", str(folder), f"{file}.txt").write_bytes(f"Una frase {file}.".encode() if file else b"")
    with bounded(seconds=5 + number / 500, megabytes=500):
        corpus = Corpus(["many"])
        assert len(corpus.fingerprint()) == 64
        found = sum(1 for split in ("train", "validation") for _ in corpus.documents(split))
    assert found == number // 500 * 499
    assert corpus.skipped["empty files"] == number // 500


def test_an_array_is_read_record_by_record_and_its_errors_are_placed(bounded: Callable) -> None:
    record = json.dumps({"text": "Una frase corta. " * 60 + '"], [{'})
    with Path("a.json").open("w", encoding="utf-8") as file:
        file.write(f"[{record}")
        for number in range(39_999):
            file.write("," + record.replace("Una", str(number), 1))
        file.write("]")
    with bounded(seconds=30, megabytes=100):
        assert sum(1 for _ in Corpus(["a.json"]).documents("train")) > 37_000
    Path("b.json").write_text(f"\n\n[\n{record},\n{record}\n  {record}]", encoding="utf-8")
    with pytest.raises(ValueError, match=r"b\.json:6: column 3 must be JSON"):
        list(Corpus(["b.json"]).documents("train"))


def test_a_line_longer_than_a_record_may_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_minilm.data.readers.LONGEST_RECORD", 3 * MILLION)
    Path("a.jsonl").write_bytes(texts("x") + b"\n" + texts("palabra " * 500_000))
    with pytest.raises(ValueError, match=r"a\.jsonl:10: line must have at most"):
        list(Corpus(["a.jsonl"]).documents("train"))
    Path("a.tsv").write_text("uno\tone\n" + "palabra " * 500_000 + "\tword\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.tsv:2: line must have at most"):
        list(PairCorpus(["a.tsv"]).pairs("train"))


def test_a_long_document_is_cut_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_minilm.data.readers.LONGEST_DOCUMENT", 10_000)
    monkeypatch.setattr("hf_minilm.data.limits.LONGEST_DOCUMENT", 10_000)
    paragraphs = [f"Párrafo {number} con algo." for number in range(3_000)]
    Path("a.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
    Path("a.jsonl").write_text(json.dumps({"text": "\n\n".join(paragraphs)}), encoding="utf-8")
    for name in ("a.txt", "a.jsonl"):
        corpus = Corpus([name])
        found = [document for split in ("train", "validation") for document in corpus.documents(split)]
        assert sorted(each for document in found for each in document.paragraphs) == sorted(paragraphs)
        # Each piece has a part held out.
        assert corpus.changed[LONG_DOCUMENTS] == len(found) // 2 - 1 > 5


def test_a_line_in_pieces_is_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(["ñandú", "árbol", "🙂🙂", "casa"] * 9_000)
    Path("a.txt").write_text(f"{text}\n\n\nFin.", encoding="utf-8")
    monkeypatch.setattr("hf_minilm.data.readers.LONGEST_PIECE", 1_001)
    found = [document for split in ("train", "validation") for document in Corpus(["a.txt"]).documents(split)]
    assert " ".join(found[0].paragraphs) == text
    Path("a.txt").write_text("ñ🙂" * 9_000 + "\n\n\nFin.", encoding="utf-8")
    found = [document for split in ("train", "validation") for document in Corpus(["a.txt"]).documents(split)]
    assert "".join("".join(found[0].paragraphs).split()) == "ñ🙂" * 9_000


def test_parquet_that_promises_more_than_its_bytes_and_rows_of_megabytes_are_bounded(bounded: Callable) -> None:
    parquet.write_table(
        pyarrow.table({"text": ["Una frase. " * 200_000] * 3 + [f"x{n}" for n in range(253)]}), "a.parquet"
    )
    with bounded(seconds=20, megabytes=400):
        assert sum(1 for _ in Corpus(["a.parquet"]).documents("train")) > 200
    column = pyarrow.array(["\0" * 40 * MILLION])
    parquet.write_table(pyarrow.table({"text": column}), "b.parquet", compression="zstd")
    with bounded(seconds=20, megabytes=300), pytest.raises(ValueError, match=r"b\.parquet.* must expand as text does"):
        list(Corpus(["b.parquet"]).documents("train"))


def test_a_pair_with_a_side_without_end_is_passed_over_and_counted() -> None:
    good = [{"source": f"uno {number}", "target": "one"} for number in range(40)]
    Path("a.jsonl").write_bytes(lines(*good, {"source": "uno", "target": word(LONGEST_PARAGRAPH + 1)}))
    corpus = PairCorpus(["a.jsonl"])
    assert sum(1 for split in ("train", "validation") for _ in corpus.pairs(split)) == 40
    assert corpus.skipped == {f"pairs with a side of over {LONGEST_PARAGRAPH:,} characters": 1}


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("kind", ["wordpiece", "bytelevel_bpe", "unigram"])
@pytest.mark.parametrize("content", ["line", "word", "emoji"])
def test_ten_megabytes_on_one_line_or_in_one_word_are_prepared_within_bounds(
    kind: str, content: str, bounded: Callable
) -> None:
    long = {"line": "Una frase corta y otra más. " * 370_000, "word": word(10 * MILLION), "emoji": "🙂" * 2_500_000}
    Path("a.txt").write_text(GOOD + long[content], encoding="utf-8")
    with bounded(seconds=300, megabytes=500 if content != "emoji" else 700):
        prepare("a.txt", kind=kind)


@pytest.mark.parametrize("kind", ["UTF-16", "gzip bomb of zeros", "no key, and ten thousand others"])
def test_at_the_command_line_it_is_one_line_and_exit_code_2(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, content, _ = REFUSED[kind]
    Path(name).write_bytes(content)
    assert main(["pretrain", f"--set=data.corpus={name}"]) == 2
    assert len([line for line in capsys.readouterr().err.splitlines() if line.startswith("hf-minilm: ")]) == 1


def test_a_name_cannot_write_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b[2J\u202e.csv"
    Path(name).write_text("x", encoding="utf-8")
    assert main(["pretrain", f"--set=data.corpus='{name}'"]) == 2
    assert main(["check", name]) == 2
    assert "\x1b" not in (printed := capsys.readouterr().err.split("hf-minilm: ")[-1])
    assert "\u202e" not in printed
