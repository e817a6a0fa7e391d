"""The best predictor against Bayes' rule over all pairs of segments of a small grammar, spelled out one by one."""

import itertools
import math
import random

import numpy as np
import pytest

from hf_minilm.data.best_prediction import MASK, BestPredictor, Channel, Segment, SegmentLaw
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

NAMES = {"woman": ("Ana", "Eva", "Isa"), "man": ("Leo", "Max")}
WOMAN, MAN = Parameter("woman"), Parameter("man")


def _scene(name, place, probability, verb):
    opening = sentence(WOMAN, "en", place)
    meeting = sequence(sentence(WOMAN, "vio", MAN), sentence("ella", verb))
    resting = sentence(Slot((("gato", 0.25), ("pato", 0.75))), words(verb, "come"))
    return Scene(name, probability, opening, choice((1.0, meeting), (2.0, resting)))


SCENES = (_scene("home", "casa", 0.4, "duerme"), _scene("park", "calle", 0.6, "corre"))
OTHER_SCENES = (
    Scene("other", 1.0, sentence(MAN, "at", "home"), sentence(words("cat", "come"), words("runs", "corre"))),
)


def spell(expression, names):
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


class Enumeration:
    """All runs of words that a segment may hold, for one scene and one set of names."""

    def __init__(self, scene, names):
        self.opening = spell(scene.opening, names)
        self.units = spell(scene.unit, names)
        self.sentences = sum(p * text.count(".") for text, p in self.units)

    def starts(self, opening):
        """(words still to come in the unit, probability) where a segment may begin."""
        found = [(text, opening * p) for text, p in self.opening]
        for text, p in self.units:
            cuts = [0] + [i + 1 for i, word in enumerate(text[:-1]) if word == "."]
            found.extend((text[cut:], (1 - opening) * p / self.sentences) for cut in cuts)
        return found

    def runs(self, rest, length, cut):
        """(words, what is left of the unit, probability) for runs of `length` words."""
        if len(rest) >= length:
            if cut or length == 0 or rest[length - 1] == ".":
                yield rest[:length], rest[length:], 1.0
            return
        for text, p in self.units:
            for more, left, q in self.runs(text, length - len(rest), cut):
                yield rest + more, left, p * q


def segment_pairs(machines, lengths, law):
    """Every (first words, second words, is next, probability)."""
    settings = []
    for scenes, probability in machines:
        for values in itertools.product(*NAMES.values()):
            for scene in scenes:
                share = probability * scene.probability / math.prod(len(row) for row in NAMES.values())
                settings.append((share, Enumeration(scene, dict(zip(NAMES, values, strict=True)))))
    alone = [
        (run, share * p * q)
        for share, enumeration in settings
        for rest, p in enumeration.starts(law.second_opens)
        for run, _, q in enumeration.runs(rest, lengths[1], law.cut)
    ]
    merged = {}
    for run, p in alone:
        merged[run] = merged.get(run, 0.0) + p
    pairs = {}
    for share, enumeration in settings:
        for rest, p in enumeration.starts(law.first_opens):
            for first, left, q in enumeration.runs(rest, lengths[0], False):
                for second, _, r in enumeration.runs(left, lengths[1], law.cut):
                    key = (first, second, True)
                    pairs[key] = pairs.get(key, 0.0) + share * p * q * r * law.is_next
                for second, r in merged.items():
                    key = (first, second, False)
                    pairs[key] = pairs.get(key, 0.0) + share * p * q * r * (1 - law.is_next)
    return pairs


def seen_likelihood(channel, true, seen):
    if seen == MASK:
        return channel.rate * channel.mask
    same = 1 - channel.rate + channel.rate * (1 - channel.mask - channel.random)
    return same * (true == seen) + channel.rate * channel.random / channel.vocabulary_size


def selected_likelihood(channel, true, seen):
    if seen == MASK:
        return channel.mask
    return (1 - channel.mask - channel.random) * (true == seen) + channel.random / channel.vocabulary_size


