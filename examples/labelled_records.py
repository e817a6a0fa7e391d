"""Reading labelled examples, and holding some out: records from JSON lines and TSV, tagged sentences from CoNLL files.

A source is a path, after which `#` may name the columns that hold what is asked for, in that order: those of a record,
or numbers from 1 for a TSV without a line of names.

    reviews.jsonl                 records with the fields that the example names
    reviews.jsonl#review,stars    where they have other names
    cola.tsv#4,2                  the fourth column is the text, and the second the label
    reviews/                      a folder with train.jsonl and test.jsonl, or whatever ends in the same way
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from hf_minilm.data.readers import decoded_pieces, json_records, whole_lines
from hf_minilm.evaluation.labelled_files import read_tagged_sentences

Record = Mapping[str, Any]
HELD_OUT_SHARE = 0.1
_PARTS = ("train", "test")


def load_parts(
    source: str | None,
    read: Callable[[str], list[dict[str, Any]]],
    make: Callable[[int], list[dict[str, Any]]],
    *,
    limit: int | None,
    made: int = 4000,
) -> datasets.DatasetDict:
    """Load examples as `train` and `test`: a tenth is held out, the same one for every model and seed.

    Args:
        source: A file, or a folder with a file for each part; None: examples are made.
        read: Reads a file.
        make: Makes so many.
        limit: Most examples of a part that is read, or of both that are made; None: all, or `made`.
        made: How many to make by default.

    Raises:
        ValueError: If there are too few.
        OSError: If a file cannot be read.
    """
    if limit is not None and limit < 2:
        raise ValueError(f"--limit ({limit}) must be at least 2; raise it.")
    if source is not None and Path(source.partition("#")[0]).is_dir():
        folder, mark, columns = source.partition("#")
        files = {part: f"{_file_of(Path(folder), part)}{mark}{columns}" for part in _PARTS}
        parts = {part: read(file)[:limit] for part, file in files.items()}
    else:
        records = make(limit or made) if source is None else read(source)
        random.Random(0).shuffle(records)
        records = records[:limit]
        held_out = max(1, round(HELD_OUT_SHARE * len(records)))
        parts = {"train": records[held_out:], "test": records[:held_out]}
    for part, records in parts.items():
        if not records:
            raise ValueError(f"examples of {source} for {part} (0) must be at least 1; add some.")
    try:
        return datasets.DatasetDict({part: datasets.Dataset.from_list(records) for part, records in parts.items()})
    except TypeError as error:  # of pyarrow; of other mixtures its error is a ValueError
        raise ValueError(f"values of a field in {source} must be of one type; correct them ({error}).") from error


def _file_of(folder: Path, part: str) -> Path:
    found = sorted(path for path in folder.iterdir() if path.name.startswith(f"{part}."))
    if len(found) != 1:
        raise ValueError(f"files {part}.* in {folder} ({len(found)}) must be 1; name one file of examples so.")
    return found[0]


def read_records(source: str, fields: Sequence[str]) -> list[dict[str, Any]]:
    """Read records with these fields from JSON lines or TSV.

    Raises:
        ValueError: If a record lacks a field, or the file's name has another ending.
        OSError: If it cannot be read.
    """
    name, _, columns = source.partition("#")
    wanted = columns.split(",") if columns else list(fields)
    if len(wanted) != len(fields):
        raise ValueError(f"columns ({columns}) must be {len(fields)}, for {', '.join(fields)}; name as many after #.")
    path = Path(name)
    endings = path.name.lower().removesuffix(".gz")
    if endings.endswith((".jsonl", ".json")):
        records = [(f"{path}:{number}", record) for number, record in json_records(path, encoding_errors="strict")]
    elif endings.endswith(".tsv"):
        records = list(_tsv_records(path, by_number=all(column.isdigit() for column in wanted)))
    else:
        raise ValueError(f"file ({path}) must end in .jsonl, .json or .tsv, or one of these with .gz; convert it.")
    return [_chosen(record, place, dict(zip(fields, wanted, strict=True))) for place, record in records]


def _tsv_records(path: Path, *, by_number: bool) -> Iterator[tuple[str, Record]]:
    names: list[str] | None = None
    for number, line in whole_lines(decoded_pieces(path, "strict"), path):
        cells = line.rstrip("\r\n").split("\t")
        if by_number:
            yield f"{path}:{number}", {str(column): cell for column, cell in enumerate(cells, start=1)}
        elif names is None:
            names = cells
        else:
            yield f"{path}:{number}", dict(zip(names, cells, strict=False))


def _chosen(record: Any, place: str, columns: Record) -> dict[str, Any]:
    missing = [name for name in columns.values() if not isinstance(record, Mapping) or record.get(name) is None]
    if missing:
        raise ValueError(f"{place}: field {missing[0]} (absent) must be there; add it, or name another after # .")
    return {field: record[name] for field, name in columns.items()}


def with_numbered_labels(parts: datasets.DatasetDict) -> datasets.DatasetDict:
    """Number the classes in `label` by their names, which the feature keeps, alike in all parts."""
    parts = parts.cast_column("label", datasets.Value("string"))
    names = sorted({label for part in parts.values() for label in part["label"]})
    return parts.cast_column("label", datasets.ClassLabel(names=names))


def read_tagged(source: str) -> list[dict[str, Any]]:
    """Read sentences of `tokens` with `tags`, as `read_tagged_sentences` says."""
    # CoNLL 2003 marks the beginnings of documents by a sentence of that word.
    return [
        {"tokens": list(each.words), "tags": list(each.tags)}
        for each in read_tagged_sentences(source)
        if each.words != ("-DOCSTART-",)
    ]
