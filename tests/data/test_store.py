import errno

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hf_minilm.data import store as store_module
from hf_minilm.data.document import Document, split_sentences
from hf_minilm.data.objectives import MaskedObjective, RowKey
from hf_minilm.data.store import SENTENCE_START, WORD_START, TokenStore, build_store, cache_root
from hf_minilm.data.tokenizer import special_tokens, train_tokenizer
from hf_minilm.data.world import World

KINDS = ("wordpiece", "bytelevel_bpe", "unigram")
HAND_MADE = (
    Document(("¿Vino Ana? «Sí», dijo él.  Y  se fue.", "La Sra. Pérez no. [MASK] <s> fin 🙂."), "hand:0"),
    Document(("  Sangría. Otra.  ", "Uno."), "hand:1"),
)


@pytest.fixture(scope="module")
def documents():
    stories = [story.text for story in World(("es", "en")).documents(60)]
    groups = [tuple(stories[first : first + 1 + first % 3]) for first in range(0, 60, 2)]
    return [*(Document(group, f"group:{number}") for number, group in enumerate(groups)), *HAND_MADE]


@pytest.fixture(scope="module")
def tokenizers(documents):
    return {kind: train_tokenizer(documents, kind=kind, vocab_size="auto") for kind in KINDS}


@pytest.fixture
def build(documents, tokenizers, tmp_path):
    def build_now(kind="wordpiece", *, documents=documents, key="key", **options):
        return build_store(
            lambda: iter(documents), tokenizers[kind], cache_folder=tmp_path, key=key, progress=False, **options
        )

    return build_now


def assert_same(store, other):
    assert store.num_documents == other.num_documents
    for document in range(store.num_documents):
        np.testing.assert_array_equal(store.tokens(document), other.tokens(document))
        np.testing.assert_array_equal(store.flags(document), other.flags(document))


def test_a_byte_level_store_restores_every_document_exactly(build, documents, tokenizers):
    store = build("bytelevel_bpe")
    for number, document in enumerate(documents):
        assert tokenizers["bytelevel_bpe"].decode(store.tokens(number)) == document.text
        assert store.num_bytes[number] == len(document.text.encode())


@pytest.mark.parametrize("kind", KINDS)
def test_each_sentence_of_the_splitter_is_the_text_between_two_sentence_starts(build, documents, tokenizers, kind):
    store = build(kind)
    for number, document in enumerate(documents):
        tokens, starts = store.tokens(number), np.flatnonzero(store.flags(number) & SENTENCE_START)
        assert starts[0] == 0
        found = [tokenizers[kind].decode(part).strip() for part in np.split(tokens, starts[1:])]
        expected = [
            paragraph[begin:end] for paragraph in document.paragraphs for begin, end in split_sentences(paragraph)
        ]
        if kind == "bytelevel_bpe":
            assert found == expected
        else:
            encode = tokenizers[kind].backend_tokenizer.encode
            assert len(found) == len(expected)
            if number < len(documents) - len(HAND_MADE):
                assert [
                    tokenizers[kind].decode(encode(text, add_special_tokens=False).ids) for text in expected
                ] == found


def test_words_begin_where_a_wordpiece_has_no_hashes(build, tokenizers):
    store = build()
    continues = np.array(
        [
            token.startswith("##")
            for token in tokenizers["wordpiece"].convert_ids_to_tokens(range(len(tokenizers["wordpiece"])))
        ]
    )
    for number in range(store.num_documents):
        begins = (store.flags(number) & WORD_START) != 0
        np.testing.assert_array_equal(begins, ~continues[store.tokens(number)])
        assert begins[(store.flags(number) & SENTENCE_START) != 0].all()


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_spelt_out_in_a_text_are_stored_as_text(build, documents, tokenizers, kind):
    store = build(kind)
    special = special_tokens(tokenizers[kind])
    ids = {special.pad, special.classify, special.separate, special.mask, special.begin, special.end} - {None}
    assert not any(np.isin(store.tokens(number), list(ids)).any() for number in range(store.num_documents))


def test_batches_and_chunks_of_any_size_give_the_same_store(build, monkeypatch):
    usual = build(key="usual")
    monkeypatch.setattr(store_module, "_PARAGRAPHS_PER_BATCH", 2)
    monkeypatch.setattr(store_module, "_TOKENS_PER_CHUNK", 150)
    small = build(key="small")
    assert_same(usual, small)
    with pa.OSFile(str(small.folder / "tokens.arrow")) as source:
        assert len(list(pa.ipc.open_stream(source))) > 3


