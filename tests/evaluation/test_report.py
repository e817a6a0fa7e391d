"""The report: all figures in JSON, all lines in 100 columns, and its lines of Python do what they say."""

import json
from dataclasses import replace

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from hf_minilm import MiniLMForCausalLM, MiniLMForPreTraining
from hf_minilm.evaluation.language_model import HeldOut
from hf_minilm.evaluation.minimal_pairs import PairAccuracy
from hf_minilm.evaluation.report import Report, RunFacts
from hf_minilm.evaluation.samples import FilledMask, GeneratedText
from hf_minilm.evaluation.translation import Translation, TranslationScores
from hf_minilm.evaluation.world_floor import MaskedFloor

FACTS = RunFacts("masked + next sentence", "builtin:world", 1200, 19_660_800, 754.2, 3_400_123, "NVIDIA H200")
LINE = "El perro que perseguía al gato que vive en la otra cuadra [MASK]."


def masked_report(folder="runs/first/model"):
    return Report(
        FACTS,
        HeldOut(1.0234, 0.61, 40_123, 0.11, 0.957, 0.513, 1_234),
        MaskedFloor(0.6012, 1.0345, 512, 48, 0.0071, 1.0, 0.12, 0.953, 43),
        folder,
        "fill-mask",
        probes=(
            PairAccuracy("number_agreement", 0, 67, 1.0, 0.9458, 1.0),
            PairAccuracy("number_agreement", 2, 66, 0.75, 0.634, 0.838),
            PairAccuracy("pronoun", 1, 50, 0.5, 0.366, 0.634),
        ),
        filled=(FilledMask(LINE, ("duerme", "corre"), (("duerme", 0.713), ("##n", 0.09))),),
    )


def causal_report(floor, folder="runs/second/model"):
    figures = HeldOut(1.5, None, 999, None, None, None, 0)
    texts = (GeneratedText("Ana", " saw the keys." * 20),)
    return Report(FACTS, figures, floor, folder, "text-generation", texts=texts)


def translation_report(folder="runs/third/model"):
    return Report(
        FACTS,
        HeldOut(0.25, 0.12, 4_321, None, None, None, 0),
        None,
        folder,
        "translation",
        scores=(
            TranslationScores(1, 2_000, 91.234, 83.45, 0.5678, "nrefs:1|nc:6", "nrefs:1|tok:13a"),
            TranslationScores(4, 2_000, 100.0, 9.5, 1.0, "nrefs:1|nc:6", "nrefs:1|tok:13a"),
        ),
        translations=(
            Translation("The keys are old.", "Las llaves son viejas.", "Las llaves es viejas."),
            Translation("Ana saw the keys. " * 9, "Ana vio las llaves. " * 9, "Ana vio " * 30),
        ),
    )


def run_usage(report):
    """Run what the report says below the model's folder."""
    code = report.to_text().splitlines()
    first = next(number for number, line in enumerate(code) if line.startswith("  import hf_minilm"))
    assert all(line.startswith("  ") for line in code[first:])
    exec("\n".join(line[2:] for line in code[first:]), {})


def with_mask(tokenizer, mask):
    """Give a tokenizer whose mask is another than `[MASK]`."""
    inner = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str().replace("[MASK]", mask))
    return PreTrainedTokenizerFast(tokenizer_object=inner, **tokenizer.special_tokens_map | {"mask_token": mask})


def test_a_person_reads_loss_floor_majority_distances_and_guesses():
    text = masked_report().to_text()
    assert "held-out loss 1.02 nats per predicted token" in text
    assert "loss 1.03 nats per predicted token (floor 0.60)" in text
    assert "95.7% right of 1,234 pairs (always the commoner answer: 51.3%)" in " ".join(text.split())
    assert "best possible 100.0%" in " ".join(text.split())
    rows = {line.split("  ")[1]: line for line in text.splitlines() if "(" in line and "-" in line and "%)" in line}
    assert rows["number agreement"].split()[2:] == ["133", "100.0%", "(95%-100%)", "-", "75.0%", "(63%-84%)"]
    assert rows["pronoun"].split()[1:] == ["50", "-", "50.0%", "(37%-63%)", "-"]
    assert "duerme 71.3%, ##n 9.0%" in text
    assert "12 min 34 s" in text


