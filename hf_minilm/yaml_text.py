"""YAML as a recipe is written in it.

It is read by the rules of version 1.2, where PyYAML follows 1.1: `1e-3` is a number, `no` is text (and a language),
`1:30` is text. A key given twice is an error, not the last one silently.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from .one_line import one_line

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
        raise ValueError(f"{name} must be valid YAML; {one_line(error)}.") from error


def write_inline(value: Any) -> str:
    """Write a value as YAML on one line, as `[es, en]`, `0.001` or `null`."""
    options: dict[str, Any] = {"sort_keys": False, "default_flow_style": True, "allow_unicode": True, "width": 10**9}
    text = yaml.dump(value, Dumper=_Dumper, **options)
    # PyYAML ends a document that is a bare scalar with a line of three dots.
    return text.removesuffix("...\n").strip()
