import accelerate
import pytest
import torch
import transformers

import hf_minilm
from hf_minilm import (
    MiniLMConfig,
    MiniLMForCausalLM,
    MiniLMForMaskedLM,
    MiniLMForMultipleChoice,
    MiniLMForNextSentencePrediction,
    MiniLMForPreTraining,
    MiniLMForQuestionAnswering,
    MiniLMForSequenceClassification,
    MiniLMForTokenClassification,
    MiniLMModel,
)
from hf_minilm.model.configuration_minilm import AUTO_MAP
from hf_minilm.model.layers import pooled

EXPORTED = [getattr(hf_minilm, name) for name in hf_minilm.__all__ if "For" in name or name == "MiniLMModel"]
HEADS = [model_class for model_class in EXPORTED if model_class.config_class is MiniLMConfig]
AUTO_CLASSES = sorted(name for name in AUTO_MAP if name != "AutoConfig")
CAUSAL_WARNING = "MiniLMForCausalLM makes attention causal: the configuration says is_causal=False."
BIDIRECTIONAL_WARNING = "MiniLMForMaskedLM makes attention bidirectional: the configuration says is_causal=True."


@pytest.fixture
def direction_warnings(monkeypatch):
    """Collect the warnings about the direction of attention."""
    messages = []
    logger = transformers.utils.logging.get_logger("hf_minilm.model.configuration_minilm")
    monkeypatch.setattr(logger, "warning", messages.append)
    return messages


@pytest.fixture
def saved_heads(make_model, tmp_path):
    folders = {}
    for head in HEADS:
        folders[head] = tmp_path / head.__name__
        make_model(head, num_labels=3).save_pretrained(folders[head])
    return folders


def test_every_auto_class_opens_every_head(saved_heads):
    for head, folder in saved_heads.items():
        for name in AUTO_CLASSES:
            model = getattr(transformers, name).from_pretrained(folder)
            assert type(model).__name__ == AUTO_MAP[name].split(".")[1], head


def test_a_body_is_the_same_under_every_head(saved_heads, draw_tokens):
    tokens = draw_tokens(2, 5)
    for head in (MiniLMForPreTraining, MiniLMForTokenClassification, MiniLMModel):
        bodies = [transformers.AutoModel.from_pretrained(saved_heads[head])]
        for name in AUTO_CLASSES:
            model = getattr(transformers, name).from_pretrained(saved_heads[head])
            if not model.config.is_causal:
                bodies.append(model.base_model)
        expected = bodies[0].eval()(tokens).last_hidden_state
        assert len(bodies) == 10
        for body in bodies:
            assert torch.equal(body.eval()(tokens).last_hidden_state, expected)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("head", HEADS)
def test_saving_and_reloading_keeps_every_weight_bit_for_bit(make_model, draw_tokens, tmp_path, head, tied):
    model = make_model(head, tie_word_embeddings=tied, output_bias=True)
    model.save_pretrained(tmp_path)
    again, report = head.from_pretrained(tmp_path, output_loading_info=True, attn_implementation="eager")
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    tokens = draw_tokens(2, 3, 5) if head is MiniLMForMultipleChoice else draw_tokens(2, 5)
    assert torch.equal(model(tokens)[0], again.eval()(tokens)[0])


def test_the_output_projection_is_the_token_embedding_unless_it_is_untied(make_model):
    tied, untied = make_model(MiniLMForMaskedLM), make_model(MiniLMForMaskedLM, tie_word_embeddings=False)
    assert tied.lm_head.weight is tied.model.embeddings.tokens.weight
    assert untied.lm_head.weight is not untied.model.embeddings.tokens.weight


def test_the_vocabulary_can_be_resized(make_model, draw_tokens):
    model = make_model(MiniLMForMaskedLM, output_bias=True)
    model.resize_token_embeddings(70, mean_resizing=False)
    assert model(draw_tokens(2, 5)).logits.shape == (2, 5, 70)


def test_a_fresh_configuration_gives_no_warning_about_direction(make_model, direction_warnings):
    for head in HEADS:
        make_model(head)
    assert direction_warnings == []


def test_a_causal_head_on_a_bidirectional_checkpoint_warns_and_is_causal(
    make_model, draw_tokens, tmp_path, direction_warnings
):
    make_model(MiniLMForMaskedLM).save_pretrained(tmp_path)
    MiniLMForMaskedLM.from_pretrained(tmp_path)
    assert direction_warnings == []
    model = MiniLMForCausalLM.from_pretrained(tmp_path).eval()
    assert set(direction_warnings) == {CAUSAL_WARNING}
    tokens = draw_tokens(1, 6)
    assert torch.equal(model(tokens).logits[:, :4], model(torch.cat((tokens[:, :4], tokens[:, :2]), 1)).logits[:, :4])


