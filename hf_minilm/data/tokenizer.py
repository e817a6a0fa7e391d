"""Tokenizers trained on a corpus, in the format that `AutoTokenizer` loads without any code."""

import hashlib
import itertools
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ..one_line import one_line
from .document import Document
from .limits import part_long_words

TokenizerKind = Literal["wordpiece", "bytelevel_bpe", "unigram"]


@dataclass(frozen=True, slots=True)
class _Layout:
    """The special tokens of a tokenizer, in the order of their ids, and how they frame a text and a pair."""

    roles: dict[str, str]
    single: str
    pair: str
    has_token_types: bool = False
    sentinels: tuple[str, ...] = ()

    @property
    def tokens(self) -> list[str]:
        return [*self.roles.values(), *self.sentinels]

    def template(self) -> processors.TemplateProcessing:
        used = [token for token in self.roles.values() if token in self.pair]
        ids = [(token, self.tokens.index(token)) for token in used]
        return processors.TemplateProcessing(single=self.single, pair=self.pair, special_tokens=ids)


_ENCODER = _Layout(
    {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    },
    single="[CLS] $A [SEP]",
    pair="[CLS] $A [SEP] $B:1 [SEP]:1",
    has_token_types=True,
)
_DECODER = _Layout({"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}, single="<s> $A", pair="<s> $A $B")
_ENCODER_DECODER = _Layout(_DECODER.roles, single="$A </s>", pair="$A </s> $B </s>")
_UNKNOWN_OF_PAIRS = "<unk>"
_LARGEST_AUTOMATIC_VOCABULARY = 16_000
# Of a WordPiece: a word with a character beyond the alphabet is [UNK].
_SMALLEST_FULL_ALPHABET, _MOST_LEFT_OUT = 1_000, 1e-4
_LONGEST_WORDPIECE_WORD = 100  # characters, the default of `tokenizers`
# The trainer takes up to a minute and 180 MB for each million characters of different words; novels of 20 MB have 1.5.
_MOST_UNIGRAM_CHARACTERS = 2_000_000
# The trainer of BPE takes 65 MB for each million characters of them.
_LONG_WORD, _MOST_LONG_CHARACTERS = 100, 4_000_000
_logger = logging.getLogger(__name__)
_CONTINUATION = "##"
_SPACE_MARK = "▁"
_FALLBACK_BYTE = re.compile("<0x[0-9A-F]{2}>")
_LARGEST_FILE = 100 * 2**20  # bytes; that of a vocabulary of 256,000 has 33 million
_SCORE_DECIMALS = 6
_OPENING = r"[¿¡(\[{«“‘]"
_CLOSING = r"[.,;:!?…)\]}»”%]"


class UnknownTokenizerError(ValueError, TypeError):
    """A tokenizer is none of the `tokenizers` library."""


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The ids of a tokenizer's special tokens, None for those that its kind does not have.

    Attributes:
        pad: Fills the unused tail of a row.
        unknown: Stands for what the vocabulary cannot spell.
        classify: [CLS], the first token of an encoder's sequence.
        separate: [SEP], the last token of each segment.
        mask: [MASK], in place of a token to restore.
        begin: The first token of a decoder's document.
        end: The last token of a decoder's document.
        vocab_size: How many tokens there are, special ones included; ids are below it.
    """

    pad: int | None
    unknown: int | None
    classify: int | None
    separate: int | None
    mask: int | None
    begin: int | None
    end: int | None
    vocab_size: int


def train_tokenizer(
    documents: Iterable[Document],
    *,
    kind: TokenizerKind,
    vocab_size: int | Literal["auto"],
    lowercase: bool = False,
    max_length: int = 512,
    for_pairs: bool = False,
    num_sentinels: int = 0,
) -> PreTrainedTokenizerBase:
    """Trains a tokenizer; the same documents give the same one, in any process.

    `wordpiece` and `unigram` are for encoders: [PAD] [UNK] [CLS] [SEP] [MASK] have the ids 0 to 4, text is NFC with
    its accents and case, words split at white space and punctuation (Devlin et al. 2019, arXiv 1810.04805), and a pair
    is `[CLS] A [SEP] B [SEP]` with token types 0 and 1. `bytelevel_bpe` is for decoders: <pad> <s> </s> have the ids 0
    to 2, a text is `<s> A`, decoding restores every text exactly, and padding is on the left, for `generate`.

    With `for_pairs` it is for an encoder-decoder: <pad> <s> </s> have the ids 0 to 2 (`unigram` has <unk> as 3), a text
    is `A </s>` and a pair `A </s> B </s>`; the decoder's input begins with <s>, which the model puts there. Sentinels
    have the ids that follow.

    Args:
        documents: The corpus, read once.
        kind: The algorithm.
        vocab_size: How many tokens, special ones included, or "auto" for what the corpus supports, at most 16000.
        lowercase: Whether to fold case; byte-level texts are then restored in lower case.
        max_length: The model's most positions, to which `truncation=True` cuts.
        for_pairs: Whether the tokenizer is for an encoder-decoder; `wordpiece` cannot restore a text exactly enough.
        num_sentinels: How many special tokens `<extra_id_0>`, `<extra_id_1>` and so on stand for spans of text, see
            `sentinel_ids`; only with `for_pairs`.

    Raises:
        ValueError: If the corpus supports fewer tokens than `vocab_size`, its alphabet needs more, or the kind does
            not have what is asked for.
    """
    if kind not in ("wordpiece", "bytelevel_bpe", "unigram"):
        raise ValueError(f"tokenizer.kind ({kind}) must be wordpiece, bytelevel_bpe or unigram; choose one of them.")
    layout = _layout(kind, for_pairs=for_pairs, num_sentinels=num_sentinels)
    limit = _LARGEST_AUTOMATIC_VOCABULARY if vocab_size == "auto" else vocab_size
    train = {"wordpiece": _train_wordpiece, "bytelevel_bpe": _train_bytelevel, "unigram": _train_unigram}[kind]
    trained = train(
        (part_long_words(paragraph) for document in documents for paragraph in document.paragraphs),
        limit,
        lowercase,
        layout,
    )
    trained.post_processor = layout.template()
    if trained.get_vocab_size() <= len(layout.tokens):
        raise ValueError("words (0) must be at least 1 to train a tokenizer; give a corpus that has text.")
    if vocab_size != "auto":
        _check_size(vocab_size, trained.get_vocab_size())
    return PreTrainedTokenizerFast(
        tokenizer_object=trained,
        model_max_length=max_length,
        model_input_names=["input_ids", *(["token_type_ids"] if layout.has_token_types else []), "attention_mask"],
        clean_up_tokenization_spaces=False,
        padding_side="left" if layout is _DECODER else "right",  # what is written goes on at the end of each row
        **layout.roles,
        **({"extra_special_tokens": list(layout.sentinels)} if layout.sentinels else {}),
    )


def _layout(kind: TokenizerKind, *, for_pairs: bool, num_sentinels: int) -> _Layout:
    if num_sentinels < 0 or (num_sentinels and not for_pairs):
        rule = "at least 0" if num_sentinels < 0 else "0 but for a tokenizer of an encoder-decoder"
        raise ValueError(f"num_sentinels ({num_sentinels}) must be {rule}; 100 is usual, with for_pairs.")
    if not for_pairs:
        return _DECODER if kind == "bytelevel_bpe" else _ENCODER
    if kind == "wordpiece":
        raise ValueError(
            "tokenizer.kind (wordpiece) must restore what it splits to write targets; choose bytelevel_bpe or unigram."
        )
    unknown = {"unk_token": _UNKNOWN_OF_PAIRS} if kind == "unigram" else {}
    sentinels = tuple(map(_sentinel, range(num_sentinels)))
    return replace(_ENCODER_DECODER, roles=_ENCODER_DECODER.roles | unknown, sentinels=sentinels)


def _sentinel(number: int) -> str:
    return f"<extra_id_{number}>"  # T5's name


_TRIALS = ("a", *(character * 60 + end for character in "a0 -" for end in ("a", "!")))
"""Texts that a tokenizer is tried on when it is loaded: a pattern that takes exponential time, such as `(a+)+$`, meets
its limit in long runs of one character, and says so in half a second."""


def load_tokenizer(folder_or_name: str | Path, *, what: str = "tokenizer") -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder or, by its name, from the Hub; never runs code that comes with it.

    Args:
        folder_or_name: Where it is.
        what: What the user calls it, for errors.

    Raises:
        ValueError: If it cannot be read, or its ids are not those from 0 to one less than its size.
        OSError: If there is none.
    """
    _refuse_large_files(Path(folder_or_name))
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder_or_name), trust_remote_code=False)
        vocabulary, size = tokenizer.get_vocab(), len(tokenizer)
        for text in _TRIALS:
            tokenizer(text, "b")  # some parts are not looked at before a text comes
    except OSError as error:
        raise FileNotFoundError(
            f"{what} ({folder_or_name}) must be a folder with a tokenizer, or a Hub name that can be reached; correct "
            f"it ({one_line(error)})."
        ) from error
    except MemoryError:
        raise
    except BaseException as error:  # whatever a damaged file makes of any of the classes that read it
        # A panic of `tokenizers` derives from BaseException alone.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"{what} ({folder_or_name}) must be whole; save it again ({one_line(error)}).") from error
    backend(tokenizer)
    if set(vocabulary.values()) != set(range(size)) or len(vocabulary) != size or not size:
        raise ValueError(
            f"ids of the tokenizer ({folder_or_name}, {len(vocabulary)} tokens) must be 0 to {size - 1}, each once; "
            "make it anew."
        )
    return tokenizer


