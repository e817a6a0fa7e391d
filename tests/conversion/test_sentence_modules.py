"""What sentence-transformers keeps beside a model goes along: its vectors and scores are the same before and after."""

import json
import shutil

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.cross_encoder.modules import LogitScore
from sentence_transformers.sentence_transformer.modules import Dense, Dropout, Normalize, Pooling, Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from hf_minilm.cli.main import main
from hf_minilm.data.document import Document
from hf_minilm.data.tokenizer import train_tokenizer

TEXTS = ["Las llaves están sobre la mesa.", "The keys to the cabinet are old. " * 9]
PAIRS = [(TEXTS[0], TEXTS[1]), (TEXTS[1], TEXTS[0])]
SIZES = {"hidden_size": 36, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 53}


@pytest.fixture(scope="module")
def tokenizer():
    """Train a tokenizer."""
    return train_tokenizer(
        [Document(text, "example") for text in TEXTS] * 5, kind="wordpiece", vocab_size="auto", max_length=64
    )


@pytest.fixture
def native(tmp_path, tokenizer, randomised):
    """Save a native model with its tokenizer; give the folder."""
    torch.manual_seed(3)

    def save(model_class=BertModel, **fields):
        config = LlamaConfig if model_class is LlamaForCausalLM else BertConfig
        ids = {"vocab_size": len(tokenizer), "max_position_embeddings": 64, "pad_token_id": tokenizer.pad_token_id}
        folder = tmp_path / "plain"
        randomised(model_class, config(**SIZES, **ids, **fields)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    return save


@pytest.fixture
def pooled(tmp_path, native):
    """Save a model of sentence embeddings with a choice of everything that is not the default; give the folder."""

    def save(*more):
        modules = [Transformer(native()), Pooling(36, pooling_mode="cls"), *more]
        model = SentenceTransformer(modules=modules, prompts={"query": "keys: "}, device="cpu")
        model.save_pretrained(str(tmp_path / "native"), create_model_card=False)
        change(tmp_path / "native" / "sentence_bert_config.json", max_seq_length=11)
        return tmp_path / "native"

    return save


def change(file, **fields):
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def convert_both_ways(folder, *, to="bert"):
    """Import and export a folder; give both new ones."""
    ours, back = folder.with_name("ours"), folder.with_name("back")
    assert main(["import", str(folder), str(ours)]) == 0
    assert main(["export", str(ours), str(back), "--to", to]) == 0
    return ours, back


def refusal(folder, capsys):
    """Import a folder that is refused; give the line."""
    assert main(["import", str(folder), str(folder.with_name("ours"))]) == 2
    assert not folder.with_name("ours").exists()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hf-minilm: ")]
    assert len(lines) == 1
    return lines[0]


def vectors_of(folder):
    model = SentenceTransformer(str(folder), device="cpu")
    return np.concatenate([model.encode(TEXTS), model.encode(TEXTS, prompt_name="query")])


def test_vectors_of_a_model_that_reads_the_first_token_and_normalises_are_the_same_both_ways(pooled):
    folder = pooled(Normalize())
    before = vectors_of(folder)
    assert np.abs(before - vectors_of(folder.with_name("plain"))).max() > 0.1  # else it says nothing
    for converted in convert_both_ways(folder):
        np.testing.assert_array_equal(vectors_of(converted), before)


def test_a_model_of_ours_keeps_its_pooling_when_it_is_exported(native, tmp_path):
    main(["import", native(), str(tmp_path / "mine")])
    modules = [Transformer(str(tmp_path / "mine")), Pooling(36, pooling_mode="max"), Dropout(0.3), Normalize()]
    model = SentenceTransformer(modules=modules, device="cpu")
    model.save_pretrained(str(tmp_path / "trained"), create_model_card=False)
    assert main(["export", str(tmp_path / "trained"), str(tmp_path / "exported"), "--to", "bert"]) == 0
    np.testing.assert_array_equal(vectors_of(tmp_path / "exported"), vectors_of(tmp_path / "trained"))


def test_files_of_older_versions_mean_the_same(pooled):
    folder = pooled(Normalize())
    before = vectors_of(folder)
    modules = json.loads((folder / "modules.json").read_text())
    for module in modules:
        module["type"] = f"sentence_transformers.models.{module['type'].rpartition('.')[2]}"
    (folder / "modules.json").write_text(json.dumps(modules))
    modes = {f"pooling_mode_{name}": name == "cls_token" for name in ("cls_token", "mean_tokens", "max_tokens")}
    older = {"word_embedding_dimension": 36, **modes}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(older))
    shutil.rmtree(folder / "2_Normalize")
    (folder / "sentence_bert_config.json").unlink()
    (folder / "sentence_roberta_config.json").write_text('{"max_seq_length": 11, "do_lower_case": false}')
    np.testing.assert_array_equal(vectors_of(folder), before)
    for converted in convert_both_ways(folder):
        np.testing.assert_array_equal(vectors_of(converted), before)


