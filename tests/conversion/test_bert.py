"""BERT becomes ours and comes back with the same bits, whatever its head."""

import pytest
import torch
from transformers import BertConfig

from hf_minilm.conversion import ARCHITECTURES, from_native, to_native

HEADS = {head.native: head for head in ARCHITECTURES["bert"].heads}
SIZES = {"vocab_size": 67, "hidden_size": 36, "num_hidden_layers": 3, "num_attention_heads": 3}


@pytest.mark.parametrize("native_class", HEADS)
def test_bert_comes_back_with_the_same_bits(native_class, randomised):
    head = HEADS[native_class]
    config = BertConfig(**SIZES, intermediate_size=53, max_position_embeddings=29)
    native = randomised(head.native_class, config, **head.arguments)
    ours = from_native(native).model
    back = to_native(ours, "bert").model
    assert type(ours).__name__ == head.ours
    assert type(back) is type(native)
    assert back.state_dict().keys() == native.state_dict().keys()
    assert all(torch.equal(tensor, back.state_dict()[name]) for name, tensor in native.state_dict().items())
