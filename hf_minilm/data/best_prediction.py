"""The best possible prediction of corrupted words and of "is the second segment the continuation of the first".

What the predictor is told: the law of the stories (`StoryMachine`), of the corruption (`Channel`) and of how segments
are cut out (`SegmentLaw`), and the corrupted words. What it is scored on: the words at *selected* positions, and the
label. A trained model's loss on the same positions cannot be lower than this one's in expectation.

The loss at position i is scored only when i was selected, so the best prediction there is P(word i | all observed
words, i selected); a visible word at another position may or may not have been selected, and both are weighed.
Selections are independent of each other and of the words.

The law of segments: a segment is a run of whole sentences, any number of them being equally likely, so that the
number of sentences says nothing; the last segment may be cut off anywhere. The first one begins with a story's
opening with probability `first_opens`, else at a sentence of its body, all sentences being equally likely. The second
one is the continuation with probability `is_next`, else a run out of an independent story that begins with the
opening with probability `second_opens`. A body is taken as endless: how near a story's end is says nothing either.

Given scene and parameters the sums are the forward-backward algorithm; scenes and parameters are summed over exactly.
Names that occur nowhere in the observed words are alike, so they are summed as one.

Letters in comments: N nodes, E arcs, S symbols, K combinations of parameter values, T words.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .story_machine import FloatArray, Parameter, StoryMachine

MASK = "[MASK]"

# A scene whose share of a segment's probability is provably below exp(-32), 1e-14, is left out.
_NEGLIGIBLE = 32.0


@dataclass(frozen=True, slots=True)
class Channel:
    """How words are corrupted: each is selected with probability `rate`, independently, and a selected one is replaced.

    Attributes:
        vocabulary_size: number of tokens that a random replacement is drawn from, uniformly; at least 1.
        rate: probability that a position is selected.
        mask, random: probability that a selected word becomes [MASK] or a random token; otherwise it stays.
    """

    vocabulary_size: int
    rate: float = 0.15
    mask: float = 0.8
    random: float = 0.1

    def __post_init__(self) -> None:
        if self.vocabulary_size < 1:
            raise ValueError(f"vocabulary_size ({self.vocabulary_size}) must be at least 1; give the tokenizer's size.")
        for name, share in (("rate", self.rate), ("mask", self.mask), ("mask + random", self.mask + self.random)):
            if not 0.0 <= share <= 1.0 + 1e-12:
                raise ValueError(f"{name} ({share}) must lie between 0 and 1; give a probability.")

    @property
    def keep(self) -> float:
        """Probability that a selected word stays as it is."""
        return max(0.0, 1.0 - self.mask - self.random)

    @property
    def same(self) -> float:
        """Probability that a word is seen unchanged without a random draw, selected or not."""
        return 1.0 - self.rate + self.rate * self.keep

    @property
    def stray(self) -> float:
        """Probability that a word is replaced by one given random token."""
        return self.rate * self.random / self.vocabulary_size


@dataclass(frozen=True, slots=True)
class SegmentLaw:
    """How segments are cut out of stories; see the module's text.

    Attributes:
        first_opens: probability that the first segment begins with its story's opening.
        second_opens: the same for a second segment out of another story.
        is_next: probability that the second segment continues the first.
        cut: whether the last segment may end inside a sentence.
    """

    first_opens: float
    second_opens: float
    is_next: float = 0.5
    cut: bool = True


@dataclass(frozen=True, slots=True)
class Segment:
    """A corrupted run of words.

    Attributes:
        observed: the words as seen, [MASK] at masked positions; strings that are no word of the machine are allowed.
        selected: positions that are scored, counted from 0.
        truth: the true words at the selected positions.
    """

    observed: tuple[str, ...]
    selected: tuple[int, ...] = ()
    truth: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BestPrediction:
    """What the best predictor says of one segment or pair.

    Attributes:
        log_probabilities: [selected positions of the first segment, then of the second] log-probability of the true
            word, in nats.
        next_probability: probability that the second segment continues the first; None without a second segment.
    """

    log_probabilities: FloatArray
    next_probability: float | None


class _SceneArrays:
    """One scene of a machine: its part of the automaton, in the orders that the sums need.

    Within a machine the nodes of a scene are numbered from its boundary to its start; here they count from 0.
    """

    def __init__(self, machine: StoryMachine, scene: int, probability: float) -> None:
        self.machine = machine
        self.probability = probability * float(machine.scene_probabilities[scene])
        boundary, start = int(machine.boundaries[scene]), int(machine.starts[scene])
        self.num_nodes = start - boundary + 1
        inside = np.flatnonzero((machine.source >= boundary) & (machine.source <= start))
        inside = inside[np.argsort(machine.target[inside], kind="stable")]
        self.source, self.target = machine.source[inside] - boundary, machine.target[inside] - boundary
        self.weight = machine.weight[inside][:, None]
        used, self.symbol = np.unique(machine.symbol[inside], return_inverse=True)
        self.table = machine.table[used]
        self.parameter_rows = self._rows_of_parameters(used.tolist())
        self._best_shares = self.table.max(axis=0)
        for values in machine.parameters.values():
            self._best_shares[[machine.word_numbers[value] for value in values]] = 1.0
        self.reached, self.reached_from = np.unique(self.target, return_index=True)
        self.by_source = np.argsort(self.source, kind="stable")
        _, self.left_from = np.unique(self.source[self.by_source], return_index=True)
        self.by_symbol = np.argsort(self.symbol, kind="stable")
        _, self.symbol_from = np.unique(self.symbol[self.by_symbol], return_index=True)
        begins = machine.sentence_starts[boundary : start + 1]
        self.is_boundary = begins > 0.0
        self._begins = begins / begins.sum()

    def _rows_of_parameters(self, used: list[int]) -> list[tuple[int, int]]:
        """Row of the table and place among the parameters, for each symbol that is a parameter."""
        names = list(self.machine.parameters)
        symbols = [self.machine.symbols[number] for number in used]
        return [(row, names.index(s.name)) for row, s in enumerate(symbols) if isinstance(s, Parameter)]

    def initial(self, opening: float, combinations: "_Combinations") -> FloatArray:
        """[N, K] probability of node and parameter values where a segment of an independent story begins."""
        nodes = (1.0 - opening) * self._begins
        nodes[-1] += opening
        return self.probability * nodes[:, None] * combinations.shares[None, :]

    def forward(self, alpha: FloatArray, likelihood: FloatArray) -> FloatArray:
        """One word on: [N, K] from [N, K] and the likelihood of going along each arc with this word, [E, K]."""
        flow = np.take(alpha, self.source, axis=0)
        flow *= likelihood
        following = np.zeros_like(alpha)
        following[self.reached] = np.add.reduceat(flow, self.reached_from, axis=0)
        return following

    def backward(self, beta: FloatArray, likelihood: FloatArray) -> FloatArray:
        """One word back: [N, K] from [N, K] and the likelihood of going along each arc with this word, [E, K]."""
        flow = np.take(beta, self.target, axis=0)
        flow *= likelihood
        return np.add.reduceat(np.take(flow, self.by_source, axis=0), self.left_from, axis=0)

    def symbol_weights(self, alpha: FloatArray, beta: FloatArray) -> FloatArray:
        """[S, K] weight of each symbol at a position, whatever is seen there."""
        flow = np.take(alpha, self.source, axis=0) * np.take(beta, self.target, axis=0)
        flow *= self.weight
        return np.add.reduceat(np.take(flow, self.by_symbol, axis=0), self.symbol_from, axis=0)

    def best_likelihood(self, word: str, channel: Channel) -> float:
        """Likelihood of an observed word under the symbol that suits it best."""
        if word == MASK:
            return channel.rate * channel.mask
        number = self.machine.word_numbers.get(word)
        return channel.stray + (0.0 if number is None else channel.same * float(self._best_shares[number]))


class _Combinations:
    """The parameter values to tell apart, given the words seen: each seen value, and all unseen ones as one."""

    def __init__(self, machine: StoryMachine, seen: frozenset[str]) -> None:
        axes: list[list[tuple[str | None, int]]] = []
        self.unseen: list[frozenset[str]] = []
        for values in machine.parameters.values():
            visible = [value for value in values if value in seen]
            hidden = frozenset(values) - seen
            axes.append([(value, 1) for value in visible] + ([(None, len(hidden))] if hidden else []))
            self.unseen.append(hidden)
        grid = list(itertools.product(*axes))
        sizes = math.prod(len(values) for values in machine.parameters.values())
        self.shares: FloatArray = np.array([math.prod(count for _, count in row) / sizes for row in grid])
        self.values = [[row[place][0] for row in grid] for place in range(len(axes))]

    def probability(self, place: int, word: str) -> FloatArray:
        """[K] probability that the parameter at the place has the word as its value."""
        hidden = self.unseen[place]
        unseen_share = 1.0 / len(hidden) if word in hidden else 0.0
        return np.array([unseen_share if value is None else float(value == word) for value in self.values[place]])


@dataclass(slots=True)
class _Pass:
    """A pass over one segment in one scene: scaled messages [N, K] at T + 1 places, and the logs of the scales."""

    messages: list[FloatArray]
    log_scales: list[float]

    def append(self, message: FloatArray) -> None:
        """Add the next message, divided by its sum; the product of all sums so far is kept as a logarithm."""
        total = float(message.sum())
        before = self.log_scales[-1] if self.log_scales else 0.0
        self.messages.append(message / total if total > 0.0 else message)
        self.log_scales.append(before + _log(total))


class BestPredictor:
    """Exact predictions under known laws.

    Args:
        machines: each machine with its probability; the probabilities sum to one.
        channel: how words were corrupted.
        law: how segments were cut out.
    """

    def __init__(self, machines: Iterable[tuple[StoryMachine, float]], channel: Channel, *, law: SegmentLaw) -> None:
        self.channel = channel
        self.law = law
        self.scenes = [
            _SceneArrays(machine, scene, probability)
            for machine, probability in machines
            for scene in range(len(machine.scenes))
        ]

    def predict(self, first: Segment, second: Segment | None = None) -> BestPrediction:
        """Score the true words at the selected positions, and the label.

        Raises:
            ValueError: the laws cannot give what was observed, or a selected position lies outside of its segment.
        """
        sums = _Sums(self, first, second)
        scores = [
            sums.log_probability_of_truth(index, position, word)
            for index, segment in enumerate(sums.segments)
            for position, word in zip(segment.selected, segment.truth, strict=True)
        ]
        return BestPrediction(np.array(scores, dtype=np.float64), sums.next_probability)

    def distribution(self, first: Segment, position: int, *, second: Segment | None = None) -> dict[str, float]:
        """Probability of each word at a selected position of the first segment; impossible words are left out."""
        return _Sums(self, first, second).distribution(0, position)


_Messages = Sequence[FloatArray | None]


class _Sums:
    """All sums for one segment or pair. Lists run over scenes; None stands for a scene left out."""

    def __init__(self, predictor: BestPredictor, first: Segment, second: Segment | None) -> None:
        self.channel, self.law, self.scenes = predictor.channel, predictor.law, predictor.scenes
        self.segments = [first] if second is None else [first, second]
        for segment in self.segments:
            _check(segment)
        seen = frozenset(word for segment in self.segments for word in segment.observed)
        found = {id(scene.machine): _Combinations(scene.machine, seen) for scene in self.scenes}
        self.combinations = [found[id(scene.machine)] for scene in self.scenes]
        self._likelihoods: list[dict[str, FloatArray]] = [{} for _ in self.scenes]
        self._weights: dict[tuple[int, int], list[tuple[int, FloatArray]]] = {}
        self.next_probability: float | None = None
        self.forward_passes: list[list[_Pass | None]]
        self.backward_passes: list[list[_Pass | None]]
        if second is None:
            self._one_segment()
        else:
            self._two_segments()

    def _one_segment(self) -> None:
        forward = self._run_likely(self._forward, 0, self._initials(self.law.first_opens))
        ends: _Messages = [None if passing is None else end for passing, end in zip(forward, self._ends(), strict=True)]
        self.forward_passes = [forward]
        self.backward_passes = [self._run(self._backward, 0, ends)]

    def _two_segments(self) -> None:
        law = self.law
        initials = self._initials(law.second_opens)
        forward = self._run_likely(self._forward, 0, self._initials(law.first_opens))
        backward = self._run_likely(self._backward, 1, self._ends(), weights=initials)
        ends: _Messages = [
            None if message is None else message * scene.is_boundary[:, None]
            for message, scene in zip(_common_scale(forward, -1), self.scenes, strict=True)
        ]
        begins = _common_scale(backward, 0)
        alone_first = sum(float(end.sum()) for end in ends if end is not None)
        alone_second = _inner(initials, begins)
        together = law.is_next * _inner(ends, begins)
        evidence = together + (1.0 - law.is_next) * alone_first * alone_second
        if evidence <= 0.0:
            raise ValueError(_IMPOSSIBLE)
        self.next_probability = together / evidence
        apart = (1.0 - law.is_next) * alone_second
        before: _Messages = [
            None if end is None else _plus(np.full_like(end, apart), law.is_next, begin) * scene.is_boundary[:, None]
            for end, begin, scene in zip(ends, begins, self.scenes, strict=True)
        ]
        apart = (1.0 - law.is_next) * alone_first
        after: _Messages = [
            None if begin is None else _plus(apart * initial, law.is_next, end)
            for end, begin, initial in zip(ends, begins, initials, strict=True)
        ]
        self.backward_passes = [self._run(self._backward, 0, _heavy(before, ends, evidence)), backward]
        self.forward_passes = [forward, self._run(self._forward, 1, _heavy(after, begins, evidence))]

    def _initials(self, opening: float) -> list[FloatArray]:
        pairs = zip(self.scenes, self.combinations, strict=True)
        return [scene.initial(opening, combinations) for scene, combinations in pairs]

    def _ends(self) -> list[FloatArray]:
        """[N, K] a scene: 1 where the last segment may end, else 0."""
        ends = []
        for scene, combinations in zip(self.scenes, self.combinations, strict=True):
            allowed = (scene.is_boundary | self.law.cut).astype(np.float64)
            ends.append(np.repeat(allowed[:, None], len(combinations.shares), axis=1))
        return ends

    def _word_probabilities(self, scene: int, word: str) -> FloatArray:
        """[S, K] probability of the word under each symbol."""
        arrays, combinations = self.scenes[scene], self.combinations[scene]
        number = arrays.machine.word_numbers.get(word)
        column = np.zeros(len(arrays.table)) if number is None else arrays.table[:, number]
        probabilities = np.repeat(column[:, None], len(combinations.shares), axis=1)
        for row, place in arrays.parameter_rows:
            probabilities[row] = combinations.probability(place, word)
        return probabilities

    def _likelihood(self, scene: int, word: str) -> FloatArray:
        """[E, K] probability of going along each arc and seeing this word, given the arc's source."""
        known = self._likelihoods[scene]
        if word not in known:
            channel, arrays = self.channel, self.scenes[scene]
            if word == MASK:
                shape = (len(arrays.symbol), len(self.combinations[scene].shares))
                known[word] = np.full(shape, channel.rate * channel.mask) * arrays.weight
            else:
                emission = channel.same * self._word_probabilities(scene, word) + channel.stray
                known[word] = np.take(emission, arrays.symbol, axis=0) * arrays.weight
        return known[word]

    def _forward(self, scene: int, index: int, initial: FloatArray) -> _Pass:
        passing = _Pass([], [])
        passing.append(initial)
        for word in self.segments[index].observed:
            passing.append(self.scenes[scene].forward(passing.messages[-1], self._likelihood(scene, word)))
        return passing

    def _backward(self, scene: int, index: int, final: FloatArray) -> _Pass:
        passing = _Pass([], [])
        passing.append(final)
        for word in reversed(self.segments[index].observed):
            passing.append(self.scenes[scene].backward(passing.messages[-1], self._likelihood(scene, word)))
        return _Pass(passing.messages[::-1], passing.log_scales[::-1])

    def _run(self, run: Callable[[int, int, FloatArray], _Pass], index: int, ends: _Messages) -> list[_Pass | None]:
        return [None if end is None else run(scene, index, end) for scene, end in enumerate(ends)]

    def _run_likely(
        self,
        run: Callable[[int, int, FloatArray], _Pass],
        index: int,
        ends: _Messages,
        *,
        weights: _Messages | None = None,
    ) -> list[_Pass | None]:
        """A pass in each scene but those that provably carry a negligible share of the segment's probability.

        `weights` [N, K] turn the last message into that probability; all ones if not given.
        """
        # No derivation is likelier than the product, over the words, of the likelihood under the best symbol.
        observed = self.segments[index].observed
        bounds = [sum(_log(scene.best_likelihood(word, self.channel)) for word in observed) for scene in self.scenes]
        passes: list[_Pass | None] = [None] * len(self.scenes)
        best = -math.inf
        for scene in sorted(range(len(bounds)), key=lambda scene: -bounds[scene]):
            end = ends[scene]
            if end is None or bounds[scene] < best - _NEGLIGIBLE:
                continue
            passing = run(scene, index, end)
            passes[scene] = passing
            if weights is None:
                best = max(best, passing.log_scales[-1])
            else:
                best = max(best, passing.log_scales[0] + _log(_inner([weights[scene]], [passing.messages[0]])))
        return passes

    def _symbol_weights(self, index: int, position: int) -> list[tuple[int, FloatArray]]:
        """[S, K] weight of each symbol at the position, what is seen there left out, in one scale for all scenes."""
        if (index, position) in self._weights:
            return self._weights[index, position]
        found = []
        for number, scene in enumerate(self.scenes):
            forward, backward = self.forward_passes[index][number], self.backward_passes[index][number]
            if forward is None or backward is None:
                continue
            weights = scene.symbol_weights(forward.messages[position], backward.messages[position + 1])
            found.append((number, weights, forward.log_scales[position] + backward.log_scales[position + 1]))
        largest = max((scale for _, _, scale in found), default=-math.inf)
        if largest == -math.inf:
            raise ValueError(_IMPOSSIBLE)
        scaled = [(number, weights * math.exp(scale - largest)) for number, weights, scale in found]
        self._weights[index, position] = scaled
        return scaled

    def log_probability_of_truth(self, index: int, position: int, truth: str) -> float:
        """Log-probability of the true word at a selected position, in nats."""
        weights = self._symbol_weights(index, position)
        seen = self.segments[index].observed[position]
        total = sum(float(weight.sum()) for _, weight in weights)
        true = sum(float((weight * self._word_probabilities(scene, truth)).sum()) for scene, weight in weights)
        if seen == MASK:
            return _log(true) - _log(total)
        replaced = self.channel.random / self.channel.vocabulary_size
        kept = sum(float((weight * self._word_probabilities(scene, seen)).sum()) for scene, weight in weights)
        likelihood = replaced + (self.channel.keep if truth == seen else 0.0)
        return _log(true * likelihood) - _log(total * replaced + kept * self.channel.keep)

    def distribution(self, index: int, position: int) -> dict[str, float]:
        """Probability of each word at a selected position."""
        words = sorted({word for scene in self.scenes for word in scene.machine.vocabulary})
        shares = {word: math.exp(self.log_probability_of_truth(index, position, word)) for word in words}
        return {word: share for word, share in shares.items() if share > 0.0}


