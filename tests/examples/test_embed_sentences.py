"""The example that makes sentence embeddings brings translations together, and its folder opens as the library's do."""

import re
from pathlib import Path

import embed_sentences
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

SCRIPT = Path(embed_sentences.__file__)


def test_translations_come_closer_and_an_embedding_is_the_mean_of_the_tokens(
    encoder: Path, tmp_path: Path, run_script
) -> None:
    options = ("--limit", 300, "--epochs", 4, "--learning-rate", 4e-3, "--batch-size", 32, "--output", tmp_path / "out")
    code, printed, errors = run_script(encoder, *options)
    assert code == 0, errors
    before, after = (float(value) for value in re.findall(r"nearest is right ([\d.]+)", printed))
    assert after > before + 0.1, printed
    text = "Elena camina hacia el parque con Diego."
    embedding = torch.as_tensor(SentenceTransformer(str(tmp_path / "out")).encode([text]))
    model, tokenizer = AutoModel.from_pretrained(tmp_path / "out"), AutoTokenizer.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        expected = model(**tokenizer(text, return_tensors="pt")).last_hidden_state.mean(dim=1)
    assert (embedding - expected).abs().max() < 1e-5


@pytest.mark.parametrize("option", ["--untrained", "--grouped"])
def test_an_option_without_effect_is_refused(option: str, encoder: Path, tmp_path: Path, run_script) -> None:
    code, printed, errors = run_script(encoder, option, "--output", tmp_path / "out")
    assert (code, printed) == (2, "")
    assert errors.splitlines()[-1].startswith(f"embed_sentences: {option} (given) must be absent")
    assert not (tmp_path / "out").exists()
