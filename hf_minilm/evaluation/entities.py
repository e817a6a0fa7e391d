"""Where the entities are that tags speak of, by the rules of conlleval, the script of the CoNLL-2000 shared task.

They read IOB1, IOB2 and BIOES (IOBES) alike, without being told which it is, as `seqeval` does by default: B and S
begin an entity, E and S end one, and so does another type; an I after O begins one.
"""

from collections.abc import Sequence
from typing import NamedTuple

_PREFIXES = frozenset("BIOES")


class Entity(NamedTuple):
    """An entity: its type, and its words from `start` to `stop`, which is not among them."""

    kind: str
    start: int
    stop: int


def find_entities(tags: Sequence[str]) -> list[Entity]:
    """Return the entities of one sentence in their order.

    Args:
        tags: `O`, or B, I, E or S, a hyphen and a type; one a word.

    Raises:
        ValueError: If a tag is none of these.
    """
    entities: list[Entity] = []
    before, kind_before, start = "O", "", 0
    for place, tag in enumerate([*tags, "O"]):
        prefix, kind = _parts(tag)
        begins_anew = prefix in "BS" or before in "OES" or kind != kind_before
        if before != "O" and (prefix == "O" or begins_anew):
            entities.append(Entity(kind_before, start, place))
        if prefix != "O" and begins_anew:
            start = place
        before, kind_before = prefix, kind
    return entities


def are_entity_tags(tags: Sequence[str]) -> bool:
    """Return whether tags mark entities: each is O, or B, I, E or S with a type, and not all are O."""
    return any(tag != "O" for tag in tags) and all(tag == "O" or tag[:2] in ("B-", "I-", "E-", "S-") for tag in tags)


def _parts(tag: str) -> tuple[str, str]:
    prefix, _, kind = tag.partition("-")
    if prefix not in _PREFIXES or (prefix == "O") != (kind == ""):
        raise ValueError(f"tag ({tag}) must be O, or B, I, E or S with a type, as B-PER; rename it.")
    return prefix, kind