def _refuse_large_files(folder: Path) -> None:
    for path in folder.glob("*.json") if folder.is_dir() else ():
        if path.stat().st_size > _LARGEST_FILE:
            raise ValueError(
                f"file of the tokenizer ({path}) must have at most {_LARGEST_FILE:,} bytes; choose another."
            )


def refuse_other_tokenizer(tokenizer: PreTrainedTokenizerBase, saved: PreTrainedTokenizerBase, *, where: Path) -> None:
    """Raise ValueError where a model was trained with another tokenizer: its ids would mean other texts, or nothing."""
    if tokenizer_fingerprint(tokenizer) != tokenizer_fingerprint(saved):
        raise ValueError(
            f"tokenizer ({len(tokenizer)} tokens) must be the one that the model was trained with "
            f"({len(saved)} tokens, {where}); give that one back, or choose another output.folder."
        )


def backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """Return the `tokenizers` object inside; raises UnknownTokenizerError where there is none."""
    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is None:
        raise UnknownTokenizerError(
            f"tokenizer ({type(tokenizer).__name__}) must have a `tokenizers` backend; save it with a tokenizer.json."
        )
    return inner


def text_encoder(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """Return a copy of the `tokenizers` object inside that neither cuts nor pads, and takes all of a text for text.

    Otherwise a literal "[MASK]" or "<s>" in a text would be that special token.
    """
    encoder = Tokenizer.from_str(backend(tokenizer).to_str())
    encoder.no_truncation()
    encoder.no_padding()
    encoder.encode_special_tokens = True
    return encoder


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> SpecialTokens:
    """Return the ids of the special tokens."""
    return SpecialTokens(
        pad=tokenizer.pad_token_id,
        unknown=tokenizer.unk_token_id,
        classify=tokenizer.cls_token_id,
        separate=tokenizer.sep_token_id,
        mask=tokenizer.mask_token_id,
        begin=tokenizer.bos_token_id,
        end=tokenizer.eos_token_id,
        vocab_size=len(tokenizer),
    )


def begin_token(special: SpecialTokens) -> int:
    """Return the token that a causal model reads before a text, in training as later.

    It is the begin token or, for Qwen's tokenizer and others without one, the end token, which stands between two texts
    all the same. [CLS] serves an encoder's tokenizer, which has neither.

    Raises:
        ValueError: If there is none.
    """
    found = next((token for token in (special.begin, special.end, special.classify) if token is not None), None)
    if found is None:
        raise ValueError("the tokenizer's begin token (None) must exist for a causal model; set its bos_token.")
    return found


def token_bytes(tokenizer: PreTrainedTokenizerBase) -> NDArray[np.int64]:
    """Return the UTF-8 bytes of text that each token stands for, [vocab_size]; special tokens stand for none.

    A byte-level token counts its bytes, spaces included; with the other kinds spaces belong to no token, and neither
    the ▁ of Unigram counts nor what says that a word goes on or ends, such as ## and </w>. A token `<0xE2>` that others
    fall back to is one byte.
    """
    description = json.loads(backend(tokenizer).to_str())
    decoder, model = json.dumps(description["decoder"]), description["model"]
    before, after = (model.get(mark) or "" for mark in ("continuing_subword_prefix", "end_of_word_suffix"))
    lengths = np.zeros(len(tokenizer), np.int64)
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    for token, index in tokenizer.get_vocab().items():
        if token in special:
            continue
        piece = token.removeprefix(before).removesuffix(after)
        if '"ByteLevel"' in decoder:
            lengths[index] = len(piece)  # byte-level tokens are spelt with one character for each byte
        elif model.get("byte_fallback") and _FALLBACK_BYTE.fullmatch(token):
            lengths[index] = 1
        elif model["type"] == "WordPiece":
            lengths[index] = len(piece.encode())
        else:
            lengths[index] = len(piece.replace(_SPACE_MARK, "").encode())
    return lengths


def sentinel_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return the ids of the special tokens `<extra_id_0>`, `<extra_id_1>` and so on, in that order; maybe none."""
    special = {token.content: index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return tuple(
        special[token] for token in itertools.takewhile(special.__contains__, map(_sentinel, itertools.count()))
    )


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the SHA-256 of the tokenizer's serialised JSON, without the truncation and padding set for a call."""
    description = json.loads(backend(tokenizer).to_str())
    description.pop("truncation", None)
    description.pop("padding", None)
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def _check_size(requested: int, trained: int) -> None:
    if trained < requested:
        raise ValueError(
            f"tokenizer.vocab_size ({requested}) must not exceed what the corpus supports ({trained}); "
            'lower it, write "auto", or give more text.'
        )
    if trained > requested:
        raise ValueError(
            f"tokenizer.vocab_size ({requested}) must hold the special tokens and the alphabet; "
            f'give at least {trained} or write "auto".'
        )


def _train_wordpiece(paragraphs: Iterator[str], limit: int, lowercase: bool, layout: _Layout) -> Tokenizer:
    unknown = layout.roles["unk_token"]
    tokenizer = _normalising(models.WordPiece(unk_token=unknown), [_bert_normalizer(lowercase)])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    all_counts = _word_counts(paragraphs, tokenizer)
    # Longer ones are [UNK] to a WordPiece, whatever the vocabulary.
    counts = {word: count for word, count in all_counts.items() if len(word) <= _LONGEST_WORDPIECE_WORD}
    if all_counts and not counts:
        raise ValueError(
            f"words of at most {_LONGEST_WORDPIECE_WORD} characters (0) must be at least 1 to train a wordpiece "
            "tokenizer; choose tokenizer.kind unigram."
        )
    alphabet = _alphabet(counts, limit)
    words = sorted(word for word in counts if alphabet.issuperset(word))
    continuations = sorted({_CONTINUATION + character for word in words for character in word[1:]})
    # The trainer numbers continuing characters in the order of a hash table that differs from run to run, and breaks
    # ties by those numbers. Given beforehand, they have fixed numbers.
    trainer = trainers.WordPieceTrainer(
        vocab_size=limit,
        min_frequency=1,
        show_progress=False,
        special_tokens=[*layout.tokens, *sorted(alphabet), *continuations],
        continuing_subword_prefix=_CONTINUATION,
    )
    learner = Tokenizer(models.WordPiece(unk_token=unknown))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    learner.train_from_iterator(_repeated(words, counts), trainer)
    tokenizer.model = models.WordPiece(
        learner.get_vocab(with_added_tokens=True),
        unk_token=unknown,
        continuing_subword_prefix=_CONTINUATION,
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix=_CONTINUATION, cleanup=False),
            decoders.Fuse(),
            decoders.Replace(Regex(rf" (?={_CLOSING})"), ""),
            decoders.Replace(Regex(rf"(?<={_OPENING}) "), ""),
            decoders.Replace(Regex(r"(?<=\w) (?=['’] \w)"), ""),
            decoders.Replace(Regex(r"(?<=\w['’]) (?=\w)"), ""),
        ]
    )
    tokenizer.add_special_tokens(layout.tokens)
    return tokenizer


