"""The automaton against the enumeration of a small grammar's stories, which knows nothing of automata."""

import itertools
import math
import random
from collections import Counter, defaultdict

import pytest

from hf_minilm.data.story_machine import (
    Parameter,
    Scene,
    Slot,
    StoryMachine,
    choice,
    sentence,
    sequence,
    words,
)

NAMES = {"woman": ("Ana", "Eva"), "man": ("Leo", "Max", "Teo")}
WOMAN, MAN = Parameter("woman"), Parameter("man")
NUM_UNITS = {1: 0.3, 3: 0.7}


def _scene(name, place, probability, verb):
    opening = sentence(WOMAN, choice(sequence("y", MAN), sequence()), "en", place)
    meeting = sequence(sentence(WOMAN, words("vio", "oyó"), MAN), sentence("ella", verb))
    resting = sentence(choice((3.0, "el"), "un"), Slot((("gato", 0.25), ("pato", 0.75))), choice((2.0, verb), "come"))
    return Scene(name, probability, opening, choice((1.0, meeting), (2.0, resting)))


SCENES = (_scene("home", "casa", 0.4, "duerme"), _scene("park", "calle", 0.6, "corre"))


@pytest.fixture(scope="module")
def machine():
    return StoryMachine(SCENES, parameters=NAMES, num_units=NUM_UNITS)


def spell(expression, names):
    """Every string of an expression with its probability, straight from the tree."""
    if isinstance(expression, Slot):
        return [((word,), share) for word, share in expression.distribution]
    if isinstance(expression, Parameter):
        return [((names[expression.name],), 1.0)]
    if hasattr(expression, "alternatives"):
        return [(text, w * p) for w, part in expression.alternatives for text, p in spell(part, names)]
    spelled = [((), 1.0)]
    for part in expression.parts:
        spelled = [(a + b, p * q) for a, p in spelled for b, q in spell(part, names)]
    return spelled


def enumerate_stories(scenes, names, num_units):
    stories = defaultdict(float)
    for values in itertools.product(*names.values()):
        named = dict(zip(names, values, strict=True))
        chosen = math.prod(1 / len(row) for row in names.values())
        for scene in scenes:
            for count, share in num_units.items():
                parts = [spell(scene.opening, named), *[spell(scene.unit, named)] * count]
                for pieces in itertools.product(*parts):
                    text = tuple(word for piece, _ in pieces for word in piece)
                    probability = math.prod(p for _, p in pieces)
                    stories[text] += chosen * scene.probability * share * probability
    return dict(stories)


SMALL = {1: 0.3, 2: 0.7}


@pytest.fixture(scope="module")
def enumerated():
    return enumerate_stories(SCENES, NAMES, SMALL)


@pytest.fixture(scope="module")
def small_machine():
    return StoryMachine(SCENES, parameters=NAMES, num_units=SMALL)


def test_the_probability_of_every_story_is_that_of_the_enumeration(small_machine, enumerated):
    assert sum(enumerated.values()) == pytest.approx(1.0, abs=1e-12)
    for story, probability in list(enumerated.items())[::37]:
        assert small_machine.log_probability(story) == pytest.approx(math.log(probability), abs=1e-10)


def test_the_probability_of_a_prefix_is_the_sum_over_the_stories_that_begin_with_it(small_machine, enumerated):
    story = max(enumerated, key=len)
    for length in range(len(story) + 1):
        total = sum(p for text, p in enumerated.items() if text[:length] == story[:length])
        assert small_machine.log_prefix_probability(story[:length]) == pytest.approx(math.log(total), abs=1e-10)


def test_what_the_grammar_cannot_write_has_probability_zero(small_machine, enumerated):
    story = next(iter(enumerated))
    for changed in (story[:-1], (*story, "."), ("Leo", *story[1:]), story[::-1], ()):
        assert small_machine.log_probability(changed) == -math.inf
    # A name that changes within a story is no story either, though both names are known.
    assert small_machine.log_prefix_probability(("Ana", "en", "casa", ".", "Eva")) == -math.inf
    assert small_machine.log_prefix_probability(("Ana", "en", "casa", ".", "Ana")) > -math.inf


