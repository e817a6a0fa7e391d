"""The example writes a page of the weights that eager attention gives, and explains a mistake in one line."""

import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from hf_minilm import MiniLMConfig, MiniLMForCausalLM, MiniLMForPreTraining
from hf_minilm.data.tokenizer import train_tokenizer
from hf_minilm.data.world import World

SCRIPT = Path(__file__).parents[2] / "examples" / "look_at_attention.py"


@pytest.fixture(scope="module", params=[MiniLMForPreTraining, MiniLMForCausalLM], ids=["encoder", "decoder"])
def model_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer(World().documents(60), kind="wordpiece", vocab_size="auto")
    torch.manual_seed(0)
    request.param(MiniLMConfig.preset("modern", "tiny", vocab_size=len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_page_shows_the_weights_that_eager_attention_returns(
    model_folder: Path, tmp_path: Path, run_script
) -> None:
    text, output = "La niña ve el perro <b>.", tmp_path / "page.html"
    code, printed, errors = run_script(model_folder, text, "--output", output)
    assert (code, errors) == (0, "")
    inputs = AutoTokenizer.from_pretrained(model_folder)(text, return_tensors="pt")
    model = AutoModel.from_pretrained(model_folder, attn_implementation="eager")
    expected = torch.cat(model(**inputs, output_attentions=True).attentions)
    length = inputs["input_ids"].shape[1]
    assert printed == f"{output}: 4 layers x 2 heads x {length} tokens; open it in a browser\n"
    data = json.loads(re.search(r'id="data">(.*?)</script>', output.read_text(encoding="utf-8"))[1])
    assert len(data["queries"]) == length
    held = torch.tensor(data["maps"]).view(4, 2, length, length) / 1000
    torch.testing.assert_close(held, expected, atol=6e-4, rtol=0)


def test_a_mistake_is_one_line_and_exit_code_2(model_folder: Path, tmp_path: Path, run_script) -> None:
    for words in ((tmp_path / "absent", "a"), (model_folder, "a", "--output", tmp_path / "absent" / "page.html")):
        code, printed, errors = run_script(*words)
        assert (code, printed) == (2, "")
        assert re.fullmatch(r"look_at_attention: .*absent.*\n", errors)
