"""sentence-transformers opens an exported encoder by its path, and its vectors are ours."""

import pytest
import torch

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_sentence_vectors_of_an_exported_encoder_are_the_means_of_our_hidden_states(twin, texts, architecture):
    sentence_transformers = pytest.importorskip(
        "sentence_transformers", reason="sentence-transformers is not installed"
    )
    model = twin(architecture)
    encoder = sentence_transformers.SentenceTransformer(str(model.folder), device="cpu", trust_remote_code=False)
    vectors = encoder.encode(list(texts), convert_to_tensor=True)
    inputs = model.tokenizer(list(texts), padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model.ours.model(**inputs).last_hidden_state
    real = inputs["attention_mask"][:, :, None]
    torch.testing.assert_close(vectors, (states * real).sum(1) / real.sum(1), atol=1e-5, rtol=1e-5)
    assert vectors.std(dim=0).min() > 1e-3