def expected_prediction(pairs, channel, observed, scored):
    """Bayes' rule: P(next) and, for each scored position, the probability of each word, by plain summation."""
    labels = {True: 0.0, False: 0.0}
    found = [{} for _ in scored]
    for (first, second, label), probability in pairs.items():
        true = first + second
        factors = [seen_likelihood(channel, t, s) for t, s in zip(true, observed, strict=True)]
        labels[label] += probability * math.prod(factors)
        for place, shares in zip(scored, found, strict=True):
            here = selected_likelihood(channel, true[place], observed[place])
            others = math.prod(factor for i, factor in enumerate(factors) if i != place)
            shares[true[place]] = shares.get(true[place], 0.0) + probability * here * others
    normalised = [{word: share / sum(row.values()) for word, share in row.items()} for row in found]
    return labels[True] / sum(labels.values()), normalised


def corrupt(text, channel, generator, vocabulary):
    observed = list(text)
    selected = []
    for place in range(len(text)):
        if generator.random() < 0.45:
            selected.append(place)
            draw = generator.random()
            if draw < 0.5:
                observed[place] = MASK
            elif draw < 0.8:
                observed[place] = generator.choice([*vocabulary, "##strange"])
    return tuple(observed), tuple(selected)


MACHINES = [
    (StoryMachine(SCENES, parameters=NAMES, num_units={2: 1.0}), 0.7),
    (StoryMachine(OTHER_SCENES, parameters=NAMES, num_units={2: 1.0}), 0.3),
]
CHANNEL = Channel(vocabulary_size=40, rate=0.2, mask=0.7, random=0.2)


@pytest.mark.parametrize(
    ("lengths", "law"),
    [
        ((7, 6), SegmentLaw(first_opens=0.3, second_opens=0.2, is_next=0.4)),
        ((4, 7), SegmentLaw(first_opens=0.0, second_opens=0.5, cut=False)),
        ((8, 2), SegmentLaw(first_opens=1.0, second_opens=0.0)),
    ],
    ids=["cut", "whole sentences", "from the opening"],
)
def test_a_pair_is_predicted_as_by_bayes_rule_over_all_pairs(lengths, law):
    pairs = segment_pairs([(SCENES, 0.7), (OTHER_SCENES, 0.3)], lengths, law)
    predictor = BestPredictor(MACHINES, CHANNEL, law=law)
    vocabulary = sorted({word for machine, _ in MACHINES for word in machine.vocabulary})
    generator = random.Random(17)
    chosen = generator.choices(list(pairs), weights=list(pairs.values()), k=8)
    for first, second, _ in chosen:
        observed, scored = corrupt(first + second, CHANNEL, generator, vocabulary)
        next_probability, shares = expected_prediction(pairs, CHANNEL, observed, scored)
        split = len(first)
        segments = [
            Segment(
                observed[begin:end],
                tuple(place - begin for place in scored if begin <= place < end),
                tuple((first + second)[place] for place in scored if begin <= place < end),
            )
            for begin, end in ((0, split), (split, len(observed)))
        ]
        prediction = predictor.predict(*segments)
        assert prediction.next_probability == pytest.approx(next_probability, abs=1e-11)
        expected = [math.log(row[(first + second)[place]]) for place, row in zip(scored, shares, strict=True)]
        np.testing.assert_allclose(prediction.log_probabilities, expected, rtol=0, atol=1e-9)


