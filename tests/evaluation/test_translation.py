"""Translations: scores against chrF written out, outputs against tokens chosen one by one."""

import copy
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
import sacrebleu
import torch
from transformers import MarianMTModel, T5ForConditionalGeneration

from hf_minilm.evaluation.translation import evaluate_translations, score_translations, translate

SOURCES = [
    "The keys to the old cabinet are in the garden behind the house.",
    "Ana sleeps.",
    "",
    "The dog that chased the cat sleeps in the house.",
    "The keys are old.",
]
OUTPUTS = ["Las llaves es viejas.", "Ana  duerme en la casa", "El perro", "año"]
TARGETS = ["Las llaves son viejas.", "Ana duerme en el jardín de la casa.", "El perro", "Nadie vio los baños."]


class Echo(torch.nn.Module):
    """A model that writes what it reads, and notes what it was asked."""

    def __init__(self, **config):
        super().__init__()
        self.dummy = torch.nn.Parameter(torch.zeros(()))
        self.config = SimpleNamespace(**config)
        self.calls = []

    def generate(self, input_ids, **options):
        assert not self.training
        self.calls.append({"input_ids": input_ids, **options})
        return input_ids


def character_f_score(outputs, targets):
    """Compute chrF of a corpus from Popović 2015: mean precision and recall of the orders, recall weighing twice."""
    precisions, recalls = [], []
    for order in range(1, 7):
        found = wanted = both = 0
        for output, target in zip(outputs, targets, strict=True):
            grams = []
            for text in (output, target):
                letters = "".join(text.split())
                grams.append(Counter(letters[start : start + order] for start in range(len(letters) - order + 1)))
            # sacrebleu leaves out an output's n-grams where its reference is too short to have any.
            found += grams[0].total() if grams[1] else 0
            wanted += grams[1].total()
            both += (grams[0] & grams[1]).total()
        if found and wanted:
            precisions.append(both / found)
            recalls.append(both / wanted)
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return 100 * 5 * precision * recall / (4 * precision + recall)


def chosen_one_by_one(model, tokenizer, source, max_new_tokens):
    """Translate one text, unpadded, by reading all again for each token."""
    ids = torch.tensor([tokenizer(source)["input_ids"]])
    written = [model.config.decoder_start_token_id]
    while len(written) <= max_new_tokens and written[-1] != tokenizer.eos_token_id:
        with torch.no_grad():
            logits = model(input_ids=ids, decoder_input_ids=torch.tensor([written])).logits[0, -1]
        if isinstance(model, MarianMTModel):
            logits[tokenizer.pad_token_id] = -torch.inf  # Marian's own settings forbid it
        written.append(logits.argmax().item())
    return tokenizer.decode(written, skip_special_tokens=True).strip()


def test_chrf_is_the_one_written_out_from_its_definition():
    scores = score_translations(OUTPUTS, TARGETS)
    assert scores.chrf == pytest.approx(character_f_score(OUTPUTS, TARGETS), abs=1e-6)
    assert 20 < scores.chrf < 80


@pytest.mark.parametrize("number", range(4))
def test_chrf_of_a_single_sentence_too(number):
    pair = [OUTPUTS[number]], [TARGETS[number]]
    assert score_translations(*pair).chrf == pytest.approx(character_f_score(*pair), abs=1e-6)


def test_the_scores_are_those_of_sacrebleus_own_functions_and_say_so():
    scores = score_translations(OUTPUTS, TARGETS, num_beams=4)
    assert scores.chrf == sacrebleu.corpus_chrf(OUTPUTS, [TARGETS]).score
    assert scores.bleu == sacrebleu.corpus_bleu(OUTPUTS, [TARGETS]).score
    assert scores.num_beams == 4
    assert scores.chrf_signature == f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{sacrebleu.__version__}"
    assert scores.bleu_signature == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}"


def test_identical_outputs_have_full_scores():
    scores = score_translations(TARGETS, TARGETS)
    assert (scores.chrf, scores.bleu) == pytest.approx((100.0, 100.0))
    assert scores.exact_match == 1.0
    assert scores.number == 4


