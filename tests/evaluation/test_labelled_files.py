"""Files of labelled texts: each form, and what is wrong with one."""

import gzip
import json

import pytest

from hf_minilm.evaluation.labelled_files import (
    LabelledText,
    Question,
    TaggedSentence,
    read_labelled_texts,
    read_questions,
    read_tagged_sentences,
)

SENTENCES = [TaggedSentence(("Ana", "sees", "Rome"), ("B-PER", "O", "B-LOC")), TaggedSentence(("Go",), ("O",))]
TAGGED = {
    "a.jsonl": "".join(json.dumps({"tokens": each.words, "tags": each.tags}) + "\n" for each in SENTENCES),
    "a.conll": "Ana NNP B-PER\nsees VBZ O\nRome NNP B-LOC\n\n\nGo VB O",
    "a.iob2": "# text = Ana sees Rome\n1\tAna\tB-PER\t-\n2\tsees\tO\t-\n3\tRome\tB-LOC\t-\n\n1\tGo\tO\t-\n",
    "a.conllu": (
        "# sent_id = 1\n1-2\tAnasees\t_\t_\n1\tAna\t_\tB-PER\n2\tsees\t_\tO\n2.1\tx\t_\tO\n3\tRome\t_\tB-LOC\n"
        "\n# sent_id = 2\n1\tGo\t_\tO\n\n"
    ),
}


@pytest.mark.parametrize("name", TAGGED)
@pytest.mark.parametrize("is_zipped", [False, True])
def test_tagged_sentences_are_the_same_in_every_form(tmp_path, name, is_zipped):
    path = tmp_path / (f"{name}.gz" if is_zipped else name)
    content = TAGGED[name].encode()
    path.write_bytes(gzip.compress(content) if is_zipped else content)
    assert list(read_tagged_sentences(str(path))) == SENTENCES


@pytest.mark.parametrize(("name", "form"), [("en.conll.jsonl", "a.jsonl"), ("EN.CONLLU", "a.conllu")])
def test_the_end_of_a_name_says_the_form_in_any_case(tmp_path, name, form):
    (tmp_path / name).write_text(TAGGED[form], encoding="utf-8")
    assert list(read_tagged_sentences(str(tmp_path / name))) == SENTENCES


@pytest.mark.parametrize("blank", ["\n\n", "\n"])
def test_the_lines_between_the_documents_of_conll_2003_are_no_sentences(tmp_path, blank):
    mark = f"-DOCSTART- -X- -X- O{blank}"
    text = TAGGED["a.conll"].replace("\n\n\n", f"\n{mark}")
    (tmp_path / "a.conll").write_text(mark + text, encoding="utf-8")
    assert list(read_tagged_sentences(str(tmp_path / "a.conll"))) == SENTENCES


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"tokens": ["a"], "tags": ["O", "O"]}', r"a\.jsonl:1: tags \(2\) must be as many as tokens \(1\)"),
        ("a.jsonl", '{"tokens": ["a"]}', r"a\.jsonl:1: tags \(None\) must be a list of texts"),
        ("a.conll", "Ana\n", r"a\.conll:1: columns \(1\) must have a word and a tag"),
        ("a.iob2", "1\tAna\n", r"a\.iob2:1: columns \(2\) must have a word and a tag"),
    ],
)
def test_a_malformed_sentence_is_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        list(read_tagged_sentences(str(tmp_path / name)))


def test_texts_have_a_class_and_maybe_a_second_text(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"text": "good", "label": 1}\n{"sentence": "bad", "label": "no", "text_pair": "x"}\n', encoding="utf-8"
    )
    (tmp_path / "b.tsv").write_text('label\ttext\nyes\ta "b\n', encoding="utf-8")
    assert list(read_labelled_texts(str(tmp_path))) == [
        LabelledText("good", None, 1),
        LabelledText("bad", "x", "no"),
        LabelledText('a "b', None, "yes"),
    ]
    (tmp_path / "c.jsonl").write_text('{"text": "good"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"c\.jsonl:1: label \(None\) must be a name or a number"):
        list(read_labelled_texts(str(tmp_path / "c.jsonl")))


def squad(answers):
    asked = {"id": "q1", "question": "Who?", "answers": [{"text": text, "answer_start": 0} for text in answers]}
    return json.dumps({"version": 1.0, "data": [{"paragraphs": [{"context": "Ana saw him.", "qas": [asked]}]}]})


def test_questions_come_from_squads_json(tmp_path):
    path = tmp_path / "dev.json"
    path.write_text(squad(["Ana", "ana"]), encoding="utf-8")
    assert list(read_questions(str(path))) == [Question("Who?", "Ana saw him.", ("Ana", "ana"))]
    path.write_text(squad([]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"answers of q1 \(none\) must be at least 1"):
        list(read_questions(str(path)))
    path.write_text('{"data": [{}]}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"dev\.json\) must be JSON as SQuAD's"):
        list(read_questions(str(path)))
