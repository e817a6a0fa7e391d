"""What a GPU computes is what a CPU computes."""

import pytest
import torch

from hf_minilm import MiniLMForCausalLM, MiniLMForConditionalGeneration, MiniLMForPreTraining, MiniLMSeq2SeqConfig
from hf_minilm.model import decoding_on_gpu
from hf_minilm.model.decoding import DECODINGS
from hf_minilm.model.positions import POSITION_SCHEMES
from hf_minilm.training.prepared_batch import on_device, prepared

pytestmark = pytest.mark.gpu

POSITIONS = torch.tensor([[*range(5), *range(8)], [*range(9), *range(4)]])
"""Two packed rows of two sequences each."""


def labels_of(model_class: type, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
    if model_class is MiniLMForCausalLM:
        return {"labels": input_ids}
    starts = torch.where(POSITIONS == 0, torch.arange(13) % 2, -100)
    return {"labels": torch.where(POSITIONS % 3 == 1, input_ids, -100), "next_sentence_label": starts}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("model_class", [MiniLMForCausalLM, MiniLMForPreTraining])
def test_loss_and_gradients_of_packed_rows_are_those_of_a_cpu(make_model, draw_tokens, model_class, attention):
    input_ids = draw_tokens(2, 13)
    batch = {"input_ids": input_ids, "position_ids": POSITIONS, **labels_of(model_class, input_ids)}
    models = [make_model(model_class, attention=attention).train().to(device) for device in ("cpu", "cuda")]
    losses = [model(**{name: tensor.to(model.device) for name, tensor in batch.items()}).loss for model in models]
    torch.testing.assert_close(losses[1].detach().cpu(), losses[0].detach(), atol=1e-5, rtol=1e-5)
    for loss in losses:
        loss.backward()
    gradients = [{name: p.grad.cpu() for name, p in model.named_parameters()} for model in models]
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, atol=5e-5, rtol=1e-3, msg=name)


def seq2seq_model(attention: str) -> MiniLMForConditionalGeneration:
    sizes = {"vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = MiniLMSeq2SeqConfig.preset("modern", "tiny", bos_token_id=1, eos_token_id=2, **sizes)
    return MiniLMForConditionalGeneration._from_config(config, attn_implementation=attention)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_loss_and_gradients_of_packed_pairs_are_those_of_a_cpu(draw_tokens, attention):
    source, target = draw_tokens(2, 13), draw_tokens(2, 13)
    places = {"position_ids": POSITIONS, "decoder_position_ids": POSITIONS.flip(0)}
    batch = {"input_ids": source, "decoder_input_ids": target, "labels": target.roll(-1, 1), **places}
    models = [seq2seq_model(attention).train().to(device) for device in ("cpu", "cuda")]
    losses = [model(**{name: tensor.to(model.device) for name, tensor in batch.items()}).loss for model in models]
    torch.testing.assert_close(losses[1].detach().cpu(), losses[0].detach(), atol=1e-5, rtol=1e-5)
    for loss in losses:
        loss.backward()
    gradients = [{name: p.grad.cpu() for name, p in model.named_parameters()} for model in models]
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, atol=5e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("num_beams", [1, 3])
@torch.no_grad()
def test_a_text_written_from_another_is_that_of_a_cpu(draw_tokens, num_beams):
    source, texts = draw_tokens(2, 5), []
    for device in ("cpu", "cuda"):
        model = seq2seq_model("sdpa").eval().to(device)
        texts.append(model.generate(source.to(device), max_new_tokens=9, num_beams=num_beams, do_sample=False).tolist())
    assert texts[0] == texts[1]


def test_bfloat16_autocast_stays_near_float32(make_model, draw_tokens):
    model = make_model(MiniLMForPreTraining, attention="sdpa").train().cuda()
    input_ids = draw_tokens(2, 13)
    labels = {name: tensor.cuda() for name, tensor in labels_of(MiniLMForPreTraining, input_ids).items()}
    batch = {"input_ids": input_ids.cuda(), "position_ids": POSITIONS.cuda(), **labels}
    exact = model(**batch).loss
    with torch.autocast("cuda", dtype=torch.bfloat16):
        rounded = model(**batch).loss
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded.detach(), exact.detach(), atol=0.0, rtol=0.02)


@pytest.mark.parametrize("scheme", POSITION_SCHEMES)
@pytest.mark.parametrize("decoding", DECODINGS)
@torch.no_grad()
def test_generation_is_that_of_a_cpu(make_model, draw_tokens, monkeypatch, decoding, scheme):
    monkeypatch.setattr(decoding_on_gpu, "SPARE_TOKENS", 8)  # recorded anew twice
    prompt, mask = draw_tokens(3, 9), torch.ones(3, 9, dtype=torch.long)
    mask[0, :4] = 0
    sliding = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 6}
    fields = {"bos_token_id": 1, "tie_word_embeddings": False, "max_position_embeddings": 64, **sliding}
    texts = []
    for device in ("cpu", "cuda"):
        model = make_model(MiniLMForCausalLM, attention="sdpa", position_embedding=scheme, **fields).to(device)
        model.decoding = "plain" if device == "cpu" else decoding
        written = model.generate(
            (prompt * mask).to(device),
            attention_mask=mask.to(device),
            max_new_tokens=40,
            do_sample=False,
            pad_token_id=0,
        )
        texts.append(written.tolist())
    assert texts[0] == texts[1]


@torch.no_grad()
def test_a_step_is_recorded_once_and_played_back_for_every_token(make_model, draw_tokens, monkeypatch):
    recorded, record = [], decoding_on_gpu.RecordedStep._record
    monkeypatch.setattr(decoding_on_gpu.RecordedStep, "_record", lambda step: recorded.append(1) or record(step))
    model = make_model(MiniLMForCausalLM, attention="sdpa", bos_token_id=1, max_position_embeddings=512).cuda()
    prompt = draw_tokens(2, 5).cuda()
    model.generate(prompt, max_new_tokens=100, min_new_tokens=100, do_sample=True, pad_token_id=0)
    assert len(recorded) == 1


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("model_class", [MiniLMForCausalLM, MiniLMForPreTraining])
@pytest.mark.parametrize("packed", [True, False])
def test_nothing_waits_for_the_gpu_within_a_step(make_model, draw_tokens, model_class, packed):
    model = make_model(model_class, attention="minilm_varlen", hidden_size=32).train().cuda()
    input_ids = draw_tokens(2, 13)
    positions = POSITIONS if packed else torch.arange(13).expand(2, -1)
    batch = {"input_ids": input_ids, "position_ids": positions, **labels_of(model_class, input_ids)}
    counts = {"num_items_in_batch": 7.0}
    if model_class is MiniLMForPreTraining:
        counts["num_sequences_in_batch"] = 3.0
    losses = []
    for mode, inputs in (("default", batch), ("error", prepared(model, batch))):
        sent = on_device(inputs, model.device)
        torch.cuda.set_sync_debug_mode(mode)
        try:
            with torch.autocast("cuda", dtype=torch.bfloat16):
                loss = model(**sent, **counts).loss
            loss.backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        losses.append(loss.detach().item())
    assert losses[0] == losses[1]
