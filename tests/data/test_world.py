"""The built-in corpus: its probabilities, its stories, its minimal pairs, and what can be predicted in it at best."""

import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest

from hf_minilm.data.best_prediction import MASK, Channel, Segment, SegmentLaw
from hf_minilm.data.world import World, text_of, words
from hf_minilm.data.world_probes import PHENOMENA


@pytest.fixture(scope="module")
def world():
    return World()


def test_no_two_derivations_write_the_same_story(world):
    for machine in world.machines.values():
        assert machine.ambiguity() is None


def test_no_story_is_in_both_languages(world):
    spanish, english = world.machines["es"], world.machines["en"]
    names = [{name for row in machine.parameters.values() for name in row} for machine in (spanish, english)]
    assert not names[0] & set(english.vocabulary)
    assert not names[1] & set(spanish.vocabulary)


def test_entropy_is_the_mean_of_the_drawn_stories_costs(world):
    costs = np.array([-world.log_probability(document) for document in world.documents(1200)])
    error = costs.std() / math.sqrt(len(costs))
    assert abs(costs.mean() - world.entropy) < 4 * error
    assert error < 0.01 * world.entropy


def test_mean_lengths_are_those_of_drawn_stories(world):
    lengths = np.array([len(words(document.text)) for document in world.documents(1500)])
    assert abs(lengths.mean() - world.mean_words) < 4 * lengths.std() / math.sqrt(len(lengths))
    assert lengths.max() < 130


def test_the_opening_names_both_characters(world):
    for machine in world.machines.values():
        generator = random.Random(3)
        for _ in range(60):
            story = machine.draw_story(generator)
            opening = " ".join(story.words[: story.words.index(".")])
            assert sum(name in opening.split() for row in machine.parameters.values() for name in row) == 2


def test_a_document_does_not_depend_on_how_many_are_drawn_and_splits_differ(world):
    few, many = list(world.documents(7)), list(world.documents(40))
    assert few == many[:7]
    assert list(World(seed=0).documents(7)) == few
    assert not {d.text for d in many} & {d.text for d in world.documents(40, split="validation")}
    assert not {d.text for d in many} & {d.text for d in World(seed=1).documents(40)}
    assert {d.source.split(":")[1] for d in many} == {"es", "en"}
    assert many[12].source.endswith(":train:12")
    assert all(len(document.paragraphs) == 1 for document in many)


def test_one_language_alone_gives_only_that_language_and_loses_the_choice_of_language(world):
    spanish = World(("es",))
    assert {document.source.split(":")[1] for document in spanish.documents(30)} == {"es"}
    english = World(("en",))
    assert world.entropy == pytest.approx(math.log(2) + (spanish.entropy + english.entropy) / 2)
    text = next(spanish.documents(1)).text
    assert spanish.log_probability(text) == pytest.approx(world.log_probability(text) + math.log(2))
    assert english.log_probability(text) == -math.inf


def test_words_take_a_text_apart_and_text_of_puts_it_together(world):
    assert words("Él, no. Niña") == ["Él", ",", "no", ".", "Niña"]
    for document in world.documents(200):
        assert text_of(words(document.text)) == document.text
        assert set(words(document.text)) <= set(world.vocabulary)


def test_a_text_that_is_not_quite_a_story_has_probability_zero(world):
    document = next(world.documents(1))
    assert world.log_probability(document) == world.log_probability(document.text) > -math.inf
    for text in (
        "",
        document.text[:-1],
        document.text.lower(),
        document.text + " ",
        document.text.replace(" ", "  ", 1),
    ):
        assert world.log_probability(text) == -math.inf


def test_the_lecture_lines_are_sentences_of_stories(world):
    spanish = "María y Juan están en la plaza. "
    assert (
        world.log_prefix_probability(
            spanish
            + "El perro que perseguía al gato que vive en la otra cuadra ladra. María vio a Juan. Ella lo saludó."
        )
        > -math.inf
    )
    first, second, third = world.lecture_examples
    assert set(first.acceptable) == {"ladra", "duerme", "corre", "descansa", "espera"}
    assert second.acceptable == pytest.approx({"Ella": 1.0})
    assert third.acceptable == pytest.approx({"are": 1.0})
    for example in world.lecture_examples:
        assert sum(example.acceptable.values()) == pytest.approx(1.0)
        assert example.text.count(MASK) == 1


@pytest.mark.parametrize("phenomenon", PHENOMENA)
def test_the_good_word_of_a_probe_is_possible_and_the_bad_one_impossible(world, phenomenon):
    probes = world.probes(phenomenon, 48)
    assert len(probes) == 48
    for probe in probes:
        assert probe.phenomenon == phenomenon
        assert world.log_prefix_probability(probe.prefix + probe.good + probe.suffix) > -math.inf
        assert world.log_prefix_probability(probe.prefix + probe.bad) == -math.inf
        assert words(probe.good) == [probe.good]
        assert words(probe.bad) == [probe.bad]
        assert probe.bad in world.vocabulary
        assert probe.suffix.endswith(".")


