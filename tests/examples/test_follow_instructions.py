"""The example of instruction tuning learns completions, and only them."""

import json
import re
from pathlib import Path

import torch
from fine_tune import open_tokenizer
from transformers import AutoModelForCausalLM

from hf_minilm.training.recipe import load_recipe

SCRIPT = Path(__file__).parents[2] / "examples" / "follow_instructions.py"


def test_what_a_prompt_asks_is_learnt_and_ends(decoder: Path, tmp_path: Path, run_script) -> None:
    answers = {"Which dog barks?": " This dog.", "¿Quién canta?": " Emma."}
    records = [{"prompt": f"Emma walks. {asked}", "completion": said} for asked, said in answers.items()] * 40
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    options = ("--epochs", 8, "--learning-rate", 4e-3, "--batch-size", 8, "--output", tmp_path / "out")
    code, printed, errors = run_script(decoder, tmp_path / "tasks.jsonl", *options)
    assert code == 0, errors
    assert printed.splitlines()[-1]
    assert "exactly right 1.000" in printed
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    inputs = open_tokenizer(decoder)("Emma walks. ¿Quién canta? Emma.", return_tensors="pt")
    with torch.no_grad():
        best = model(input_ids=inputs["input_ids"]).logits[0, -1].argmax()
    assert best == model.config.eos_token_id


def test_the_model_that_the_example_names_is_where_the_recipe_leaves_it() -> None:
    folder = load_recipe(SCRIPT.parent / "recipes" / "causal.yaml").output_folder
    assert f"follow_instructions.py {folder / 'model'} " in SCRIPT.read_text(encoding="utf-8")


def test_stories_are_asked_about_where_no_file_is_given(decoder: Path, tmp_path: Path, run_script) -> None:
    options = ("--limit", 40, "--epochs", 1, "--generate", 2, "--output", tmp_path / "out")
    code, printed, errors = run_script(decoder, *options)
    assert code == 0, errors
    assert re.search(r"exactly right [\d.]+ \(.*\); 2 held-out prompts; trained in \d+ s", printed)
