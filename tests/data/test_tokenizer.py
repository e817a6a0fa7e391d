import hashlib
import json
import os
import random
import subprocess
import sys
from collections import Counter

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from hf_minilm.data import tokenizer as tokenizer_module
from hf_minilm.data.document import Document
from hf_minilm.data.documentation import installed_documentation
from hf_minilm.data.tokenizer import (
    SpecialTokens,
    _most_frequent,
    begin_token,
    load_tokenizer,
    sentinel_ids,
    special_tokens,
    token_bytes,
    tokenizer_fingerprint,
    train_tokenizer,
)
from hf_minilm.data.world import World

KINDS = ("wordpiece", "bytelevel_bpe", "unigram")
ENCODERS = ("wordpiece", "unigram")
ENCODER_DECODERS = ("bytelevel_bpe", "unigram")
PROSE = (
    "«¿Qué tal estás?», preguntó María (la vecina): el pingüino don't care about its coração.",
    "El niño comió pan; la niña, también. «¡Qué rico!», dijo el niño. ¿Y tú? It's the baker's bread.",
)


def prose_documents():
    return [Document(PROSE, f"prose:{number}") for number in range(3)]


@pytest.fixture(scope="module")
def documents():
    return [*World(("es", "en")).documents(300), *prose_documents()]


@pytest.fixture(scope="module")
def tokenizers(documents):
    return {kind: train_tokenizer(documents, kind=kind, vocab_size="auto", max_length=77) for kind in KINDS}


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoders_special_tokens_have_the_first_five_ids_and_frame_a_pair_with_types_0_and_1(tokenizers, kind):
    tokenizer = tokenizers[kind]
    special = special_tokens(tokenizer)
    assert (special.pad, special.unknown, special.classify, special.separate, special.mask) == (0, 1, 2, 3, 4)
    assert (special.begin, special.end, special.vocab_size) == (None, None, len(tokenizer))
    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in PROSE)
    pair = tokenizer(*PROSE)
    assert list(pair) == ["input_ids", "token_type_ids", "attention_mask"]
    assert pair["input_ids"] == [2, *first, 3, *second, 3]
    assert pair["token_type_ids"] == [0] * (len(first) + 2) + [1] * (len(second) + 1)


def test_a_decoders_special_tokens_have_the_first_three_ids_and_a_text_begins_with_the_begin_token(tokenizers):
    tokenizer = tokenizers["bytelevel_bpe"]
    special = special_tokens(tokenizer)
    assert (special.pad, special.begin, special.end) == (0, 1, 2)
    assert (special.unknown, special.classify, special.separate, special.mask) == (None,) * 4
    encoded = tokenizer("Hola")
    assert encoded["input_ids"][0] == 1
    assert 2 not in encoded["input_ids"]
    assert list(encoded) == ["input_ids", "attention_mask"]


@pytest.mark.parametrize("text", ["", " a  b\n\n\tc ", "日本 🙂 naïve e\u0301 <pad>", "\x00\x7f", *PROSE])
def test_a_byte_level_tokenizer_restores_every_text_and_its_tokens_bytes_add_up(tokenizers, text):
    tokenizer = tokenizers["bytelevel_bpe"]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert token_bytes(tokenizer)[ids].sum() == len(text.replace("<pad>", "").encode())


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_restores_spelling_accents_and_the_spaces_around_punctuation(tokenizers, kind):
    for text in PROSE:
        assert tokenizers[kind].decode(tokenizers[kind](text)["input_ids"], skip_special_tokens=True) == text


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoders_token_bytes_are_those_of_the_text_without_its_spaces(tokenizers, kind):
    sizes = token_bytes(tokenizers[kind])
    assert sizes.shape == (len(tokenizers[kind]),)
    assert not sizes[:5].any()
    for text in PROSE:
        assert sizes[tokenizers[kind](text)["input_ids"]].sum() == len(text.replace(" ", "").encode())


