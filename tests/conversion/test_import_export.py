"""The command line: a folder becomes another one that is whole, proved and written down, or nothing is left."""

import json
import shutil

import pytest
import torch
from native_models import CHOICES, config_of
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from hf_minilm.cli.main import main
from hf_minilm.conversion import ARCHITECTURES, proof, saving
from hf_minilm.data.document import Document
from hf_minilm.data.tokenizer import train_tokenizer

TEXTS = ("Las llaves están sobre la mesa.", "The keys to the cabinet are old.")
FIRST_CHOICES = {architecture: next(iter(choices)) for architecture, choices in CHOICES.items()}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """Save one tokenizer of each kind; give their folders."""
    folder = tmp_path_factory.mktemp("tokenizers")
    for kind in ("wordpiece", "bytelevel_bpe"):
        train_tokenizer([Document(TEXTS, "example")] * 5, kind=kind, vocab_size="auto", max_length=64).save_pretrained(
            folder / kind
        )
    return {"bert": folder / "wordpiece", **dict.fromkeys(set(ARCHITECTURES) - {"bert"}, folder / "bytelevel_bpe")}


@pytest.fixture
def native_folder(tmp_path, tokenizers, randomised):
    """Save a native language model with a tokenizer; give the folder."""

    def save(architecture="bert", native_class=None, dtype=torch.float32, **fields):
        tokenizer = AutoTokenizer.from_pretrained(tokenizers[architecture])
        ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        config = config_of(architecture, FIRST_CHOICES[architecture])
        config.vocab_size = len(tokenizer)
        for name, value in {**ids, **fields}.items():
            setattr(config, name, value)
        head = ARCHITECTURES[architecture].head_of_native(native_class) if native_class else None
        head = head or ARCHITECTURES[architecture].heads[0]
        model = randomised(head.native_class, config).to(dtype)
        model.save_pretrained(tmp_path / "native")
        tokenizer.save_pretrained(tmp_path / "native")
        return tmp_path / "native"

    return save


def run(*words):
    return main([str(word) for word in words])


def only_line(capsys):
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hf-minilm: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("architecture", CHOICES)
def test_a_folder_goes_there_and_back_with_its_tokenizer(architecture, native_folder, tmp_path, capsys):
    native, ours, back = native_folder(architecture), tmp_path / "ours", tmp_path / "deep" / "back"
    assert run("import", native, ours) == 0
    assert run("export", ours, back, "--to", architecture) == 0
    before, after = load_file(native / "model.safetensors"), load_file(back / "model.safetensors")
    if architecture == "roberta":
        table = "roberta.embeddings.position_embeddings.weight"
        first = AutoModelForMaskedLM.from_pretrained(native).config.pad_token_id + 1
        before[table], after[table] = before[table][first:], after[table][first:]
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    auto = AutoModelForMaskedLM if architecture in ("bert", "roberta") else AutoModelForCausalLM
    reopened = AutoTokenizer.from_pretrained(back)
    inputs = AutoTokenizer.from_pretrained(native)(TEXTS[0], return_tensors="pt")
    assert reopened(TEXTS[0])["input_ids"] == inputs["input_ids"][0].tolist()
    with torch.no_grad():
        logits = [auto.from_pretrained(folder).eval()(**inputs).logits for folder in (native, back)]
    torch.testing.assert_close(*logits, rtol=0, atol=0)
    assert "largest difference" in capsys.readouterr().out


def test_a_native_export_has_neither_code_nor_a_map_to_it(native_folder, tmp_path):
    run("import", native_folder(), tmp_path / "ours")
    run("export", tmp_path / "ours", tmp_path / "back", "--to", "bert")
    assert (tmp_path / "ours" / "modeling_minilm.py").exists()
    assert not list((tmp_path / "back").glob("**/*.py"))
    assert not [path for path in (tmp_path / "back").glob("*.json") if "auto_map" in path.read_text(encoding="utf-8")]


