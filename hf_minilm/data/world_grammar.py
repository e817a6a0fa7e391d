"""How the built-in corpus speaks: the sentences of a story, in Spanish and in English.

Both languages have the same kinds of sentence. The letters in roles are number (s, p) and gender (m, f, or - where
the language has none): "head:s:f" is the noun or name that a later word agrees with, "attractor:p:m" a noun in
between that it must not agree with, and "verb", "adjective", "pronoun", "reflexive", "lead" and "sense" are the words
that depend on another.
"""

from collections.abc import Iterable, Iterator, Mapping

from . import world_lexicon as lexicon
from .story_machine import Expression, Parameter, Scene, Slot, choice, sentence, sequence, words
from .world_lexicon import Noun, Sense, Topic

NUMBERS = ("s", "p")
GENDERS = ("m", "f")
_GENDER_OF = {"woman": "f", "man": "m"}
_OTHER = {"woman": "man", "man": "woman"}

# How often each kind of sentence is written, and how many nouns stand between a head and what agrees with it.
KINDS = {
    "things": 22,
    "beings": 24,
    "meeting": 10,
    "mood": 8,
    "gift": 8,
    "mirror": 7,
    "lead": 7,
    "sense": 8,
    "deed": 10,
}
DEPTHS = (0.34, 0.33, 0.33)


def _name(who: str, role: str) -> Parameter:
    return Parameter(who, f"{role}:s:{_GENDER_OF[who]}")


def _forms(nouns: Iterable[Noun], number: str, role: str) -> Slot:
    return words(*(noun.form(number) for noun in nouns), role=role)


def _by_depth(none: Expression, one: Expression, two: Expression) -> Expression:
    return choice((DEPTHS[0], none), (DEPTHS[1], one), (DEPTHS[2], two))


def _kinds(**kinds: Expression) -> Expression:
    return choice(*((KINDS[name], kind) for name, kind in kinds.items()))


def _senses(senses: tuple[Sense, ...], topic: str) -> Expression:
    """A word with two senses: the topic tells which one is meant, or else a clue in the sentence itself."""
    told_by_topic = [(3.0, _sense(sense, "")) for sense in senses if sense.topic == topic]
    told_by_clue = [(0.5, _sense(sense, sense.clue)) for sense in senses]
    return choice(*told_by_topic, *told_by_clue)


def _sense(sense: Sense, clue: str) -> Expression:
    predicates = []
    for predicate in sense.predicates:
        first, *rest = predicate.split()
        predicates.append(sequence(words(first, role="sense"), " ".join(rest)))
    return sentence(sense.word, clue, choice(*predicates))


