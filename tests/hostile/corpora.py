"""Corpora that nobody would write by intent, by kind: what is read, and how it is changed, and what is refused."""

import gzip
import json
import os
import random
import string

from hf_minilm.data.limits import LONG_PARAGRAPHS, LONG_WORDS, REPLACED

MILLION = 10**6
SENTENCES = "El perro duerme. La casa es grande y el sol brilla. Ana lee un libro.\n\n"
GOOD = "".join(f"{SENTENCES}Frase {number}. {SENTENCES}\n" for number in range(8))
SPOILT = GOOD.encode()


def lines(*records: object) -> bytes:
    return "\n".join(json.dumps(record) for record in records).encode()


def texts(*values: object) -> bytes:
    return lines(*({"text": value} for value in values), *({"text": f"{SENTENCES} {n}"} for n in range(8)))


def word(length: int) -> str:
    return "".join(random.Random(length).choices(string.ascii_lowercase, k=length))


# Kind: name of the file, its bytes, whether bad bytes are replaced, and what is counted.
READ: dict[str, tuple[str, bytes, bool, tuple[str, ...]]] = {
    "bad UTF-8, replaced": ("a.txt", SPOILT + b"\n\n\n\n\xff\xfe\x80 fin", True, (REPLACED,)),
    "overlong UTF-8, replaced": ("a.txt", SPOILT + b"\n\n\n\n\xc0\xaf fin", True, (REPLACED,)),
    "surrogates in UTF-8, replaced": ("a.txt", SPOILT + b"\n\n\n\n\xed\xa0\x80 fin", True, (REPLACED,)),
    "surrogates in JSON, replaced": ("a.jsonl", texts("uno \ud800 dos"), True, (REPLACED,)),
    "NUL": ("a.txt", SPOILT.replace(b" ", b"\0"), False, ()),
    "BOM": ("a.txt", b"\xef\xbb\xbf" + SPOILT, False, ()),
    "BOM within": ("a.txt", SPOILT + b"\n\n\n\xef\xbb\xbf" + SPOILT, False, ()),
    "control characters": ("a.txt", SPOILT + bytes(range(1, 32)) * 99, False, ()),
    "bidi characters": ("a.txt", SPOILT + "\u202e\u2066\u200f\u061c\u2069".encode() * 99, False, ()),
    "combining marks": ("a.txt", SPOILT + ("a" + "\u0301" * 5000).encode(), False, (LONG_WORDS,)),
    "emoji sequences": ("a.txt", SPOILT + ("👩\u200d👩\u200d👧" * 900).encode(), False, (LONG_WORDS,)),
    "carriage returns alone": ("a.txt", SPOILT.replace(b"\n", b"\r"), False, ()),
    "line separators": ("a.txt", SPOILT + "uno\u2028dos\u2029tres\x85".encode() * 99, False, ()),
    "empty documents": ("a.jsonl", texts("", None, " \n "), False, ("empty documents",)),
    "one-token documents": ("a.jsonl", texts(*"abcdefgh"), False, ()),
    "a million blank lines": ("a.txt", SPOILT + b"\n" * MILLION + SPOILT, False, ()),
    "lines without documents": ("a.txt", b"Una frase corta.\n" * 20_000, False, (LONG_PARAGRAPHS,)),
    "a long line": ("a.txt", SPOILT + b"Una frase corta. " * 60_000, False, (LONG_PARAGRAPHS,)),
    "a long record": ("a.jsonl", texts("Una frase corta. " * 60_000), False, (LONG_PARAGRAPHS,)),
    "a long word": ("a.txt", SPOILT + word(300_000).encode(), False, (LONG_PARAGRAPHS, LONG_WORDS)),
    "a long word of JSON": ("a.jsonl", texts(word(300_000)), False, (LONG_PARAGRAPHS, LONG_WORDS)),
    "a million full stops": ("a.txt", SPOILT + b"." * MILLION, False, (LONG_PARAGRAPHS, LONG_WORDS)),
    "one JSON array on one line": (
        "a.json",
        json.dumps([{"text": f"{SENTENCES} {n}"} for n in range(30)]).encode(),
        False,
        (),
    ),
    "wide JSON": (
        "a.jsonl",
        texts("uno") + b"\n" + lines({"text": "dos", **{f"k{n}": n for n in range(50_000)}}),
        0,
        (),
    ),
    "huge numbers beside the text": ("a.jsonl", texts("uno") + b'\n{"text": "x", "n": 1e999}', False, ()),
    "keys given twice": ("a.jsonl", texts("uno") + b'\n{"text": "x", "text": "dos tres"}', False, ()),
}
REFUSED: dict[str, tuple[str, bytes, str]] = {
    "bad UTF-8": ("a.txt", SPOILT + b"\xff", "byte .* must be UTF-8"),
    "UTF-16": ("a.txt", GOOD.encode("utf-16"), "begins as UTF-16"),
    "UTF-16 the other way": ("a.jsonl", b"\xfe\xff" + GOOD.encode("utf-16-be"), "begins as UTF-16"),
    "surrogates in JSON": ("a.jsonl", texts("uno \ud800 dos"), "without lone surrogates"),
    "empty file": ("a.txt", b"", "must have text"),
    "white space only": ("a.txt", b" \t\r\n\0" * 9999, "must have text"),
    "gzip bomb of zeros": ("a.txt.gz", gzip.compress(bytes(10 * MILLION)), "must expand as text does"),
    "gzip bomb of lines": ("a.jsonl.gz", gzip.compress(b"\n" * 10 * MILLION), "must expand as text does"),
    "gzip cut off": ("a.txt.gz", gzip.compress(os.urandom(9999))[:-40], "must be"),
    "gzip of another name": ("a.txt.gz", SPOILT, "must be a whole gzip file"),
    "deep JSON": ("a.jsonl", b"[" * 100_000, "must be plain JSON|must be JSON"),
    "deep JSON in an array": ("a.json", b'[{"text": "x"}, ' + b'{"text":' * 100_000, "must be plain JSON|must be JSON"),
    "wrong type: number": ("a.jsonl", texts(3), "text .int. must be a string"),
    "wrong type: list": ("a.jsonl", texts(["x"]), "text .list. must be a string"),
    "wrong type: scalar record": ("a.json", b"3", "must be an object"),
    "wrong type: text in place of paragraphs": ("a.jsonl", lines({"paragraphs": {"a": 1}}), "must be a list"),
    "a number of ten thousand digits": ("a.jsonl", b'{"text": ' + b"9" * 10_000 + b"}", "must be plain JSON|must be a"),
    "no key, and ten thousand others": ("a.jsonl", lines({f"k{n}": n for n in range(10_000)}), "and 9992 more"),
    "an array that does not end": ("a.json", b'[{"text": "x"},' * 2, "must be JSON"),
    "two arrays": ("a.json", b'[{"text": "x"}] [1]', "must be JSON"),
    "no Parquet": ("a.parquet", SPOILT, "must be Parquet"),
    "Parquet cut off": ("a.parquet", b"PAR1" + SPOILT + b"\xff\xff\xff\x7fPAR1", "must be Parquet"),
    "xz": ("a.txt.xz", b"\xfd7zXZ\0", "must end in one of"),
    "zst": ("a.jsonl.zst", b"\x28\xb5\x2f\xfd", "must end in one of"),
}