@pytest.mark.parametrize("is_byte_level", [True, False])
def test_what_says_that_a_word_goes_on_or_ends_is_no_text(is_byte_level):
    pieces = {"ñ": 0, "a</w>": 1, "@@b": 2, "@@ñ</w>": 3, "</w>": 4, "b": 5}
    marks = {"end_of_word_suffix": "</w>", "continuing_subword_prefix": "@@"}
    inner = Tokenizer(models.BPE(pieces, [], **marks))
    if is_byte_level:
        inner.decoder = decoders.ByteLevel()
    letter = 1 if is_byte_level else 2
    assert token_bytes(PreTrainedTokenizerFast(tokenizer_object=inner)).tolist() == [letter, 1, 1, letter, 0, 1]


@pytest.mark.parametrize("falls_back", [True, False])
def test_a_byte_that_others_fall_back_to_counts_one(falls_back):
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁the", "ñ"]
    inner = Tokenizer(models.BPE({piece: place for place, piece in enumerate(pieces)}, [], byte_fallback=falls_back))
    inner.add_special_tokens(["<unk>"])
    sizes = token_bytes(PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>"))
    if falls_back:
        ids = inner.encode("日ñ🙂").ids
        assert sizes[ids].sum() == len("日ñ🙂".encode())
    assert sizes[[0, 1, 257, 258, 259]].tolist() == [0, 1 if falls_back else 6, 0, 3, 2]


def test_every_word_of_a_small_closed_vocabulary_becomes_one_token():
    world = World(("es", "en"))
    tokenizer = train_tokenizer(world.documents(3000), kind="wordpiece", vocab_size="auto")
    split = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str
    seen = {word for document in world.documents(3000) for word, _ in split(document.text)}
    words = seen.intersection(world.vocabulary)
    assert len(words) > 0.9 * len(world.vocabulary)
    assert [word for word in words if len(tokenizer.tokenize(word)) != 1] == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_tokenizer_comes_back_from_auto_tokenizer_the_same(tokenizers, kind, tmp_path):
    tokenizer = tokenizers[kind]
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert type(loaded) is type(tokenizer)
    assert tokenizer_fingerprint(loaded) == tokenizer_fingerprint(tokenizer)
    assert special_tokens(loaded) == special_tokens(tokenizer)
    assert loaded.model_max_length == 77
    assert loaded.model_input_names == tokenizer.model_input_names
    assert loaded(*PROSE) == tokenizer(*PROSE)


def test_decoders_are_padded_on_the_left_where_nothing_is_to_be_written(tokenizers):
    for kind, tokenizer in tokenizers.items():
        assert tokenizer.padding_side == ("left" if kind == "bytelevel_bpe" else "right")


def test_the_fingerprint_ignores_the_truncation_and_padding_of_earlier_calls(tokenizers):
    before = tokenizer_fingerprint(tokenizers["wordpiece"])
    tokenizers["wordpiece"](list(PROSE), truncation=True, max_length=9, padding="max_length")
    assert tokenizer_fingerprint(tokenizers["wordpiece"]) == before


def test_training_gives_the_same_tokenizer_in_every_process():
    program = (
        "from hf_minilm.data.tokenizer import *; from hf_minilm.data.world import World\n"
        "for kind in ('wordpiece', 'bytelevel_bpe', 'unigram'):\n"
        "  print(tokenizer_fingerprint(train_tokenizer(World().documents(200), kind=kind, vocab_size='auto')))"
    )
    here = [
        tokenizer_fingerprint(train_tokenizer(World().documents(200), kind=kind, vocab_size="auto")) for kind in KINDS
    ]
    environment = os.environ | {"PYTHONHASHSEED": "7", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == here


@pytest.mark.parametrize(("kind", "size"), [("wordpiece", 333), ("bytelevel_bpe", 333), ("unigram", 200)])
def test_a_requested_size_is_met_exactly(documents, kind, size):
    assert len(train_tokenizer(documents, kind=kind, vocab_size=size)) == size


@pytest.mark.parametrize("kind", KINDS)
def test_a_size_beyond_the_corpus_is_refused_and_the_supported_one_is_named(kind):
    supported = len(train_tokenizer(prose_documents(), kind=kind, vocab_size="auto"))
    message = rf"tokenizer.vocab_size \(9999\) must not exceed what the corpus supports \({supported}\)"
    with pytest.raises(ValueError, match=message):
        train_tokenizer(prose_documents(), kind=kind, vocab_size=9999)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 20])
