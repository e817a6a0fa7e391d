"""An exported Llama becomes a GGUF file, and llama.cpp writes the tokens that ours writes.

The file is written with the `gguf` library and not by llama.cpp's own script, which takes only tokenizers that it
knows by name. llama.cpp gets token ids here, so what it makes of the texts does not matter.
"""

import contextlib
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

pytestmark = pytest.mark.slow


def turned_in_pairs(weight: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Reorder the rows of a query or key projection: llama.cpp turns neighbours, transformers the halves of a head."""
    halves = weight.view(num_heads, 2, -1, weight.shape[1])
    return halves.transpose(1, 2).reshape(weight.shape)


def write_gguf(model: PreTrainedModel, path: Path) -> None:
    """Write a Llama as GGUF in float32, with a vocabulary that only counts its tokens."""
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"token {number}" for number in range(config.vocab_size)])
    writer.add_token_scores([0.0] * config.vocab_size)
    writer.add_token_types([int(gguf.TokenType.NORMAL)] * config.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if name.endswith("q_proj.weight"):
            weight = turned_in_pairs(weight, config.num_attention_heads)
        elif name.endswith("k_proj.weight"):
            weight = turned_in_pairs(weight, config.num_key_value_heads)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), weight.float().contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_llama_cpp_writes_the_greedy_tokens_of_ours_and_has_its_logits(twin, texts, tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    model = twin("llama")
    write_gguf(AutoModelForCausalLM.from_pretrained(model.folder), tmp_path / "model.gguf")
    float32 = llama_cpp.GGML_TYPE_F32
    llama = llama_cpp.Llama(
        str(tmp_path / "model.gguf"), n_ctx=64, logits_all=True, verbose=False, type_k=float32, type_v=float32
    )
    compared = 0
    with contextlib.closing(llama), torch.no_grad():
        for text in texts:
            tokens = model.tokenizer(text)["input_ids"]
            llama.reset()
            llama.eval(tokens)
            mine = model.ours(torch.tensor([tokens])).logits[0]
            torch.testing.assert_close(torch.from_numpy(llama.scores[: len(tokens)]), mine, atol=1e-4, rtol=1e-4)

            written = model.ours.generate(torch.tensor([tokens]), max_length=64, do_sample=False)[0, len(tokens) :]
            llama.reset()
            writing = llama.generate(tokens, temp=0.0, repeat_penalty=1.0)
            assert [token for _, token in zip(written, writing, strict=False)] == written.tolist()
            compared += len(written)
    assert compared > 100
