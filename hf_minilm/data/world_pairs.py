"""The built-in corpus of translation pairs, `builtin:pairs`: short stories, each in Spanish and in English.

It is for training a small encoder-decoder translator, in either direction. Both texts of a story come from one
derivation of a synchronous grammar: a rule is two templates, one a language, that name the same parts, each in its own
order. So there are noun and adjective that change places, object pronouns before the verb or after it, articles,
adjectives and verbs that agree in Spanish alone, subjects that Spanish leaves out, contractions, reflexives, and words
with two senses told apart by the place of the story (see `world_pairs_lexicon`).

The translation is a function in both directions: a Spanish story has one English story, and the reverse. What a
sentence leaves open, the story settles:

- A woman and a man are named in the opening, so "she" and "he" are known; the lead is the one named first.
- A sentence in the present that has no subject is about the lead; "su" is the subject's own.
- A sentence in the past that begins with a pronoun follows one that names whom it is about. Spanish drops the pronoun
  if that is the lead or both, and was the subject there too; else it has one.
- A sentence about the lead without a subject never follows one about somebody else, so that it reads naturally.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from . import world_pairs_lexicon as lexicon
from .world import check_split
from .world_lexicon import ENGLISH_NAMES, SPANISH_NAMES
from .world_pairs_lexicon import Adjective, Being, Noun, Pair, Topic, Verb

T = TypeVar("T")

# Words a story, in each language. A story outside of it is drawn again.
SHORTEST, LONGEST = 25, 50
_NUM_UNITS = ((2, 0.1), (3, 0.45), (4, 0.45))
_SHARE_OF_LEAD = 0.35  # of the units that may be about the lead without naming it

_NUMBERS = ("s", "p")
_NOTHING = Pair("", "")
# By gender and number of the noun.
_THE = {"ms": Pair("el", "the"), "fs": Pair("la", "the"), "mp": Pair("los", "the"), "fp": Pair("las", "the")}
_THIS = {
    "ms": Pair("este", "this"),
    "fs": Pair("esta", "this"),
    "mp": Pair("estos", "these"),
    "fp": Pair("estas", "these"),
}
_A = {"ms": Pair("un", "a"), "fs": Pair("una", "a"), "mp": Pair("unos", "some"), "fp": Pair("unas", "some")}
_IT = {"ms": Pair("lo", "it"), "fs": Pair("la", "it"), "mp": Pair("los", "them"), "fp": Pair("las", "them")}
# By gender and number of one character or both; a woman and a man are masculine together.
_PRONOUN = {"ms": Pair("él", "he"), "fs": Pair("ella", "she"), "mp": Pair("ellos", "they")}
_HIM = {"ms": Pair("lo", "him"), "fs": Pair("la", "her")}
_HIMSELF = {"ms": Pair("se", "himself"), "fs": Pair("se", "herself")}
_ENGLISH_OWN = {"ms": "his", "fs": "her", "mp": "their"}
# "Ser" for what things are, "estar" for how and where they are just now.
_IS = {"s": Pair("es", "is"), "p": Pair("son", "are")}
_IS_NOW = {"s": Pair("está", "is"), "p": Pair("están", "are")}
_WAS_NOW = {"s": Pair("estaba", "was"), "p": Pair("estaban", "were")}


def _say(spanish: str, english: str = "", **parts: Pair) -> Pair:
    """A rule of the synchronous grammar: two templates that name the same parts; one if their order is the same."""
    spanish_parts = {name: part[0] for name, part in parts.items()}
    english_parts = {name: part[1] for name, part in parts.items()}
    return Pair(spanish.format_map(spanish_parts), (english or spanish).format_map(english_parts))


def _sentence(spanish: str, english: str = "", **parts: Pair) -> Pair:
    """A whole sentence: contracted, capitalised, with a full stop. Parts may be empty."""
    said = _say(spanish, english, **parts)
    return Pair(_finished(said.spanish).replace(" a el ", " al ").replace(" de el ", " del "), _finished(said.english))


def _finished(text: str) -> str:
    spaced = " ".join(text.split()).replace(" ,", ",")
    return spaced[0].upper() + spaced[1:] + "."


def _described(noun: Noun, number: str, determiner: Mapping[str, Pair], adjective: Adjective | None = None) -> Pair:
    """Determiner, noun and adjective; the adjective comes last in Spanish and before the noun in English."""
    agreement = noun.gender + number
    before, form = determiner[agreement], noun.form(number)
    spanish, english = form
    if adjective is not None:
        spanish, english = f"{spanish} {adjective.spanish[agreement]}", f"{adjective.english} {english}"
    # By letter: no word of the lexicon is an exception.
    article = "an" if before.english == "a" and english[0] in "aeiou" else before.english
    return Pair(f"{before.spanish} {spanish}", f"{article} {english}")


def _and_before(spanish: str) -> str:
    """Spanish for "and": "e" before the sound of "i", else "y". No name begins with "Hi"."""
    return "e" if spanish.startswith("I") else "y"


def _joined(first: Pair, second: Pair) -> Pair:
    return Pair(f"{first.spanish} {second.spanish}", f"{first.english} {second.english}")


@dataclass(frozen=True, slots=True)
class _Subject:
    """One character or both, "lead", "other" or "both", and their gender and number together."""

    who: str
    name: Pair
    agreement: str

    @property
    def number(self) -> str:
        return self.agreement[1]

    @property
    def pronoun(self) -> Pair:
        """The pronoun of one who was the subject before: Spanish has it for the other character alone."""
        pronoun = _PRONOUN[self.agreement]
        return pronoun if self.who == "other" else Pair("", pronoun.english)

    def own(self) -> dict[str, Pair]:
        """The possessive, by gender and number of what is owned."""
        english = _ENGLISH_OWN[self.agreement]
        return {
            "ms": Pair("su", english),
            "fs": Pair("su", english),
            "mp": Pair("sus", english),
            "fp": Pair("sus", english),
        }


@dataclass(frozen=True, slots=True)
class _Unit:
    """Sentences that hang together, and whom the last one is about: "lead", "other", "both", "being" or "thing"."""

    sentences: tuple[Pair, ...]
    about: str


class _Teller:
    """Tells one story of one topic."""

    def __init__(self, generator: random.Random) -> None:
        # Of its methods, `random` alone promises the same numbers in every version of Python.
        self._random = generator.random
        self.topic: Topic = self._one_of(lexicon.TOPICS)
        self.things = (*self.topic.things, *lexicon.THINGS)
        woman = self._one_of(SPANISH_NAMES["woman"] + ENGLISH_NAMES["woman"]), "fs"
        man = self._one_of(SPANISH_NAMES["man"] + ENGLISH_NAMES["man"]), "ms"
        (lead, lead_agreement), (other, other_agreement) = (woman, man) if self._happens(0.5) else (man, woman)
        self.lead = _Subject("lead", Pair(lead, lead), lead_agreement)
        self.other = _Subject("other", Pair(other, other), other_agreement)
        self.both = _Subject("both", Pair(f"{lead} {_and_before(other)} {other}", f"{lead} and {other}"), "mp")
        self._untold_of_the_lead = list(_RULES_ABOUT_THE_LEAD)

    def _happens(self, probability: float) -> bool:
        return self._random() < probability

    def _one_of(self, alternatives: Sequence[T]) -> T:
        return alternatives[int(self._random() * len(alternatives))]

    def _weighted(self, alternatives: Sequence[tuple[T, float]]) -> T:
        """One of the alternatives, whose shares sum to one."""
        rest = self._random()
        for alternative, share in alternatives:
            rest -= share
            if rest < 0.0:
                return alternative
        return alternatives[-1][0]

    def _one_but(self, alternatives: Sequence[Noun], noun: Noun) -> Noun:
        """One of the alternatives that is not the noun itself: no door is beside the door."""
        return self._one_of([alternative for alternative in alternatives if alternative is not noun])

    def story(self) -> Pair:
        """The opening and 2 to 4 units."""
        sentences = [self._opening()]
        about = "lead"
        for _ in range(self._weighted(_NUM_UNITS)):
            unit = self._unit(about)
            sentences.extend(unit.sentences)
            about = unit.about
        return Pair(" ".join(one.spanish for one in sentences), " ".join(one.english for one in sentences))

    def _opening(self) -> Pair:
        place = self._one_of(self.topic.places)
        name = _described(place.noun, "s", _THE)
        templates = (
            ("{both} están {at}", "{both} are {at}"),
            ("{lead} espera a {other} {at}", "{lead} waits for {other} {at}"),
            ("{lead} encuentra a {other} {at}", "{lead} finds {other} {at}"),
            ("{lead} camina hacia {place} con {other}", "{lead} walks toward {place} with {other}"),
            ("{lead} llega a {place} con {other}", "{lead} arrives at {place} with {other}"),
            ("{lead} sale de {place} con {other}", "{lead} leaves {place} with {other}"),
        )
        parts = {"lead": self.lead.name, "other": self.other.name, "both": self.both.name, "place": name}
        spanish, english = self._one_of(templates)
        return _sentence(spanish, english, **parts, at=_joined(Pair("en", place.preposition), name))

    def _unit(self, about: str) -> _Unit:
        if about not in ("other", "being") and self._happens(_SHARE_OF_LEAD):
            return self._about_the_lead()
        return self._weighted(_KINDS)(self)

    def _number(self) -> str:
        return self._one_of(_NUMBERS)

    def _anyone(self) -> _Subject:
        return self._one_of((self.lead, self.other, self.both))

    def _one_and_the_other(self) -> tuple[_Subject, _Subject]:
        return (self.lead, self.other) if self._happens(0.5) else (self.other, self.lead)

    def _quality(self, noun: Noun) -> Adjective | None:
        if self._happens(0.5):
            return None
        return self._one_of(
            lexicon.THING_QUALITIES if self._is_thing(noun) and self._happens(0.25) else lexicon.QUALITIES
        )

    def _is_thing(self, noun: Noun) -> bool:
        return any(noun is thing for thing in self.things)

    def _a_place(self) -> Pair:
        return _described(self._one_of(self.topic.places).noun, "s", _THE)

    def _beside(self, noun: Noun | None = None) -> Pair:
        """Beside a fixture, of any gender and number."""
        fixtures = self.topic.fixtures
        fixture = self._one_but(fixtures, noun) if noun else self._one_of(fixtures)
        return _joined(self._one_of(lexicon.POSITIONS), _described(fixture, self._number(), _THE))

    def _attached(self, noun: Noun) -> Pair:
        """Where a thing or a fixture is: a prepositional phrase."""
        if self._is_thing(noun) and self._happens(0.5):
            surface = _described(self._one_of(lexicon.SURFACES), self._number(), _THE)
            return _joined(self._one_of(lexicon.SURFACE_POSITIONS), surface)
        return self._beside(noun)

    def _things(self) -> _Unit:
        """A thing or a fixture, which 0, 1 or 2 nouns part from the verb and adjective that agree with it."""
        noun, number = self._one_of(self.things if self._happens(0.65) else self.topic.fixtures), self._number()
        quality = self._quality(noun)
        depth = self._one_of((0, 1, 1, 2))
        said = _sentence(
            "{thing} {further} {attached} {predicate}",
            thing=_described(noun, number, self._one_of((_THE, _THE, _THE, _THIS)), quality),
            further=_joined(Pair("de", "of"), self._a_place()) if depth == 2 else _NOTHING,
            attached=self._attached(noun) if depth else _NOTHING,
            predicate=self._predicate(noun, number, described=quality is not None, located=depth > 0),
        )
        return _Unit((said,), "thing")

    def _predicate(self, noun: Noun, number: str, *, described: bool, located: bool) -> Pair:
        agreement = noun.gender + number
        ways = ["state", "state", *["quality"] * (not described), *["attached"] * (not located)]
        # A bridge or a wall neither falls down nor is outside.
        if self._is_thing(noun):
            ways += ["verb", *["whereabouts"] * (not located)]
        way = self._one_of(ways)
        if way == "verb":
            return self._one_of(lexicon.THING_VERBS).form(number)
        if way == "quality":
            return _joined(_IS[number], self._one_of(lexicon.QUALITIES).form(agreement))
        if way == "state":
            return _joined(_IS_NOW[number], self._one_of(lexicon.STATES).form(agreement))
        return _joined(
            _IS_NOW[number], self._attached(noun) if way == "attached" else self._one_of(lexicon.WHEREABOUTS)
        )

    def _beings(self) -> _Unit:
        """A person or an animal, which up to two relative clauses part from its verb."""
        being, number = self._one_of(self.topic.beings), self._number()
        quality = None
        if self._happens(0.4):
            quality = self._one_of(lexicon.PERSON_QUALITIES if being.is_person else lexicon.ANIMAL_QUALITIES)
        if self._happens(0.3):
            mood = self._one_of(lexicon.MOODS).form(being.noun.gender + number)
            predicate = _joined(_IS_NOW[number], mood)
        else:
            predicate = self._one_of((being.verb, *lexicon.BEING_VERBS)).form(number)
        said = _sentence(
            "{being} {relative} {predicate}",
            being=_described(being.noun, number, self._one_of((_THE, _THE, _THE, _THIS)), quality),
            relative=self._relative(being, number, self._one_of((0, 1, 1, 2)), self.topic.beings),
            predicate=predicate,
        )
        return _Unit((said,), "being")

    def _relative(self, being: Being, number: str, depth: int, beings: Sequence[Being]) -> Pair:
        if depth == 0:
            return _NOTHING
        that = Pair("que", "who" if being.is_person else "that")
        if depth == 1 and self._happens(0.4):
            verb = self._one_of(lexicon.LIVING_VERBS).form(number)
            return _say("{that} {verb} {where}", that=that, verb=verb, where=self._beside())
        others = [other for other in beings if other is not being]
        whom, whose_number = self._one_of(others), self._number()
        return _say(
            "{that} {verb} a {whom} {further}",
            "{that} {verb} {whom} {further}",
            that=that,
            verb=self._one_of(lexicon.RELATIVE_VERBS).form(number),
            whom=_described(whom.noun, whose_number, _THE),
            further=self._relative(whom, whose_number, depth - 1, others),
        )

    def _handling(self) -> _Unit:
        """Someone gets a thing, and does something with it: "Juan encontró una caja. La abrió."."""
        subject, thing, number = self._anyone(), self._one_of(self.things), self._number()
        got = _sentence(
            "{subject} {got} {thing}",
            subject=subject.name,
            got=self._one_of(lexicon.GETTING).form(subject.number),
            thing=_described(thing, number, self._one_of((_A, _A, _THE)), self._quality(thing)),
        )
        return _Unit((got, self._handled(subject, subject.pronoun, thing, number)), subject.who)

    def _handled(self, subject: _Subject, pronoun: Pair, thing: Noun, number: str) -> Pair:
        return _sentence(
            "{pronoun} {it} {handled}",
            "{pronoun} {handled} {it}",
            pronoun=pronoun,
            it=_IT[thing.gender + number],
            handled=self._one_of(_verbs_for(thing, lexicon.HANDLING)).form(subject.number),
        )

    def _deed(self) -> _Unit:
        """Someone does something to a thing, a fixture or an instrument."""
        subject = self._anyone()
        nouns, verbs, determiners = self._weighted(
            (
                ((self.things, (*lexicon.HANDLING, *lexicon.OTHER_DEEDS), (_THE, _A, subject.own())), 0.6),
                ((self.topic.fixtures, lexicon.FIXTURE_DEEDS, (_THE,)), 0.25),
                ((lexicon.INSTRUMENTS, (lexicon.PLAYING,), (_THE, _A, subject.own())), 0.15),
            )
        )
        thing = self._one_of(nouns)
        number = "s" if nouns is lexicon.INSTRUMENTS else self._number()
        done = _sentence(
            "{subject} {did} {thing} {beside}",
            subject=subject.name,
            did=self._one_of(_verbs_for(thing, verbs)).form(subject.number),
            thing=_described(thing, number, self._one_of(determiners), self._quality(thing)),
            beside=self._beside(thing) if self._happens(0.35) else _NOTHING,
        )
        return _Unit((done,), subject.who)

    def _meeting(self) -> _Unit:
        """One meets the other; the object pronoun, which Spanish has before the verb, tells the other's gender."""
        one, other = self._one_and_the_other()
        met = _sentence(
            "{one} {met} a {other} {beside}",
            "{one} {met} {other} {beside}",
            one=one.name,
            met=self._one_of(lexicon.MEETING),
            other=other.name,
            beside=self._beside() if self._happens(0.5) else _NOTHING,
        )
        greeted = _sentence(
            "{pronoun} {him} {greeted}",
            "{pronoun} {greeted} {him}",
            pronoun=one.pronoun,
            him=_HIM[other.agreement],
            greeted=self._one_of(lexicon.GREETING),
        )
        return _Unit((met, greeted), one.who)

    def _gift(self) -> _Unit:
        """The one who is given something acts next, which takes a pronoun in Spanish too."""
        giver, receiver = self._one_and_the_other()
        thing, number = self._one_of(self.things), self._number()
        given = _sentence(
            "{giver} le {gave} {thing} a {receiver}",
            "{giver} {gave} {thing} to {receiver}",
            giver=giver.name,
            gave=self._one_of(lexicon.GIVING),
            thing=_described(thing, number, self._one_of((_THE, _A)), self._quality(thing)),
            receiver=receiver.name,
        )
        return _Unit((given, self._handled(receiver, _PRONOUN[receiver.agreement], thing, number)), receiver.who)

    def _mirror(self) -> _Unit:
        """Someone sees herself or himself, perhaps with the other one's name in between."""
        one, other = self._one_and_the_other()
        between = _NOTHING
        if self._happens(0.5):
            did = self._one_of(lexicon.CONTINUING)
            between = _say(", que {did} a {other},", ", who {did} {other},", did=did, other=other.name)
        seen = _sentence(
            "{one} {between} {himself} {saw} en {mirror}",
            "{one} {between} {saw} {himself} in {mirror}",
            one=one.name,
            between=between,
            saw=self._one_of(lexicon.REFLECTING),
            himself=_HIMSELF[one.agreement],
            mirror=self._a_mirror(),
        )
        return _Unit((seen,), one.who)

    def _a_mirror(self) -> Pair:
        return _described(self._one_of(lexicon.REFLECTIONS), "s", _THE)

    def _settling(self) -> _Unit:
        """Verbs that are reflexive in Spanish alone: "se sentó", "sat down"."""
        subject = self._anyone()
        if self._happens(0.6):
            verb, how = self._one_of(lexicon.SETTLING), self._beside()
        else:
            verb, how = self._one_of(lexicon.WAKING), self._one_of(lexicon.TIMES)
        did = _sentence("{subject} {did} {how}", subject=subject.name, did=verb.form(subject.number), how=how)
        return _Unit((did,), subject.who)

    def _moving(self) -> _Unit:
        """Someone goes somewhere, and how she or he was: the adjective agrees with the name."""
        subject = self._anyone()
        verb = self._one_of(lexicon.MOVING).form(subject.number)
        went = _sentence("{subject} {went} {place}", subject=subject.name, went=verb, place=self._a_place())
        mood = self._one_of(lexicon.MOODS).form(subject.agreement)
        was = _joined(_WAS_NOW[subject.number], mood)
        return _Unit((went, _sentence("{pronoun} {was}", pronoun=subject.pronoun, was=was)), subject.who)

    def _about_the_lead(self) -> _Unit:
        """A sentence in the present that has no subject in Spanish, of a kind that the story does not have yet."""
        rule = self._untold_of_the_lead.pop(int(self._random() * len(self._untold_of_the_lead)))
        return _Unit((rule(self),), "lead")

    def _lead_feels(self) -> Pair:
        if self._happens(0.35):
            return _sentence(
                "tiene {felt}", "{she} is {felt}", she=self.lead.pronoun, felt=self._one_of(lexicon.SENSATIONS)
            )
        mood = self._one_of(lexicon.MOODS).form(self.lead.agreement)
        very = self._one_of((_NOTHING, Pair("muy", "very")))
        return _sentence("está {very} {mood}", "{she} is {very} {mood}", she=self.lead.pronoun, very=very, mood=mood)

    def _lead_wishes(self) -> Pair:
        """What she or he wants to do: with a thing, an instrument or nothing."""
        things, deeds = self._weighted(
            (
                ((self.things, lexicon.PLANS), 0.5),
                ((lexicon.INSTRUMENTS, (lexicon.TO_PLAY,)), 0.2),
                (((), lexicon.WISHES), 0.3),
            )
        )
        thing = self._one_of(things) if things else None
        number = "s" if things is lexicon.INSTRUMENTS else self._number()
        return _sentence(
            "quiere {do} {thing}",
            "{she} wants to {do} {thing}",
            she=self.lead.pronoun,
            do=self._one_of(deeds),
            thing=_described(thing, number, _A, self._quality(thing)) if thing else _NOTHING,
        )

    def _lead_has(self) -> Pair:
        thing = self._one_of(self.things)
        return _sentence(
            "{has} {thing}",
            "{she} {has} {thing}",
            she=self.lead.pronoun,
            has=self._one_of(lexicon.HAVING),
            thing=_described(thing, self._number(), self._one_of((_A, self.lead.own())), self._quality(thing)),
        )

    def _lead_looks(self) -> Pair:
        return _sentence(
            "se mira en {mirror}",
            "{she} looks at {herself} in {mirror}",
            she=self.lead.pronoun,
            herself=_HIMSELF[self.lead.agreement],
            mirror=self._a_mirror(),
        )


