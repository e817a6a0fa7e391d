"""A probabilistic automaton that writes stories, and whose probabilities are known exactly.

A grammar is built from words with four combinators (`words`, `sequence`, `choice`, `sentence`) and compiled into a
weighted automaton over whole words. A story is drawn so:

1. a *scene* (say, a topic and who leads the story) and one value for each *parameter* (say, the two characters'
   names);
2. the scene's opening;
3. the number of units, then that many units, independent of each other given the scene and the parameters. A unit is
   one sentence or a few that hang together; every sentence ends with the word ".".

Given the scene and parameters this is a hidden Markov model over the automaton's nodes, so sums over all derivations
are exact (the forward algorithm). When no story has two derivations (`ambiguity` finds one if there is one), the
entropy of stories is the entropy of derivations, which adds up along the automaton.

Letters in comments: N nodes, E arcs, S symbols (word distributions), W distinct words.
"""

import math
import random
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SENTENCE_END = "."

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Slot:
    """One word drawn from a fixed distribution. `role` says what the word does, for those who look for probes."""

    distribution: tuple[tuple[str, float], ...]
    role: str = ""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One word that is the same at every place of a story that names the parameter, such as a character's name."""

    name: str
    role: str = ""


@dataclass(frozen=True, slots=True)
class Sequence:
    """Parts one after another."""

    parts: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several alternatives, each with its probability."""

    alternatives: tuple[tuple[float, "Expression"], ...]


Expression = Slot | Parameter | Sequence | Choice


def words(*alternatives: str, role: str = "") -> Slot:
    """One word, equally likely to be any of the alternatives."""
    share = 1.0 / len(alternatives)
    return Slot(tuple((word, share) for word in alternatives), role)


def sequence(*parts: "Expression | str") -> Sequence:
    """Parts one after another; a string is split at spaces into fixed words."""
    expressions: list[Expression] = []
    for part in parts:
        if isinstance(part, str):
            expressions.extend(words(word) for word in part.split())
        else:
            expressions.append(part)
    return Sequence(tuple(expressions))


def choice(*alternatives: "tuple[float, Expression | str] | Expression | str") -> Choice:
    """One of the alternatives; each may come with a weight (default 1), and weights need not sum to one."""
    weighted = [item if isinstance(item, tuple) else (1.0, item) for item in alternatives]
    total = sum(weight for weight, _ in weighted)
    return Choice(
        tuple((weight / total, sequence(part) if isinstance(part, str) else part) for weight, part in weighted)
    )


def sentence(*parts: "Expression | str") -> Sequence:
    """A sequence whose first word gets a capital and that ends with the word "."."""
    return sequence(_capitalised(sequence(*parts)), SENTENCE_END)


def _capitalised(expression: Expression) -> Expression:
    if isinstance(expression, Slot):
        pairs = tuple((word[:1].upper() + word[1:], share) for word, share in expression.distribution)
        return Slot(pairs, expression.role)
    if isinstance(expression, Sequence):
        return Sequence((_capitalised(expression.parts[0]), *expression.parts[1:]))
    if isinstance(expression, Choice):
        return Choice(tuple((weight, _capitalised(part)) for weight, part in expression.alternatives))
    return expression


@dataclass(frozen=True, slots=True)
class Scene:
    """What a story is drawn from once its scene is known. `probability` is the scene's own, before any word is seen."""

    name: str
    probability: float
    opening: Expression
    unit: Expression


@dataclass(frozen=True, slots=True)
class Story:
    """A drawn story: its words, the role of each word, and the number of the unit each is in (0 is the opening)."""

    scene: str
    words: list[str]
    roles: list[str]
    units: list[int]


_Arc = tuple[float, int, int]  # probability, symbol, target node


