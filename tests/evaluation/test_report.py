"""The report: all figures in JSON, all lines in 100 columns, and its lines of Python do what they say."""

import json

import pytest

from hf_minilm import MiniLMForCausalLM, MiniLMForPreTraining
from hf_minilm.evaluation.language_model import HeldOut
from hf_minilm.evaluation.minimal_pairs import PairAccuracy
from hf_minilm.evaluation.report import Report, RunFacts
from hf_minilm.evaluation.samples import FilledMask, GeneratedText
from hf_minilm.evaluation.world_floor import MaskedFloor

FACTS = RunFacts("masked + next sentence", "builtin:world", 1200, 19_660_800, 754.2, 3_400_123, "NVIDIA H200")
LINE = "El perro que perseguía al gato que vive en la otra cuadra [MASK]."


def masked_report(folder="runs/first/model"):
    return Report(
        FACTS,
        HeldOut(1.0234, 0.61, 40_123, 0.11, 0.957, 0.513, 1_234),
        MaskedFloor(0.6012, 1.0345, 512, 48, 0.0071, 1.0, 0.12, 0.953, 43),
        folder,
        False,
        probes=(
            PairAccuracy("number_agreement", 0, 67, 1.0, 0.9458, 1.0),
            PairAccuracy("number_agreement", 2, 66, 0.75, 0.634, 0.838),
            PairAccuracy("pronoun", 1, 50, 0.5, 0.366, 0.634),
        ),
        filled=(FilledMask(LINE, ("duerme", "corre"), (("duerme", 0.713), ("##n", 0.09))),),
    )


def causal_report(floor, folder="runs/second/model"):
    figures = HeldOut(1.5, None, 999, None, None, None, 0)
    return Report(FACTS, figures, floor, folder, True, texts=(GeneratedText("Ana", " saw the keys." * 20),))


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


@pytest.mark.parametrize("report", [masked_report(), causal_report(0.75), causal_report("There is none, " * 12)])
def test_no_line_is_longer_than_100_columns(report):
    assert max(len(line) for line in report.to_text().splitlines()) <= 100


def test_the_causal_floor_stands_beside_the_loss_and_a_reason_in_its_place():
    assert "held-out loss 1.50 nats per predicted token (floor 0.75)" in causal_report(0.75).to_text()
    text = causal_report("There is no floor for this text.").to_text()
    assert "There is no floor for this text." in text
    assert "(floor" not in text


@pytest.mark.parametrize("report", [masked_report(), causal_report(0.75), causal_report(None)])
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
    report = causal_report(None, str(tmp_path)) if is_causal else masked_report(str(tmp_path))
    code = [line[2:] for line in report.to_text().splitlines()[-4:]]
    assert len(code) == 4
    exec("\n".join(code), {})
    assert ("generated_text" if is_causal else "token_str") in capsys.readouterr().out