def _verbs_for(thing: Noun, verbs: tuple[Verb, ...]) -> tuple[Verb, ...]:
    """The verbs, and those of opening if the thing can be opened."""
    return (*lexicon.OPENING_VERBS, *verbs) if thing.singular.spanish in lexicon.OPENABLE else verbs


_KINDS = (
    (_Teller._things, 0.24),
    (_Teller._beings, 0.17),
    (_Teller._handling, 0.12),
    (_Teller._deed, 0.13),
    (_Teller._meeting, 0.08),
    (_Teller._gift, 0.09),
    (_Teller._mirror, 0.05),
    (_Teller._settling, 0.05),
    (_Teller._moving, 0.07),
)
# One for each unit of the longest story.
_RULES_ABOUT_THE_LEAD = (_Teller._lead_feels, _Teller._lead_wishes, _Teller._lead_has, _Teller._lead_looks)


class WorldPairs:
    """The distribution of stories told in Spanish and in English, of 25 to 50 words in each.

    Args:
        seed: stories are a pure function of seed, split and number.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def pairs(self, number: int, *, split: str = "train") -> Iterator[tuple[str, str]]:
        """The first `number` stories of a split ("train" or "validation") as (Spanish, English).

        A story depends on seed, split and its number alone. Splits are independent draws: a held-out story is new as a
        whole, and its words are known.

        Raises:
            ValueError: the split is neither "train" nor "validation", or the number is negative.
        """
        check_split(split)
        if number < 0:
            raise ValueError(f"number ({number}) must be at least 0; give the number of stories wanted.")
        return (self._pair(split, place) for place in range(number))

    def _pair(self, split: str, number: int) -> tuple[str, str]:
        generator = random.Random(f"{self.seed}:{split}:{number}")
        while True:
            story = _Teller(generator).story()
            if all(SHORTEST <= len(text.split()) <= LONGEST for text in story):
                return story.spanish, story.english