class _Compiler:
    """Turns expressions into nodes. Equal continuations become one node, so suffixes are shared."""

    def __init__(self) -> None:
        self.arcs: list[tuple[_Arc, ...]] = []
        self.symbols: list[Slot | Parameter] = []
        self._nodes: dict[tuple[_Arc, ...], int] = {}
        self._symbol_numbers: dict[Slot | Parameter, int] = {}

    def scene(self, scene: Scene) -> tuple[int, int]:
        """The scene's start node and boundary node; the end of a unit is the boundary, where the next one begins."""
        boundary = len(self.arcs)
        self.arcs.append(())
        self.arcs[boundary] = self._expand(scene.unit, boundary)
        return self._node(self._expand(scene.opening, boundary)), boundary

    def _expand(self, expression: Expression, target: int) -> tuple[_Arc, ...]:
        if isinstance(expression, Choice):
            merged: dict[tuple[int, int], float] = defaultdict(float)
            for weight, part in expression.alternatives:
                for probability, symbol, node in self._expand(part, target):
                    merged[symbol, node] += weight * probability
            return tuple((probability, symbol, node) for (symbol, node), probability in merged.items())
        if isinstance(expression, Sequence):
            if not expression.parts:
                return self._continuation(target)
            for part in reversed(expression.parts[1:]):
                target = self._node(self._expand(part, target))
            return self._expand(expression.parts[0], target)
        return ((1.0, self._symbol(expression), target),)

    def _continuation(self, target: int) -> tuple[_Arc, ...]:
        if not self.arcs[target]:
            raise ValueError("A unit's last part must hold a word; end every sentence with `sentence`.")
        return self.arcs[target]

    def _node(self, arcs: tuple[_Arc, ...]) -> int:
        if arcs not in self._nodes:
            self._nodes[arcs] = len(self.arcs)
            self.arcs.append(arcs)
        return self._nodes[arcs]

    def _symbol(self, symbol: Slot | Parameter) -> int:
        if symbol not in self._symbol_numbers:
            self._symbol_numbers[symbol] = len(self.symbols)
            self.symbols.append(symbol)
        return self._symbol_numbers[symbol]


