"""What the contests consist of, and that it survives the way to another process."""

import pytest
from transformers.trainer_pt_utils import get_length_grouped_indices

from hf_minilm.benchmark.contests import BY_DEFAULT, DESCRIPTIONS, build_contest
from hf_minilm.benchmark.machine import Machine, one_gpu
from hf_minilm.benchmark.settings import BenchSettings, trainer_arguments
from hf_minilm.benchmark.work import MachineWork, read_work, write_work

CPU = Machine("cpu", "a processor", 2, True, "3", "2", "5", "0")
GPU = Machine("cuda", "a GPU", 2, True, "3", "2", "5", "0")


def contest(name, machine=CPU, **settings):
    return build_contest(name, BenchSettings(**settings), machine)


@pytest.mark.parametrize("machine", [CPU, GPU], ids=["cpu", "cuda"])
@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_work_travels_to_another_process_and_every_peer_has_its_contestant_of_ours(name, machine):
    contestants = contest(name, machine).contestants
    names = [each.name for each in contestants]
    assert len(set(names)) == len(names)
    for each in contestants:
        assert read_work(write_work(each.work)) == each.work
        assert (each.against is None) == (each.work.maker == "ours")
        assert each.against is None or names.index(each.against) < names.index(each.name)
    assert read_work(write_work(MachineWork())) == MachineWork()


@pytest.mark.parametrize("name", ["masked_next_sentence", "masked", "causal", "memory"])
def test_all_contestants_of_a_training_have_the_same_shape(name):
    works = [each.work for each in contest(name, rows=8).contestants]
    assert len({(w.size, w.vocab_size, w.rows, w.length, w.warmup_steps, w.steps, w.objective) for w in works}) == 1


@pytest.mark.parametrize(("asked", "expected"), [(30_522, 32_000), (50_257, 50_257)])
def test_the_memory_is_measured_with_a_vocabulary_that_has_all_ids_of_the_data(asked, expected):
    works = [each.work for each in contest("memory", vocabulary=asked).contestants]
    assert {work.vocab_size for work in works} == {expected}


def test_each_peer_takes_part_as_its_users_run_it_and_tuned():
    works = {each.name: each.work for each in contest("causal").contestants}
    assert list(works) == ["ours", "gpt2", "gpt2 tuned", "llama", "llama tuned"]
    assert (works["gpt2"].tuned, works["gpt2"].precision) == (False, "fp32")
    assert (works["gpt2 tuned"].tuned, works["gpt2 tuned"].precision) == (True, "bf16")


def test_without_fast_bf16_nobody_is_measured_in_it():
    slow = Machine("cpu", "a processor", 2, False, "3", "2", "5", "0")
    for name in BY_DEFAULT:
        assert {each.work.precision for each in contest(name, slow).contestants} <= {"auto", "fp32"}


def test_peers_are_chosen_by_their_names_and_ours_stays():
    names = [each.name for each in contest("masked", peers=("bert grouped tuned", "modernbert padded")).contestants]
    assert names == ["ours", "modernbert padded", "modernbert padded tuned", "bert grouped tuned"]


def test_settings_go_to_ours_and_to_tuned_peers():
    works = {each.name: each.work for each in contest("causal", recipe=("a=1",), trainer=("bf16=true",)).contestants}
    assert works["ours"].settings == ("a=1",)
    assert works["gpt2 tuned"].settings == ("bf16=true",)
    assert works["gpt2"].settings == ()


@pytest.mark.parametrize("steps", [12, 40, 150, 400])
def test_the_measured_steps_are_whole_runs_of_texts_sorted_by_length(steps):
    work = contest("masked", steps=steps).contestants[0].work
    lengths = list(range(work.total_steps * work.rows))
    order = get_length_grouped_indices(lengths, work.rows)
    measured = order[work.warmup_steps * work.rows :]
    # Where a run begins, lengths jump up; the first example is the longest of all, and changes places.
    jumps = [index for index in range(1, len(measured)) if lengths[measured[index]] > lengths[measured[index - 1]]]
    run = work.warmup_steps * work.rows
    assert {round(jump / run) * run for jump in jumps} - {0} == set(range(run, len(measured), run))
    assert all(abs(jump - round(jump / run) * run) <= 1 for jump in jumps)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": "bas"}, r"--size \(bas\) must be one of .* did you mean base\?"),
        ({"rounds": 0}, r"--rounds \(0\) must be at least 1"),
        ({"recipe": ("data.corpus=x",)}, r"--set data.corpus must be the same for all .* use --corpus"),
        ({"trainer": ("optimm=x",)}, r"--set-peer \(optimm=x\) must be field=value .* did you mean optim=...\?"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_line(settings, message):
    with pytest.raises(ValueError, match=message):
        BenchSettings(**settings)


def test_settings_of_a_peers_trainer_are_yaml():
    assert trainer_arguments(("torch_compile=true", "optim=adafactor")) == {"torch_compile": True, "optim": "adafactor"}


def test_one_gpu_stays_visible():
    assert one_gpu({})["CUDA_VISIBLE_DEVICES"] == "0"
    assert one_gpu({"CUDA_VISIBLE_DEVICES": "3,1"})["CUDA_VISIBLE_DEVICES"] == "3"
    assert one_gpu({"CUDA_VISIBLE_DEVICES": ""})["CUDA_VISIBLE_DEVICES"] == ""