def _alphabet(counts: Mapping[str, int], limit: int) -> set[str]:
    """Choose the characters of a WordPiece: the 1,000 most frequent, and more where that leaves out more than a trace.

    The letters of Europe need no more, and the rest of such a text, a name in Arabic or a row of emoji, would take the
    place of words. Chinese has more than 1,000 characters on any page. They may take half of the vocabulary together,
    those that stand inside words twice, as continuations have tokens of their own.
    """
    characters: Counter[str] = Counter()
    inside: set[str] = set()
    for word, count in counts.items():
        for character in word:
            characters[character] += count
        inside.update(word[1:])
    ranked = sorted(characters, key=lambda character: (-characters[character], character))
    left_out, num_tokens = characters.total(), 0
    for number, character in enumerate(ranked):
        num_tokens += 1 + (character in inside)
        is_full = left_out <= _MOST_LEFT_OUT * characters.total() or num_tokens > limit // 2
        if number >= _SMALLEST_FULL_ALPHABET and is_full:
            return set(ranked[:number])
        left_out -= characters[character]
    return set(ranked)


def _word_counts(paragraphs: Iterator[str], tokenizer: Tokenizer) -> "Counter[str]":
    counts: Counter[str] = Counter()
    for paragraph in paragraphs:
        normalised = tokenizer.normalizer.normalize_str(paragraph)
        counts.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normalised))
    return counts