def test_a_masked_head_on_a_causal_checkpoint_warns_and_is_bidirectional(
    make_model, draw_tokens, tmp_path, direction_warnings
):
    make_model(MiniLMForCausalLM).save_pretrained(tmp_path)
    MiniLMForCausalLM.from_pretrained(tmp_path)
    assert direction_warnings == []
    model = MiniLMForMaskedLM.from_pretrained(tmp_path).eval()
    assert set(direction_warnings) == {BIDIRECTIONAL_WARNING}
    tokens = draw_tokens(1, 6)
    changed = torch.cat((tokens[:, :5], tokens[:, 5:] % 60 + 1), dim=1)
    assert (model(tokens).logits - model(changed).logits)[:, 0].abs().max() > 1e-4


@pytest.mark.parametrize("is_causal", [False, True])
def test_a_classifier_keeps_the_direction_of_its_checkpoint(make_model, tmp_path, is_causal):
    make_model(MiniLMForCausalLM if is_causal else MiniLMForMaskedLM).save_pretrained(tmp_path)
    model = MiniLMForSequenceClassification.from_pretrained(tmp_path)
    assert model.config.is_causal is is_causal
    assert model.pooling == ("last" if is_causal else "first")


def padded(tokens: torch.Tensor, *, side: str) -> tuple[torch.Tensor, torch.Tensor]:
    padding = torch.zeros(len(tokens), 4, dtype=torch.long)
    parts, masks = [tokens, padding], [torch.ones_like(tokens), padding]
    if side == "left":
        parts, masks = parts[::-1], masks[::-1]
    return torch.cat(parts, dim=1), torch.cat(masks, dim=1)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pooling", ["first", "mean", "last"])
def test_padding_on_either_side_does_not_change_a_classification(make_model, draw_tokens, pooling, side, is_causal):
    model = make_model(MiniLMForSequenceClassification, classifier_pooling=pooling, is_causal=is_causal, num_labels=3)
    tokens = draw_tokens(3, 6)
    input_ids, mask = padded(tokens, side=side)
    torch.testing.assert_close(model(input_ids, attention_mask=mask).logits, model(tokens).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    ("model_class", "name"),
    [(MiniLMForNextSentencePrediction, "logits"), (MiniLMForPreTraining, "seq_relationship_logits")],
)
def test_padding_on_either_side_does_not_change_what_follows_what(make_model, draw_tokens, model_class, name, side):
    model, tokens = make_model(model_class), draw_tokens(3, 6)
    input_ids, mask = padded(tokens, side=side)
    alone, beside_padding = model(tokens)[name], model(input_ids, attention_mask=mask)[name]
    torch.testing.assert_close(beside_padding, alone, atol=1e-5, rtol=1e-5)


def test_pooling_reads_what_its_name_says():
    hidden_states = torch.arange(12.0).view(2, 6, 1)
    mask = torch.tensor([[0, 0, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0]])
    for pooling, expected in {"first": [2.0, 6.0], "last": [4.0, 9.0], "mean": [3.0, 7.5]}.items():
        assert pooled(hidden_states, mask, pooling).flatten().tolist() == expected
        assert pooled(hidden_states, mask.bool(), pooling).flatten().tolist() == expected


@pytest.mark.parametrize(
    ("num_labels", "labels", "problem"),
    [
        (3, torch.tensor([0, 2, 1]), "single_label_classification"),
        (1, torch.tensor([0.5, -1.0, 2.0]), "regression"),
        (4, torch.tensor([[1.0, 0, 1, 0]] * 3), "multi_label_classification"),
    ],
)
def test_the_classification_loss_is_that_of_its_kind_of_labels(make_model, draw_tokens, num_labels, labels, problem):
    model = make_model(MiniLMForSequenceClassification, num_labels=num_labels)
    outputs = model(draw_tokens(3, 5), labels=labels)
    functional = torch.nn.functional
    expected = {
        "single_label_classification": lambda: functional.cross_entropy(outputs.logits, labels),
        "regression": lambda: functional.mse_loss(outputs.logits[:, 0], labels),
        "multi_label_classification": lambda: functional.binary_cross_entropy_with_logits(outputs.logits, labels),
    }[problem]()
    assert model.config.problem_type == problem
    torch.testing.assert_close(outputs.loss, expected)