class _Spanish:
    """Sentences of one topic whose story is led by a woman or a man."""

    def __init__(self, topic: Topic, lead: str) -> None:
        self.topic, self.lead, self.other = topic, lead, _OTHER[lead]
        self.things = (*topic.things, *lexicon.SPANISH_THINGS)
        self.deeds = (*topic.deeds, *lexicon.SPANISH_DEEDS)

    def opening(self) -> Expression:
        lead, other, places = self.lead, self.other, self.topic.places
        at = choice(*(f"{_article(place.gender, 's')} {place.singular}" for place in places))
        return choice(
            sentence(_name(lead, "lead"), "y", _name(other, "name"), "están en", at),
            sentence(_name(lead, "lead"), "camina hacia", at, "con", _name(other, "name")),
            sentence(_name(lead, "lead"), "espera a", _name(other, "name"), "en", at),
        )

    def unit(self) -> Expression:
        return _kinds(
            things=choice(*(self._things(gender, number) for gender in GENDERS for number in NUMBERS)),
            beings=choice(
                *(self._being(place, number) for place in range(len(self.topic.beings)) for number in NUMBERS)
            ),
            meeting=choice(self._meeting("woman"), self._meeting("man")),
            mood=choice(self._mood("woman"), self._mood("man")),
            gift=choice(self._gift("woman"), self._gift("man")),
            mirror=choice(self._mirror("woman"), self._mirror("man")),
            lead=self._about_the_lead(),
            sense=_senses(lexicon.SPANISH_SENSES, self.topic.name),
            deed=self._deed(),
        )

    def _thing_forms(self, gender: str, number: str, role: str) -> Slot:
        return _forms((thing for thing in self.things if thing.gender == gender), number, role)

    def _things(self, gender: str, number: str) -> Expression:
        subject = sequence(_determiner(gender, number), self._thing_forms(gender, number, f"head:{number}:{gender}"))
        attached = self._attached()
        adjectives = words(*(adjective(a, gender, number) for a in lexicon.SPANISH_ADJECTIVES), role="adjective")
        copula = words("está" if number == "s" else "están", role="verb")
        predicate = choice(
            (0.45, sequence(copula, adjectives)),
            (0.25, sequence(copula, words("aquí", "cerca", "lejos", "allí", "afuera", "arriba"))),
            (0.30, _forms(lexicon.SPANISH_THING_VERBS, number, "verb")),
        )
        return _spread(subject, (sequence(), attached, sequence(attached, attached)), predicate)

    def _attached(self) -> Expression:
        """A prepositional phrase whose noun is of any gender and number."""
        alternatives: list[tuple[float, Expression | str]] = []
        for gender in GENDERS:
            for number in NUMBERS:
                noun = self._thing_forms(gender, number, f"attractor:{number}:{gender}")
                article = _article(gender, number)
                alternatives.append((0.5, sequence(_contracted("de", article), noun)))
                alternatives.append((0.5, sequence(words("bajo", "sobre", "tras"), article, noun)))
        return choice(*alternatives)

    def _being(self, place: int, number: str) -> Expression:
        being = self.topic.beings[place]
        gender = being.noun.gender
        head = words(being.noun.form(number), role=f"head:{number}:{gender}")
        subject = sequence(_determiner(gender, number), head)
        own = words(being.verb.form(number), role="verb")
        verb = choice((0.5, own), (0.5, _forms(lexicon.SPANISH_COMMON_VERBS, number, "verb")))
        one = choice((0.7, self._pursuing(number, {})), (0.3, _living(number)))
        further = {n: choice(_living(n), self._pursuing(n, {})) for n in NUMBERS}
        return _spread(subject, (sequence(), one, self._pursuing(number, further)), verb)

    def _pursuing(self, number: str, further: Mapping[str, Expression]) -> Expression:
        """A relative clause whose object, of any number, may be followed by a further clause about it."""
        ways = []
        for gender in GENDERS:
            nouns = [one.noun for one in self.topic.beings if one.noun.gender == gender]
            for n in NUMBERS:
                whom = sequence(_contracted("a", _article(gender, n)), _forms(nouns, n, f"attractor:{n}:{gender}"))
                ways.append((float(len(nouns)), sequence(whom, further.get(n, sequence()))))
        return sequence("que", _forms(lexicon.SPANISH_RELATIVE_VERBS, number, ""), choice(*ways))

    def _meeting(self, who: str) -> Expression:
        other = _OTHER[who]
        first = sentence(
            _name(who, "head"),
            words("vio", "encontró", "llamó", "escuchó", "esperó", "buscó"),
            "a",
            _name(other, "attractor"),
        )
        deed = words("saludó", "abrazó", "invitó", "ayudó", "siguió", "acompañó")
        return sequence(first, _pronoun_sentence(who, sequence("lo" if other == "man" else "la", deed)))

    def _mood(self, who: str) -> Expression:
        gendered = words(*(adjective(a, _GENDER_OF[who], "s") for a in lexicon.SPANISH_MOODS), role="adjective")
        mood = choice((0.6, gendered), (0.4, words(*lexicon.SPANISH_COMMON_MOODS)))
        moving = sequence(words("llegó", "volvió", "salió", "despertó"), words("tarde", "temprano", "pronto", "ayer"))
        return sequence(sentence(_name(who, "head"), moving), _pronoun_sentence(who, sequence("estaba", mood)))

    def _gift(self, who: str) -> Expression:
        """The one who is given something acts next; the object pronoun agrees with the thing."""
        receiver = _OTHER[who]
        giving = sequence("le", words("dio", "prestó", "mostró", "ofreció", "trajo"))
        keeping = words("guardó", "rompió", "perdió", "pintó", "olvidó")
        ways = []
        for gender in GENDERS:
            for number in NUMBERS:
                thing = sequence(_article(gender, number), self._thing_forms(gender, number, "thing"))
                given = sentence(_name(who, "name"), giving, thing, "a", _name(receiver, "head"))
                pronoun = {"ms": "lo", "fs": "la", "mp": "los", "fp": "las"}[gender + number]
                ways.append(sequence(given, _pronoun_sentence(receiver, sequence(pronoun, keeping))))
        return choice(*ways)

    def _mirror(self, who: str) -> Expression:
        between = sequence(", que", words("esperaba", "buscaba", "conocía"), "a", _name(_OTHER[who], "attractor"), ",")
        itself = words("misma" if who == "woman" else "mismo", role="reflexive")
        looking = sequence("se", words("vio", "miró", "dibujó", "reconoció"), "a sí", itself, "en")
        surface = choice("el espejo", "la foto", "el retrato", "la pantalla")
        return sentence(_name(who, "head"), choice(sequence(), between), looking, surface)

    def _about_the_lead(self) -> Expression:
        gender = _GENDER_OF[self.lead]
        mood = words(*(adjective(a, gender, "s") for a in lexicon.SPANISH_MOODS), role="lead")
        wish = words("dormir", "jugar", "comer", "cantar", "volver")
        return choice(
            (0.35, sentence("está", mood)),
            (0.35, sentence("está muy", mood)),
            (0.15, sentence("quiere", wish)),
            (0.15, sentence("tiene", words("hambre", "sueño", "frío", "prisa", "miedo"))),
        )

    def _deed(self) -> Expression:
        one = choice((0.6, _name(self.lead, "name")), (0.4, _name(self.other, "name")))
        both = sequence(_name(self.lead, "name"), "y", _name(self.other, "name"))
        ways = []
        for gender in GENDERS:
            for number in NUMBERS:
                thing = sequence(_article(gender, number), self._thing_forms(gender, number, f"head:{number}:{gender}"))
                colours = words(*(adjective(a, gender, number) for a in lexicon.SPANISH_ADJECTIVES), role="adjective")
                ways.append(sequence(thing, choice(sequence(), colours)))
        doing = choice(
            (0.65, sequence(one, _forms(self.deeds, "s", ""))), (0.35, sequence(both, _forms(self.deeds, "p", "")))
        )
        return sentence(doing, choice(*ways))