def test_whoever_may_read_the_configuration_may_read_the_weights(native_folder, tmp_path):
    run("import", native_folder(), tmp_path / "ours")
    run("export", tmp_path / "ours", tmp_path / "back", "--to", "bert")
    for folder in (tmp_path / "ours", tmp_path / "back"):
        assert (folder / "model.safetensors").stat().st_mode == (folder / "config.json").stat().st_mode


def test_the_record_says_what_was_compared_and_how_far_apart_it_was(native_folder, tmp_path):
    run("import", native_folder("llama"), tmp_path / "ours")
    record = json.loads((tmp_path / "ours" / "conversion.json").read_text(encoding="utf-8"))
    assert record["from"] == "llama (LlamaForCausalLM)"
    assert record["to"] == "hf_minilm (MiniLMForCausalLM)"
    assert record["dtype_of_weights"] == "float32"
    assert record["proof"]["greedy"] == {"prompts": 4, "tokens_each": 32, "equal": 128}
    assert set(record["proof"]["largest_difference"]) == {"logits", "hidden_states"}
    assert set(record["proof"]["tokens_read"]) == {"random rows", "text"}
    assert record["proof"]["texts_with_equal_token_ids"] == len(proof.SENTENCES)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_keep_their_dtype(dtype, native_folder, tmp_path):
    run("import", native_folder("gpt2", dtype=dtype), tmp_path / "ours")
    run("export", tmp_path / "ours", tmp_path / "back", "--to", "gpt2")
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("native", "ours", "back")]
    assert {tensor.dtype for tensors in weights for tensor in tensors.values()} == {dtype}
    assert all(torch.equal(tensor, weights[2][name]) for name, tensor in weights[0].items())
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")


def test_weights_keep_their_dtype_whatever_the_configuration_says(native_folder, tmp_path):
    folder = native_folder("bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    run("import", folder, tmp_path / "ours")
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "ours" / "model.safetensors")
    assert torch.equal(after["model.embeddings.norm.bias"], before["bert.embeddings.LayerNorm.bias"])
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}


def test_weights_of_two_dtypes_are_kept_in_the_one_that_holds_both(native_folder, tmp_path):
    folder = native_folder("bert", dtype=torch.bfloat16)
    tensors = load_file(folder / "model.safetensors")
    fine = tensors["bert.embeddings.LayerNorm.bias"].float() + 1e-7
    change_tensors(folder, **{"bert.embeddings.LayerNorm.bias": fine})
    run("import", folder, tmp_path / "ours")
    after = load_file(tmp_path / "ours" / "model.safetensors")
    assert torch.equal(after["model.embeddings.norm.bias"], fine)
    assert torch.equal(
        after["model.embeddings.norm.weight"], tensors["bert.embeddings.LayerNorm.weight"].to(torch.float32)
    )


def test_a_model_in_several_files_is_read(native_folder, tmp_path):
    folder = native_folder("gpt2", dtype=torch.bfloat16)
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder / "sharded", max_shard_size="20KB")
    assert len(list((folder / "sharded").glob("*.safetensors"))) > 1
    assert run("import", folder / "sharded", tmp_path / "ours") == 0
    assert load_file(tmp_path / "ours" / "model.safetensors")["model.norm.weight"].dtype == torch.bfloat16


def test_labels_dropouts_and_settings_of_generation_go_along(native_folder, tmp_path):
    names = {0: "no", 1: "sí", 2: "quizá"}
    folder = native_folder("gpt2", "GPT2ForSequenceClassification", id2label=names, resid_pdrop=0.3, embd_pdrop=0.3)
    run("import", folder, tmp_path / "ours")
    run("export", tmp_path / "ours", tmp_path / "back", "--to", "gpt2")
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("ours", "back")]
    assert all(list(config["id2label"].values()) == list(names.values()) for config in configs)
    assert configs[0]["hidden_dropout"] == 0.3
    assert (configs[1]["resid_pdrop"], configs[1]["embd_pdrop"]) == (0.3, 0.3)


