"""lm-eval opens an exported decoder by its path, and scores it as ours scores itself."""

import json

import pytest
import torch

pytestmark = pytest.mark.slow

QUESTIONS = [
    {"context": "The keys to the cabinet", "choices": [" are old.", " is old."], "answer": 0},
    {"context": "Ana lost an umbrella, and Diego", "choices": [" see it.", " saw it in the park."], "answer": 1},
    {"context": "El cuadro amarillo del barrio", "choices": [" está mojado.", " están mojados.", "."], "answer": 0},
    {"context": "Diego reads. Ana", "choices": [" reads too.", " read."], "answer": 0},
]
TASK = """
task: local_choices
dataset_path: json
dataset_kwargs: {{data_files: {{test: {questions}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{context}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: ""
metric_list: [{{metric: acc}}]
"""


@torch.no_grad()
def log_likelihood(model, context: str, continuation: str) -> float:
    """Sum our log-probabilities of the tokens that a text has beyond those of its beginning."""
    tokens = model.tokenizer(context + continuation, return_tensors="pt")["input_ids"]
    first = len(model.tokenizer(context)["input_ids"])
    scores = model.ours(tokens).logits.log_softmax(-1)[0, first - 1 : -1]
    return scores.gather(1, tokens[0, first:, None]).sum().item()


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_lm_eval_gives_an_exported_decoder_the_log_likelihoods_and_the_accuracy_of_ours(
    twin, tmp_path, monkeypatch, architecture
):
    lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    from lm_eval.tasks import TaskManager

    model = twin(architecture)
    questions = tmp_path / "questions.jsonl"
    questions.write_text("\n".join(map(json.dumps, QUESTIONS)), encoding="utf-8")
    (tmp_path / "local_choices.yaml").write_text(TASK.format(questions=questions), encoding="utf-8")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    results = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(model.folder), "dtype": "float32"},
        tasks=["local_choices"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        device="cpu",
        batch_size=3,
        bootstrap_iters=0,
    )
    mine = [[log_likelihood(model, each["context"], choice) for choice in each["choices"]] for each in QUESTIONS]
    theirs = [[score for score, _ in each["filtered_resps"]] for each in results["samples"]["local_choices"]]
    for their_scores, my_scores in zip(theirs, mine, strict=True):
        assert their_scores == pytest.approx(my_scores, abs=1e-3)
    right = [scores.index(max(scores)) == each["answer"] for scores, each in zip(mine, QUESTIONS, strict=True)]
    assert results["results"]["local_choices"]["acc,none"] == pytest.approx(sum(right) / len(right))
