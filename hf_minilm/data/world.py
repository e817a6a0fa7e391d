"""The built-in corpus: short stories, in Spanish and English, whose probabilities are known exactly.

A story names its two characters, a woman and a man, and its place in the opening, so language, topic, lead (the
character named first) and names are all settled there. Then follow 5 to 8 units, drawn independently given those:
sentences whose verb or adjective agrees with a head noun across 0, 1 or 2 other nouns, pronouns and reflexives that
agree with a name, sentences about the lead that leave the name out, words with two senses, gifts. A story is one
paragraph.

No two derivations write the same story, so the entropy is that of the derivations, a finite sum. A model's loss in
nats a story cannot, in expectation, go below it.
"""

import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from . import world_lexicon as lexicon
from .best_prediction import MASK, BestPredictor, Channel, Segment, SegmentLaw
from .document import Document
from .story_machine import StoryMachine
from .world_grammar import scenes
from .world_probes import PHENOMENA, Probe, draw_probes

LANGUAGES = ("es", "en")
SPLITS = ("train", "validation")

_NAMES = {"es": lexicon.SPANISH_NAMES, "en": lexicon.ENGLISH_NAMES}
_NUM_UNITS = {5: 0.25, 6: 0.25, 7: 0.25, 8: 0.25}
_WORD = re.compile(r"[^\W\d_]+|\S")
_SPACE_BEFORE_POINT = re.compile(r" (?=[.,])")
_LECTURE_LINES = (
    ("es", "El perro que perseguía al gato que vive en la otra cuadra [MASK]."),
    ("es", "María vio a Juan. [MASK] lo saludó."),
    ("en", "The keys to the cabinet [MASK] old."),
)


def check_split(split: str) -> None:
    """Raises ValueError for a part that no corpus has."""
    if split not in SPLITS:
        raise ValueError(f"split ({split}) must be train or validation; choose one of them.")


def words(text: str) -> list[str]:
    """The words of a text: each longest run of letters, and every other character that is not a space."""
    return _WORD.findall(text)


def text_of(story: Sequence[str]) -> str:
    """The text of words: spaces between words, none before a comma or a full stop. `words` takes it apart again."""
    return _SPACE_BEFORE_POINT.sub("", " ".join(story))


@dataclass(frozen=True, slots=True)
class LectureExample:
    """A line with one word masked, and the probability of each word that may stand there, the line seen by itself."""

    language: str
    text: str
    acceptable: dict[str, float]


