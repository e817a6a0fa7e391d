"""transformers' own common tests over our classes with an encoder and a decoder, once for each architecture.

Its pipeline tests are left out: transformers 5 has no pipeline for an encoder and a decoder of text.
"""

import json
import tempfile
from functools import partial
from typing import Any

import pytest
import torch
from class_tests import ClassTests, NotApplicable, cases_of, classes_of, classes_of_no_kind
from seq2seq_tester import SEQ2SEQ_ARCHITECTURES, MiniLMSeq2SeqModelTester, Seq2SeqConfigTester, with_an_encoder
from stand_ins.generation import Seq2SeqGenerationTesterMixin
from transformers_suite.test_configuration_common import ConfigTester

from hf_minilm import MiniLMSeq2SeqConfig
from hf_minilm.model.losses import next_tokens

pytestmark = pytest.mark.conformance

NOT_APPLICABLE: list[NotApplicable] = [
    (
        "test_model_rope_",
        lambda config: config.decoder.rope_parameters is None,
        "scales the frequencies of rope_parameters, and this position scheme has none",
    ),
    (
        "test_inputs_embeds_matches_input_ids",
        lambda config: not config.share_embeddings,
        "embeds both texts by the table of get_input_embeddings, and here each stack has its own",
    ),
    (
        "test_resize_",
        lambda config: not config.share_embeddings,
        "resizes the one vocabulary of a model, and here each stack has its own",
    ),
]


class Seq2SeqClassTests(ClassTests, Seq2SeqGenerationTesterMixin):
    """The suite, for one architecture."""

    not_applicable = NOT_APPLICABLE
    all_model_classes = classes_of(MiniLMSeq2SeqConfig)
    is_encoder_decoder = True
    _is_composite = True

    def make_testers(self) -> tuple[MiniLMSeq2SeqModelTester, ConfigTester]:
        tester = MiniLMSeq2SeqModelTester(self, self.fields)
        fields = json.loads(tester.get_config().to_json_string())
        given = {name: fields[name] for name in ("encoder", "decoder", "share_embeddings")}
        return tester, Seq2SeqConfigTester(self, config_class=MiniLMSeq2SeqConfig, **given)

    def _run_fsdp2_distributed_test(self, test_name: str, test_impl: Any, *arguments: Any, **options: Any) -> None:
        super()._run_fsdp2_distributed_test(test_name, partial(with_an_encoder, test_impl), *arguments, **options)

    def _get_tiny_config(self) -> tuple[type[MiniLMSeq2SeqConfig], dict[str, Any]]:
        # The suite would give it the sizes of one stack; of these its vocabulary matters, which processes share evenly.
        config = self.model_tester.get_config()
        config.vocab_size = 256
        return MiniLMSeq2SeqConfig, config.to_diff_dict()

    def test_sdpa_can_dispatch_composite_models(self) -> None:
        # The suite's own looks for a tower of images or sounds and leaves others to write theirs.
        for model_class in self.all_model_classes:
            with tempfile.TemporaryDirectory() as folder:
                model_class(self.model_tester.get_config()).save_pretrained(folder)
                for asked, expected in ((None, "sdpa"), ("sdpa", "sdpa"), ("eager", "eager")):
                    model = model_class.from_pretrained(folder, attn_implementation=asked)
                    configs = [module.config for module in model.modules() if hasattr(module, "config")]
                    assert {config._attn_implementation for config in configs} == {expected}

    def _create_text_training_batch(self, batch_size: int, seq_length: int, vocab_size: int) -> dict[str, torch.Tensor]:
        """Teach the decoder the suite's sequence; the encoder sees its first token alone, as it will in generation."""
        tokens = super()._create_text_training_batch(batch_size, seq_length, vocab_size)["input_ids"]
        first = torch.zeros_like(tokens)
        first[:, 0] = 1
        return {
            "input_ids": tokens,
            "attention_mask": first,
            "decoder_input_ids": tokens,
            "labels": next_tokens(tokens),
        }


def test_the_suite_knows_of_every_class_what_kind_it_is():
    assert not classes_of_no_kind(Seq2SeqClassTests.all_model_classes)


globals().update(cases_of(Seq2SeqClassTests, SEQ2SEQ_ARCHITECTURES))