def test_what_went_along_is_said_and_written_down(pooled, capsys):
    ours, _ = convert_both_ways(pooled(Normalize()))
    kept = json.loads((ours / "conversion.json").read_text())["kept_of_sentence_transformers"]
    files = {"modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"}
    assert set(kept) == files | {"1_Pooling/config.json", "2_Normalize/config.json"}
    assert f"kept of sentence-transformers: {', '.join(kept)}" in capsys.readouterr().out
    assert all((ours / name).is_file() for name in kept)


def test_a_model_without_modules_has_none_afterwards(native, tmp_path):
    ours, _ = convert_both_ways(tmp_path / native())
    assert json.loads((ours / "conversion.json").read_text())["kept_of_sentence_transformers"] == []
    assert not (ours / "modules.json").exists()


@pytest.mark.parametrize(
    "attribute",
    [
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.1.0"}},
        {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
    ],
)
def test_scores_of_a_cross_encoder_whose_configuration_names_the_activation_are_the_same(attribute, native, tmp_path):
    folder = tmp_path / native(BertForSequenceClassification, num_labels=1, **attribute)
    model = CrossEncoder(str(folder), device="cpu")
    before = model.predict(PAIRS)
    assert np.abs(before - model.predict(PAIRS, activation_fn=torch.nn.Sigmoid())).max() > 0.1  # the default
    for converted in convert_both_ways(folder):
        np.testing.assert_array_equal(CrossEncoder(str(converted), device="cpu").predict(PAIRS), before)


def test_scores_of_a_cross_encoder_whose_settings_name_the_activation_are_the_same(native, tmp_path):
    plain = native(BertForSequenceClassification, num_labels=1)
    model = CrossEncoder(plain, activation_fn=torch.nn.Tanh(), device="cpu")
    model.save_pretrained(str(tmp_path / "native"), create_model_card=False)
    for converted in convert_both_ways(tmp_path / "native"):
        np.testing.assert_array_equal(CrossEncoder(str(converted), device="cpu").predict(PAIRS), model.predict(PAIRS))


def test_scores_of_a_decoder_that_says_yes_or_no_are_the_same(native, tmp_path):
    modules = [Transformer(native(LlamaForCausalLM), transformer_task="text-generation"), LogitScore(7, 9)]
    model = CrossEncoder(modules=modules, device="cpu")
    model.save_pretrained(str(tmp_path / "native"), create_model_card=False)
    before = CrossEncoder(str(tmp_path / "native"), device="cpu").predict(PAIRS)
    for converted in convert_both_ways(tmp_path / "native", to="llama"):
        np.testing.assert_allclose(CrossEncoder(str(converted), device="cpu").predict(PAIRS), before, atol=1e-5)


def test_sparse_vectors_are_the_same(native, tmp_path):
    modules = [Transformer(native(BertForMaskedLM), transformer_task="fill-mask"), SpladePooling("sum")]
    model = SparseEncoder(modules=modules, device="cpu")
    model.save_pretrained(str(tmp_path / "native"), create_model_card=False)
    for converted in convert_both_ways(tmp_path / "native"):
        found = SparseEncoder(str(converted), device="cpu").encode(TEXTS)
        torch.testing.assert_close(found.to_dense(), model.encode(TEXTS).to_dense(), rtol=0, atol=1e-5)


def test_a_module_with_weights_is_refused(pooled, capsys):
    line = refusal(pooled(Dense(36, 12)), capsys)
    assert "module (2_Dense, a sentence_transformers.base.modules.dense.Dense) of " in line
    assert "which have no weights or code of their own; convert a copy without modules.json" in line


@pytest.mark.parametrize(
    ("index", "fields", "said"),
    [
        (1, {"type": "modeling.Pooling"}, "module (1_Pooling, a modeling.Pooling) of "),
        (1, {"type": "sentence_transformers.models.Pooling/x"}, "must be one of sentence-transformers' Transformer, "),
        (1, {"type": ["Pooling"]}, "must be one of sentence-transformers' Transformer, "),
        (1, {"path": "../1_Pooling"}, "path (../1_Pooling) of Pooling of "),
        (1, {"path": "/1_Pooling"}, "must be like 1_Pooling"),
        (1, {"path": ""}, "must be like 1_Pooling"),
        (1, {"path": "3_Pooling"}, "must have its 3_Pooling/config.json"),
        (0, {"path": "0_Transformer"}, "must be empty, as the model lies beside modules.json"),
        (0, {"code": "x"}, "must hold idx, name, path, type, kwargs alone, not code"),
    ],
)
def test_modules_that_lead_elsewhere_are_refused(index, fields, said, pooled, capsys):
    folder = pooled(Normalize())
    modules = json.loads((folder / "modules.json").read_text())
    modules[index].update(fields)
    (folder / "modules.json").write_text(json.dumps(modules))
    assert said in refusal(folder, capsys)


@pytest.mark.parametrize(
    ("file", "fields", "said"),
    [
        ("sentence_bert_config.json", {"tokenizer_name_or_path": "ana/code"}, "not tokenizer_name_or_path; remove"),
        ("sentence_bert_config.json", {"model_args": {"attn_implementation": "ana/kernel"}}, "not model_args; remove"),
        ("1_Pooling/config.json", {"weights": "model.bin"}, "not weights; remove"),
        ("config_sentence_transformers.json", {"keep_in_fp32_modules": ["0.model.pooler"]}, "not keep_in_fp32_modules"),
        ("config_sentence_transformers.json", {"activation_fn": "os.abort"}, "activation (os.abort) of "),
        ("config.json", {"sentence_transformers": {"activation_fn": "torch.hub.load"}}, "must be one of torch.nn"),
        ("config.json", {"sentence_transformers": {"trust_remote_code": True}}, "not trust_remote_code; remove"),
        ("config.json", {"sentence_transformers": "Identity"}, "must hold fields"),
        ("config.json", {"sbert_ce_default_activation_function": "torch.nn.os.abort"}, "must be one of torch.nn"),
    ],
)
def test_a_field_that_could_name_other_code_or_other_files_is_refused(file, fields, said, pooled, capsys):
    folder = pooled(Normalize())
    change(folder / file, **fields)
    assert said in refusal(folder, capsys)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not JSON", "must be JSON; save the model again"),
        ("[" * 100_000, "must be JSON; save the model again"),
        ("{}", "must hold a list of modules"),
        ("[7]", "module (7, of "),
        ('["' + "x" * 2**20 + '"]', "must be a regular file of at most 1,048,576 bytes"),
    ],
)
def test_damaged_modules_are_one_line(text, said, pooled, capsys):
    folder = pooled(Normalize())
    (folder / "modules.json").write_text(text)
    assert said in refusal(folder, capsys)


