"""PEFT's prefix tuning trains keys and values before every text: they reach the whole head, and no vector is theirs."""

import pytest
import torch
from transformers import DynamicCache

from hf_minilm import MiniLMForQuestionAnswering, MiniLMForSequenceClassification, MiniLMForTokenClassification

peft = pytest.importorskip("peft", reason="PEFT is not installed")

# PEFT asks for it by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

HEADS = {
    "SEQ_CLS": (MiniLMForSequenceClassification, {"labels": torch.tensor([0, 1, 1])}),
    "TOKEN_CLS": (MiniLMForTokenClassification, {"labels": torch.tensor([[0] * 7, [1] * 7, [0, 1, -100, 0, 1, 0, 1]])}),
    "QUESTION_ANS": (
        MiniLMForQuestionAnswering,
        {"start_positions": torch.tensor([1, 0, 2]), "end_positions": torch.tensor([3, 3, 5])},
    ),
}
PREFIX = 4


def adapted(make_model, task: str, **fields):
    model = make_model(HEADS[task][0], **fields)
    settings = peft.PrefixTuningConfig(task_type=task, num_virtual_tokens=PREFIX)
    torch.manual_seed(5)
    return model, peft.get_peft_model(model, settings)


def logits_of(outputs) -> torch.Tensor:
    return torch.stack((outputs.start_logits, outputs.end_logits)) if "start_logits" in outputs else outputs.logits


def batch(draw_tokens, *, side: str = "right") -> dict[str, torch.Tensor]:
    mask = torch.ones(3, 7, dtype=torch.long)
    mask[1, slice(5, None) if side == "right" else slice(None, 2)] = 0
    return {"input_ids": draw_tokens(3, 7) * mask, "attention_mask": mask}


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("task", HEADS)
def test_a_step_trains_the_prefix_and_lowers_the_loss(make_model, draw_tokens, task, is_causal):
    _, model = adapted(make_model, task, is_causal=is_causal)
    inputs = {**batch(draw_tokens), **HEADS[task][1]}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    loss = model(**inputs).loss
    loss.backward()
    gradient = model.prompt_encoder["default"].embedding.weight.grad
    assert gradient.abs().sum() > 0
    optimizer.step()
    assert model(**inputs).loss < loss


@pytest.mark.parametrize("pooling", ["first", "last", "mean"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("task", HEADS)
def test_logits_are_those_of_the_head_itself_over_the_vectors_after_the_prefix(
    make_model, draw_tokens, task, attention, side, pooling
):
    fields = {"classifier_transform": True, "classifier_pooling": pooling, "attention": attention}
    head, model = adapted(make_model, task, **fields)
    inputs = batch(draw_tokens, side=side)
    found = logits_of(model.eval()(**inputs))
    seen = torch.cat((torch.ones(3, PREFIX, dtype=torch.long), inputs["attention_mask"]), dim=1)
    body = head.model(inputs["input_ids"], attention_mask=seen, past_key_values=model.get_prompt(3)).last_hidden_state
    if task == "SEQ_CLS":
        kept = inputs["attention_mask"].bool()
        rows = [vectors[places] for vectors, places in zip(body, kept, strict=True)]
        pick = {"first": lambda row: row[0], "last": lambda row: row[-1], "mean": lambda row: row.mean(dim=0)}
        expected = head.classifier(head.transform(torch.stack([pick[pooling](row) for row in rows])))
    elif task == "TOKEN_CLS":
        expected = head.classifier(head.transform(body))
    else:
        expected = torch.stack(head.qa_outputs(head.transform(body)).unbind(dim=-1))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    without = logits_of(head(**inputs))
    assert (found - without).abs().max() > 1e-3


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_window_is_counted_from_the_text_and_not_from_its_prefix(make_model, draw_tokens, attention):
    # The last text of a longer one, its beginning read beforehand: both ways, through one layer.
    sliding = {"layer_types": ["sliding_attention"], "num_hidden_layers": 1, "sliding_window": 2}
    model = make_model(MiniLMForTokenClassification, attention=attention, position_embedding="alibi", **sliding)
    tokens, cache = draw_tokens(2, 9), DynamicCache()
    expected = model(tokens).logits[:, 4:]
    model.model(tokens[:, :4], past_key_values=cache)
    torch.testing.assert_close(model(tokens[:, 4:], past_key_values=cache).logits, expected, atol=1e-6, rtol=1e-5)
