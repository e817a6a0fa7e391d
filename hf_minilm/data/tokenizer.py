"""Tokenizers trained on a corpus, in the format that `AutoTokenizer` loads without any code."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from .document import Document

TokenizerKind = Literal["wordpiece", "bytelevel_bpe", "unigram"]


_ENCODER_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_DECODER_TOKENS = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
_LARGEST_AUTOMATIC_VOCABULARY = 16_000
_LARGEST_ALPHABET = 1_000  # characters beyond the most frequent ones become [UNK]
_CONTINUATION = "##"
_SPACE_MARK = "▁"
_SCORE_DECIMALS = 6
_OPENING = r"[¿¡(\[{«“‘]"
_CLOSING = r"[.,;:!?…)\]}»”%]"


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
) -> PreTrainedTokenizerBase:
    """Trains a tokenizer; the same documents give the same one, in any process.

    `wordpiece` and `unigram` are for encoders: [PAD] [UNK] [CLS] [SEP] [MASK] have the ids 0 to 4, text is NFC with
    its accents and case, words split at white space and punctuation (Devlin et al. 2019, arXiv 1810.04805), and a pair
    is `[CLS] A [SEP] B [SEP]` with token types 0 and 1. `bytelevel_bpe` is for decoders: <pad> <s> </s> have the ids 0
    to 2, a text is `<s> A`, and decoding restores every text exactly.

    Args:
        documents: The corpus, read once.
        kind: The algorithm.
        vocab_size: How many tokens, special ones included, or "auto" for what the corpus supports, at most 16000.
        lowercase: Whether to fold case; byte-level texts are then restored in lower case.
        max_length: The model's most positions, to which `truncation=True` cuts.

    Raises:
        ValueError: If the corpus supports fewer tokens than `vocab_size`, or its alphabet needs more.
    """
    if kind not in ("wordpiece", "bytelevel_bpe", "unigram"):
        raise ValueError(f"tokenizer.kind ({kind}) must be wordpiece, bytelevel_bpe or unigram; choose one of them.")
    limit = _LARGEST_AUTOMATIC_VOCABULARY if vocab_size == "auto" else vocab_size
    train = {"wordpiece": _train_wordpiece, "bytelevel_bpe": _train_bytelevel, "unigram": _train_unigram}[kind]
    trained = train((paragraph for document in documents for paragraph in document.paragraphs), limit, lowercase)
    if trained.get_vocab_size() <= len(_ENCODER_TOKENS):
        raise ValueError("words (0) must be at least 1 to train a tokenizer; give a corpus that has text.")
    if vocab_size != "auto":
        _check_size(vocab_size, trained.get_vocab_size())
    is_decoder = kind == "bytelevel_bpe"
    return PreTrainedTokenizerFast(
        tokenizer_object=trained,
        model_max_length=max_length,
        model_input_names=["input_ids", *([] if is_decoder else ["token_type_ids"]), "attention_mask"],
        clean_up_tokenization_spaces=False,
        **(_DECODER_TOKENS if is_decoder else _ENCODER_TOKENS),
    )


def load_tokenizer(folder_or_name: str | Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder or, by its name, from the Hub; never runs code that comes with it."""
    return AutoTokenizer.from_pretrained(str(folder_or_name), trust_remote_code=False)


def backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """Return the `tokenizers` object inside; raises TypeError where there is none."""
    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is None:
        raise TypeError(
            f"tokenizer ({type(tokenizer).__name__}) must have a `tokenizers` backend; save it with a tokenizer.json."
        )
    return inner


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


def token_bytes(tokenizer: PreTrainedTokenizerBase) -> NDArray[np.int64]:
    """Return the UTF-8 bytes of text that each token stands for, [vocab_size]; special tokens stand for none.

    A byte-level token counts its bytes, spaces included; with the other kinds spaces belong to no token, and neither
    the ## of WordPiece nor the ▁ of Unigram counts.
    """
    description = json.loads(backend(tokenizer).to_str())
    decoder = json.dumps(description["decoder"])
    lengths = np.zeros(len(tokenizer), np.int64)
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    for token, index in tokenizer.get_vocab().items():
        if token in special:
            continue
        if '"ByteLevel"' in decoder:
            lengths[index] = len(token)  # byte-level tokens are spelt with one character for each byte
        elif description["model"]["type"] == "WordPiece":
            lengths[index] = len(token.removeprefix(description["model"]["continuing_subword_prefix"]).encode())
        else:
            lengths[index] = len(token.replace(_SPACE_MARK, "").encode())
    return lengths


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


