"""Minimal pairs from the built-in corpus: one place in a story, a word that may stand there and one that never does."""

import itertools
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from . import world_lexicon as lexicon
from .story_machine import SENTENCE_END, Story, StoryMachine
from .world_grammar import GENDERS, NUMBERS, adjective
from .world_lexicon import Noun

# The probe's sentence comes at most this many units after the opening, so that the context stays short.
_LAST_UNIT = 3


@dataclass(frozen=True, slots=True)
class Probe:
    """A minimal pair: `prefix + good + suffix` is how a story may begin, `prefix + bad` is not.

    Attributes:
        language: "es" or "en".
        prefix: the story so far, ending with a space.
        good, bad: one word each.
        suffix: the rest of the sentence.
        distance: nouns or names between the head and the word, all of which would ask for the bad form; for "lead"
            the number of sentences between the opening and this one; for "sense" 0 if the sentence itself tells the
            sense, 1 if only the story's topic does.
        phenomenon: a key of `PHENOMENA`.
    """

    language: str
    prefix: str
    good: str
    bad: str
    suffix: str
    distance: int
    phenomenon: str


@dataclass(frozen=True, slots=True)
class Phenomenon:
    """What a kind of probe asks, of which words, and at which distances.

    Attributes:
        role: role of the probed words in the grammar.
        feature: which part of the head's role decides the answer: 1 the number, 2 the gender; None if it is no head.
        distances: distances that probes are drawn at.
        answers: values of the feature; the probes are spread evenly over them.
        languages: languages that have it.
    """

    role: str
    feature: int | None
    distances: tuple[int, ...]
    answers: tuple[str, ...]
    languages: tuple[str, ...] = ("es", "en")


PHENOMENA = {
    "number_agreement": Phenomenon("verb", 1, (0, 1, 2), NUMBERS),
    "gender_agreement": Phenomenon("adjective", 2, (0, 1, 2), GENDERS, ("es",)),
    "pronoun": Phenomenon("pronoun", 2, (0, 1), GENDERS),
    "reflexive": Phenomenon("reflexive", 2, (0, 1), GENDERS),
    "lead": Phenomenon("lead", 2, (0, 1, 2), GENDERS),
    "sense": Phenomenon("sense", None, (0, 1), ("first", "second")),
}


