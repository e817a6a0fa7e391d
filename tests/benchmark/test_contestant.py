"""Each kind of work, done small in this process."""

import pytest
import torch

from hf_minilm.benchmark import matrix_rate
from hf_minilm.benchmark.contestant import do_work
from hf_minilm.benchmark.ours import prepare_ours, recipe_for
from hf_minilm.benchmark.work import EncodingWork, GenerationWork, MachineWork
from hf_minilm.benchmark.working_folder import prepare, train_largest_tokenizer
from hf_minilm.training.preparation import prepare_data

VOCABULARY = 400


def done(work, folder):
    prepare(work, folder, vocabulary=VOCABULARY)
    return do_work(work, folder)


@pytest.mark.parametrize("objective", ["masked_next_sentence", "masked", "causal"])
def test_ours_is_trained_by_its_own_loop_and_counts_the_tokens_of_its_rows(small_work, folder, tmp_path, objective):
    work = small_work("ours", objective, settings=("training.micro_batch_rows=2",))
    prepare(work, folder, vocabulary=VOCABULARY)
    rows = prepare_data(recipe_for(work, folder, tmp_path), tmp_path, quiet=True).train.describe()
    whole_epoch = small_work("ours", objective, rows=rows.num_rows, warmup_steps=0, steps=1)
    figures = do_work(whole_epoch, folder)
    assert figures["tokens"] == rows.num_tokens
    assert figures["padding_share"] == pytest.approx(rows.wasted_share)
    assert do_work(work, folder)["steps"] == 2


@pytest.mark.parametrize("tuned", [False, True], ids=["as users run it", "tuned"])
@pytest.mark.parametrize(
    ("maker", "objective", "data"),
    [
        ("bert", "masked_next_sentence", "pairs"),
        ("bert", "masked_next_sentence", "filled_pairs"),
        ("modernbert", "masked", "paragraphs"),
        ("bert", "masked", "grouped"),
        ("llama", "causal", "grouped"),
    ],
)
def test_a_peer_is_trained_under_trainer(small_work, folder, maker, objective, data, tuned):
    figures = done(small_work(maker, objective, data=data, tuned=tuned, length=96), folder)
    assert data == "filled_pairs" or (figures["padding_share"] == 0) == (data == "grouped")
    assert figures["tokens"] == 2 * 4 * 96 or data != "grouped"
    expected = (0.99, 1.0) if objective == "causal" else (0.05, 0.3)
    assert expected[0] <= figures["predicted_share"] <= expected[1]
    assert figures["peak_memory"] >= figures["memory_before"] > 0
    assert 0 <= figures["waiting_share"] < 1
    assert figures["flops_per_second"] > 0


def test_a_setting_reaches_our_recipe(small_work, folder, tmp_path):
    work = small_work("ours", "causal", settings=("optimizer.name=muon", "model.overrides.qk_norm=true"))
    recipe = recipe_for(work, folder, tmp_path)
    assert recipe.optimizer.name == "muon"
    assert recipe.model.overrides["qk_norm"] is True
    assert recipe.model.overrides["vocab_size"] == VOCABULARY


def test_a_wrong_setting_is_refused_before_anything_is_measured(small_work, folder):
    with pytest.raises(ValueError, match="bugdet"):
        prepare_ours(small_work("ours", "causal", settings=("training.bugdet=1",)), folder)


def test_texts_become_vectors_and_their_tokens_are_counted(folder):
    both = [
        done(EncodingWork(maker, "tiny", VOCABULARY, texts=10, batch_rows=4, precision=precision), folder)
        for maker, precision in (("ours", "fp32"), ("bert", "bf16"))
    ]
    assert both[0]["tokens"] == both[1]["tokens"]
    assert both[0]["texts"] == both[1]["texts"] == 10
    assert both[0]["tokens_per_second"] / both[0]["texts_per_second"] == pytest.approx(both[0]["tokens"] / 10)


@pytest.mark.parametrize("maker", ["ours", "gpt2"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_as_many_tokens_are_generated_as_are_timed(folder, maker, precision):
    figures = done(GenerationWork(maker, "tiny", VOCABULARY, 2, new_tokens=4, precision=precision), folder)
    assert figures["first_token_seconds"] > 0
    assert figures["tokens_per_second"] > 0


def test_the_machine_is_described_and_its_products_are_timed(folder, monkeypatch):
    monkeypatch.setattr(matrix_rate, "_SQUARES", {"cpu": (64,), "cuda": (64,)})
    monkeypatch.setattr(matrix_rate, "TRAINING_SHAPE", (64, 32, 64))
    monkeypatch.setattr(matrix_rate, "_SECONDS_A_SHAPE", 0.01)
    figures = do_work(MachineWork(), folder)
    assert figures["matrix_rates"].keys() == {"fp32", "bf16"}
    assert min(figures["matrix_rates"].values()) > 0
    assert figures["machine"]["torch"] == torch.__version__


def test_a_corpus_with_fewer_tokens_than_the_vocabulary_gets_a_smaller_tokenizer_and_says_so(folder, capsys):
    tokenizer = train_largest_tokenizer(folder.documents(), kind="wordpiece", vocabulary=30_000)
    assert 300 < len(tokenizer) < 30_000
    assert f"{len(tokenizer):,} tokens; the models have 30,000" in capsys.readouterr().err
