"""transformers' own common tests over all our model classes, once for each position scheme and each preset."""

import re
import unittest
from collections.abc import Callable
from typing import Any

import pytest
import torch
from model_tester import ARCHITECTURES, MiniLMModelTester
from tiny_models import OwnModelsPipelineTesterMixin
from transformers import PreTrainedModel, set_seed
from transformers_suite import test_fsdp_mixin, test_modeling_common, test_tensor_parallel_mixin
from transformers_suite.test_configuration_common import ConfigTester
from transformers_suite.test_modeling_common import GenerationTesterMixin, ModelTesterMixin
from transformers_suite.test_training_mixin import TrainingTesterMixin

import hf_minilm
from hf_minilm import MiniLMConfig, MiniLMForPreTraining

pytestmark = pytest.mark.conformance

# The suite runs its tests of several processes for a list of families only, to save time.
test_tensor_parallel_mixin.TP_DISTRIBUTED_TEST_MODEL_TYPES = None
test_fsdp_mixin.FSDP_DISTRIBUTED_TEST_MODEL_TYPES = None
if not torch.cuda.is_available():
    # It takes a core for each process; tiny models share one without harm.
    test_fsdp_mixin._get_available_fsdp_workers = lambda: 4

NOT_APPLICABLE: list[tuple[str, Callable[[MiniLMConfig], bool], str]] = [
    (
        "test_model_rope_",
        lambda config: config.rope_parameters is None,
        "scales the frequencies of rope_parameters, and this position scheme has none",
    ),
]
"""Tests that we skip ourselves: how their names begin, for which configuration, and why they do not apply to it."""


class ModelClassTests(
    ModelTesterMixin,
    GenerationTesterMixin,
    OwnModelsPipelineTesterMixin,
    TrainingTesterMixin,
    test_tensor_parallel_mixin.TensorParallelTesterMixin,
    test_fsdp_mixin.FSDPTesterMixin,
):
    """The suite, for one architecture."""

    fields: dict[str, Any]
    all_model_classes = tuple(
        getattr(hf_minilm, name)
        for name in hf_minilm.__all__
        if (name == "MiniLMModel" or "For" in name) and getattr(hf_minilm, name).config_class is MiniLMConfig
    )
    # The suite tells a model's age by a copyright line, and spares the old ones: ours has none, and is not spared.
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self) -> None:
        # Whatever a test draws, it draws again in the next run.
        test_modeling_common.global_rng.seed(0)
        set_seed(0)
        self.model_tester = MiniLMModelTester(self, self.fields)
        sizes = {"hidden_size": 48, "num_attention_heads": 6, "num_hidden_layers": 2}
        self.config_tester = ConfigTester(self, config_class=MiniLMConfig, **{**self.fields, **sizes})
        config = self.model_tester.get_config()
        for beginning, applies_not, reason in NOT_APPLICABLE:
            if self._testMethodName.startswith(beginning) and applies_not(config):
                self.skipTest(reason)

    def _prepare_for_class(
        self, inputs_dict: dict[str, Any], model_class: type[PreTrainedModel], return_labels: bool = False
    ) -> dict[str, Any]:
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        if return_labels and model_class is MiniLMForPreTraining:
            # No table of the suite has two labels.
            inputs["labels"] = torch.zeros_like(inputs["input_ids"])
            inputs["next_sentence_label"] = torch.zeros_like(inputs["input_ids"][:, 0])
        return inputs

    def test_config(self) -> None:
        self.config_tester.run_common_tests()


def name_of(architecture: str) -> str:
    """Make a class's name of an architecture's."""
    return "".join(word.capitalize() for word in re.split(r"\W+|_", architecture)) + "Test"


def test_the_suite_knows_of_every_class_what_kind_it_is():
    tables = [table for name, table in vars(test_modeling_common).items() if name.endswith("_MAPPING_NAMES")]
    known = {table.get(MiniLMConfig.model_type) for table in tables}
    assert known >= {model_class.__name__ for model_class in ModelClassTests.all_model_classes}


for architecture, fields in ARCHITECTURES.items():
    members = {"architecture": architecture, "fields": fields, "__module__": __name__}
    globals()[name_of(architecture)] = type(name_of(architecture), (ModelClassTests, unittest.TestCase), members)