class StoryMachine:
    """A distribution over stories with exact probabilities.

    Args:
        scenes: the scenes; their probabilities sum to one.
        parameters: the values of each parameter, drawn uniformly and independently of everything else.
        num_units: the probability of each number of units after the opening; keys are at least 1.

    Attributes:
        vocabulary: distinct words, sorted. # W of them
        symbols: the word distributions on the arcs. # S of them
        table: [S, W] probability of each word under each symbol; rows of parameters are zero.
        parameters: as given.
        source, target, symbol: [E] integers; the arcs.
        weight: [E] the arc's probability given its source node.
        starts, boundaries: [scenes] node where the opening begins, node where units begin and end.
        scene_probabilities: [scenes].
        sentence_starts: [N] expected number of sentences a unit that begin at the node.
    """

    def __init__(
        self, scenes: Iterable[Scene], *, parameters: Mapping[str, tuple[str, ...]], num_units: Mapping[int, float]
    ) -> None:
        self.scenes = tuple(scenes)
        self.parameters = dict(parameters)
        self.num_units = dict(sorted(num_units.items()))
        self._check()
        compiler = _Compiler()
        pairs = [compiler.scene(scene) for scene in self.scenes]
        self.starts: IntArray = np.array([start for start, _ in pairs], dtype=np.int64)
        self.boundaries: IntArray = np.array([boundary for _, boundary in pairs], dtype=np.int64)
        self.scene_probabilities: FloatArray = np.array([scene.probability for scene in self.scenes])
        self.symbols = tuple(compiler.symbols)
        self._arcs = compiler.arcs
        self._word_arcs: dict[int, dict[str, list[_Arc]]] = {}
        self._build_arrays()
        self._build_vocabulary()
        self._build_drawing_tables()
        self.sentence_starts = self._expected_sentence_starts()

    def _check(self) -> None:
        for what, total in (
            ("scene probabilities", sum(scene.probability for scene in self.scenes)),
            ("num_units probabilities", sum(self.num_units.values())),
        ):
            if abs(total - 1.0) > 1e-9:
                raise ValueError(f"the sum of {what} ({total}) must be 1; divide each by the sum.")
        if min(self.num_units) < 1:
            raise ValueError(f"num_units ({min(self.num_units)}) must be at least 1; drop the smaller keys.")

    def _build_arrays(self) -> None:
        rows = [(node, *arc) for node, arcs in enumerate(self._arcs) for arc in arcs]
        self.source: IntArray = np.array([row[0] for row in rows], dtype=np.int64)
        self.weight: FloatArray = np.array([row[1] for row in rows])
        self.symbol: IntArray = np.array([row[2] for row in rows], dtype=np.int64)
        self.target: IntArray = np.array([row[3] for row in rows], dtype=np.int64)

    def _build_vocabulary(self) -> None:
        slots = [symbol for symbol in self.symbols if isinstance(symbol, Slot)]
        found = {word for slot in slots for word, _ in slot.distribution}
        found.update(value for values in self.parameters.values() for value in values)
        self.vocabulary = tuple(sorted(found))
        self.word_numbers = {word: number for number, word in enumerate(self.vocabulary)}
        self.table: FloatArray = np.zeros((len(self.symbols), len(self.vocabulary)))
        for row, symbol in enumerate(self.symbols):
            if isinstance(symbol, Slot):
                for word, share in symbol.distribution:
                    self.table[row, self.word_numbers[word]] += share

    def _build_drawing_tables(self) -> None:
        # A cumulative table leaves out its last entry: whatever rounding does, the last alternative is then in reach.
        self._parameter_names = tuple(self.parameters)
        emitters: list[tuple[list[str] | int, list[float]]] = []
        for symbol in self.symbols:
            if isinstance(symbol, Slot):
                chosen = [word for word, _ in symbol.distribution]
                emitters.append((chosen, _cumulative([share for _, share in symbol.distribution])))
            else:
                emitters.append((self._parameter_names.index(symbol.name), []))
        self._drawing = [
            (_cumulative([arc[0] for arc in arcs]), [(*emitters[arc[1]], arc[2], arc[1]) for arc in arcs])
            for arcs in self._arcs
        ]
        self._scene_cumulative = _cumulative(self.scene_probabilities.tolist())
        self._unit_counts = list(self.num_units)
        self._unit_cumulative = _cumulative(list(self.num_units.values()))

    def _draw(self, generator: random.Random) -> tuple[int, list[str], list[int], list[int]]:
        """Scene number, words, symbol of each word, and the positions where a unit (or the opening) ends."""
        draw = generator.random
        scene = bisect_right(self._scene_cumulative, draw())
        values = [self.parameters[name][int(draw() * len(self.parameters[name]))] for name in self._parameter_names]
        remaining = self._unit_counts[bisect_right(self._unit_cumulative, draw())] + 1
        node, boundary = int(self.starts[scene]), int(self.boundaries[scene])
        drawing = self._drawing
        text: list[str] = []
        symbols: list[int] = []
        ends: list[int] = []
        while remaining:
            cumulative, arcs = drawing[node]
            emitter, thresholds, node, symbol = arcs[bisect_right(cumulative, draw())] if cumulative else arcs[0]
            if isinstance(emitter, int):
                text.append(values[emitter])
            else:
                text.append(emitter[bisect_right(thresholds, draw())] if thresholds else emitter[0])
            symbols.append(symbol)
            if node == boundary:
                remaining -= 1
                ends.append(len(text))
        return scene, text, symbols, ends

    def draw(self, generator: random.Random) -> list[str]:
        """The words of one story."""
        return self._draw(generator)[1]

    def draw_story(self, generator: random.Random) -> Story:
        """One story with roles; the words are those that `draw` gives from the same generator state."""
        scene, text, symbols, ends = self._draw(generator)
        units = [
            unit for unit, (begin, end) in enumerate(zip([0, *ends], ends, strict=False)) for _ in range(begin, end)
        ]
        return Story(self.scenes[scene].name, text, [self.symbols[symbol].role for symbol in symbols], units)

    def log_probability(self, text: Iterable[str]) -> float:
        """Log-probability of a whole story in nats; minus infinity for what the machine cannot write."""
        return self._forward(text, whole=True)

    def log_prefix_probability(self, text: Iterable[str]) -> float:
        """Log-probability in nats that a story begins with these words."""
        return self._forward(text, whole=False)

    def _forward(self, text: Iterable[str], *, whole: bool) -> float:
        # A state is (scene, node, finished units or -1 in the opening, values of the parameters named so far). A
        # parameter's value is drawn where it is first named, which is the same distribution as drawing it before.
        unbound: tuple[str | None, ...] = (None,) * len(self.parameters)
        states: dict[tuple[int, int, int, tuple[str | None, ...]], float] = {
            (scene, int(node), -1, unbound): float(self.scene_probabilities[scene])
            for scene, node in enumerate(self.starts)
        }
        log_scale = 0.0
        for word in text:
            following: dict[tuple[int, int, int, tuple[str | None, ...]], float] = defaultdict(float)
            for (scene, node, units, values), mass in states.items():
                boundary = self.boundaries[scene]
                going_on = 1.0 - self._stopping(units) if node == boundary else 1.0
                for share, target, bound in self._emissions(node, word, values):
                    finished = units + 1 if target == boundary else units
                    following[scene, target, finished, bound] += mass * going_on * share
            total = sum(following.values())
            if total <= 0.0:
                return -math.inf
            log_scale += math.log(total)
            states = {state: mass / total for state, mass in following.items() if mass > 0.0}
        if not whole:
            return log_scale + math.log(sum(states.values()))
        ending = sum(
            mass * self._stopping(units)
            for (scene, node, units, _), mass in states.items()
            if node == self.boundaries[scene]
        )
        return log_scale + math.log(ending) if ending > 0.0 else -math.inf

    def _stopping(self, units: int) -> float:
        """Probability that a story of at least this many finished units has no more."""
        at_least = sum(share for count, share in self.num_units.items() if count >= units)
        return self.num_units.get(units, 0.0) / at_least if at_least > 0.0 else 1.0

    def _emissions(
        self, node: int, word: str, values: tuple[str | None, ...]
    ) -> list[tuple[float, int, tuple[str | None, ...]]]:
        """Ways to write the word from the node: probability, target and the parameters' values afterwards."""
        ways = []
        for share, symbol_number, target in self._arcs_by_word(node).get(word, ()):
            symbol = self.symbols[symbol_number]
            if isinstance(symbol, Slot):
                ways.append((share, target, values))
                continue
            place = self._parameter_names.index(symbol.name)
            if values[place] is None:
                bound = (*values[:place], word, *values[place + 1 :])
                ways.append((share / len(self.parameters[symbol.name]), target, bound))
            elif values[place] == word:
                ways.append((share, target, values))
        return ways

    def _arcs_by_word(self, node: int) -> dict[str, list[_Arc]]:
        """The node's arcs by word; the probability of a slot's arc includes the word's own."""
        if node in self._word_arcs:
            return self._word_arcs[node]
        by_word: dict[str, list[_Arc]] = defaultdict(list)
        for probability, number, target in self._arcs[node]:
            symbol = self.symbols[number]
            if isinstance(symbol, Slot):
                for word, share in symbol.distribution:
                    by_word[word].append((probability * share, number, target))
            else:
                for word in self.parameters[symbol.name]:
                    by_word[word].append((probability, number, target))
        self._word_arcs[node] = dict(by_word)
        return self._word_arcs[node]

    @property
    def entropy(self) -> float:
        """Entropy of a story's derivation in nats.

        It is the story's own, exactly, when `ambiguity()` is None and every story names every parameter; otherwise the
        story's own is smaller.
        """
        slot_entropy = np.array([_entropy(symbol) for symbol in self.symbols])
        arc_cost = slot_entropy[self.symbol] - np.log(self.weight)
        choosing = sum(math.log(len(values)) for values in self.parameters.values())
        shares = [*self.scene_probabilities.tolist(), *self.num_units.values()]
        choosing -= sum(share * math.log(share) for share in shares if share > 0.0)
        return choosing + self._expected_along(arc_cost)

    @property
    def mean_words(self) -> float:
        """Expected number of words a story, punctuation counted."""
        return self._expected_along(np.ones(len(self.weight)))

    @property
    def mean_sentences(self) -> float:
        """Expected number of sentences a story."""
        is_end = np.array([isinstance(s, Slot) and s.distribution[0][0] == SENTENCE_END for s in self.symbols])
        return self._expected_along(is_end[self.symbol].astype(np.float64))

    def _expected_along(self, arc_cost: FloatArray) -> float:
        """Expected sum of a cost over the arcs of a story's derivation."""
        weighted: list[float] = (self.weight * arc_cost).tolist()
        totals = [0.0] * len(self._arcs)
        unit_totals = [0.0] * len(self._arcs)
        boundaries = set(self.boundaries.tolist())
        arc = 0
        # A node is numbered after the nodes it leads to, boundaries apart, whose total (what is still to come in the
        # unit) is zero on arrival.
        pending: list[tuple[int, int]] = []
        for node, arcs in enumerate(self._arcs):
            if node in boundaries:
                pending.append((node, arc))
            else:
                totals[node] = sum(weighted[arc + i] + a[0] * totals[a[2]] for i, a in enumerate(arcs))
            arc += len(arcs)
        for node, first in pending:
            unit_totals[node] = sum(weighted[first + i] + a[0] * totals[a[2]] for i, a in enumerate(self._arcs[node]))
        mean_units = sum(count * share for count, share in self.num_units.items())
        return sum(
            float(share) * (totals[int(start)] + mean_units * unit_totals[int(boundary)])
            for share, start, boundary in zip(self.scene_probabilities, self.starts, self.boundaries, strict=True)
        )

    def _expected_sentence_starts(self) -> FloatArray:
        visits = np.zeros(len(self._arcs))
        begins = np.zeros(len(self._arcs))
        for start, boundary in zip(self.starts.tolist(), self.boundaries.tolist(), strict=True):
            visits[boundary] = begins[boundary] = 1.0
            for node in (boundary, *range(start - 1, boundary, -1)):
                for probability, number, target in self._arcs[node]:
                    passing = visits[node] * probability
                    if target != boundary:
                        visits[target] += passing
                        symbol = self.symbols[number]
                        if isinstance(symbol, Slot) and symbol.distribution[0][0] == SENTENCE_END:
                            begins[target] += passing
        return begins

    def ambiguity(self) -> list[str] | None:
        """Words that two derivations write alike up to the point where a story could end; None if there are none.

        Walks the pairs of different nodes that one text can lead to (the product of the automaton with itself). When no
        such pair leads to a common end, no story has two derivations. The walk neither counts units nor ties a
        parameter's later values to its first one, so words that it returns might, in a grammar that leans on those, be
        no story's.
        """
        first = sorted(self.starts.tolist())
        frontier = [(a, b) for i, a in enumerate(first) for b in first[i + 1 :]]
        reached_by: dict[tuple[int, int], tuple[tuple[int, int], str] | None] = dict.fromkeys(frontier)
        diagonal = list(range(len(self._arcs)))
        scene_ends = set(self.boundaries.tolist())
        pending = [*frontier, *((node, node) for node in diagonal)]
        while pending:
            pair = pending.pop()
            for word, following, joined in self._common_steps(pair):
                ended = following[0] in scene_ends and following[1] in scene_ends
                if joined or (ended and following[0] != following[1]):
                    return [*self._spelled(pair, reached_by), word]
                if following[0] != following[1] and following not in reached_by:
                    reached_by[following] = (pair, word)
                    pending.append(following)
        return None

    def _common_steps(self, pair: tuple[int, int]) -> Iterable[tuple[str, tuple[int, int], bool]]:
        """Word, next pair, and whether two different derivations have met there."""
        left, right = self._arcs_by_word(pair[0]), self._arcs_by_word(pair[1])
        for word in left.keys() & right.keys():
            for i, (_, _, one) in enumerate(left[word]):
                for j, (_, _, other) in enumerate(right[word]):
                    if pair[0] != pair[1] or i < j:
                        yield word, (min(one, other), max(one, other)), one == other

    def _spelled(
        self, pair: tuple[int, int], reached_by: Mapping[tuple[int, int], tuple[tuple[int, int], str] | None]
    ) -> list[str]:
        spelled: list[str] = []
        step = reached_by.get(pair)
        while step is not None:
            pair, word = step
            spelled.append(word)
            step = reached_by.get(pair)
        return spelled[::-1]


def _cumulative(shares: list[float]) -> list[float]:
    return np.cumsum(shares)[:-1].tolist()


def _entropy(symbol: Slot | Parameter) -> float:
    if isinstance(symbol, Parameter):
        return 0.0
    return -sum(share * math.log(share) for _, share in symbol.distribution)