def test_a_size_too_small_for_the_alphabet_is_refused(kind, size):
    with pytest.raises(ValueError, match=rf"tokenizer.vocab_size \({size}\) must hold"):
        train_tokenizer(prose_documents(), kind=kind, vocab_size=size)


@pytest.mark.parametrize("kind", KINDS)
def test_a_corpus_without_text_is_refused_or_gives_only_the_alphabet(kind):
    if kind == "bytelevel_bpe":
        assert len(train_tokenizer([], kind=kind, vocab_size="auto")) == 3 + 256
    else:
        with pytest.raises(ValueError, match=r"words \(0\) must be at least 1"):
            train_tokenizer([], kind=kind, vocab_size="auto")


@pytest.mark.parametrize("kind", ENCODERS)
def test_case_is_folded_on_request_and_accents_stay(documents, kind):
    tokenizer = train_tokenizer(documents, kind=kind, vocab_size="auto", lowercase=True)
    assert tokenizer.decode(tokenizer("MARÍA")["input_ids"], skip_special_tokens=True) == "maría"


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"tokenizer.kind \(bpe\) must be"):
        train_tokenizer([], kind="bpe", vocab_size="auto")


@pytest.fixture(scope="module")
def pair_tokenizers(documents):
    return {
        kind: train_tokenizer(documents, kind=kind, vocab_size=500, max_length=77, for_pairs=True, num_sentinels=12)
        for kind in ENCODER_DECODERS
    }


@pytest.mark.parametrize("kind", ENCODER_DECODERS)
def test_an_encoder_decoders_texts_end_with_the_end_token_and_have_no_types(pair_tokenizers, kind):
    tokenizer = pair_tokenizers[kind]
    special = special_tokens(tokenizer)
    assert (special.pad, special.begin, special.end, special.vocab_size) == (0, 1, 2, 500)
    assert special.unknown == (3 if kind == "unigram" else None)
    assert (special.classify, special.separate, special.mask) == (None,) * 3
    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in PROSE)
    assert tokenizer(PROSE[0]) == {"input_ids": [*first, 2], "attention_mask": [1] * (len(first) + 1)}
    assert tokenizer(*PROSE)["input_ids"] == [*first, 2, *second, 2]
    assert list(tokenizer(*PROSE)) == ["input_ids", "attention_mask"]


@pytest.mark.parametrize("kind", ENCODER_DECODERS)
def test_an_encoder_decoder_restores_a_text_and_its_tokens_bytes_add_up(pair_tokenizers, kind):
    tokenizer = pair_tokenizers[kind]
    sizes = token_bytes(tokenizer)
    for text in PROSE:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        counted = text if kind == "bytelevel_bpe" else text.replace(" ", "")
        assert sizes[ids].sum() == len(counted.encode())
    assert not sizes[list(sentinel_ids(tokenizer))].any()


@pytest.mark.parametrize("kind", ENCODER_DECODERS)
def test_sentinels_are_special_tokens_in_order_and_survive_saving(pair_tokenizers, kind, tmp_path):
    tokenizer = pair_tokenizers[kind]
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    first = 4 if kind == "unigram" else 3
    assert tokenizer_fingerprint(loaded) == tokenizer_fingerprint(tokenizer)
    assert loaded(*PROSE) == tokenizer(*PROSE)
    for each in (tokenizer, loaded):
        assert sentinel_ids(each) == tuple(range(first, first + 12))
        assert each.convert_tokens_to_ids([f"<extra_id_{number}>" for number in range(12)]) == list(sentinel_ids(each))
        ids = [*each("El niño", add_special_tokens=False)["input_ids"], *sentinel_ids(each), 2]
        assert each.decode(ids, skip_special_tokens=True) == "El niño"
        assert each("<extra_id_11>")["input_ids"][-2:] == [first + 11, 2]
        assert "<extra_id_7>" in each.all_special_tokens or "<extra_id_7>" in each.extra_special_tokens


def test_tokenizers_without_sentinels_have_none(tokenizers, documents):
    assert [sentinel_ids(tokenizer) for tokenizer in tokenizers.values()] == [()] * 3
    for kind in ENCODER_DECODERS:
        assert sentinel_ids(train_tokenizer(documents, kind=kind, vocab_size=400, for_pairs=True)) == ()