def adjective(masculine: str, gender: str, number: str) -> str:
    """The form of a Spanish adjective in -o."""
    return masculine[:-1] + ("o" if gender == "m" else "a") + ("" if number == "s" else "s")


def _article(gender: str, number: str) -> str:
    return {"ms": "el", "mp": "los", "fs": "la", "fp": "las"}[gender + number]


def _determiner(gender: str, number: str) -> Slot:
    this = {"ms": "este", "mp": "estos", "fs": "esta", "fp": "estas"}[gender + number]
    return Slot(((_article(gender, number), 0.8), (this, 0.2)))


def _contracted(preposition: str, article: str) -> str:
    return {"a el": "al", "de el": "del"}.get(f"{preposition} {article}", f"{preposition} {article}")


def _living(number: str) -> Expression:
    """A relative clause that says where someone is; the place is one more noun in between."""
    places = []
    for gender in GENDERS:
        for n in NUMBERS:
            found = (place for place in lexicon.SPANISH_PLACES if place.gender == gender)
            other = f"{_article(gender, n)} {adjective('otro', gender, n)}"
            places.append(sequence("en", other, _forms(found, n, f"attractor:{n}:{gender}")))
    return sequence("que", _forms(lexicon.SPANISH_PLACE_VERBS, number, ""), choice(*places))