def _repeated(words: Iterable[str], counts: Mapping[str, int]) -> Iterator[str]:
    """Iterate over texts in which each word stands as often as it was counted."""
    longest = 10_000
    for word in words:
        for done in range(0, counts[word], longest):
            yield f"{word} " * min(longest, counts[word] - done)


def _train_unigram(paragraphs: Iterator[str], limit: int, lowercase: bool, layout: _Layout) -> Tokenizer:
    unknown, special = layout.roles["unk_token"], layout.tokens
    spaces = [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    # An encoder-decoder has to write what it reads, and Chinese has no spaces.
    normalizer = _bert_normalizer(lowercase, parts_ideographs=layout is _ENCODER)
    tokenizer = _normalising(models.Unigram(), [normalizer, *spaces])
    # A mark of punctuation is a word of its own, together with the space before it. That of the space is a symbol too.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(_SPACE_MARK, prepend_scheme="always"),
            pre_tokenizers.Split(Regex(rf"{_SPACE_MARK}?[\p{{P}}\p{{S}}&&[^{_SPACE_MARK}]]"), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(_SPACE_MARK, prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=limit,
        show_progress=False,
        special_tokens=special,
        unk_token=unknown,
    )
    counts = _most_frequent(_word_counts(paragraphs, tokenizer))
    learner = Tokenizer(models.Unigram())
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    try:
        learner.train_from_iterator(_repeated(sorted(counts), counts), trainer)
    except Exception as error:  # the only class that the trainer raises
        if "not large enough" not in str(error):
            raise
        raise ValueError(
            f"tokenizer.vocab_size ({limit}) must hold the special tokens and the alphabet; "
            'give a larger one or write "auto".'
        ) from error
    pieces: list[tuple[str, float]] = json.loads(learner.to_str())["model"]["vocab"]
    framing, ordinary = pieces[: len(special)], _reproducible(pieces[len(special) :])
    tokenizer.model = models.Unigram([*((piece, score) for piece, score in framing), *ordinary], special.index(unknown))
    tokenizer.add_special_tokens(special)
    return tokenizer


def _most_frequent(counts: "Counter[str]") -> dict[str, int]:
    """Leave out the rarest words if all are too many to learn from, but none of their characters."""
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    total = itertools.accumulate(map(len, ranked))
    number = sum(1 for characters in total if characters <= _MOST_UNIGRAM_CHARACTERS)
    if number == len(ranked):
        return counts
    _logger.warning(
        "A unigram tokenizer learns from at most %s characters of different words: %s words of %s, the rarest, are "
        "left out.",
        f"{_MOST_UNIGRAM_CHARACTERS:,}",
        f"{len(ranked) - number:,}",
        f"{len(ranked):,}",
    )
    kept = {word: counts[word] for word in ranked[:number]}
    missing = set().union(*ranked[number:]) - set().union(*kept)
    return kept | dict.fromkeys(missing, 1)


def _reproducible(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Remove from Unigram scores and their order what differs from run to run.

    The trainer walks hash tables: sums differ in their last digits, pieces of equal score change places, and the
    characters that no estimate was made for get the lowest score plus 0.0001 for each one before. Here those all get
    the lowest score.
    """
    lowest = min((score for _, score in pieces), default=0.0)
    step = 0.0001 * (sum(len(piece) == 1 for piece, _ in pieces) + 1)
    rounded = [
        (piece, round(lowest if len(piece) == 1 and score < lowest + step else score, _SCORE_DECIMALS))
        for piece, score in pieces
    ]
    return sorted(rounded, key=lambda entry: (-entry[1], entry[0]))


def _train_bytelevel(paragraphs: Iterator[str], limit: int, lowercase: bool, layout: _Layout) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=limit,
        min_frequency=2,
        show_progress=False,
        special_tokens=layout.tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(_with_few_long_words(paragraphs), trainer)
    return tokenizer


def _with_few_long_words(paragraphs: Iterator[str]) -> Iterator[str]:
    """Leave out long words, which base64 and the like have without end, after the first few million characters."""
    left, left_out = _MOST_LONG_CHARACTERS, 0
    for paragraph in paragraphs:
        words = paragraph.split()
        long = [len(word) for word in words if len(word) > _LONG_WORD]
        if sum(long) <= left:
            left -= sum(long)
            yield paragraph
        else:
            left_out += len(long)
            yield " ".join(word for word in words if len(word) <= _LONG_WORD)
    if left_out:
        _logger.warning(
            "A bytelevel_bpe tokenizer learns from at most %s characters of words of over %s: %s such are left out.",
            f"{_MOST_LONG_CHARACTERS:,}",
            _LONG_WORD,
            f"{left_out:,}",
        )


def _normalising(model: Any, normalizer: list[Any]) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), *normalizer])
    return tokenizer


def _bert_normalizer(lowercase: bool, *, parts_ideographs: bool = True) -> normalizers.Normalizer:
    return normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=parts_ideographs, strip_accents=False, lowercase=lowercase
    )