_IMPOSSIBLE = (
    "The observed words must be possible under the machines and the laws; check that they come from these stories."
)


def _check(segment: Segment) -> None:
    if len(segment.selected) != len(segment.truth):
        raise ValueError(
            f"The number of true words ({len(segment.truth)}) must equal that of selected positions "
            f"({len(segment.selected)}); give one word a position."
        )
    outside = [position for position in segment.selected if not 0 <= position < len(segment.observed)]
    if outside:
        raise ValueError(
            f"Selected position ({outside[0]}) must lie in a segment of {len(segment.observed)} words; count from 0."
        )


def _log(share: float) -> float:
    return math.log(share) if share > 0.0 else -math.inf


def _plus(base: FloatArray, factor: float, message: FloatArray | None) -> FloatArray:
    return base if message is None else base + factor * message


def _heavy(messages: _Messages, others: _Messages, evidence: float) -> _Messages:
    """The messages of those scenes whose share of the evidence, the product with the other side, is not negligible."""
    least = evidence * math.exp(-_NEGLIGIBLE)
    return [m if _inner([m], [other]) >= least else None for m, other in zip(messages, others, strict=True)]


def _inner(left: _Messages, right: _Messages) -> float:
    """Sum of products over all scenes that both sides have."""
    pairs = zip(left, right, strict=True)
    return sum(float((one * other).sum()) for one, other in pairs if one is not None and other is not None)


def _common_scale(passes: list[_Pass | None], place: int) -> _Messages:
    """The messages at the place of all passes, in one scale."""
    largest = max((passing.log_scales[place] for passing in passes if passing is not None), default=-math.inf)
    if largest == -math.inf:
        raise ValueError(_IMPOSSIBLE)
    return [
        None if passing is None else passing.messages[place] * math.exp(passing.log_scales[place] - largest)
        for passing in passes
    ]