def test_entropy_and_mean_lengths_are_those_of_the_enumeration(small_machine, enumerated):
    assert small_machine.ambiguity() is None
    entropy = -sum(p * math.log(p) for p in enumerated.values())
    # Stories whose man is never named do not tell his name, so derivations carry more than texts: name him always.
    always = tuple(Scene(s.name, s.probability, sequence(sentence(WOMAN, "y", MAN), s.opening), s.unit) for s in SCENES)
    stories = enumerate_stories(always, NAMES, SMALL)
    machine = StoryMachine(always, parameters=NAMES, num_units=SMALL)
    assert machine.entropy == pytest.approx(-sum(p * math.log(p) for p in stories.values()), abs=1e-10)
    assert small_machine.entropy > entropy
    assert machine.mean_words == pytest.approx(sum(p * len(text) for text, p in stories.items()), abs=1e-10)
    mean_sentences = sum(p * text.count(".") for text, p in stories.items())
    assert machine.mean_sentences == pytest.approx(mean_sentences, abs=1e-10)


def test_drawn_stories_have_the_frequencies_of_the_enumeration(small_machine, enumerated):
    generator = random.Random(5)
    number = 8000
    drawn = Counter(tuple(small_machine.draw(generator)) for _ in range(number))
    assert set(drawn) <= set(enumerated)
    by_ending = defaultdict(float)
    for story, probability in enumerated.items():
        by_ending[story[-4:]] += probability
    for ending, probability in by_ending.items():
        seen = sum(count for story, count in drawn.items() if story[-4:] == ending) / number
        assert abs(seen - probability) < 5 * math.sqrt(probability * (1 - probability) / number) + 1e-9


def test_a_story_with_roles_has_the_words_of_the_plain_one_and_counts_its_units(machine):
    for seed in range(30):
        story = machine.draw_story(random.Random(seed))
        assert story.words == machine.draw(random.Random(seed))
        assert len(story.words) == len(story.roles) == len(story.units)
        assert story.units[0] == 0
        assert story.units[-1] in NUM_UNITS
        assert sorted(story.units) == story.units


def test_roles_are_given_with_the_words_that_have_them():
    scene = Scene("one", 1.0, sentence("hola"), sentence(words("los", role="head"), words("gatos", "patos", role="x")))
    story = StoryMachine([scene], parameters={}, num_units={1: 1.0}).draw_story(random.Random(0))
    assert story.roles == ["", "", "head", "x", ""]
    assert story.words[2] == "Los"


@pytest.mark.parametrize(
    "unit",
    [
        choice(sentence("a", words("b", "c")), sentence(words("a", "b"), "b")),
        choice(sequence(sentence("a"), sentence("b")), sentence("a"), sentence("b")),
        choice(sentence("a", words("b", role="one")), sentence("a", words("b", role="two"))),
    ],
    ids=["within a sentence", "across units", "by roles alone"],
)
def test_an_ambiguous_grammar_is_found_out_and_its_probabilities_are_still_right(unit):
    scenes = [Scene("one", 1.0, sentence("hola"), unit)]
    machine = StoryMachine(scenes, parameters={}, num_units={1: 0.5, 2: 0.5})
    assert machine.ambiguity() is not None
    stories = enumerate_stories(scenes, {}, {1: 0.5, 2: 0.5})
    for story, probability in stories.items():
        assert machine.log_probability(story) == pytest.approx(math.log(probability), abs=1e-10)


def test_two_scenes_that_write_the_same_story_are_ambiguous():
    scenes = [Scene(name, 0.5, sentence("hola"), sentence(words("a", name))) for name in ("b", "c")]
    assert StoryMachine(scenes, parameters={}, num_units={1: 1.0}).ambiguity() is not None


def test_equal_continuations_share_their_nodes():
    endings = sequence("que", words("ríe", "ve"), words("hoy", "ayer"))
    unit = choice(*(sentence(head, endings) for head in ("uno", "dos", "tres")))
    machine = StoryMachine([Scene("one", 1.0, sentence("hola"), unit)], parameters={}, num_units={1: 1.0})
    # Three first words, three words that follow any of them, the opening's word, and one full stop for both.
    assert len(machine.weight) == 3 + 3 + 1 + 1


@pytest.mark.parametrize(
    ("scenes", "num_units", "message"),
    [
        ([Scene("one", 0.5, sentence("a"), sentence("b"))], {1: 1.0}, r"scene probabilities \(0.5\) must be 1"),
        ([Scene("one", 1.0, sentence("a"), sentence("b"))], {1: 0.7}, r"num_units probabilities \(0.7\) must be 1"),
        ([Scene("one", 1.0, sentence("a"), sentence("b"))], {0: 1.0}, r"num_units \(0\) must be at least 1"),
        ([Scene("one", 1.0, sentence("a"), choice("b", sequence()))], {1: 1.0}, "must hold a word"),
    ],
)
def test_a_machine_that_is_no_distribution_is_refused(scenes, num_units, message):
    with pytest.raises(ValueError, match=message):
        StoryMachine(scenes, parameters={}, num_units=num_units)
