"""Labelled examples that are made from the built-in stories, in Spanish and in English, for those who bring none.

They show that an example works, and how; what a model has learnt of a language, real text tells.
"""

import functools
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hf_minilm.data.story_machine import SENTENCE_END, Story, StoryMachine
from hf_minilm.data.world import World, text_of
from hf_minilm.data.world_pairs import WorldPairs

Record = dict[str, Any]
Span = tuple[int, int]  # of words: the first, and the one after the last

GIVING = {  # by language
    "es": ("dio", "prestó", "mostró", "ofreció", "trajo"),
    "en": ("gave", "lent", "showed", "offered", "brought"),
}
_QUESTIONS = {
    "es": {
        "where": "¿Qué lugar se nombra al principio?",
        "first": "¿A quién se nombra primero?",
        "what": "¿Qué {giving} {giver} a {receiver}?",
        "who": "¿Quién {giving} {thing}?",
        "whom": "¿A quién le {giving} {giver} {thing}?",
    },
    "en": {
        "where": "Which place is named at the beginning?",
        "first": "Who is named first?",
        "what": "What is it that {giver} {giving} to {receiver}?",
        "who": "Who {giving} {thing}?",
        "whom": "To whom is it that {giver} {giving} {thing}?",
    },
}


@functools.cache
def _machines() -> dict[str, StoryMachine]:
    """Build the languages' grammars, once."""
    return World().machines


def endless_stories() -> Iterator[tuple[str, Story]]:
    """Draw stories with their language, which takes turns."""
    generator = random.Random(0)
    for language, machine in itertools.cycle(_machines().items()):
        yield language, machine.draw_story(generator)


def stories(number: int) -> Iterator[tuple[str, Story]]:
    """Draw so many stories."""
    return itertools.islice(endless_stories(), number)


def topics(number: int) -> list[Record]:
    """Stories without their opening, which names the place, and their topic: `text`, `label`."""
    return [
        {"text": text_of(story.words[story.units.index(1) :]), "label": story.scene.split("/")[0]}
        for _, story in stories(number)
    ]


def named(number: int) -> list[Record]:
    """Stories whose names are tagged: persons, and the place of the opening with its article: `tokens`, `tags`.

    A name is a person's wherever it stands. A noun is a place's only in the opening.
    """
    records = []
    for _, story in stories(number):
        tags = ["B-PER" if word in _characters(story) else "O" for word in story.words]
        tags[slice(*_place(story))] = ["B-LOC", "I-LOC"]
        records.append({"tokens": story.words, "tags": tags})
    return records


def functions(number: int) -> list[Record]:
    """Stories whose words are tagged by what they do in their sentence: `tokens`, `tags`.

    The same noun is the head that the verb agrees with, or another one in between.
    """
    kept = ("head", "attractor", "verb", "adjective", "pronoun", "reflexive")
    return [
        {
            "tokens": story.words,
            "tags": [role.split(":")[0] if role.startswith(kept) else "other" for role in story.roles],
        }
        for _, story in stories(number)
    ]


def questions(number: int) -> list[Record]:
    """Questions on stories that a part of them answers: `id`, `context`, `question`, `answers` as SQuAD has them.

    Some ask of a gift what the story does not say, and have no answer.
    """
    generator = random.Random(0)
    records: list[Record] = []
    for language, story in stories(number):
        asked = _QUESTIONS[language]
        options: list[tuple[str, Span | None]] = [(asked["where"], _place(story)), (asked["first"], (0, 1))]
        for gift in _gifts(language, story):
            options += _about(gift, story.words, asked, exchanged=generator.random() < 1 / 3)
        question, span = generator.choice(options)
        answers: dict[str, list[Any]] = {"text": [], "answer_start": []}
        if span is not None:
            before, text = text_of(story.words[: span[1]]), text_of(story.words[slice(*span)])
            answers = {"text": [text], "answer_start": [len(before) - len(text)]}
        record = {"id": str(len(records)), "context": text_of(story.words), "question": question, "answers": answers}
        records.append(record)
    return records