def test_what_only_training_reads_is_said_where_it_cannot_go_along(native_folder, tmp_path, capsys):
    run("import", native_folder("gpt2", resid_pdrop=0.3, embd_pdrop=0.2), tmp_path / "ours")
    assert "dropped: embd_pdrop (0.2, from now on 0.3), which only training reads" in capsys.readouterr().out


def test_settings_of_generation_go_along(native_folder, tmp_path):
    folder = native_folder("llama")
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**settings, "top_k": 17, "do_sample": True}))
    run("import", folder, tmp_path / "ours")
    run("export", tmp_path / "ours", tmp_path / "back", "--to", "llama")
    for name in ("ours", "back"):
        saved = json.loads((tmp_path / name / "generation_config.json").read_text())
        assert (saved["top_k"], saved["do_sample"]) == (17, True)


def test_a_folder_with_files_is_refused_and_left_alone(native_folder, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    assert run("import", native_folder(), tmp_path / "mine") == 2
    assert only_line(capsys) == f"hf-minilm: folder ({tmp_path / 'mine'}) must be new or empty; choose another one."
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_an_empty_folder_is_taken(native_folder, tmp_path):
    (tmp_path / "ours").mkdir()
    assert run("import", native_folder(), tmp_path / "ours") == 0
    assert (tmp_path / "ours" / "conversion.json").exists()


def test_nothing_is_left_behind_where_the_two_differ(native_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(proof, "TOLERANCE", -1.0)
    assert run("import", native_folder(), tmp_path / "ours") == 2
    assert "both models must compute the same, and do not" in only_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["native"]


def test_nothing_is_left_behind_where_the_saved_weights_differ(native_folder, tmp_path, capsys, monkeypatch):
    check = saving._check_saved_weights

    def spoil_first(converted, folder):
        tensors = load_file(folder / "model.safetensors")
        tensors["model.embeddings.norm.bias"][3] += 1
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        check(converted, folder)

    monkeypatch.setattr(saving, "_check_saved_weights", spoil_first)
    assert run("import", native_folder(), tmp_path / "ours") == 2
    assert "differ in model.embeddings.norm.bias" in only_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["native"]


def test_nothing_is_left_behind_where_the_tokenizer_reads_otherwise_when_reopened(
    native_folder, tmp_path, capsys, monkeypatch
):
    open_tokenizer = saving.open_tokenizer

    def open_another(name):
        tokenizer = open_tokenizer(name)
        tokenizer.add_tokens(["Ana"])
        return tokenizer

    monkeypatch.setattr(saving, "open_tokenizer", open_another)
    assert run("import", native_folder(), tmp_path / "ours") == 2
    assert "tokenizer must give the same ids" in only_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["native"]


def change_tensors(folder, *, without=(), **added):
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if name not in without}
    save_file({**kept, **added}, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_missing_tensor_and_one_too_many_are_named(native_folder, tmp_path, capsys):
    folder = native_folder()
    missing = "bert.encoder.layer.1.output.dense.bias"
    change_tensors(folder, without=[missing], **{"bert.encoder.layer.1.adapter.weight": torch.zeros(3)})
    assert run("import", folder, tmp_path / "ours") == 2
    line = only_line(capsys)
    assert f"1 missing: {missing}" in line
    assert "1 without a counterpart: bert.encoder.layer.1.adapter.weight" in line


def test_a_tensor_too_many_in_a_model_of_ours_is_named(native_folder, tmp_path, capsys):
    run("import", native_folder(), tmp_path / "ours")
    change_tensors(tmp_path / "ours", **{"model.layers.0.adapter.weight": torch.zeros(3)})
    for architecture in ("bert", "roberta"):
        assert run("export", tmp_path / "ours", tmp_path / "back", "--to", architecture) == 2
        assert "1 without a counterpart: model.layers.0.adapter.weight" in only_line(capsys)


def test_what_the_configuration_gives_may_lie_in_the_file(native_folder, tmp_path):
    folder = native_folder()
    change_tensors(folder, **{"bert.embeddings.position_ids": torch.arange(37)[None]})
    assert run("import", folder, tmp_path / "ours") == 0


def test_a_file_that_holds_more_than_its_class_is_opened_as_the_class_that_reads_all(native_folder, tmp_path, capsys):
    folder = native_folder("bert", "BertForPreTraining")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["BertForMaskedLM"]}))
    assert run("import", folder, tmp_path / "ours") == 0
    assert "bert (BertForPreTraining) -> hf_minilm (MiniLMForPreTraining)" in capsys.readouterr().out