def test_a_store_is_built_once_and_afterwards_the_documents_are_not_read(build, documents, tokenizers, tmp_path):
    first = build()
    assert not first.reused

    def unread():
        raise AssertionError("read again")

    second = build_store(unread, tokenizers["wordpiece"], cache_folder=tmp_path, key="key", progress=False)
    assert second.reused
    assert second.fingerprint == first.fingerprint
    assert_same(first, second)


def test_another_key_or_tokenizer_is_another_store(build):
    stores = [build(), build(key="other"), build("unigram")]
    assert not any(store.reused for store in stores)
    assert len({store.fingerprint for store in stores}) == 3


def test_documents_without_tokens_are_left_out(build):
    blank = Document((" \t", "\x07"), "blank")
    store = build(documents=[blank, *HAND_MADE, blank])
    assert store.num_documents == len(store.lengths) == len(HAND_MADE)
    assert store.num_tokens == store.lengths.sum() == sum(len(store.tokens(number)) for number in range(2))
    with pytest.raises(IndexError, match=r"document \(2\) must be from 0 to 1"):
        store.tokens(2)
    with pytest.raises(ValueError, match=r"documents with tokens \(0\) must be at least 1"):
        build(documents=[blank], key="blank")


@pytest.mark.parametrize("kind", KINDS)
def test_documents_without_tokens_keep_their_place_on_request(build, kind, monkeypatch):
    monkeypatch.setattr(store_module, "_TOKENS_PER_CHUNK", 5)
    blank, nothing = Document(("",), "blank"), Document((), "nothing")
    documents = [blank, HAND_MADE[0], nothing, blank, HAND_MADE[1], nothing]
    store, dense = build(kind, documents=documents, keep_empty=True), build(kind, documents=documents)
    assert store.fingerprint != dense.fingerprint
    assert (store.lengths > 0).tolist() == [False, True, False, False, True, False]
    assert store.num_bytes[[0, 2, 3, 5]].tolist() == [0] * 4
    for number, place in enumerate((1, 4)):
        np.testing.assert_array_equal(store.tokens(place), dense.tokens(number))
        np.testing.assert_array_equal(store.flags(place), dense.flags(number))
        assert len(store.tokens(place - 1)) == len(store.flags(place + 1)) == 0
    assert build(kind, documents=documents, keep_empty=True).reused
    assert_same(TokenStore(store.folder), store)
    with pytest.raises(ValueError, match=r"documents with tokens \(0\) must be at least 1"):
        build(kind, documents=[blank, nothing], key="blank", keep_empty=True)


def test_tokens_and_flags_are_read_only_views_of_the_mapped_file(build):
    store = build()
    tokens, flags = store.tokens(1), store.flags(1)
    assert (tokens.dtype, flags.dtype) == (np.int32, np.uint8)
    for array in (tokens, flags):
        assert not array.flags.owndata
        assert not array.flags.writeable


def test_the_datasets_library_reads_the_file(build):
    store = build()
    dataset = datasets.Dataset.from_file(str(store.folder / "tokens.arrow"))
    assert dataset.num_rows == store.num_documents
    assert dataset[1]["input_ids"] == store.tokens(1).tolist()
    assert dataset[1]["num_bytes"] == store.num_bytes[1]


def test_a_process_that_loses_the_race_opens_the_winners_store(build, documents, tokenizers, tmp_path):
    def meanwhile():
        build()
        return iter(documents)

    store = build_store(meanwhile, tokenizers["wordpiece"], cache_folder=tmp_path, key="key", progress=False)
    assert store.reused
    assert [path.name for path in (tmp_path / "stores").iterdir()] == [store.folder.name]


def test_a_failed_build_leaves_nothing_behind_and_a_full_disk_is_said_in_one_line(build, tmp_path, monkeypatch):
    def broken():
        yield HAND_MADE[0]
        raise ValueError("unreadable line")

    with pytest.raises(ValueError, match="unreadable line"):
        build(documents=broken())

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_module._Chunk, "record_batch", full)
    with pytest.raises(OSError, match="must have free space; free some") as caught:
        build()
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "stores").iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "garbage", "no data", "no summary"])
def test_a_damaged_store_is_named_with_the_advice_to_delete_it(build, damage):
    folder = build().folder
    data = folder / "tokens.arrow"
    if damage == "cut":
        data.write_bytes(data.read_bytes()[:-100])
    elif damage == "garbage":
        data.write_bytes(b"x" * data.stat().st_size)
    else:
        (data if damage == "no data" else folder / "summary.json").unlink()
    with pytest.raises(OSError, match=rf"token store \({folder}\) must be complete and undamaged; delete it"):
        TokenStore(folder)
    with pytest.raises(OSError, match="delete it"):
        build()


