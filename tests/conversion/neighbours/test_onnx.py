"""An exported model goes through transformers' ONNX exporter, and ONNX Runtime computes our logits."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

pytestmark = [
    pytest.mark.slow,
    # torch's exporter to ONNX asks torch itself by a name that this version still has.
    pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated:FutureWarning"),
]


@pytest.mark.parametrize("architecture", ["bert", "modernbert", "gpt2", "llama"])
def test_onnx_runtime_computes_our_logits_also_of_shapes_that_the_export_did_not_see(
    twin, texts, tmp_path, architecture
):
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript, which writes ONNX graphs, is not installed")
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    model = twin(architecture)
    auto_class = AutoModelForCausalLM if architecture in ("gpt2", "llama") else AutoModelForMaskedLM
    native = auto_class.from_pretrained(model.folder).eval()
    native.config.use_cache = False
    seen = dict(model.tokenizer(list(texts[:2]), padding=True, return_tensors="pt"))
    OnnxExporter().export(native, seen, config=OnnxConfig(dynamic=True)).save_pretrained(tmp_path)

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for number in (2, 3, 4):
        inputs = model.tokenizer(list(texts[:number]), padding=True, return_tensors="pt")
        names = [output.name for output in session.get_outputs()]
        theirs = dict(zip(names, session.run(None, {name: inputs[name].numpy() for name in inputs}), strict=True))
        with torch.no_grad():
            mine = model.ours(**inputs).logits
        real = inputs["attention_mask"].bool()
        torch.testing.assert_close(torch.from_numpy(theirs["logits"])[real], mine[real], atol=1e-4, rtol=1e-5)