def _about(gift: "Gift", words: list[str], asked: dict[str, str], *, exchanged: bool) -> list[tuple[str, Span | None]]:
    """Ask what, who and whom, with the words that answer; or with giver and receiver exchanged, which nothing does."""
    told = {"giving": gift.verb, "thing": text_of(words[slice(*gift.thing)])}
    giver, receiver = words[gift.giver], words[gift.receiver]
    if exchanged:
        told |= {"giver": receiver, "receiver": giver}
        return [(asked["what"].format(**told), None), (asked["whom"].format(**told), None)]
    told |= {"giver": giver, "receiver": receiver}
    return [
        (asked["what"].format(**told), gift.thing),
        (asked["who"].format(**told), (gift.giver, gift.giver + 1)),
        (asked["whom"].format(**told), (gift.receiver, gift.receiver + 1)),
    ]


def claims(number: int) -> list[Record]:
    """Stories, a sentence on a gift, and whether it is true: `text`, `text_pair`, `label`.

    A false one is on a gift of another story in the same language. (One with giver and receiver exchanged would be
    harder: small models stay at chance with 4,000 of those.)
    """
    generator = random.Random(0)
    records: list[Record] = []
    elsewhere: dict[str, str] = {}
    for language, story in endless_stories():
        gifts = _gifts(language, story)
        if not gifts:
            continue
        gift = generator.choice(gifts)
        text, told = text_of(story.words), text_of(story.words[gift.giver : gift.receiver + 2])
        label, claim = generator.choice((("true", told), ("false", elsewhere.get(language, told))))
        if (claim in text) == (label == "true"):
            records.append({"text": text, "text_pair": claim, "label": label})
        if len(records) == number:
            return records
        elsewhere[language] = told
    return records


def similar(number: int) -> list[Record]:
    """Texts of three parts, and how many two of them share, from 0 to 5: `text`, `text_pair`, `label`."""
    generator = random.Random(0)
    records = []
    drawn = list(stories(2 * number + 2))
    # Languages take turns, so that the story after the next one is in the same language.
    for (_, story), (_, other) in zip(drawn[:number], drawn[2:], strict=False):
        own, others = _units(story), _units(other)
        shared = generator.randint(0, 3)
        second = own[:shared] + others[: 3 - shared]
        generator.shuffle(second)
        texts = {"text": " ".join(own[:3]), "text_pair": " ".join(second)}
        records.append({**texts, "label": 5 * shared / 3})
    return records


def translations(number: int) -> list[Record]:
    """Stories in Spanish and in English: `text`, `text_pair`."""
    return [{"text": spanish, "text_pair": english} for spanish, english in WorldPairs().pairs(number)]


def instructions(number: int) -> list[Record]:
    """The questions as a text to go on with, and how: `prompt`, `completion`."""
    silent = {"¿": "No se dice.", "": "It is not said."}
    return [
        {
            "prompt": f"{record['context']} {record['question']}",
            "completion": " " + (record["answers"]["text"] or [silent["¿" if "¿" in record["question"] else ""]])[0],
        }
        for record in questions(number)
    ]


def other_stories(number: int) -> list[Record]:
    """Texts of another kind than the built-in corpus: the stories of its translation pairs, in both languages."""
    return [{"text": text} for pair in WorldPairs().pairs(-(-number // 2)) for text in pair][:number]


@dataclass(frozen=True)
class Gift:
    """Where in a story somebody gives something to somebody: places of words, from 0."""

    verb: str
    giver: int
    thing: Span
    receiver: int


def _gifts(language: str, story: Story) -> list[Gift]:
    """Find the gifts of a story whose verb it has only once, so that a question has one answer.

    "Teresa le ofreció las bicicletas a Pablo." "Helen offered the key to Henry."
    """
    gifts = []
    for verb in GIVING[language]:
        if story.words.count(verb) == 1:
            place = story.words.index(verb)
            receiver = story.words.index(SENTENCE_END, place) - 1
            giver = place - (2 if language == "es" else 1)
            gifts.append(Gift(verb, giver, (place + 1, receiver - 1), receiver))
    return gifts


def _characters(story: Story) -> set[str]:
    """The two names, which are the words with a role in the opening."""
    return {word for word, role, unit in zip(story.words, story.roles, story.units, strict=True) if role and unit == 0}


def _place(story: Story) -> Span:
    """Find the place of the opening: an article and a noun."""
    first = next(place for place, word in enumerate(story.words) if word in ("el", "la", "the"))
    return first, first + 2


def _units(story: Story) -> list[str]:
    """The texts of the units that follow the opening."""
    texts: dict[int, list[str]] = {}
    for word, unit in zip(story.words, story.units, strict=True):
        texts.setdefault(unit, []).append(word)
    return [text_of(words) for unit, words in texts.items() if unit > 0]