def draw_probes(
    machines: Mapping[str, StoryMachine],
    phenomenon: str,
    number: int,
    *,
    languages: Sequence[str],
    generator: random.Random,
) -> list[Probe]:
    """Draw stories until each cell (language, distance, answer) has its share of the probes."""
    kind = PHENOMENA[phenomenon]
    cells = list(itertools.product(languages, kind.distances, kind.answers))
    missing = {cell: number // len(cells) + (place < number % len(cells)) for place, cell in enumerate(cells)}
    found: list[Probe] = []
    while len(found) < number:
        for language in languages:
            for answer, probe in _probes_of(machines[language].draw_story(generator), language, phenomenon):
                cell = (language, probe.distance, answer)
                if missing.get(cell, 0) > 0:
                    missing[cell] -= 1
                    found.append(probe)
    return found


def _probes_of(story: Story, language: str, phenomenon: str) -> Iterator[tuple[str, Probe]]:
    """The story's probes of one phenomenon, each with its answer's feature."""
    kind = PHENOMENA[phenomenon]
    opposite = _opposites(language).get(kind.role, {})
    for place, role in enumerate(story.roles):
        if role != kind.role or story.units[place] > _LAST_UNIT:
            continue
        end = story.words.index(SENTENCE_END, place) + 1
        measured = _measure(story, place, end, phenomenon)
        bad = _other_sense(story, place) if phenomenon == "sense" else opposite.get(story.words[place])
        if measured is None or bad is None:
            continue
        answer, distance = measured
        before = " ".join(story.words[:place]) + " "
        after = " " + " ".join(story.words[place + 1 : end])
        tidy = [part.replace(" .", ".").replace(" ,", ",") for part in (before, after)]
        yield answer, Probe(language, tidy[0], story.words[place], bad, tidy[1], distance, phenomenon)


def _measure(story: Story, place: int, end: int, phenomenon: str) -> tuple[str, int] | None:
    """The answer's feature and the distance; None where the probe would be easy, undecided or given away."""
    if phenomenon == "lead":
        opening = next(role for role in story.roles if role.startswith("lead:"))
        return opening.split(":")[2], story.words[:place].count(SENTENCE_END) - 1
    if phenomenon == "sense":
        begin = _begin(story, place)
        return _sense_answer(story, begin, place), int(place - begin == 2)
    feature = PHENOMENA[phenomenon].feature
    assert feature is not None
    between: list[str] = []
    for earlier in range(place - 1, -1, -1):
        name, *features = story.roles[earlier].split(":")
        if name in ("head", "attractor"):
            value = features[feature - 1]
            if name == "head":
                return _if_fair(story, (earlier, place, end), phenomenon, value, between)
            between.append(value)
    return None


def _if_fair(
    story: Story, span: tuple[int, int, int], phenomenon: str, value: str, between: list[str]
) -> tuple[str, int] | None:
    head, place, end = span
    same_sentence = SENTENCE_END not in story.words[head:place]
    if value in between or (phenomenon != "pronoun" and not same_sentence):
        return None
    # An adjective after the word would give the answer away to a model that reads in both directions.
    if phenomenon in ("number_agreement", "pronoun") and "adjective" in story.roles[place + 1 : end]:
        return None
    return value, len(between)


def _begin(story: Story, place: int) -> int:
    """Where the sentence of the place begins."""
    while place > 0 and story.words[place - 1] != SENTENCE_END:
        place -= 1
    return place


def _sense_answer(story: Story, begin: int, place: int) -> str:
    first, _ = _senses()[" ".join(story.words[begin : begin + 2]).lower()]
    return "first" if story.words[place] in first else "second"


def _other_sense(story: Story, place: int) -> str:
    """A word that begins a predicate of the same word's other sense."""
    begin = _begin(story, place)
    first, second = _senses()[" ".join(story.words[begin : begin + 2]).lower()]
    mine, others = (first, second) if story.words[place] in first else (second, first)
    return others[mine.index(story.words[place])]


@cache
def _senses() -> dict[str, tuple[tuple[str, ...], ...]]:
    """The first words of the predicates of each of a word's two senses."""
    firsts: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for sense in (*lexicon.SPANISH_SENSES, *lexicon.ENGLISH_SENSES):
        firsts[sense.word].append(tuple(predicate.split()[0] for predicate in sense.predicates))
    return {word: tuple(pair) for word, pair in firsts.items()}


@cache
def _opposites(language: str) -> dict[str, dict[str, str]]:
    """For each role, the other form of each word."""
    if language == "en":
        verbs = [lexicon.ENGLISH_COMMON_VERBS, lexicon.ENGLISH_THING_VERBS, (Noun("is", "are", ""),)]
        own = [being.verb for topic in lexicon.ENGLISH_TOPICS for being in topic.beings]
        return {
            "verb": _both_ways((verb.singular, verb.plural) for verb in (*own, *(v for group in verbs for v in group))),
            "pronoun": _both_ways([("She", "He")]),
            "lead": _both_ways([("She", "He")]),
            "reflexive": _both_ways([("herself", "himself")]),
        }
    verbs = [lexicon.SPANISH_COMMON_VERBS, lexicon.SPANISH_THING_VERBS, (Noun("está", "están", ""),)]
    own = [being.verb for topic in lexicon.SPANISH_TOPICS for being in topic.beings]
    moods = [(adjective(word, "m", "s"), adjective(word, "f", "s")) for word in lexicon.SPANISH_MOODS]
    return {
        "verb": _both_ways((verb.singular, verb.plural) for verb in (*own, *(v for group in verbs for v in group))),
        "adjective": _both_ways(
            (adjective(word, "m", number), adjective(word, "f", number))
            for word in lexicon.SPANISH_ADJECTIVES
            for number in NUMBERS
        ),
        "pronoun": _both_ways([("Ella", "Él")]),
        "lead": _both_ways(moods),
        "reflexive": _both_ways([("misma", "mismo")]),
    }


def _both_ways(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    listed = list(pairs)
    return {**dict(listed), **{other: one for one, other in listed}}
