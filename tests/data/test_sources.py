"""Sources: what folders, patterns and links lead to, and what is passed over."""

import os
from pathlib import Path

import pytest

from hf_minilm.data.corpus import Corpus


def test_a_folder_is_read_in_order_and_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "z.txt").write_text("Z.\n\n\nY.")
    (tmp_path / "inner" / "a.jsonl").write_text('{"text": "A."}\n{"text": null}\n{"text": " "}')
    (tmp_path / "b.txt").touch()
    (tmp_path / "read.me").touch()
    (tmp_path / ".hidden.txt").write_text("Hidden.")
    corpus = Corpus([str(tmp_path), str(tmp_path / "*.txt")])
    documents = [document for split in ("validation", "train") for document in corpus.documents(split)]
    assert sorted(document.source for document in documents) == ["a.jsonl:1", "z.txt:1", "z.txt:2"]
    assert corpus.skipped == {"unknown files": 1, "repeated sources": 2, "empty documents": 2, "empty files": 1}
    assert next(corpus.documents("train")).source == "a.jsonl:1"


@pytest.mark.parametrize("source", ["missing.txt", "*.txt"])
def test_a_path_that_does_not_exist_is_one_line_of_error(tmp_path: Path, source: str) -> None:
    with pytest.raises(FileNotFoundError, match="must be a file, folder or glob that exists"):
        Corpus([str(tmp_path / source)])


def test_a_folder_without_files_to_read_or_without_any_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must have files ending in"):
        Corpus([str(tmp_path)])
    (tmp_path / "a.txt").touch()
    with pytest.raises(ValueError, match=r"corpus \(0 documents\) must have text"):
        list(Corpus([str(tmp_path)]).documents("train"))


def test_an_unknown_builtin_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="the nearest is builtin:world"):
        Corpus(["builtin:wrold"])


def sources(corpus: Corpus) -> list[str]:
    return sorted(document.source for split in ("train", "validation") for document in corpus.documents(split))


def test_a_link_to_a_folder_is_followed_once_and_what_is_no_file_is_counted(tmp_path: Path) -> None:
    folder, other = tmp_path / "folder", tmp_path / "other"
    (folder / "inner").mkdir(parents=True)
    (other / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("A.\n\n\nB.")
    (folder / "inner" / "b.txt").write_text("C.")
    (other / "deep" / "c.txt").write_text("D.")
    for link, target in (("x", other), ("y", other), ("z", other / "deep"), ("0", folder / "inner"), ("up", tmp_path)):
        (folder / link).symlink_to(target)
    (other / "deep" / "back").symlink_to(other)
    (other / "round").symlink_to(folder)
    os.mkfifo(folder / "pipe.txt")
    (folder / "nowhere.txt").symlink_to("nowhere")
    corpus = Corpus([str(folder)])
    assert sources(corpus) == ["a.txt:1", "a.txt:2", "b.txt:1", "c.txt:1"]
    assert corpus.skipped == {"pipes, devices and links to nothing": 2, "links to a folder that they are in": 1}


def test_a_folder_is_read_from_its_own_place_if_a_link_leads_there_too(tmp_path: Path) -> None:
    (tmp_path / "z").mkdir()
    for name in ("z/a.txt", "m.txt"):
        (tmp_path / name).write_text(f"{name}\n\n\nB.")
    before = Corpus([str(tmp_path)]).fingerprint()
    (tmp_path / "a").symlink_to("z")
    corpus = Corpus([str(tmp_path)])
    assert corpus.fingerprint() == before
    assert corpus.skipped == {}
