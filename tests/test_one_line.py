"""An error's text on one line."""

import pytest

from hf_minilm.one_line import one_line


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError(" two\n\tlines\u2028and more "), "two lines and more"),
        (OSError(2, "No such file"), "[Errno 2] No such file"),
        (OSError("file \x1b[2J\u202e of niños"), "file \\x1b[2J\\u202e of niños"),
        (MemoryError(), "MemoryError"),
        (ValueError("\n"), "ValueError"),
    ],
)
def test_an_error_is_one_line_and_never_an_empty_one(error: Exception, expected: str) -> None:
    assert one_line(error) == expected


def test_of_a_long_error_both_ends_are_kept() -> None:
    text = "the beginning" + " and so on" * 1_000 + " the end"
    shown = one_line(ValueError(text), longest=100)
    assert shown.startswith("the beginning")
    assert shown.endswith("the end")
    assert len(shown) == 105
    assert one_line(ValueError(text), longest=len(text)) == text
