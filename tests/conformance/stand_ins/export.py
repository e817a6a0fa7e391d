"""Tests of export by torch, in place of the suite's own, which transformers' source distribution leaves out."""

from typing import Any

import torch
from transformers import set_seed
from transformers.exporters import DynamoConfig, DynamoExporter
from transformers.testing_utils import torch_device


def tensors_of(outputs: Any) -> dict[str, torch.Tensor]:
    """Give the outputs that are tensors, by name."""
    return {name: value for name, value in outputs.items() if isinstance(value, torch.Tensor)}


class ExportTesterMixin:
    """For test cases with a `model_tester` and `all_model_classes`."""

    def test_an_exported_model_computes_the_same_at_other_sizes(self):
        for model_class in self.all_model_classes:
            with self.subTest(model_class.__name__):
                set_seed(5)
                config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
                inputs = self._prepare_for_class(inputs, model_class)
                model = model_class(config).eval().to(torch_device)
                exported = DynamoExporter().export(model, inputs, config=DynamoConfig(dynamic=True))
                smaller = {name: value[:5, ..., :-1] for name, value in inputs.items()}
                for sample in (inputs, smaller):
                    with torch.no_grad():
                        expected = tensors_of(model(**sample))
                    outputs = tensors_of(exported(**sample))
                    assert outputs.keys() == expected.keys()
                    for name, value in expected.items():
                        torch.testing.assert_close(outputs[name], value, atol=1e-5, rtol=1e-5)

    def test_the_stages_of_generation_are_exported(self):
        for model_class in self.all_generative_model_classes:
            set_seed(5)
            model = model_class(self.model_tester.get_config()).eval().to(torch_device)
            tokens = torch.randint(1, self.model_tester.vocab_size, (2, 5), device=torch_device)
            inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
            exported = DynamoExporter().export_for_generation(model, inputs, DynamoConfig(dynamic=True))
            assert set(exported.components) == {"prefill", "decode"}