def _train_wordpiece(paragraphs: Iterator[str], limit: int, lowercase: bool) -> Tokenizer:
    tokenizer = _encoder(models.WordPiece(unk_token=_ENCODER_TOKENS["unk_token"]), [_bert_normalizer(lowercase)])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    counts = _word_counts(paragraphs, tokenizer)
    characters: Counter[str] = Counter()
    for word, count in counts.items():
        for character in word:
            characters[character] += count
    ranked = sorted(characters, key=lambda character: (-characters[character], character))
    alphabet = set(ranked[:_LARGEST_ALPHABET])
    words = sorted(word for word in counts if alphabet.issuperset(word))
    continuations = sorted({_CONTINUATION + character for word in words for character in word[1:]})
    # The trainer numbers continuing characters in the order of a hash table that differs from run to run, and breaks
    # ties by those numbers. Given beforehand, they have fixed numbers.
    trainer = trainers.WordPieceTrainer(
        vocab_size=limit,
        min_frequency=1,
        show_progress=False,
        special_tokens=[*_ENCODER_TOKENS.values(), *sorted(alphabet), *continuations],
        continuing_subword_prefix=_CONTINUATION,
    )
    learner = Tokenizer(models.WordPiece(unk_token=_ENCODER_TOKENS["unk_token"]))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    learner.train_from_iterator(_repeated(words, counts), trainer)
    tokenizer.model = models.WordPiece(
        learner.get_vocab(with_added_tokens=True),
        unk_token=_ENCODER_TOKENS["unk_token"],
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
    return _with_encoder_template(tokenizer)


def _word_counts(paragraphs: Iterator[str], tokenizer: Tokenizer) -> "Counter[str]":
    counts: Counter[str] = Counter()
    for paragraph in paragraphs:
        normalised = tokenizer.normalizer.normalize_str(paragraph)
        counts.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normalised))
    return counts


def _repeated(words: list[str], counts: "Counter[str]") -> Iterator[str]:
    """Iterate over texts in which each word stands as often as it was counted."""
    longest = 10_000
    for word in words:
        for done in range(0, counts[word], longest):
            yield f"{word} " * min(longest, counts[word] - done)


def _train_unigram(paragraphs: Iterator[str], limit: int, lowercase: bool) -> Tokenizer:
    unknown = _ENCODER_TOKENS["unk_token"]
    spaces = [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    tokenizer = _encoder(models.Unigram(), [_bert_normalizer(lowercase), *spaces])
    # A mark of punctuation is a word of its own, together with the space before it.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(_SPACE_MARK, prepend_scheme="always"),
            pre_tokenizers.Split(Regex(rf"{_SPACE_MARK}?[\p{{P}}\p{{S}}]"), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(_SPACE_MARK, prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=limit,
        show_progress=False,
        special_tokens=list(_ENCODER_TOKENS.values()),
        unk_token=unknown,
    )
    try:
        tokenizer.train_from_iterator(paragraphs, trainer)
    except Exception as error:  # the only class that the trainer raises
        if "not large enough" not in str(error):
            raise
        raise ValueError(
            f"tokenizer.vocab_size ({limit}) must hold the special tokens and the alphabet; "
            'give a larger one or write "auto".'
        ) from error
    pieces: list[tuple[str, float]] = json.loads(tokenizer.to_str())["model"]["vocab"]
    special, ordinary = pieces[: len(_ENCODER_TOKENS)], _reproducible(pieces[len(_ENCODER_TOKENS) :])
    tokenizer.model = models.Unigram(
        [*((piece, score) for piece, score in special), *ordinary], list(_ENCODER_TOKENS.values()).index(unknown)
    )
    return _with_encoder_template(tokenizer)


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


def _train_bytelevel(paragraphs: Iterator[str], limit: int, lowercase: bool) -> Tokenizer:
    special = list(_DECODER_TOKENS.values())
    tokenizer = Tokenizer(models.BPE())
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=limit,
        min_frequency=2,
        show_progress=False,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(paragraphs, trainer)
    begin = _DECODER_TOKENS["bos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A $B", special_tokens=[(begin, special.index(begin))]
    )
    return tokenizer


def _encoder(model: Any, normalizer: list[Any]) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), *normalizer])
    return tokenizer


def _bert_normalizer(lowercase: bool) -> normalizers.Normalizer:
    return normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=lowercase
    )


def _with_encoder_template(tokenizer: Tokenizer) -> Tokenizer:
    classify, separate = _ENCODER_TOKENS["cls_token"], _ENCODER_TOKENS["sep_token"]
    tokenizer.add_special_tokens(list(_ENCODER_TOKENS.values()))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{classify} $A {separate}",
        pair=f"{classify} $A {separate} $B:1 {separate}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (classify, separate)],
    )
    return tokenizer