def test_training_for_pairs_gives_the_same_tokenizer_in_every_process(documents):
    program = (
        "from hf_minilm.data.tokenizer import *; from hf_minilm.data.world import World\n"
        "for kind in ('bytelevel_bpe', 'unigram'):\n"
        "  print(tokenizer_fingerprint(train_tokenizer(World().documents(200), kind=kind, vocab_size='auto',"
        " for_pairs=True, num_sentinels=3)))"
    )
    here = [
        tokenizer_fingerprint(
            train_tokenizer(World().documents(200), kind=kind, vocab_size="auto", for_pairs=True, num_sentinels=3)
        )
        for kind in ENCODER_DECODERS
    ]
    environment = os.environ | {"PYTHONHASHSEED": "7", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == here


def test_what_a_kind_does_not_have_is_refused():
    with pytest.raises(
        ValueError, match=r"tokenizer.kind \(wordpiece\) must restore .*; choose bytelevel_bpe or unigram"
    ):
        train_tokenizer([], kind="wordpiece", vocab_size="auto", for_pairs=True)
    with pytest.raises(ValueError, match=r"num_sentinels \(3\) must be 0 but for a tokenizer of an encoder-decoder"):
        train_tokenizer([], kind="bytelevel_bpe", vocab_size="auto", num_sentinels=3)
    with pytest.raises(ValueError, match=r"num_sentinels \(-1\) must be at least 0"):
        train_tokenizer([], kind="bytelevel_bpe", vocab_size="auto", for_pairs=True, num_sentinels=-1)
    with pytest.raises(ValueError, match=r"tokenizer.vocab_size \(300\) must hold the special tokens"):
        train_tokenizer(prose_documents(), kind="bytelevel_bpe", vocab_size=300, for_pairs=True, num_sentinels=100)


def test_a_unigram_learns_from_the_most_frequent_words_and_all_characters(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("hf_minilm.data.tokenizer._MOST_UNIGRAM_CHARACTERS", 60)
    rare = [f"{chr(number)}rare{chr(number)}" for number in range(0x3B1, 0x3C9)]
    texts = [*["the house and the garden of the sea"] * 20, *rare]
    few = train_tokenizer((Document((text,), "text") for text in texts), kind="unigram", vocab_size="auto")
    assert "words of 30, the rarest, are left out" in caplog.text
    kept = _most_frequent(Counter({"rare": 1, "the": 60, "house": 20, "seldom": 1} | {"x" * 50: 2}))
    assert kept == {"the": 60, "house": 20, "x" * 50: 2, **dict.fromkeys("adlmr", 1)}
    assert few.unk_token_id not in few(" ".join(texts)).input_ids
    caplog.clear()
    monkeypatch.undo()
    train_tokenizer((Document((text,), "text") for text in texts), kind="unigram", vocab_size="auto")
    assert caplog.text == ""


def test_a_bytelevel_bpe_learns_from_few_long_words_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("hf_minilm.data.tokenizer._MOST_LONG_CHARACTERS", 300)
    texts = [f"before {chr(97 + number) * 120} after" for number in range(8)]
    tokenizer = train_tokenizer((Document((text,), "text") for text in texts), kind="bytelevel_bpe", vocab_size="auto")
    assert "6 such are left out" in caplog.text
    assert len(tokenizer("a" * 120).input_ids) < len(tokenizer("g" * 120).input_ids)
    assert tokenizer.decode(tokenizer("g" * 120).input_ids, skip_special_tokens=True) == "g" * 120
    assert {"before", "Ġafter"} <= tokenizer.get_vocab().keys()


def test_a_space_is_no_token_of_its_own_to_a_unigram() -> None:
    tokenizer = train_tokenizer(World(("es", "en")).documents(200), kind="unigram", vocab_size="auto")
    assert tokenizer.tokenize("El perro, la casa.") == ["▁El", "▁perro", ",", "▁la", "▁casa", "."]


IDEOGRAPHS = [chr(0x4E00 + number) for number in range(1_500)]


def ideographic_documents():
    """Make texts in which each of 1,500 ideographs stands 20 times."""
    mixed = IDEOGRAPHS * 20
    random.Random(0).shuffle(mixed)
    return [Document(("".join(mixed[first : first + 30]) + "。",), "text") for first in range(0, len(mixed), 30)]


def test_a_wordpiece_of_16000_has_each_of_1500_ideographs_and_one_of_2000_leaves_some_out():
    documents = ideographic_documents()
    tokenizer = train_tokenizer(documents, kind="wordpiece", vocab_size="auto")
    assert set(IDEOGRAPHS) <= tokenizer.get_vocab().keys()
    assert tokenizer.unk_token_id not in tokenizer("".join(IDEOGRAPHS)).input_ids
    small = tokenizer_module._alphabet(Counter(dict.fromkeys(IDEOGRAPHS, 7)), 2_000)
    assert small == set(IDEOGRAPHS[:1_000])


def test_an_alphabet_leaves_half_of_the_vocabulary_to_words():
    hangul = [chr(0xAC00 + number) for number in range(6_000)]
    words = Counter({f"{first}{second}": 3 for first, second in zip(hangul[::2], hangul[1::2], strict=True)})
    alphabet = tokenizer_module._alphabet(words, 8_000)
    inside = sum(character in alphabet for character in hangul[1::2])
    assert 3_998 <= len(alphabet) + inside <= 4_000
    assert len(tokenizer_module._alphabet(words, 30_000)) == 6_000


def test_what_is_a_trace_of_a_latin_text_takes_no_place_from_its_words():
    latin = {f"{first}{second}": 1_000 for first in "abcdefghijklmnop" for second in "ñáéíóúü"}
    common = {chr(0x400 + number): 30 for number in range(977)}
    rare = dict.fromkeys(IDEOGRAPHS[:20], 1)
    alphabet = tokenizer_module._alphabet(Counter(latin | common | rare), 16_000)
    assert alphabet == {*"abcdefghijklmnopñáéíóúü", *common}


def test_the_vocabulary_of_the_built_in_stories_is_the_one_it_always_had():
    tokenizer = train_tokenizer(World(("es", "en")).documents(2_000), kind="wordpiece", vocab_size="auto")
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()))
    assert hashlib.sha256(vocabulary.encode()).hexdigest()[:16] == "1d0788d3b5d6c126"