def test_a_pooler_that_no_head_reads_is_dropped_and_said(native_folder, tmp_path, capsys):
    assert run("import", native_folder("bert", "BertModel"), tmp_path / "ours") == 0
    said = "dropped: pooler.dense.bias, pooler.dense.weight, for which MiniLMModel has no place"
    assert said in capsys.readouterr().out
    assert said.removeprefix("dropped: ") in json.loads((tmp_path / "ours" / "conversion.json").read_text())["dropped"]


def test_a_head_that_the_native_architecture_has_not_is_dropped_and_said(native_folder, tmp_path, capsys):
    run("import", native_folder("bert", "BertForPreTraining"), tmp_path / "ours")
    assert run("export", tmp_path / "ours", tmp_path / "back", "--to", "roberta") == 0
    out = capsys.readouterr().out
    assert "hf_minilm (MiniLMForMaskedLM) -> roberta (RobertaForMaskedLM)" in out
    assert "dropped: next_sentence.bias, next_sentence.weight, pooler.dense.bias, pooler.dense.weight" in out


def test_a_model_without_a_tokenizer_is_proved_on_random_rows_and_said(native_folder, tmp_path, capsys):
    folder = native_folder()
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert run("import", folder, tmp_path / "ours") == 0
    assert "no tokenizer lies beside the model: no text was compared" in capsys.readouterr().out
    assert not list((tmp_path / "ours").glob("tokenizer*"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("import", "{ours}", "{out}"), "must be a native one, and is one of ours"),
        (("export", "{native}", "{out}", "--to", "bert"), "must be one of ours; import makes it one"),
        (("export", "{ours}", "{out}", "--to", "bart"), "architecture (bart) must be one of bert, roberta"),
        (("export", "{ours}", "{out}", "--to", "llama"), "position_embedding (learned) must be rope"),
        (("import", "{out}/a/b/c", "{out}"), "must be a folder with a model, or a Hub name"),
        (("import", "nobody/nothing", "{out}"), "model (nobody/nothing) must be a folder with a model, or a Hub name"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(words, said, native_folder, tmp_path, capsys):
    places = {"native": native_folder(), "ours": tmp_path / "ours", "out": tmp_path / "out"}
    run("import", places["native"], places["ours"])
    capsys.readouterr()
    assert run(*(word.format(**places) for word in words)) == 2
    assert said in only_line(capsys)
    assert not places["out"].exists()


def test_a_damaged_file_is_one_line(native_folder, tmp_path, capsys):
    folder = native_folder()
    (folder / "model.safetensors").write_bytes(b"not weights")
    assert run("import", folder, tmp_path / "ours") == 2
    assert "must be whole; save it again" in only_line(capsys)


def test_pickled_weights_are_not_opened(native_folder, tmp_path, capsys):
    folder = native_folder()
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert run("import", folder, tmp_path / "ours") == 2
    assert "safetensors" in only_line(capsys)


def test_an_imported_folder_needs_nothing_of_the_native_one(native_folder, tmp_path):
    folder = native_folder("gpt2")
    run("import", folder, tmp_path / "ours")
    shutil.rmtree(folder)
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert type(ours).__name__ == "MiniLMForCausalLM"
    assert all(parameter.is_contiguous() for parameter in ours.parameters())