def test_the_token_classification_loss_is_the_mean_over_labelled_tokens(make_model, draw_tokens):
    model = make_model(MiniLMForTokenClassification, num_labels=3)
    labels = torch.tensor([[0, -100, 2, 1, -100], [1, 1, -100, -100, 0]])
    outputs = model(draw_tokens(2, 5), labels=labels)
    expected = torch.nn.functional.cross_entropy(outputs.logits.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(outputs.loss, expected)


def test_answers_that_lie_outside_the_text_are_not_counted(make_model, draw_tokens):
    model = make_model(MiniLMForQuestionAnswering)
    tokens = draw_tokens(3, 7)
    outputs = model(tokens, start_positions=torch.tensor([1, 9, 2]), end_positions=torch.tensor([[3], [-1], [6]]))
    cross_entropy = torch.nn.functional.cross_entropy
    expected = (
        cross_entropy(outputs.start_logits[[0, 2]], torch.tensor([1, 2]))
        + cross_entropy(outputs.end_logits[[0, 2]], torch.tensor([3, 6]))
    ) / 2
    torch.testing.assert_close(outputs.loss, expected)


def test_each_choice_is_scored_as_if_it_stood_alone(make_model, draw_tokens):
    model = make_model(MiniLMForMultipleChoice)
    tokens = draw_tokens(2, 3, 5)
    mask = torch.ones_like(tokens)
    mask[1, 2, 3:] = 0
    outputs = model(tokens, attention_mask=mask, labels=torch.tensor([2, 0]))
    one = model(tokens[1, 2, :3][None, None]).logits
    torch.testing.assert_close(outputs.logits[1, 2], one[0, 0], atol=1e-5, rtol=1e-5)
    expected = torch.nn.functional.cross_entropy(outputs.logits, torch.tensor([2, 0]))
    torch.testing.assert_close(outputs.loss, expected)


@pytest.mark.parametrize("head", [head for head in HEADS if head is not MiniLMForMultipleChoice])
def test_token_vectors_may_be_given_in_place_of_ids(make_model, draw_tokens, head):
    model = make_model(head)
    tokens = draw_tokens(2, 5)
    vectors = model.get_input_embeddings()(tokens)
    assert torch.equal(model(inputs_embeds=vectors)[0], model(tokens)[0])


def test_ids_and_vectors_together_are_refused(make_model, draw_tokens):
    model = make_model(MiniLMModel)
    with pytest.raises(ValueError, match="exactly one of them must be given"):
        model(draw_tokens(1, 3), inputs_embeds=torch.zeros(1, 3, 24))
    with pytest.raises(ValueError, match="exactly one of them must be given"):
        model()


def test_hidden_states_begin_with_the_embeddings_and_end_with_the_output(make_model, draw_tokens):
    model, tokens = make_model(MiniLMModel), draw_tokens(2, 5)
    outputs = model(tokens, output_hidden_states=True)
    embedded = model.embeddings(model.embeddings.tokens(tokens), torch.arange(5)[None], None, model.positions)
    assert len(outputs.hidden_states) == 3
    assert torch.equal(outputs.hidden_states[0], embedded)
    assert torch.equal(outputs.hidden_states[-1], outputs.last_hidden_state)


def test_a_tuple_comes_back_where_a_tuple_is_asked_for(make_model, draw_tokens):
    tokens = draw_tokens(4, 5)
    model = make_model(MiniLMForNextSentencePrediction)
    loss, logits = model(tokens, labels=torch.tensor([0, 1, 1, 0]), return_dict=False)
    assert (loss.shape, logits.shape) == ((), (4, 2))


def test_a_configuration_may_ask_for_tuples(make_model, draw_tokens):
    for head in (MiniLMForCausalLM, MiniLMForSequenceClassification, MiniLMForPreTraining, MiniLMForMultipleChoice):
        model, ids = make_model(head).eval(), draw_tokens(2, 5)
        ids = ids[:, None].expand(-1, 3, -1) if head is MiniLMForMultipleChoice else ids
        with torch.no_grad():
            expected = model(ids).to_tuple()[0]
            model.config.return_dict = False
            assert torch.equal(model(ids)[0], expected)


def test_a_mask_of_whose_form_no_vector_can_be_picked_is_refused(make_model, draw_tokens):
    model = make_model(MiniLMForSequenceClassification)
    with pytest.raises(
        ValueError, match=r"attention_mask \[2, 1, 5, 5\] must be \[rows, tokens\] where a vector stands"
    ):
        model(draw_tokens(2, 5), attention_mask=torch.ones(2, 1, 5, 5, dtype=torch.bool))


@pytest.mark.parametrize("labelled", [False, True])
def test_a_causal_head_returns_the_logits_that_are_asked_for_with_labels_and_without(make_model, draw_tokens, labelled):
    model, tokens = make_model(MiniLMForCausalLM), draw_tokens(2, 7)
    labels = {"labels": tokens} if labelled else {}
    whole = model(tokens, **labels)
    last = model(tokens, logits_to_keep=2, **labels)
    assert torch.equal(last.logits, whole.logits[:, -2:])
    assert model(tokens, return_logits=False, **labels).logits is None
    assert not labelled or torch.equal(last.loss, whole.loss)


@pytest.mark.parametrize("model_class", [MiniLMForMaskedLM, MiniLMForCausalLM, MiniLMForSequenceClassification])
def test_weights_that_lie_elsewhere_until_they_are_needed_give_the_same(make_model, draw_tokens, model_class):
    model, tokens = make_model(model_class), draw_tokens(2, 7)
    expected = model(tokens)[0]
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert torch.equal(model(tokens)[0], expected)
