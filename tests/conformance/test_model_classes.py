"""transformers' own common tests over all our classes of one stack, once for each position scheme and each preset."""

from typing import Any

import pytest
import torch
from class_tests import ClassTests, NotApplicable, cases_of, classes_of, classes_of_no_kind
from model_tester import ARCHITECTURES, MiniLMModelTester
from tiny_models import OwnModelsPipelineTesterMixin
from transformers import PreTrainedModel
from transformers_suite.test_configuration_common import ConfigTester
from transformers_suite.test_modeling_common import GenerationTesterMixin

from hf_minilm import MiniLMConfig, MiniLMForPreTraining

pytestmark = pytest.mark.conformance

NOT_APPLICABLE: list[NotApplicable] = [
    (
        "test_model_rope_",
        lambda config: config.rope_parameters is None,
        "scales the frequencies of rope_parameters, and this position scheme has none",
    ),
]


class ModelClassTests(ClassTests, GenerationTesterMixin, OwnModelsPipelineTesterMixin):
    """The suite, for one architecture."""

    not_applicable = NOT_APPLICABLE
    all_model_classes = classes_of(MiniLMConfig)

    def make_testers(self) -> tuple[MiniLMModelTester, ConfigTester]:
        sizes = {"hidden_size": 48, "num_attention_heads": 6, "num_hidden_layers": 2}
        config_tester = ConfigTester(self, config_class=MiniLMConfig, **{**self.fields, **sizes})
        return MiniLMModelTester(self, self.fields), config_tester

    def _prepare_for_class(
        self, inputs_dict: dict[str, Any], model_class: type[PreTrainedModel], return_labels: bool = False
    ) -> dict[str, Any]:
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        if return_labels and model_class is MiniLMForPreTraining:
            # No table of the suite has two labels.
            inputs["labels"] = torch.zeros_like(inputs["input_ids"])
            inputs["next_sentence_label"] = torch.zeros_like(inputs["input_ids"][:, 0])
        return inputs


def test_the_suite_knows_of_every_class_what_kind_it_is():
    assert not classes_of_no_kind(ModelClassTests.all_model_classes)


globals().update(cases_of(ModelClassTests, ARCHITECTURES))
