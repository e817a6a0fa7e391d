"""Fine-tuned models: against what they say text by text, and scikit-learn, scipy and the metrics of this package."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
import torch
from transformers import BertConfig, BertForQuestionAnswering, BertForSequenceClassification, BertForTokenClassification

from hf_minilm import (
    MiniLMConfig,
    MiniLMForMaskedLM,
    MiniLMForQuestionAnswering,
    MiniLMForSequenceClassification,
    MiniLMForTokenClassification,
)
from hf_minilm.evaluation.fine_tuned import evaluate_classification, evaluate_spans, evaluate_tagging
from hf_minilm.evaluation.intervals import bootstrap_interval
from hf_minilm.evaluation.labelled_files import LabelledText, Question, TaggedSentence
from hf_minilm.evaluation.metrics import EntityMetric

TEXTS = ["the key", "keys are old", "a dog sees Ana", "she sleeps", "he is here", "Ana"] * 2
OURS = {
    BertForSequenceClassification: MiniLMForSequenceClassification,
    BertForTokenClassification: MiniLMForTokenClassification,
    BertForQuestionAnswering: MiniLMForQuestionAnswering,
}


@pytest.fixture
def build(piece_tokenizer):
    """Build a random model whose answers differ from text to text, of transformers or of this package."""

    def build(native_class, *, is_ours, positions=64, **labels):
        torch.manual_seed(6)
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "initializer_range": 0.9}
        common = {"vocab_size": len(piece_tokenizer), "max_position_embeddings": positions, **sizes, **labels}
        if is_ours:
            return OURS[native_class](MiniLMConfig(pad_token_id=piece_tokenizer.pad_token_id, **common)).eval()
        return native_class(BertConfig(intermediate_size=32, **common)).eval()

    return build


def logits_of(model, encoded):
    with torch.no_grad():
        return model(**{name: torch.tensor([ids]) for name, ids in encoded.items()}).logits[0].numpy()


both_kinds = pytest.mark.parametrize("is_ours", [True, False], ids=["ours", "native"])


@both_kinds
def test_classes_are_those_of_each_text_by_itself_and_scores_scikit_learns(build, piece_tokenizer, is_ours):
    model = build(BertForSequenceClassification, is_ours=is_ours, id2label={0: "x", 1: "y", 2: "z"})
    right = ["x", "y", "z"] * 4
    given = [int(logits_of(model, piece_tokenizer(text)).argmax()) for text in TEXTS]
    assert len(set(given)) > 1
    examples = [LabelledText(text, None, label) for text, label in zip(TEXTS, right, strict=True)]
    figures = evaluate_classification(model, piece_tokenizer, examples, seed=0)
    numbers = [0, 1, 2] * 4
    assert {name: figure.value for name, figure in figures.items()} == pytest.approx(
        {
            "accuracy": sklearn.metrics.accuracy_score(numbers, given),
            "macro_f1": sklearn.metrics.f1_score(numbers, given, average="macro", zero_division=0),
            "weighted_f1": sklearn.metrics.f1_score(numbers, given, average="weighted", zero_division=0),
            "matthews_correlation": sklearn.metrics.matthews_corrcoef(numbers, given),
        }
    )
    assert all(figure.low <= figure.value <= figure.high for figure in figures.values())


def test_two_texts_are_read_as_a_pair_and_classes_may_be_numbers(build, piece_tokenizer):
    model = build(BertForSequenceClassification, is_ours=True, num_labels=2)
    given = [int(logits_of(model, piece_tokenizer(text, "the dog")).argmax()) for text in TEXTS]
    examples = [LabelledText(text, "the dog", label) for text, label in zip(TEXTS, given, strict=True)]
    assert evaluate_classification(model, piece_tokenizer, examples, seed=0)["accuracy"].value == 1.0


def test_intervals_come_from_sums_that_give_scikit_learns_scores(monkeypatch, build, piece_tokenizer):
    computed = []

    def spy(columns, statistic, *, seed):
        computed.append(float(statistic(columns.sum(axis=0)[None])[0]))
        return bootstrap_interval(columns, statistic, seed=seed)

    monkeypatch.setattr("hf_minilm.evaluation.fine_tuned.bootstrap_interval", spy)
    model = build(BertForSequenceClassification, is_ours=True, num_labels=4)
    examples = [LabelledText(text, None, place % 3) for place, text in enumerate(TEXTS)]
    figures = evaluate_classification(model, piece_tokenizer, examples, seed=0)
    assert computed == pytest.approx([figure.value for figure in figures.values()])


def test_a_single_output_is_a_regression(monkeypatch, build, piece_tokenizer):
    model = build(BertForSequenceClassification, is_ours=True, num_labels=1)
    right = [float(place) for place in range(12)]
    given = [float(logits_of(model, piece_tokenizer(text))[0]) for text in TEXTS]
    examples = [LabelledText(text, None, label) for text, label in zip(TEXTS, right, strict=True)]
    figures = evaluate_classification(model, piece_tokenizer, examples, seed=0)
    assert figures["pearson"].value == pytest.approx(np.corrcoef(given, right)[0, 1], abs=1e-6)
    assert figures["spearman"].value == pytest.approx(scipy.stats.spearmanr(given, right).statistic)
    assert set(figures) == {"pearson", "spearman"}
    assert all(figure.low < figure.value < figure.high for figure in figures.values())


def test_a_label_that_the_model_does_not_have_and_another_head_are_refused(build, piece_tokenizer, tiny_model):
    model = build(BertForSequenceClassification, is_ours=True, id2label={0: "x", 1: "y"})
    with pytest.raises(ValueError, match=r"label \(z\) must be one of x, y"):
        evaluate_classification(model, piece_tokenizer, [LabelledText("a", None, "z")], seed=0)
    with pytest.raises(ValueError, match=r"label \(2\) must be one of x, y"):
        evaluate_classification(model, piece_tokenizer, [LabelledText("a", None, 2)], seed=0)
    masked = tiny_model(MiniLMForMaskedLM, piece_tokenizer)
    with pytest.raises(ValueError, match=r"MiniLMForMaskedLM\) must be a \.\.\.ForSequenceClassification"):
        evaluate_classification(masked, piece_tokenizer, [LabelledText("a", None, "z")], seed=0)


@both_kinds
def test_a_words_tag_is_that_of_its_first_token(build, piece_tokenizer, is_ours):
    names = {0: "O", 1: "B-PER", 2: "I-PER"}
    model = build(BertForTokenClassification, is_ours=is_ours, id2label=names)
    sentences, given = [], []
    for text in TEXTS:
        words = text.split()
        best = logits_of(model, piece_tokenizer(text)).argmax(-1)
        places, at = [], 1
        for word in words:
            places.append(at)
            at += len(piece_tokenizer.tokenize(word))
        given.append([names[int(best[place])] for place in places])
        sentences.append(TaggedSentence(tuple(words), tuple(["B-PER", "I-PER", "O", "O"][: len(words)])))
    figures = evaluate_tagging(model, piece_tokenizer, sentences, seed=0)
    expected = EntityMetric().compute(predictions=given, references=[list(each.tags) for each in sentences])
    assert {name: figure.value for name, figure in figures.items()} == pytest.approx(expected)
    assert figures["entity_f1"].n == len(TEXTS)


@both_kinds
def test_a_tokenizer_that_pads_on_the_left_gives_the_same_figures(build, piece_tokenizer, is_ours):
    left = copy.deepcopy(piece_tokenizer)
    left.padding_side = "left"
    tagger = build(BertForTokenClassification, is_ours=is_ours, id2label={0: "NOUN", 1: "VERB"})
    best = [logits_of(tagger, piece_tokenizer(text)).argmax(-1) for text in TEXTS]
    sentences = []
    for text, classes in zip(TEXTS, best, strict=True):
        lengths = [len(piece_tokenizer.tokenize(word)) for word in text.split()]
        firsts = np.cumsum([1, *lengths[:-1]])
        sentences.append(TaggedSentence(tuple(text.split()), tuple(("NOUN", "VERB")[classes[at]] for at in firsts)))
    assert evaluate_tagging(tagger, left, sentences, seed=0)["accuracy"].value == 1.0
    model = build(BertForQuestionAnswering, is_ours=is_ours, positions=32)
    # Two windows of unequal length.
    questions = [Question("who", "the dog is old and the key is here . " * 2, ("the dog",))]
    right, wrong = (evaluate_spans(model, each, questions, language="en", seed=0) for each in (piece_tokenizer, left))
    assert right == wrong


def test_tags_that_are_no_entities_are_classes_of_words(build, piece_tokenizer):
    model = build(BertForTokenClassification, is_ours=True, id2label={0: "NOUN", 1: "VERB"})
    sentences = [TaggedSentence(("key",), ("NOUN",)), TaggedSentence(("the", "dog"), ("VERB", "NOUN"))]
    figures = evaluate_tagging(model, piece_tokenizer, sentences, seed=0)
    assert set(figures) == {"accuracy", "macro_f1", "weighted_f1", "matthews_correlation"}
    assert (figures["accuracy"].n, figures["accuracy"].counted) == (3, "words")


def test_words_of_one_sentence_are_drawn_together(build, piece_tokenizer):
    model = build(BertForTokenClassification, is_ours=True, id2label={0: "NOUN", 1: "VERB"})
    best = logits_of(model, piece_tokenizer("the")).argmax(-1)[1]
    right, wrong = ("NOUN", "VERB") if best == 0 else ("VERB", "NOUN")
    sentences = [TaggedSentence(("the",) * number, (tag,) * number) for number, tag in [(1, right), (1, wrong)] * 9]
    alone = evaluate_tagging(model, piece_tokenizer, sentences, seed=0)["accuracy"]
    # The same words in two sentences are two things that may come out otherwise, and not eighteen.
    few = [TaggedSentence(tuple(each.words * 9), tuple(each.tags * 9)) for each in sentences[:2]]
    together = evaluate_tagging(model, piece_tokenizer, few, seed=0)["accuracy"]
    assert alone.n == together.n == 18
    assert together.interval == "bootstrap over sentences"
    assert together.high - together.low > alone.high - alone.low > 0


def test_what_never_differs_has_no_correlation_and_no_interval(build, piece_tokenizer):
    model = build(BertForSequenceClassification, is_ours=True, num_labels=1)
    figures = evaluate_classification(model, piece_tokenizer, [LabelledText("the", None, 1.0)] * 3, seed=0)
    assert np.isnan([figures["pearson"].value, figures["pearson"].low]).all()


def test_a_sentence_that_is_too_long_is_refused(build, piece_tokenizer):
    model = build(BertForTokenClassification, is_ours=True, positions=8, num_labels=2)
    with pytest.raises(ValueError, match=r"tokens of a sentence \(22\) must be at most 8"):
        evaluate_tagging(model, piece_tokenizer, [TaggedSentence(("the",) * 20, ("LABEL_0",) * 20)], seed=0)


def best_span(model, tokenizer, question, context):
    """The likeliest span of a text that fits into one window, by trying all."""
    encoded = tokenizer(question, context, return_offsets_mapping=True)
    offsets, owners = encoded.pop("offset_mapping"), encoded.sequence_ids(0)
    with torch.no_grad():
        output = model(**{name: torch.tensor([ids]) for name, ids in encoded.items()})
    starts, ends = output.start_logits[0], output.end_logits[0]
    inside = [place for place, owner in enumerate(owners) if owner == 1]
    spans = [(starts[one] + ends[two], one, two) for one in inside for two in inside if one <= two < one + 30]
    _, start, end = max(spans, key=lambda span: span[0])
    return context[offsets[start][0] : offsets[end][1]]


@both_kinds
def test_an_answer_is_the_likeliest_span_of_the_text(build, piece_tokenizer, is_ours):
    model = build(BertForQuestionAnswering, is_ours=is_ours)
    contexts = ["Ana sees the dog in the house.", "The keys are old."]
    spans = [best_span(model, piece_tokenizer, "who sees", context) for context in contexts]
    questions = [Question("who sees", context, (span,)) for context, span in zip(contexts, spans, strict=True)]
    figures = evaluate_spans(model, piece_tokenizer, questions, language="en", seed=0)
    assert (figures["exact_match"].value, figures["token_f1"].value) == (1.0, 1.0)
    questions[0] = Question("who sees", contexts[0], ("zzz",))
    assert evaluate_spans(model, piece_tokenizer, questions, language="en", seed=0)["exact_match"].value == 0.5


def finder_of(model, token):
    """Make a model say that the answer is one token, wherever it stands."""

    def answer(module, given, named, output):
        scores = (named["input_ids"] == token).float()
        return SimpleNamespace(start_logits=scores, end_logits=scores)

    model.register_forward_hook(answer, with_kwargs=True)
    return model


def test_a_long_text_is_read_in_windows_to_its_end(build, piece_tokenizer):
    model = build(BertForQuestionAnswering, is_ours=True, positions=24)
    finder_of(model, piece_tokenizer.convert_tokens_to_ids("x"))
    context = "the dog is old and the key is here . " * 6
    assert len(piece_tokenizer("who", context)["input_ids"]) > 48
    for text in (context + "x", "x " + context, context + "x " + context):
        figures = evaluate_spans(model, piece_tokenizer, [Question("who", text, ("x",))], language="en", seed=0)
        assert figures["exact_match"].value == 1.0


@pytest.mark.parametrize("room", [40, 14, 2])
def test_a_question_that_nearly_fills_a_window_is_answered_from_the_whole_text(build, piece_tokenizer, room):
    model = build(BertForQuestionAnswering, is_ours=True, positions=64)
    finder_of(model, piece_tokenizer.convert_tokens_to_ids("x"))
    question = "the " * (64 - 3 - room)
    context = "the dog is old and the key is here . " * 3 + "x"
    figures = evaluate_spans(model, piece_tokenizer, [Question(question, context, ("x",))], language="en", seed=0)
    assert figures["exact_match"].value == 1.0
    with pytest.raises(
        ValueError, match=r"tokens of a question \(60\) must be at most 59 for this model; leave it out"
    ):
        evaluate_spans(model, piece_tokenizer, [Question("the " * 60, context, ("a",))], language="en", seed=0)