def test_a_person_reads_the_scores_of_each_search_and_outputs_beside_references():
    text = translation_report().to_text()
    lines = text.splitlines()
    first = lines.index("Translations of 2,000 held-out texts")
    assert [line.split() for line in lines[first + 1 : first + 3]] == [
        ["greedy", "chrF", "91.2,", "BLEU", "83.5,", "exact", "match", "56.8%"],
        ["4", "beams", "chrF", "100.0,", "BLEU", "9.5,", "exact", "match", "100.0%"],
    ]
    assert [line.strip() for line in lines[first + 3 : first + 6]] == [
        "The keys are old.",
        "output:    Las llaves es viejas.",
        "reference: Las llaves son viejas.",
    ]
    assert "Translations" not in causal_report(None).to_text()


@pytest.mark.parametrize(
    "report",
    [masked_report(), causal_report(0.75), causal_report("There is none, " * 12), translation_report()],
)
def test_no_line_is_longer_than_100_columns(report):
    assert max(len(line) for line in report.to_text().splitlines()) <= 100


def test_notes_stand_below_the_held_out_loss():
    notes = ("12.3% of the held-out tokens are unknown ([UNK])", "3 held-out pairs are in no figure")
    report = replace(masked_report(), notes=notes)
    paragraph = next(part for part in report.to_text().split("\n\n") if part.startswith("On held-out text"))
    assert paragraph.splitlines()[-2:] == [f"  {note}" for note in notes]
    assert report.to_json()["notes"] == list(notes)


def test_the_causal_floor_stands_beside_the_loss_and_a_reason_in_its_place():
    assert "held-out loss 1.50 nats per predicted token (floor 0.75)" in causal_report(0.75).to_text()
    text = causal_report("There is no floor for this text.").to_text()
    assert "There is no floor for this text." in text
    assert "(floor" not in text


@pytest.mark.parametrize("report", [masked_report(), causal_report(0.75), causal_report(None), translation_report()])
def test_the_figures_survive_json(report):
    figures = report.to_json()
    assert json.loads(json.dumps(figures)) == figures
    assert figures["held_out"]["nats_per_token"] == report.held_out.nats_per_token
    assert figures["facts"]["steps"] == 1200


@pytest.mark.parametrize("is_causal", [False, True])
def test_the_lines_of_python_run_as_they_stand(tiny_model, word_tokenizer, byte_tokenizer, tmp_path, capsys, is_causal):
    tokenizer = byte_tokenizer if is_causal else word_tokenizer
    model = tiny_model(MiniLMForCausalLM if is_causal else MiniLMForPreTraining, tokenizer)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    run_usage(causal_report(None, str(tmp_path)) if is_causal else masked_report(str(tmp_path)))
    assert ("generated_text" if is_causal else "token_str") in capsys.readouterr().out


def test_the_lines_of_python_mask_as_the_models_own_tokenizer_does(tiny_model, word_tokenizer, tmp_path, capsys):
    tokenizer = with_mask(word_tokenizer, "<hidden>")
    tiny_model(MiniLMForPreTraining, tokenizer).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    for filled in ((), (FilledMask(LINE, (), ()),)):
        run_usage(replace(masked_report(str(tmp_path)), filled=filled, mask_token="<hidden>"))
        assert "token_str" in capsys.readouterr().out


def test_the_lines_of_python_translate_with_an_encoder_decoder(tiny_seq2seq, translation_tokenizer, tmp_path, capsys):
    model = tiny_seq2seq()
    model.save_pretrained(tmp_path)
    translation_tokenizer.save_pretrained(tmp_path)
    run_usage(translation_report(str(tmp_path)))
    source = translation_tokenizer("The keys are old.", return_tensors="pt")
    truth = translation_tokenizer.decode(model.generate(**source, max_new_tokens=60)[0], skip_special_tokens=True)
    assert truth.strip()
    assert capsys.readouterr().out == truth + "\n"