def test_a_match_is_exact_but_for_white_space():
    scores = score_translations(["a  b\tc ", "ab c", "A b c"], ["a b c", "a bc", "a b c"])
    assert scores.exact_match == pytest.approx(1 / 3)


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(ValueError, match=r"outputs \(1\) must be as many as targets \(2\)"):
        score_translations(["a"], ["a", "b"])
    with pytest.raises(ValueError, match=r"outputs \(0\) must be at least 1"):
        score_translations([], [])


@pytest.mark.parametrize("model_class", [T5ForConditionalGeneration, MarianMTModel])
@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_greedy_outputs_are_the_likeliest_tokens_however_the_texts_are_batched(
    tiny_seq2seq, translation_tokenizer, model_class, batch_size
):
    model = tiny_seq2seq(model_class)
    truth = [chosen_one_by_one(model, translation_tokenizer, source, 7) for source in SOURCES]
    assert len(set(truth)) == len(SOURCES)
    model.train()
    outputs = translate(model, translation_tokenizer, SOURCES, max_new_tokens=7, batch_size=batch_size)
    assert outputs == truth
    assert model.training


def test_sources_are_padded_on_the_right_whatever_the_tokenizers_own_side(translation_tokenizer):
    left = copy.deepcopy(translation_tokenizer)
    left.padding_side = "left"
    model = Echo()
    translate(model, left, ["The keys are old.", "Ana"])
    read = model.calls[0]["input_ids"]
    assert [sorted(row.ne(left.pad_token_id).tolist(), reverse=True) for row in read] == [
        row.ne(left.pad_token_id).tolist() for row in read
    ]
    assert (read == left.pad_token_id).any()


def test_outputs_come_in_the_order_of_the_sources_though_texts_of_like_length_share_a_batch(translation_tokenizer):
    model = Echo()
    assert translate(model, translation_tokenizer, SOURCES, batch_size=2) == SOURCES
    lengths = [int((call["input_ids"] != translation_tokenizer.pad_token_id).sum(1).max()) for call in model.calls]
    assert lengths == sorted(lengths)
    assert [len(call["input_ids"]) for call in model.calls] == [2, 2, 1]


def test_an_output_may_have_twice_the_longest_sources_tokens_and_20_but_no_more_than_the_decoders_positions(
    translation_tokenizer,
):
    longest = len(translation_tokenizer(SOURCES[0])["input_ids"])
    settings = [({}, None), ({"decoder": SimpleNamespace(max_position_embeddings=31)}, None), ({}, 5)]
    bounds = []
    for config, asked in settings:
        model = Echo(**config)
        translate(model, translation_tokenizer, SOURCES, num_beams=3, max_new_tokens=asked)
        bounds.append(model.calls[0]["max_new_tokens"])
        assert model.calls[0]["num_beams"] == 3
    assert longest > 6
    assert bounds == [2 * longest + 20, 31, 5]


def test_no_texts_give_no_outputs(translation_tokenizer):
    assert translate(Echo(), translation_tokenizer, []) == []


def test_each_search_is_scored_and_the_first_outputs_of_the_last_one_are_shown(tiny_seq2seq, translation_tokenizer):
    model = tiny_seq2seq()
    pairs = [(source, source.upper()) for source in SOURCES]
    scores, shown = evaluate_translations(model, translation_tokenizer, pairs, beams=(1, 3))
    outputs = [translate(model, translation_tokenizer, SOURCES, num_beams=num_beams) for num_beams in (1, 3)]
    targets = [target for _, target in pairs]
    assert scores == tuple(
        score_translations(texts, targets, num_beams=num_beams)
        for texts, num_beams in zip(outputs, (1, 3), strict=True)
    )
    assert outputs[0] != outputs[1]
    assert [(text.source, text.target, text.output) for text in shown] == [
        (*pair, output) for pair, output in zip(pairs[:3], outputs[1][:3], strict=True)
    ]


def test_a_search_without_a_number_of_beams_is_refused(translation_tokenizer):
    with pytest.raises(ValueError, match=r"beams \(none\) must have at least 1 number"):
        evaluate_translations(Echo(), translation_tokenizer, [("a", "b")], beams=())


def test_sacrebleu_is_brought_by_scoring_alone():
    code = "import hf_minilm.evaluation.translation, sys; sys.exit('sacrebleu' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
