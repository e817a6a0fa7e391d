"""One value of a recipe: its YAML text, its type, and the words for both in an error.

YAML is read by the rules of version 1.2, where PyYAML follows 1.1: `1e-3` is a number, `no` is text (and a language),
`1:30` is text. A key given twice is an error, not the last one silently.
"""

import difflib
import re
import sys
import textwrap
import types
import typing
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

import yaml

from .schedule import BUDGET_EXAMPLES, Budget

_LARGEST_RECIPE = 2**20  # bytes


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2 and unique keys."""

    # The base class keeps its own table, of YAML 1.1; this one is filled below.
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = next((key for key, count in keys.items() if count > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"{twice} is given twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases: a few lines of them stand for more text than there is memory."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "an alias is not read; write the value out", mark)
        return super().compose_node(parent, index)


_SCALARS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?(?:0|[1-9][0-9_]*)", list("-+0123456789")),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which puts in quotes what it would not read as text, and what this loader would not."""


for _name, (_pattern, _first) in _SCALARS.items():
    for _resolver in (_Loader, _Dumper):
        _resolver.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern})$"), _first)


def read_yaml_file(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping, or nothing.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a mapping in YAML and UTF-8.
    """
    if not path.is_file():
        raise FileNotFoundError(f"recipe ({path}) must be a YAML file; check the path.")
    try:
        if path.stat().st_size > _LARGEST_RECIPE:
            raise ValueError(f"recipe ({path}) must have at most {_LARGEST_RECIPE:,} bytes; give a recipe.")
        tree = read_yaml(path.read_text(encoding="utf-8"), name=f"recipe ({path})")
    except UnicodeDecodeError as error:
        raise ValueError(f"recipe ({path}) must be UTF-8 text; byte {error.start} is not.") from error
    if not isinstance(tree, Mapping | None):
        raise ValueError(f"recipe ({path}) must be sections with fields; it holds {write_inline(tree)[:60]}.")
    return dict(tree or {})


def read_yaml(text: str, *, name: str) -> Any:
    """Read one YAML value.

    Args:
        text: The YAML.
        name: What it is, for the error.

    Raises:
        ValueError: If it is not valid YAML.
    """
    try:
        # A subclass of SafeLoader: plain values only, no objects.
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{name} must be valid YAML; {place}{error.problem}.") from error
    except (yaml.YAMLError, RecursionError, LookupError, AttributeError, TypeError, OverflowError) as error:
        # What is no YAMLError comes of a value that its own tag does not fit, such as `!!timestamp x`.
        raise ValueError(f"{name} must be valid YAML; {' '.join(str(error).split())}.") from error


def write_inline(value: Any) -> str:
    """Write a value as YAML on one line, as `[es, en]`, `0.001` or `null`."""
    options: dict[str, Any] = {"sort_keys": False, "default_flow_style": True, "allow_unicode": True, "width": 10**9}
    text = yaml.dump(value, Dumper=_Dumper, **options)
    # PyYAML ends a document that is a bare scalar with a line of three dots.
    return text.removesuffix("...\n").strip()


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
