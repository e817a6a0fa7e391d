"""What the suite's test cases over our classes have in common, whatever the classes are."""

import re
import unittest
from collections.abc import Callable, Iterable
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel, set_seed
from transformers_suite import test_fsdp_mixin, test_modeling_common, test_tensor_parallel_mixin
from transformers_suite.test_configuration_common import ConfigTester
from transformers_suite.test_modeling_common import ModelTesterMixin
from transformers_suite.test_training_mixin import TrainingTesterMixin

import hf_minilm

# The suite runs its tests of several processes for a list of families only, to save time.
test_tensor_parallel_mixin.TP_DISTRIBUTED_TEST_MODEL_TYPES = None
test_fsdp_mixin.FSDP_DISTRIBUTED_TEST_MODEL_TYPES = None
if not torch.cuda.is_available():
    # It takes a core for each process; tiny models share one without harm.
    test_fsdp_mixin._get_available_fsdp_workers = lambda: 4

NotApplicable = tuple[str, Callable[[Any], bool], str]
"""Tests that we skip ourselves: how their names begin, for which configuration, and why they do not apply to it."""


class ClassTests(
    ModelTesterMixin,
    TrainingTesterMixin,
    test_tensor_parallel_mixin.TensorParallelTesterMixin,
    test_fsdp_mixin.FSDPTesterMixin,
):
    """The suite, for one architecture of some classes."""

    architecture: str
    fields: dict[str, Any]
    not_applicable: list[NotApplicable]
    # The suite tells a model's age by a copyright line, and spares the old ones: ours has none, and is not spared.
    test_can_init_all_missing_weights_before_2023 = True

    def make_testers(self) -> tuple[Any, ConfigTester]:
        """Make what the suite asks for a model's and a configuration's tests, of `fields`."""
        raise NotImplementedError

    def setUp(self) -> None:
        # Whatever a test draws, it draws again in the next run.
        test_modeling_common.global_rng.seed(0)
        set_seed(0)
        self.model_tester, self.config_tester = self.make_testers()
        config = self.model_tester.get_config()
        for beginning, applies_not, reason in self.not_applicable:
            if self._testMethodName.startswith(beginning) and applies_not(config):
                self.skipTest(reason)

    def test_config(self) -> None:
        self.config_tester.run_common_tests()


def classes_of(config_class: type[PreTrainedConfig]) -> tuple[type[PreTrainedModel], ...]:
    """Give our classes of a configuration that are models to use: the bare one, and one a head."""
    models = [
        getattr(hf_minilm, name) for name in hf_minilm.__all__ if not name.endswith(("Config", "PreTrainedModel"))
    ]
    return tuple(model_class for model_class in models if model_class.config_class is config_class)


def classes_of_no_kind(model_classes: Iterable[type[PreTrainedModel]]) -> set[str]:
    """Name the classes that no table of the suite names, so that it does not know of what kind they are."""
    tables = [table for name, table in vars(test_modeling_common).items() if name.endswith("_MAPPING_NAMES")]
    return {
        model_class.__name__
        for model_class in model_classes
        if model_class.__name__ not in [table.get(model_class.config_class.model_type) for table in tables]
    }


def cases_of(base: type[ClassTests], architectures: dict[str, dict[str, Any]]) -> dict[str, type]:
    """Make a test case of every architecture, by its class's name, for the module of `base`."""
    cases = {}
    for architecture, fields in architectures.items():
        name = "".join(word.capitalize() for word in re.split(r"\W+|_", architecture)) + "Test"
        members = {"architecture": architecture, "fields": fields, "__module__": base.__module__}
        cases[name] = type(name, (base, unittest.TestCase), members)
    return cases
