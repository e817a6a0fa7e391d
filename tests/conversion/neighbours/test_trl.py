"""TRL's fused head takes a model's last states for what its projection reads, and says nothing where that is not so."""

import pytest
import torch
from transformers import ModernBertDecoderConfig, ModernBertDecoderForCausalLM

from hf_minilm.conversion import from_native

pytestmark = pytest.mark.slow


def test_the_fused_head_trains_another_function_of_modernberts_decoder_and_the_proof_says_so(randomised):
    trl = pytest.importorskip("trl.trainer", reason="trl is not installed")
    ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 1)
    sizes = {"vocab_size": 67, "hidden_size": 36, "num_hidden_layers": 2, "num_attention_heads": 3}
    config = ModernBertDecoderConfig(**sizes, intermediate_size=53, max_position_embeddings=61, **ids)
    converted = from_native(randomised(ModernBertDecoderForCausalLM, config))
    input_ids = torch.randint(2, 67, (2, 11), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        loss = converted.model(input_ids, labels=input_ids).loss
        trl.add_fused_lm_head(converted.model)
        fused = converted.model(input_ids, labels=input_ids, fused_lm_head=True).loss
    assert abs(fused - loss) > 0.1
    assert any("TRL: its fused head leaves out the layer" in note for note in converted.to_json()["proof"]["notes"])
