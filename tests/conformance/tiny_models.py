"""The models that the suite's pipeline tests open: made on the spot, where the suite would fetch them from the Hub."""

import functools
import json
import os
import tempfile
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from model_tester import ARCHITECTURES, SIZES
from stand_ins.pipelines import EXAMPLES, PIPELINES
from transformers import PreTrainedModel, set_seed

from hf_minilm import (
    MiniLMConfig,
    MiniLMForCausalLM,
    MiniLMForMaskedLM,
    MiniLMForSequenceClassification,
    MiniLMForTokenClassification,
    MiniLMModel,
)
from hf_minilm.data.document import Document
from hf_minilm.data.tokenizer import train_tokenizer

FOLDER = tempfile.TemporaryDirectory()
CLASSES = {
    "feature-extraction": MiniLMModel,
    "fill-mask": MiniLMForMaskedLM,
    "text-classification": MiniLMForSequenceClassification,
    "text-generation": MiniLMForCausalLM,
    "token-classification": MiniLMForTokenClassification,
    "zero-shot": MiniLMForSequenceClassification,
}
"""The class that does each task."""


def import_pipeline_mixin() -> ModuleType:
    """Import the suite's module, which reads while it is imported which models there are and where."""
    each = {"tokenizer_classes": ["PreTrainedTokenizerFast"], "processor_classes": []}
    reports = Path(FOLDER.name, "reports")
    reports.mkdir()
    (reports / "tiny_model_summary.json").write_text(
        json.dumps({model_class.__name__: each for model_class in CLASSES.values()})
    )
    with mock.patch.dict(os.environ, {"TRANSFORMERS_TINY_MODEL_PATH": FOLDER.name}):
        return import_module("transformers_suite.test_pipeline_mixin")


suite = import_pipeline_mixin()
for task, tests in PIPELINES.items():
    suite.pipeline_test_mapping[task]["test"] = f"{tests.__module__}.{tests.__name__}"


@functools.cache
def models_of(architecture: str) -> Path:
    """Save a model and a tokenizer for every class that does a task; give the folder."""
    folder = Path(FOLDER.name, architecture)
    documents = [Document((text,), "example") for text in EXAMPLES * 5]
    for model_class in set(CLASSES.values()):
        kind = "bytelevel_bpe" if model_class is MiniLMForCausalLM else "wordpiece"
        tokenizer = train_tokenizer(documents, kind=kind, vocab_size="auto", max_length=64)
        fields = {**ARCHITECTURES[architecture], **SIZES, "vocab_size": len(tokenizer)}
        names = ("contradiction", "neutral", "entailment")
        fields |= {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
        set_seed(5)
        save(model_class(MiniLMConfig(**fields)), folder, tokenizer)
    return folder


def save(model: PreTrainedModel, folder: Path, tokenizer: Any) -> None:
    """Save both where the suite looks for them."""
    place = folder / model.config.model_type / type(model).__name__
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)


class OwnModelsPipelineTesterMixin(suite.PipelineTesterMixin):
    """The suite's pipeline tests, with the models of `architecture`."""

    architecture: str
    pipeline_model_mapping = CLASSES

    def run_pipeline_test(self, *arguments: Any, **keywords: Any) -> None:
        """Open the models of this architecture, and no others."""
        with mock.patch.object(suite, "TRANSFORMERS_TINY_MODEL_PATH", str(models_of(self.architecture))):
            super().run_pipeline_test(*arguments, **keywords)