def test_only_regular_files_are_read(pooled, capsys):
    folder = pooled(Normalize())
    (folder / "1_Pooling" / "config.json").unlink()
    (folder / "1_Pooling" / "config.json").mkdir()
    assert "must be a regular file of at most 1,048,576 bytes" in refusal(folder, capsys)


def test_nothing_else_that_lies_with_a_module_goes_along(pooled):
    folder = pooled(Normalize())
    (folder / "1_Pooling" / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "1_Pooling" / "modeling.py").write_text("import os")
    (folder / "3_Pooling").mkdir()
    ours, back = convert_both_ways(folder)
    for converted in (ours, back):
        assert [path.name for path in (converted / "1_Pooling").iterdir()] == ["config.json"]
        assert not (converted / "3_Pooling").exists()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Put a folder into the Hub's cache under a name, and let no network be there."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    commit = "0123456789abcdef0123456789abcdef01234567"

    def keep(folder, *, absent=()):
        repository = tmp_path / "hub" / "models--ana--pooled"
        shutil.copytree(folder, repository / "snapshots" / commit)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
        for name in absent:
            (repository / "snapshots" / commit / name).unlink(missing_ok=True)
            (repository / ".no_exist" / commit).mkdir(parents=True, exist_ok=True)
            (repository / ".no_exist" / commit / name).touch()
        return "ana/pooled"

    return keep


def test_a_model_of_the_hub_keeps_its_modules(hub, pooled, tmp_path):
    folder = pooled(Normalize())
    assert main(["import", hub(folder), str(tmp_path / "ours")]) == 0
    np.testing.assert_array_equal(vectors_of(tmp_path / "ours"), vectors_of(folder))
    assert json.loads((tmp_path / "ours" / "conversion.json").read_text())["dropped"][1:] == []


def test_modules_that_the_hub_has_not_are_not_missed_and_those_that_nobody_knows_of_are_said(hub, native, tmp_path):
    name = hub(native(), absent=["modules.json"])
    assert main(["import", name, str(tmp_path / "ours")]) == 0
    shutil.rmtree(tmp_path / "hub" / "models--ana--pooled" / ".no_exist")
    assert main(["import", name, str(tmp_path / "unsure")]) == 0
    sure, unsure = (json.loads((tmp_path / name / "conversion.json").read_text()) for name in ("ours", "unsure"))
    added = "modules.json of ana/pooled, if there is such a file: the Hub does not answer"
    assert unsure["dropped"] == [*sure["dropped"], added]
