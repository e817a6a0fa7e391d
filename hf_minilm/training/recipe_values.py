"""One value of a recipe: its type, and the words for it in an error and in a file."""

import difflib
import sys
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union

from ..yaml_text import write_inline
from .schedule import BUDGET_EXAMPLES, Budget


def write_commented(name: str, value: Any, comment: str) -> list[str]:
    """Write the lines of one field of a section: its meaning as comments, then `name: value`."""
    comments = [f"  # {line}" for line in textwrap.wrap(comment, width=116)]
    return [*comments, f"  {name}: {write_inline(value)}"]


def nearest(name: str, candidates: Sequence[str]) -> str:
    """Find the candidate most like a name; last parts count first, so a field in the wrong section is found."""

    def likeness(candidate: str) -> tuple[float, float]:
        last = difflib.SequenceMatcher(None, name.split(".")[-1], candidate.split(".")[-1]).ratio()
        return last, difflib.SequenceMatcher(None, name, candidate).ratio()

    return max(candidates, key=likeness)


def convert(value: Any, expected: Any) -> Any:
    """Give the value in the type that a field declares.

    Lists become tuples, whole numbers become floats where a float is declared, and text becomes a `Budget`; nothing
    else is converted.

    Raises:
        ValueError: If the value has another type, is not one of the choices, or is not finite.
    """
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (Union, types.UnionType):
        return _convert_to_any_of(value, arguments)
    if origin is Literal and isinstance(value, str) and value in arguments:
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return _convert_items(value, arguments)
    if origin is dict and isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return dict(value)
    if expected is Budget and type(value) in (str, int):
        return Budget.parse(value)
    if expected is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    if expected is not float and type(value) is expected:
        return value
    raise ValueError(f"value ({value!r}) must be {describe_type(expected)}; give it in that form.")


def _convert_to_any_of(value: Any, kinds: Sequence[Any]) -> Any:
    for kind in kinds:
        try:
            return convert(value, kind)
        except ValueError:
            continue
    raise ValueError(f"value ({value!r}) must be {' or '.join(map(describe_type, kinds))}; give it in that form.")


def _convert_items(values: Sequence[Any], kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    expected = (kinds[0],) * len(values) if kinds[-1] is Ellipsis else kinds
    if len(expected) != len(values):
        raise ValueError(f"list of {len(values)} values must have {len(expected)}; give as many.")
    return tuple(convert(value, kind) for value, kind in zip(values, expected, strict=True))


_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    types.NoneType: "null",
    Budget: f"an amount such as {BUDGET_EXAMPLES}",
}
_SEVERAL: dict[Any, str] = {float: "numbers", str: "texts"}


def describe_type(expected: Any) -> str:
    """Say in words what a field's type accepts."""
    if expected in _WORDS:
        return _WORDS[expected]
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin is Literal:
        return f"one of {', '.join(arguments)}" if len(arguments) > 1 else str(arguments[0])
    if origin is tuple:
        is_of_any_length = arguments[-1] is Ellipsis
        return f"a list of {describe_type(arguments[0]) if is_of_any_length else f'two {_SEVERAL[arguments[0]]}'}"
    if origin is dict:
        return "names with values"
    return " or ".join(describe_type(kind) for kind in arguments)


def describe_choices(expected: Any) -> str:
    """Write a field's choices as a sentence that begins with a space, or nothing where it has none."""
    choices = typing.get_args(expected) if typing.get_origin(expected) is Literal else ()
    return f" One of: {', '.join(choices)}." if len(choices) > 1 else ""


def suggest(value: Any, expected: Any) -> str:
    """Say what to do about a value of the wrong type."""
    if typing.get_origin(expected) is Literal:
        return f"did you mean {nearest(str(value), typing.get_args(expected))}?"
    return "give it in that form, or remove it for the default."
