"""Log-probabilities of single tokens: against the whole logits of each class, read one by one."""

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertForPreTraining, GPT2Config, GPT2LMHeadModel

from hf_minilm import MiniLMForCausalLM, MiniLMForMaskedLM, MiniLMForPreTraining
from hf_minilm.evaluation.token_scores import Query, target_log_probabilities

QUERIES = [
    Query((2, 9, 4, 11, 3), (2,), (7,)),
    Query((2, 9, 8, 3), (1, 2), (9, 5)),
    Query((2, 9, 4, 11, 3), (2, 3), (8, 6)),  # the first one's reading
    Query((2, 5, 5, 5, 3), (0, 4, 1), (1, 2, 3)),
]


@pytest.fixture
def models(tiny_model, word_tokenizer):
    torch.manual_seed(0)
    sizes = {"vocab_size": len(word_tokenizer), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    bert = BertConfig(**sizes, intermediate_size=32, initializer_range=0.5)
    gpt2 = GPT2Config(vocab_size=len(word_tokenizer), n_embd=16, n_layer=1, n_head=2, initializer_range=0.5)
    ours = [MiniLMForMaskedLM, MiniLMForPreTraining, MiniLMForCausalLM]
    native = [BertForMaskedLM(bert), BertForPreTraining(bert), GPT2LMHeadModel(gpt2)]
    return [*(tiny_model(each, word_tokenizer) for each in ours), *(model.eval() for model in native)]


def written_out(model, query):
    with torch.no_grad():
        output = model(input_ids=torch.tensor([query.input_ids]))
    logits = output.prediction_logits if hasattr(output, "prediction_logits") else output.logits
    logs = logits[0].log_softmax(-1)
    return [logs[position, target].item() for position, target in zip(query.positions, query.targets, strict=True)]


@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_every_class_gives_the_log_probabilities_of_its_whole_logits(models, batch_size):
    for model in models:
        answers = target_log_probabilities(model, QUERIES, batch_size=batch_size)
        for query, answer in zip(QUERIES, answers, strict=True):
            assert answer.tolist() == pytest.approx(written_out(model, query), abs=1e-5)


def test_the_projection_sees_only_the_places_that_are_asked_for_and_each_reading_once(models):
    for model in models:
        seen, read = [], []
        projection = model.get_output_embeddings().register_forward_hook(
            lambda _module, _inputs, output, seen=seen: seen.append(output.shape[:-1].numel())
        )
        readings = model.get_input_embeddings().register_forward_hook(
            lambda _module, inputs, _output, read=read: read.append(inputs[0].shape[0])
        )
        target_log_probabilities(model, QUERIES)
        projection.remove()
        readings.remove()
        assert sum(seen) == 8
        assert sum(read) == 3
        # And the model is as it was.
        assert not model.get_output_embeddings()._forward_pre_hooks


def test_a_class_that_goes_round_its_projection_is_read_all_the_same(tiny_model, word_tokenizer):
    class Roundabout(MiniLMForMaskedLM):
        def predict(self, hidden_states):
            return torch.nn.functional.linear(self.transform(hidden_states), self.lm_head.weight, self.lm_head.bias)

    model = tiny_model(Roundabout, word_tokenizer)
    answers = target_log_probabilities(model, QUERIES[:1])
    assert answers[0].tolist() == pytest.approx(written_out(model, QUERIES[0]), abs=1e-5)


def test_no_question_has_no_answer(tiny_model, word_tokenizer):
    assert target_log_probabilities(tiny_model(MiniLMForMaskedLM, word_tokenizer), []) == []
