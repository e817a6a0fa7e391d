"""A tokenizer that was damaged or made to harm is refused when it is loaded, not at the thousandth step."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_minilm.data.document import Document
from hf_minilm.data.tokenizer import load_tokenizer, refuse_other_tokenizer, train_tokenizer

DOCUMENTS = [Document((f"El perro número {number} duerme en la casa azul.",), str(number)) for number in range(40)]
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(DOCUMENTS, kind="wordpiece", vocab_size="auto").save_pretrained(folder)
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}


def first_words(tree: dict[str, Any], ids: Callable[[int], Any]) -> None:
    vocabulary = tree["model"]["vocab"]
    for word in list(vocabulary)[10:13]:
        vocabulary[word] = ids(vocabulary[word])


def added(tree: dict[str, Any], **fields: Any) -> None:
    tree["added_tokens"].append({**tree["added_tokens"][0], "content": "<nuevo>", **fields})


def changes() -> Iterator[tuple[str, Change]]:
    for value in (10**6, 2**32 - 1, 2**32, -1, 1.5, "7", None, 3):
        yield f"ids of words are {value}", lambda tree, value=value: first_words(tree, lambda _: value)
    for value in (2**32, -1, 1.5, "7", None):
        yield f"id of an added token is {value}", lambda tree, value=value: added(tree, id=value)
    yield "ids are far from the others", lambda tree: first_words(tree, lambda index: index + 10**5)
    yield "no vocabulary", lambda tree: tree["model"].pop("vocab")
    yield "an empty vocabulary", lambda tree: tree["model"].update(vocab={})
    yield "a vocabulary that is a list", lambda tree: tree["model"].update(vocab=[["a", 1]])
    yield "no model", lambda tree: tree.pop("model")
    yield "an unknown model", lambda tree: tree["model"].update(type="../x")
    yield "another model", lambda tree: tree["model"].update(type="BPE")
    yield "a Unigram without its fields", lambda tree: tree["model"].update(type="Unigram")
    yield "an unknown version", lambda tree: tree.update(version="9.0")
    yield "a normaliser of another world", lambda tree: tree.update(normalizer={"type": "Unknown"})
    yield "a normaliser in three hundred others", lambda tree: tree.update(normalizer=nested(300))
    yield "a pattern that is none", lambda tree: tree.update(pre_tokenizer=split("("))
    yield "a pattern without end", lambda tree: tree.update(pre_tokenizer=split("(" * 50_000))
    for pattern in ("(a+)+$", r"(\s+)+\d", r"(\d+)+$", "(-+)+x", r"([a-z]+)*\d$"):
        yield (
            f"the pattern {pattern}, of exponential time",
            lambda tree, it=pattern: tree.update(pre_tokenizer=split(it)),
        )
    yield "an added token without content", lambda tree: tree["added_tokens"][0].pop("content")
    yield "an added token that is a number", lambda tree: tree["added_tokens"].append(3)
    yield "added tokens that are none", lambda tree: tree.update(added_tokens={"a": 1})
    yield "a decoder of another world", lambda tree: tree.update(decoder={"type": "Unknown"})
    yield "padding to no id", lambda tree: tree.update(padding={"strategy": "x"})
    yield "truncation below nothing", lambda tree: tree.update(truncation={"max_length": -1})


def nested(depth: int) -> dict[str, Any]:
    tree: dict[str, Any] = {"type": "NFC"}
    for _ in range(depth):
        tree = {"type": "Sequence", "normalizers": [tree]}
    return tree


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


CHANGES = dict(changes())
FILES: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"{",
    "list": b"[]",
    "null": b"null",
    "text": b'"x"',
    "bad UTF-8": b'{"version": "\xff"}',
    "UTF-16": "{}".encode("utf-16"),
    "NUL": b"\0" * 99,
    "a hundred thousand brackets": b"[" * 100_000,
    "a hundred thousand braces": b'{"a":' * 100_000,
    "an object": b"{}",
    "a number of ten thousand digits": b'{"version": ' + b"9" * 10_000 + b"}",
}


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / name).write_bytes(data)
    return folder


def refuse(folder: Path, bounded: Callable) -> None:
    with bounded(seconds=3, megabytes=200), pytest.raises((ValueError, OSError)) as refused:
        load_tokenizer(folder)
    assert len(str(refused.value)) < 1_000


@pytest.mark.parametrize("case", CHANGES)
def test_a_tokenizer_whose_parts_contradict_each_other_is_refused(
    case: str, saved: dict[str, Any], tmp_path: Path, bounded: Callable
) -> None:
    files = copy.deepcopy(saved)
    CHANGES[case](files["tokenizer.json"])
    refuse(write(tmp_path, files), bounded)


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_tokenizer_is_refused(
    case: str, saved: dict[str, Any], tmp_path: Path, bounded: Callable
) -> None:
    refuse(write(tmp_path, {**saved, "tokenizer.json": FILES[case]}), bounded)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9, 0.999])
def test_a_file_that_was_cut_off_is_refused(
    share: float, saved: dict[str, Any], tmp_path: Path, bounded: Callable
) -> None:
    whole = json.dumps(saved["tokenizer.json"]).encode()
    refuse(write(tmp_path, {**saved, "tokenizer.json": whole[: int(share * len(whole))]}), bounded)


@pytest.mark.parametrize("index", [3, 10**6, 2**32 - 1])
def test_an_added_token_with_the_id_of_another_or_a_distant_one_gets_one_of_its_own(
    index: int, saved: dict[str, Any], tmp_path: Path
) -> None:
    files = copy.deepcopy(saved)
    added(files["tokenizer.json"], id=index)
    tokenizer = load_tokenizer(write(tmp_path, files))
    assert tokenizer("<nuevo>", add_special_tokens=False)["input_ids"] == [len(tokenizer) - 1]


@pytest.mark.parametrize(
    "fields",
    [
        {"pad_token": 3},
        {"pad_token": {"content": 3}},
        {"mask_token": ["x"]},
        {"extra_special_tokens": 3},
        {"added_tokens_decoder": {"x": "y"}},
        {"added_tokens_decoder": 3},
        {"model_max_length": "x"},
        {"model_input_names": 3},
        {"tokenizer_class": "../../x"},
        {"tokenizer_class": 3},
        {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}, "tokenizer_class": "EvilTokenizer"},
    ],
    ids=str,
)
def test_a_configuration_of_a_tokenizer_makes_an_error_or_a_tokenizer_that_works(
    fields: dict[str, Any], saved: dict[str, Any], tmp_path: Path, bounded: Callable
) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')", encoding="utf-8")
    write(tmp_path, {**saved, "tokenizer_config.json": {**saved["tokenizer_config.json"], **fields}})
    with bounded(seconds=3, megabytes=200):
        try:
            tokenizer = load_tokenizer(tmp_path)
        except (ValueError, OSError):
            return
        assert max(tokenizer("El perro")["input_ids"]) < len(tokenizer)


@pytest.mark.parametrize("number", [500, pytest.param(100_000, marks=pytest.mark.slow)])
def test_many_added_tokens_are_tokens_or_an_error(
    number: int, saved: dict[str, Any], tmp_path: Path, bounded: Callable
) -> None:
    files = copy.deepcopy(saved)
    tree = files["tokenizer.json"]
    first = len(tree["model"]["vocab"])
    for index in range(number):
        added(tree, id=first + index, content=f"<t{index}>", special=index % 2 == 0)
    with bounded(seconds=5 + number / 1_000, megabytes=500):
        assert len(load_tokenizer(write(tmp_path, files))) == first + number


def test_a_file_of_no_end_is_refused_unread(saved: dict[str, Any], tmp_path: Path, bounded: Callable) -> None:
    write(tmp_path, saved)
    with (tmp_path / "tokenizer.json").open("r+b") as file:
        file.truncate(2**40)
    with bounded(seconds=1, megabytes=50), pytest.raises(ValueError, match="must have at most"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_that_comes_back_is_the_same_and_another_one_is_refused(
    saved: dict[str, Any], tmp_path: Path
) -> None:
    first = load_tokenizer(write(tmp_path, saved))
    first("El perro", truncation=True, padding="max_length", max_length=5)
    first.save_pretrained(tmp_path / "again")
    refuse_other_tokenizer(first, load_tokenizer(tmp_path / "again"), where=tmp_path)
    words = list(saved["tokenizer.json"]["model"]["vocab"])[20:22]
    files = copy.deepcopy(saved)
    vocabulary = files["tokenizer.json"]["model"]["vocab"]
    vocabulary[words[0]], vocabulary[words[1]] = vocabulary[words[1]], vocabulary[words[0]]
    (tmp_path / "other").mkdir()
    other = load_tokenizer(write(tmp_path / "other", files))
    with pytest.raises(ValueError, match="must be the one that the model was trained with"):
        refuse_other_tokenizer(other, first, where=tmp_path)