def test_the_cache_lies_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.delenv("HF_MINILM_CACHE", raising=False)
    assert cache_root() == tmp_path / "home" / ".cache" / "hf_minilm"
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    assert cache_root() == tmp_path / "hub" / "hf_minilm"
    monkeypatch.setenv("HF_MINILM_CACHE", str(tmp_path / "own"))
    assert cache_root() == tmp_path / "own"


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_masked_rows_with_next_sentences_come_from_the_store_and_restore_its_tokens(build, tokenizers, kind):
    store, special = build(kind), special_tokens(tokenizers[kind])
    objective = MaskedObjective(store, special, row_length=96, seed=5, next_sentence=True)
    keys = [RowKey(0, row) for row in range(objective.rows_in_epoch(0))]
    batch = objective.batch(0, keys)
    original = batch["labels"].where(batch["labels"] != -100, batch["input_ids"])
    framing = torch.tensor([special.pad, special.classify, special.separate])
    restored = original[~torch.isin(original, framing)]
    stored = np.concatenate([store.tokens(number) for number in range(store.num_documents)])
    assert sorted(restored.tolist()) == sorted(stored.tolist())
    assert (batch["labels"] != -100).any()
    assert {0, 1} <= set(batch["next_sentence_label"].unique().tolist())
    begins = (batch["position_ids"] == 0) & (original != special.pad)
    assert (original[begins] == special.classify).all()


def sentencepiece_tokenizer(mark):
    """Make a tokenizer as Llama's, which marks the beginning of whatever it is given."""
    letters = [chr(97 + place) for place in range(26)]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *letters, "▁a", "▁b", "ab"]
    merges = [("▁", "a"), ("▁", "b"), ("a", "b")]
    numbered = {piece: place for place, piece in enumerate(pieces)}
    inner = Tokenizer(models.BPE(numbered, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if mark == "prepend":
        inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        inner.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=mark, split=False)
    inner.add_special_tokens(["<unk>", "<s>", "</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


PARAGRAPHS = ("ab ba. Bad? A cab.", "ba ab.", "Abba", "日 b")


@pytest.mark.parametrize("mark", ["always", "first", "prepend", "never"])
def test_a_store_has_the_tokens_that_the_tokenizer_gives_a_whole_text(mark, tmp_path):
    tokenizer = sentencepiece_tokenizer(mark)
    documents = [Document(PARAGRAPHS, "a"), Document(PARAGRAPHS[1:], "b"), Document(("b",), "c")]
    store = build_store(lambda: iter(documents), tokenizer, cache_folder=tmp_path, key="key", progress=False)
    for number, document in enumerate(documents):
        encoded = tokenizer(document.text, add_special_tokens=False, return_offsets_mapping=True)
        assert store.tokens(number).tolist() == encoded["input_ids"]
        begins = [
            document.text.index(paragraph) + start
            for paragraph in document.paragraphs
            for start, _ in split_sentences(paragraph)
        ]
        places = np.flatnonzero(store.flags(number) & SENTENCE_START)
        assert [
            next(place for place, (_, end) in enumerate(encoded["offset_mapping"]) if end > begin) for begin in begins
        ] == places.tolist()
        assert store.num_bytes[number] == len(document.text.encode())


def test_a_store_of_whole_texts_has_another_name_than_one_of_paragraphs(tmp_path, monkeypatch):
    def build():
        documents = [Document(PARAGRAPHS, "a")]
        tokenizer = sentencepiece_tokenizer("first")
        return build_store(lambda: iter(documents), tokenizer, cache_folder=tmp_path, key="key", progress=False)

    whole = build()
    with monkeypatch.context() as patched:
        patched.setattr(store_module, "_depends_on_division", lambda _: False)
        apart = build()
    assert not apart.reused
    assert apart.num_tokens == whole.num_tokens + 2  # the marks of "Abba" and "日"; that of "ba" makes a token with it
    assert build().reused


def test_a_very_long_text_is_encoded_in_stretches_of_whole_paragraphs(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "_CHARACTERS_PER_BATCH", 30)
    tokenizer = sentencepiece_tokenizer("first")
    documents = [Document((*PARAGRAPHS, "c" * 50, "ab"), "a")]
    store = build_store(lambda: iter(documents), tokenizer, cache_folder=tmp_path, key="key", progress=False)
    texts = ["ab ba. Bad? A cab.\nba ab.\nAbba\n", "日 b\n", "c" * 50 + "\n", "ab"]
    expected = [each for text in texts for each in tokenizer(text, add_special_tokens=False)["input_ids"]]
    assert store.tokens(0).tolist() == expected


def test_tokens_are_counted(build):
    store = build()
    everything = np.concatenate([store.tokens(number) for number in range(store.num_documents)])
    for token in (5, 1, int(everything[0])):
        assert store.count(token) == int((everything == token).sum())
    assert store.count(int(everything[0])) > 0
    assert store.count(None) == 0
