"""What the suite asks of a model tester, for an encoder and a decoder that read texts of unequal length."""

import tempfile
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from model_tester import CHOICES, SCHEME_FIELDS, SIZES, WITHOUT_DROPOUT
from transformers import AutoModelForSeq2SeqLM
from transformers.modeling_outputs import Seq2SeqLMOutput
from transformers_suite import test_fsdp_mixin
from transformers_suite.test_configuration_common import ConfigTester
from transformers_suite.test_modeling_common import ids_tensor, random_attention_mask

from hf_minilm import MiniLMForConditionalGeneration, MiniLMSeq2SeqConfig, MiniLMSeq2SeqModel
from hf_minilm.model.configuration_minilm_seq2seq import SEQ2SEQ_PRESETS
from hf_minilm.model.positions import POSITION_SCHEMES

START = 1
"""Token that the decoder reads first: the first of the sequence that the suite trains on."""

SEQ2SEQ_ARCHITECTURES: dict[str, dict[str, Any]] = {
    **{
        f"seq2seq {scheme} positions": {**CHOICES, "position_embedding": scheme, **SCHEME_FIELDS.get(scheme, {})}
        for scheme in POSITION_SCHEMES
    },
    "seq2seq sliding attention": {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 3},
    "seq2seq stacks of their own": {
        "share_embeddings": False,
        "encoder": {"position_embedding": "alibi", "vocab_size": 261, "intermediate_size": 41, "qk_norm": True},
    },
    **{f"seq2seq {preset} preset": {**fields, **WITHOUT_DROPOUT} for preset, fields in SEQ2SEQ_PRESETS.items()},
}
"""What is tested, likewise as for one stack: fields of both stacks, and in which the encoder differs."""


class SourceAsTarget(MiniLMForConditionalGeneration):
    """Reads what it is given as the target too where no target is given, as the suite's tests of several processes do
    with a model of one stack."""

    _auto_class = None  # its code does not travel

    def forward(self, input_ids: torch.Tensor | None = None, **arguments: Any) -> Seq2SeqLMOutput:
        """Predict from the source alone what can be predicted from it."""
        given = ("decoder_input_ids", "decoder_inputs_embeds", "labels")
        if all(arguments.get(name) is None for name in given):
            arguments["decoder_input_ids"] = input_ids
        return super().forward(input_ids, **arguments)


def with_an_encoder(test: Callable[..., None], *arguments: Any, **options: Any) -> None:
    """Run a test of the suite's in one of its processes, where it opens its models as AutoModelForCausalLM."""
    with mock.patch.object(test_fsdp_mixin, "AutoModelForCausalLM", AutoModelForSeq2SeqLM):
        test(*arguments, **options)


class MiniLMSeq2SeqModelTester:
    """Makes configurations and inputs of one architecture."""

    base_model_class = MiniLMSeq2SeqModel
    causal_lm_class = SourceAsTarget

    def __init__(self, parent: Any, fields: dict[str, Any]) -> None:
        self.parent = parent
        whole = {"encoder": {}, "share_embeddings": True, **fields, **SIZES}
        self.encoder_fields, self.share_embeddings = whole.pop("encoder"), whole.pop("share_embeddings")
        self.fields = whole
        self.batch_size, self.encoder_seq_length, self.seq_length = 13, 5, 7
        self.is_training = True
        for name, size in SIZES.items():
            setattr(self, name, size)

    def get_config(self) -> MiniLMSeq2SeqConfig:
        """Build the configuration; each call gives another object."""
        return MiniLMSeq2SeqConfig(
            encoder={**self.fields, **self.encoder_fields},
            decoder=dict(self.fields),
            share_embeddings=self.share_embeddings,
            decoder_start_token_id=START,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[MiniLMSeq2SeqConfig, dict[str, torch.Tensor]]:
        """Give the configuration, and random tokens and padding of both texts."""
        config = self.get_config()
        source, target = [self.batch_size, self.encoder_seq_length], [self.batch_size, self.seq_length]
        inputs = {
            "input_ids": ids_tensor(source, config.vocab_size),
            "attention_mask": random_attention_mask(source),
            "decoder_input_ids": ids_tensor(target, config.vocab_size),
            "decoder_attention_mask": random_attention_mask(target),
        }
        return config, inputs


class Seq2SeqConfigTester(ConfigTester):
    """The suite's tests of a configuration, for one with two stacks of one class."""

    def create_and_test_config_from_and_save_pretrained_composite(self) -> None:
        """Save the whole and each stack alone, and read them back.

        The suite would read each stack out of the whole's folder by the stack's class, which names them both.
        """
        config = self.config_class(**self.inputs_dict)
        with tempfile.TemporaryDirectory() as folder:
            config.save_pretrained(folder)
            loaded = self.config_class.from_pretrained(folder)
        for name, stack_class in config.sub_configs.items():
            stack = getattr(config, name)
            assert getattr(loaded, name).to_dict() == stack.to_dict()
            with tempfile.TemporaryDirectory() as folder:
                stack.save_pretrained(folder)
                assert stack_class.from_pretrained(folder).to_dict() == stack.to_dict()