def test_one_segment_is_predicted_as_by_bayes_rule_and_its_words_sum_to_one():
    law = SegmentLaw(first_opens=0.25, second_opens=0.0, cut=False)
    pairs = segment_pairs([(SCENES, 0.7), (OTHER_SCENES, 0.3)], (7, 0), law)
    predictor = BestPredictor(MACHINES, CHANNEL, law=law)
    observed = ("Ana", MASK, "Leo", ".", MASK, "corre", "Pato")
    _, (masked, visible) = expected_prediction(pairs, CHANNEL, observed, (4, 6))
    segment = Segment(observed, (4, 6), ("Ella", "."))
    found = predictor.distribution(segment, 4)
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-12)
    assert found == pytest.approx({word: share for word, share in masked.items() if share > 0.0}, abs=1e-12)
    scores = predictor.predict(segment)
    assert scores.next_probability is None
    assert np.exp(scores.log_probabilities) == pytest.approx([masked["Ella"], visible["."]], abs=1e-12)


def test_the_mean_loss_over_all_corruptions_is_the_conditional_entropy():
    # A short segment and no random tokens, so that every corruption of every text can be listed and weighed.
    law = SegmentLaw(first_opens=0.5, second_opens=0.0, cut=False)
    machines = [(StoryMachine(SCENES, parameters=NAMES, num_units={1: 1.0}), 1.0)]
    channel = Channel(vocabulary_size=30, rate=0.3, mask=0.9, random=0.0)
    texts = {}
    for (first, _, _), share in segment_pairs([(SCENES, 1.0)], (4, 0), law).items():
        texts[first] = texts.get(first, 0.0) + share
    predictor = BestPredictor(machines, channel, law=law)
    entropy = loss = 0.0
    for pattern in itertools.product((False, True), repeat=4):
        groups = {}
        for text, share in texts.items():
            observed = tuple(MASK if masked else word for word, masked in zip(text, pattern, strict=True))
            groups.setdefault(observed, {})[text] = share
        for observed, members in groups.items():
            total = sum(members.values())
            for place in (i for i, masked in enumerate(pattern) if masked):
                by_word = {}
                for text, share in members.items():
                    by_word[text[place]] = by_word.get(text[place], 0.0) + share
                for word, share in by_word.items():
                    entropy -= share * math.log(share / total)
                    loss -= share * predictor.predict(Segment(observed, (place,), (word,))).log_probabilities[0]
    assert loss == pytest.approx(entropy, abs=1e-9)


def test_a_continuation_in_the_middle_of_a_unit_is_recognised():
    law = SegmentLaw(first_opens=0.0, second_opens=0.0)
    predictor = BestPredictor(MACHINES, CHANNEL, law=law)
    first = Segment(("Ana", "vio", "Leo", "."))
    fitting = predictor.predict(first, Segment(("Ella", "corre", "."))).next_probability
    other = predictor.predict(first, Segment(("Pato", "corre", "."))).next_probability
    assert fitting > 0.6
    assert other < 0.02


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        (Segment(("Ana", "."), (2,), ("x",)), r"Selected position \(2\) must lie in a segment of 2 words"),
        (Segment(("Ana", "."), (0, 1), ("Ana",)), r"true words \(1\) must equal that of selected positions \(2\)"),
    ],
)
def test_a_segment_that_contradicts_itself_is_refused(segment, message):
    predictor = BestPredictor(MACHINES, CHANNEL, law=SegmentLaw(first_opens=0.0, second_opens=0.0))
    with pytest.raises(ValueError, match=message):
        predictor.predict(segment)


def test_words_that_the_laws_cannot_give_are_refused():
    strict = Channel(vocabulary_size=40, random=0.0)
    predictor = BestPredictor(MACHINES, strict, law=SegmentLaw(first_opens=0.0, second_opens=0.0))
    with pytest.raises(ValueError, match="must be possible"):
        predictor.predict(Segment(("zzz", MASK), (1,), ("x",)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocabulary_size": 0}, r"vocabulary_size \(0\)"),
        ({"vocabulary_size": 5, "rate": 1.5}, r"rate \(1.5\)"),
        ({"vocabulary_size": 5, "mask": 0.8, "random": 0.3}, r"mask \+ random"),
    ],
)
def test_a_channel_that_is_no_distribution_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Channel(**settings)