class World:
    """The distribution of stories, equally likely to be in each language.

    Args:
        languages: "es", "en" or both.
        seed: stories are a pure function of seed, split and number.

    Raises:
        ValueError: a language is unknown, given twice, or none is given.
    """

    def __init__(self, languages: Sequence[str] = LANGUAGES, *, seed: int = 0) -> None:
        if not languages or len(set(languages)) < len(languages) or not set(languages) <= set(LANGUAGES):
            raise ValueError(f"languages ({', '.join(languages)}) must be some of es, en, each once; name one or both.")
        self.languages = tuple(languages)
        self.seed = seed
        self.machines = {
            language: StoryMachine(scenes(language), parameters=_NAMES[language], num_units=_NUM_UNITS)
            for language in self.languages
        }

    def documents(self, num_documents: int, *, split: str = "train") -> Iterator[Document]:
        """The first stories of a split, the same however many are asked for. Splits are independent draws.

        Raises:
            ValueError: the split is neither "train" nor "validation", or the number is negative.
        """
        check_split(split)
        if num_documents < 0:
            raise ValueError(f"num_documents ({num_documents}) must be at least 0; give the number of stories wanted.")
        return (self._document(split, number) for number in range(num_documents))

    def _document(self, split: str, number: int) -> Document:
        # random.Random promises the same draws from the same seed in every version of Python.
        generator = random.Random(f"{self.seed}:{split}:{number}")
        language = self.languages[int(generator.random() * len(self.languages))]
        story = self.machines[language].draw(generator)
        return Document((text_of(story),), f"world:{language}:{split}:{number}")

    @cached_property
    def entropy(self) -> float:
        """Entropy of a story in nats, exact."""
        return math.log(len(self.languages)) + self._mean([machine.entropy for machine in self.machines.values()])

    @cached_property
    def mean_words(self) -> float:
        """Expected number of words a story, punctuation counted."""
        return self._mean([machine.mean_words for machine in self.machines.values()])

    @cached_property
    def mean_sentences(self) -> float:
        """Expected number of sentences a story."""
        return self._mean([machine.mean_sentences for machine in self.machines.values()])

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """All words, sorted; a word with a capital is another word than the one without."""
        return tuple(sorted({word for machine in self.machines.values() for word in machine.vocabulary}))

    def _mean(self, numbers: list[float]) -> float:
        return sum(numbers) / len(numbers)

    def log_probability(self, document: Document | str) -> float:
        """Log-probability of a whole story in nats; minus infinity for a text that is not one."""
        return self._log_sum(document.text if isinstance(document, Document) else document, whole=True)

    def log_prefix_probability(self, text: str) -> float:
        """Log-probability in nats that a story begins with this text; minus infinity if none does."""
        return self._log_sum(text.rstrip(" "), whole=False)

    def _log_sum(self, text: str, *, whole: bool) -> float:
        story = words(text)
        if text_of(story) != text:
            return -math.inf
        logs = [
            machine.log_probability(story) if whole else machine.log_prefix_probability(story)
            for machine in self.machines.values()
        ]
        largest = max(logs)
        if largest == -math.inf:
            return largest
        return largest + math.log(sum(math.exp(log - largest) for log in logs) / len(logs))

    def best_predictor(self, channel: Channel, *, law: SegmentLaw | None = None) -> BestPredictor:
        """The best predictor of masked words and of the next sentence on this corpus.

        Args:
            channel: how words were corrupted.
            law: how segments were cut out; by default each segment of a story begins at any of its sentences alike, and
                the last one may be cut off anywhere.
        """
        opening = 1.0 / self.mean_sentences
        machines = [(machine, 1.0 / len(self.machines)) for machine in self.machines.values()]
        return BestPredictor(machines, channel, law=law or SegmentLaw(first_opens=opening, second_opens=opening))

    def agreement_probes(self, number: int, *, seed: int = 0) -> list[Probe]:
        """Minimal pairs of number agreement between subject and verb; see `probes`."""
        return self.probes("number_agreement", number, seed=seed)

    def probes(self, phenomenon: str, number: int, *, seed: int = 0) -> list[Probe]:
        """Minimal pairs of one phenomenon (a key of `PHENOMENA`), spread evenly over languages, distances and answers.

        Each stands in a story from its opening on: the prefix is how a story may begin, the good word may follow and
        the bad one never does. Stories are drawn independently of the splits'.

        Raises:
            ValueError: the phenomenon is unknown, or none of the languages has it.
        """
        if phenomenon not in PHENOMENA:
            raise ValueError(f"phenomenon ({phenomenon}) must be one of {', '.join(PHENOMENA)}; choose one of them.")
        languages = [language for language in self.languages if language in PHENOMENA[phenomenon].languages]
        if not languages:
            raise ValueError(f"{phenomenon} needs one of {PHENOMENA[phenomenon].languages}; add it to the languages.")
        generator = random.Random(f"{self.seed}:{phenomenon}:{seed}")
        return draw_probes(self.machines, phenomenon, number, languages=languages, generator=generator)

    @cached_property
    def lecture_examples(self) -> tuple[LectureExample, ...]:
        """Lines whose masked word is settled by words at a distance; those in the world's languages."""
        only_masks = Channel(vocabulary_size=1, random=0.0)
        law = SegmentLaw(first_opens=0.0, second_opens=0.0, cut=False)
        examples = []
        for language, text in _LECTURE_LINES:
            if language in self.languages:
                before, after = text.split(MASK)
                position = len(words(before))
                segment = Segment((*words(before), MASK, *words(after)), (position,), (MASK,))
                shares = self.best_predictor(only_masks, law=law).distribution(segment, position)
                examples.append(LectureExample(language, text, dict(sorted(shares.items(), key=lambda item: -item[1]))))
        return tuple(examples)