@pytest.mark.slow
def test_the_vocabulary_of_the_built_in_documentation_needs_no_larger_alphabet(monkeypatch):
    documents = installed_documentation()
    usual = train_tokenizer(documents, kind="wordpiece", vocab_size=8_000).get_vocab()
    monkeypatch.setattr(tokenizer_module, "_MOST_LEFT_OUT", 1.0)  # never more than 1,000 characters
    assert train_tokenizer(documents, kind="wordpiece", vocab_size=8_000).get_vocab() == usual


def test_words_that_are_all_too_long_for_a_wordpiece_are_refused():
    thai = "".join(chr(0x0E01 + number % 46) for number in range(300))
    with pytest.raises(ValueError, match=r"at most 100 characters \(0\) must be .*; choose tokenizer.kind unigram"):
        train_tokenizer([Document((thai,), "text")], kind="wordpiece", vocab_size="auto")


@pytest.mark.parametrize("kind", ENCODER_DECODERS)
def test_an_encoder_decoder_writes_chinese_back_without_spaces(kind):
    tokenizer = train_tokenizer(ideographic_documents(), kind=kind, vocab_size="auto", for_pairs=True)
    text = f"{''.join(IDEOGRAPHS[100:120])}。{IDEOGRAPHS[7]} {IDEOGRAPHS[8]}。"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def special(**ids):
    names = ("pad", "unknown", "classify", "separate", "mask", "begin", "end")
    return SpecialTokens(**{**dict.fromkeys(names), **ids}, vocab_size=50)


def test_a_text_begins_with_the_begin_token_or_the_end_token_and_an_encoders_with_the_first():
    assert begin_token(special(begin=1, end=2, classify=3)) == 1
    assert begin_token(special(end=2, classify=3)) == 2
    assert begin_token(special(classify=3)) == 3
    with pytest.raises(ValueError, match=r"begin token \(None\) must exist for a causal model; set its bos_token"):
        begin_token(special(pad=0))