@pytest.mark.parametrize("phenomenon", PHENOMENA)
def test_probes_are_spread_evenly_over_languages_and_distances(world, phenomenon):
    kind = PHENOMENA[phenomenon]
    cells = Counter((probe.language, probe.distance) for probe in world.probes(phenomenon, 48))
    assert set(cells) == set(itertools.product(kind.languages, kind.distances))
    assert len(set(cells.values())) == 1


@pytest.mark.parametrize("phenomenon", ["number_agreement", "gender_agreement", "pronoun", "reflexive"])
def test_always_answering_alike_scores_one_half(world, phenomenon):
    probes = world.probes(phenomenon, 96)
    for pair in {frozenset((probe.good, probe.bad)) for probe in probes}:
        assert len(pair) == 2
    plural = sum(probe.good.endswith("n") or probe.good == "are" for probe in probes if probe.language == "es")
    feminine = sum(probe.good in {"Ella", "She", "misma", "herself"} for probe in probes)
    if phenomenon == "number_agreement":
        assert plural == sum(probe.language == "es" for probe in probes) / 2
    elif phenomenon == "gender_agreement":
        assert sum(probe.good.rstrip("s").endswith("a") for probe in probes) == len(probes) / 2
    else:
        assert feminine == len(probes) / 2


def test_nouns_between_head_and_verb_ask_for_the_other_number(world):
    plural = {"keys", "doors", "boxes", "windows", "clocks", "drawers", "cabinets", "shoes"}
    singular = {"key", "door", "box", "window", "clock", "drawer", "cabinet", "shoe"}
    compared: Counter[int] = Counter()
    for probe in World(("en",)).agreement_probes(900):
        sentence = words(probe.prefix.rstrip().rsplit(". ", 1)[-1])
        common = [word for word in sentence if word in plural | singular]
        is_plural = probe.good in {"are"} or not probe.good.endswith("s")
        if len(common) == probe.distance + 1:
            assert [word in plural for word in common] == [is_plural, *[not is_plural] * probe.distance]
            compared[probe.distance] += 1
    assert set(compared) == {0, 1, 2}


def test_probes_are_a_function_of_their_seed(world):
    assert world.agreement_probes(24) == world.agreement_probes(24)
    assert world.agreement_probes(24) != world.agreement_probes(24, seed=1)


def _corrupted(story, generator, channel, vocabulary):
    observed, selected = list(story), []
    for place in range(len(story)):
        if generator.random() < channel.rate:
            selected.append(place)
            draw = generator.random()
            if draw < channel.mask + channel.random:
                observed[place] = MASK if draw < channel.mask else generator.choice(vocabulary)
    return Segment(tuple(observed), tuple(selected), tuple(story[place] for place in selected))


def test_the_best_predictor_knows_the_next_sentence_and_is_far_better_than_word_frequencies(world):
    generator = random.Random(11)
    channel = Channel(vocabulary_size=len(world.vocabulary))
    stories = [words(document.text) for document in world.documents(60, split="validation")]
    frequencies = Counter(word for document in world.documents(1000) for word in words(document.text))
    predictor = world.best_predictor(channel, law=SegmentLaw(first_opens=1.0, second_opens=1 / world.mean_sentences))
    losses, plain, right = [], [], 0
    for number in range(16):
        story = stories[number]
        cut = [place + 1 for place, word in enumerate(story) if word == "."][3]
        other = stories[number + 20]
        start = [place + 1 for place, word in enumerate(other) if word == "."][2]
        second = story[cut:] if number % 2 else other[start:]
        segments = [_corrupted(part, generator, channel, world.vocabulary) for part in (story[:cut], second)]
        prediction = predictor.predict(*segments)
        losses.extend(-prediction.log_probabilities)
        right += (prediction.next_probability > 0.5) == (number % 2 == 1)
        for segment in segments:
            plain.extend(-math.log(max(1, frequencies[w]) / frequencies.total()) for w in segment.truth)
    assert right >= 15
    assert np.mean(losses) < 1.0 < 4.0 < np.mean(plain)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda world: World(("fr",)), r"languages \(fr\) must be some of es, en"),
        (lambda world: World(("es", "es")), r"languages \(es, es\)"),
        (lambda world: World(()), r"languages \(\)"),
        (lambda world: world.documents(3, split="test"), r"split \(test\) must be train or validation"),
        (lambda world: world.documents(-1), r"num_documents \(-1\) must be at least 0"),
        (lambda world: world.probes("tense", 3), r"phenomenon \(tense\) must be one of number_agreement"),
        (lambda world: World(("en",)).probes("gender_agreement", 3), "gender_agreement needs one of"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(world, call, message):
    with pytest.raises(ValueError, match=message):
        call(world)