def _spread(subject: Expression, between: tuple[Expression, Expression, Expression], rest: Expression) -> Expression:
    """A sentence in which 0, 1 or 2 nouns stand between the subject's head and the rest, which agrees with it."""
    return sentence(subject, _by_depth(*between), rest)


def _pronoun_sentence(who: str, rest: Expression) -> Expression:
    return sentence(words("ella" if who == "woman" else "él", role="pronoun"), rest)


class _English:
    """Sentences of one topic whose story is led by a woman or a man."""

    def __init__(self, topic: Topic, lead: str) -> None:
        self.topic, self.lead, self.other = topic, lead, _OTHER[lead]
        self.things = (*topic.things, *lexicon.ENGLISH_THINGS)
        self.deeds = (*topic.deeds, *lexicon.ENGLISH_DEEDS)

    def opening(self) -> Expression:
        lead, other = self.lead, self.other
        place = words(*(place.singular for place in self.topic.places))
        return choice(
            sentence(_name(lead, "lead"), "and", _name(other, "name"), "are at the", place),
            sentence(_name(lead, "lead"), "walks to the", place, "with", _name(other, "name")),
            sentence(_name(lead, "lead"), "waits for", _name(other, "name"), "at the", place),
        )

    def unit(self) -> Expression:
        return _kinds(
            things=choice(*(self._things(number) for number in NUMBERS)),
            beings=choice(
                *(self._being(place, number) for place in range(len(self.topic.beings)) for number in NUMBERS)
            ),
            meeting=choice(self._meeting("woman"), self._meeting("man")),
            mood=choice(self._mood("woman"), self._mood("man")),
            gift=choice(self._gift("woman"), self._gift("man")),
            mirror=choice(self._mirror("woman"), self._mirror("man")),
            lead=self._about_the_lead(),
            sense=_senses(lexicon.ENGLISH_SENSES, self.topic.name),
            deed=self._deed(),
        )

    def _things(self, number: str) -> Expression:
        subject = sequence(_the(number), _forms(self.things, number, f"head:{number}:-"))
        attached = sequence(
            words("to", "of", "near", "behind", "under", "with"),
            "the",
            choice(*(_forms(self.things, n, f"attractor:{n}:-") for n in NUMBERS)),
        )
        copula = words("is" if number == "s" else "are", role="verb")
        predicate = choice(
            (0.45, sequence(copula, words(*lexicon.ENGLISH_ADJECTIVES))),
            (0.25, sequence(copula, words("here", "nearby", "outside", "upstairs", "inside", "there"))),
            (0.30, _forms(lexicon.ENGLISH_THING_VERBS, number, "verb")),
        )
        return _spread(subject, (sequence(), attached, sequence(attached, attached)), predicate)

    def _being(self, place: int, number: str) -> Expression:
        being = self.topic.beings[place]
        subject = sequence(_the(number), words(being.noun.form(number), role=f"head:{number}:-"))
        own = words(being.verb.form(number), role="verb")
        verb = choice((0.5, own), (0.5, _forms(lexicon.ENGLISH_COMMON_VERBS, number, "verb")))
        one = choice((0.7, self._pursuing({})), (0.3, _dwelling(number)))
        further = {n: choice(_dwelling(n), self._pursuing({})) for n in NUMBERS}
        return _spread(subject, (sequence(), one, self._pursuing(further)), verb)

    def _pursuing(self, further: Mapping[str, Expression]) -> Expression:
        """A relative clause whose object, of any number, may be followed by a further clause about it."""
        ways = []
        for n in NUMBERS:
            whom = _forms((one.noun for one in self.topic.beings), n, f"attractor:{n}:-")
            ways.append(sequence(whom, further.get(n, sequence())))
        return sequence("that", words(*lexicon.ENGLISH_RELATIVE_VERBS), "the", choice(*ways))

    def _meeting(self, who: str) -> Expression:
        other = _OTHER[who]
        meeting = words("saw", "met", "called", "heard", "found", "noticed")
        deed = words("greeted", "hugged", "invited", "helped", "followed", "thanked")
        first = sentence(_name(who, "head"), meeting, _name(other, "attractor"))
        return sequence(first, _english_pronoun(who, sequence(deed, "him" if other == "man" else "her")))

    def _mood(self, who: str) -> Expression:
        moving = sequence(choice("came home", "woke up", "went out"), words("late", "early", "yesterday", "again"))
        mood = sequence("was", words(*lexicon.ENGLISH_MOODS))
        return sequence(sentence(_name(who, "head"), moving), _english_pronoun(who, mood))

    def _gift(self, who: str) -> Expression:
        """The one who is given something acts next; the object pronoun agrees with the thing."""
        receiver = _OTHER[who]
        giving = words("gave", "lent", "showed", "offered", "brought")
        keeping = words("kept", "broke", "lost", "painted", "forgot")
        ways = []
        for number, pronoun in (("s", "it"), ("p", "them")):
            thing = _forms(self.things, number, "thing")
            given = sentence(_name(who, "name"), giving, "the", thing, "to", _name(receiver, "head"))
            ways.append(sequence(given, _english_pronoun(receiver, sequence(keeping, pronoun))))
        return choice(*ways)

    def _mirror(self, who: str) -> Expression:
        between = sequence(", who", words("expected", "missed", "knew"), _name(_OTHER[who], "attractor"), ",")
        itself = words("herself" if who == "woman" else "himself", role="reflexive")
        looking = sequence(words("saw", "admired", "drew", "recognized"), itself, "in the")
        return sentence(
            _name(who, "head"), choice(sequence(), between), looking, words("mirror", "photo", "picture", "screen")
        )

    def _about_the_lead(self) -> Expression:
        who = words("she" if self.lead == "woman" else "he", role="lead")
        mood = words(*lexicon.ENGLISH_MOODS)
        return choice(
            (0.35, sentence(who, "is", mood)),
            (0.35, sentence(who, "is very", mood)),
            (0.15, sentence(who, "wants to", words("sleep", "play", "eat", "sing", "return"))),
            (0.15, sentence(who, "has", words("time", "news", "plans", "work", "money"))),
        )

    def _deed(self) -> Expression:
        one = choice((0.6, _name(self.lead, "name")), (0.4, _name(self.other, "name")))
        both = sequence(_name(self.lead, "name"), "and", _name(self.other, "name"))
        doing = choice(
            (0.65, sequence(one, _forms(self.deeds, "s", ""))), (0.35, sequence(both, _forms(self.deeds, "p", "")))
        )
        thing = choice(*(_forms(self.things, number, "thing") for number in NUMBERS))
        return sentence(doing, "the", choice(sequence(), words(*lexicon.ENGLISH_ADJECTIVES)), thing)


def _the(number: str) -> Slot:
    return Slot((("the", 0.8), ("this" if number == "s" else "these", 0.2)))


def _dwelling(number: str) -> Expression:
    """A relative clause that says where someone is; the place is one more noun in between."""
    places = choice(*(_forms(lexicon.ENGLISH_PLACES, n, f"attractor:{n}:-") for n in NUMBERS))
    return sequence("that", _forms(lexicon.ENGLISH_PLACE_VERBS, number, ""), "near the other", places)


def _english_pronoun(who: str, rest: Expression) -> Expression:
    return sentence(words("she" if who == "woman" else "he", role="pronoun"), rest)


def scenes(language: str) -> Iterator[Scene]:
    """One scene for each topic and each lead, all equally likely."""
    topics = lexicon.SPANISH_TOPICS if language == "es" else lexicon.ENGLISH_TOPICS
    grammar = _Spanish if language == "es" else _English
    for topic in topics:
        for lead in ("woman", "man"):
            speaker = grammar(topic, lead)
            yield Scene(f"{topic.name}/{lead}", 0.5 / len(topics), speaker.opening(), speaker.unit())
