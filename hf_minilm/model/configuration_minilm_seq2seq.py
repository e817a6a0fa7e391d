"""Configuration of the encoder-decoder: two stacks, each with a configuration of its own, and what joins them."""

import copy
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.utils import logging

from .configuration_minilm import SIZES, MiniLMConfig, refuse_hostile_keywords, refuse_near_misses

logger = logging.get_logger(__name__)

SEQ2SEQ_AUTO_MAP = {
    "AutoConfig": "configuration_minilm_seq2seq.MiniLMSeq2SeqConfig",
    "AutoModel": "modeling_minilm_seq2seq.MiniLMSeq2SeqModel",
    "AutoModelForSeq2SeqLM": "modeling_minilm_seq2seq.MiniLMForConditionalGeneration",
}
"""Which class answers to which Auto class. Saving writes the whole map, so any head opens from any head's folder."""

SEQ2SEQ_PRESETS: dict[str, dict[str, Any]] = {
    # Vaswani et al. 2017, sections 3.1 to 3.5 and 5.4: projections without biases, as its equations have them.
    "vaswani2017": {
        "position_embedding": "sinusoidal",
        "norm_placement": "post",
        "norm_eps": 1e-6,
        "norm_bias": True,
        "feed_forward": "plain",
        "hidden_act": "relu",
        "attention_bias": False,
        "feed_forward_bias": True,
        "scale_embeddings": True,
        "hidden_dropout": 0.1,
        "scale_residual_initializer": False,
    },
    # Rotary positions, pre-norm without biases, gated feed-forward: the defaults of a stack.
    "modern": {},
}
"""What both stacks have in common in each named architecture."""

_ALONE: dict[str, Any] = {"type_vocab_size": 0, "prediction_transform": False}
"""Fields of a stack that only heads and inputs of a single stack make use of."""


@strict
class MiniLMSeq2SeqConfig(PreTrainedConfig):
    """What the encoder-decoder is.

    Raises:
        ValueError: If a field is misspelt or contradicts another one.
    """

    model_type = "hf_minilm_seq2seq"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]
    sub_configs: ClassVar[dict[str, type[PreTrainedConfig]]] = {"encoder": MiniLMConfig, "decoder": MiniLMConfig}
    base_model_fsdp_plan: ClassVar[dict[Any, str]] = {}  # the stacks have theirs; transformers' default names no module

    encoder: Any = None
    """The stack that reads the source, bidirectional: a `MiniLMConfig`, a dictionary of its fields, or None for its
    defaults."""
    decoder: Any = None
    """The stack that writes the target, causal, and attends to what the encoder makes of the source; likewise."""
    share_embeddings: bool = True
    """One token embedding for both stacks, which then have one vocabulary."""
    tie_word_embeddings: bool = True
    """The output projection is the decoder's token embedding."""
    is_encoder_decoder: bool = True
    """Tells transformers what this is."""
    pad_token_id: int | None = 0
    """Padding token."""
    bos_token_id: int | None = None
    """Token that begins a text."""
    eos_token_id: int | list[int] | None = None
    """Token that ends a source and a target."""
    decoder_start_token_id: int | None = None
    """Token that the decoder reads first; None: `bos_token_id`, or `pad_token_id` where there is none."""

    @classmethod
    def preset(
        cls,
        name: Literal["modern", "vaswani2017"] = "modern",
        size: str = "mini",
        *,
        encoder: dict[str, Any] | None = None,
        decoder: dict[str, Any] | None = None,
        **overrides: Any,
    ) -> "MiniLMSeq2SeqConfig":
        """Build a named architecture in a named size.

        Args:
            name: `modern` or `vaswani2017`.
            size: `tiny`, `mini`, `small` or `base`: layers, width and heads of either stack.
            encoder: Fields in which the encoder differs.
            decoder: Fields in which the decoder differs.
            **overrides: Any field of this class, or of both stacks.

        Raises:
            ValueError: If the name or the size is unknown, or the fields contradict each other.
        """
        for what, value, known in (("preset", name, SEQ2SEQ_PRESETS), ("size", size, SIZES)):
            if value not in known:
                raise ValueError(f"{what} ({value}) must be one of {', '.join(known)}.")
        own = {key: value for key, value in overrides.items() if key in cls.__dataclass_fields__}
        # Token ids belong to the whole and to either stack.
        ids = {key: value for key, value in own.items() if key in ("pad_token_id", "bos_token_id", "eos_token_id")}
        common = {key: value for key, value in overrides.items() if key not in own}
        common = {**_ALONE, **SIZES[size], **SEQ2SEQ_PRESETS[name], **ids, **common}
        return cls(encoder={**common, **(encoder or {})}, decoder={**common, **(decoder or {})}, **own)

    def __post_init__(self, **kwargs: Any) -> None:
        """Build the stacks' configurations, refuse misspelt keywords, and let transformers do the rest."""
        self._refuse_fields_of_stacks(kwargs)
        refuse_near_misses(self, kwargs)
        refuse_hostile_keywords(self, kwargs)
        of_whole = {"pad_token_id": self.pad_token_id, "transformers_version": self.transformers_version}
        self.encoder, self.decoder = (_stack(given, **of_whole) for given in (self.encoder, self.decoder))
        for stack, is_causal in (("encoder", False), ("decoder", True)):
            self._give_direction(stack, is_causal=is_causal)
        if self.decoder_start_token_id is None:
            self.decoder_start_token_id = self.pad_token_id if self.bos_token_id is None else self.bos_token_id
        self.decoder.cross_attention_hidden_size = self.encoder.hidden_size
        kwargs["auto_map"] = {**SEQ2SEQ_AUTO_MAP, **(kwargs.get("auto_map") or {})}
        super().__post_init__(**kwargs)
        self.validate_architecture()

    def _refuse_fields_of_stacks(self, keywords: dict[str, Any]) -> None:
        misplaced = (
            keywords.keys() & MiniLMConfig.__dataclass_fields__.keys() - PreTrainedConfig.__dataclass_fields__.keys()
        )
        for keyword in sorted(misplaced):
            if self.transformers_version is None:
                raise ValueError(
                    f"{keyword} must be given to a stack, as encoder={{...}} and decoder={{...}}; "
                    "MiniLMSeq2SeqConfig.preset gives it to both."
                )
            # A configuration that was saved has to open, whatever another library has put into it.
            logger.warning_once(f"{keyword} is a field of the stacks and is not read outside them.")
            del keywords[keyword]

    def _give_direction(self, name: str, *, is_causal: bool) -> None:
        stack = getattr(self, name)
        if stack.is_causal not in (None, is_causal):
            raise ValueError(f"{name}.is_causal ({stack.is_causal}) must be {is_causal}; leave it out.")
        stack.is_causal = is_causal

    def validate_architecture(self) -> None:
        """Check the rules between the stacks.

        Raises:
            ValueError: One line naming the field, its value, the rule and what to do.
        """
        encoder, decoder = self.encoder, self.decoder
        if not isinstance(encoder, MiniLMConfig) or not isinstance(decoder, MiniLMConfig):
            return  # not built yet: transformers checks a first time before
        if encoder.cross_attention_hidden_size is not None:
            raise ValueError(
                f"encoder.cross_attention_hidden_size ({encoder.cross_attention_hidden_size}) must be None, as an "
                "encoder reads one text; leave it out."
            )
        for name in ("vocab_size", "hidden_size"):
            if self.share_embeddings and getattr(encoder, name) != getattr(decoder, name):
                raise ValueError(
                    f"encoder.{name} ({getattr(encoder, name)}) must be decoder.{name} ({getattr(decoder, name)}) with "
                    "share_embeddings; make them equal, or set it to False."
                )

    @property
    def vocab_size(self) -> int:
        """Tokens of the decoder's vocabulary."""
        return self.decoder.vocab_size

    @vocab_size.setter
    def vocab_size(self, size: int) -> None:
        for stack in (self.encoder, self.decoder) if self.share_embeddings else (self.decoder,):
            stack.vocab_size = size

    @property
    def hidden_size(self) -> int:
        """The decoder's width."""
        return self.decoder.hidden_size

    @property
    def num_hidden_layers(self) -> int:
        """The decoder's layers."""
        return self.decoder.num_hidden_layers

    @property
    def num_attention_heads(self) -> int:
        """The decoder's heads."""
        return self.decoder.num_attention_heads

    @property
    def initializer_range(self) -> float:
        """Standard deviation of the initial weights of what belongs to no stack."""
        return self.decoder.initializer_range


def _stack(given: Any, **of_whole: Any) -> Any:
    """Build a stack's configuration, a copy where one is given: its direction is written into it.

    Fields that it does not name are those of the whole: the padding token, whose embedding is not trained as an input,
    and the version of transformers, by which a configuration that was saved is known as such.
    """
    if isinstance(given, PreTrainedConfig):
        return copy.deepcopy(given)
    if given is not None and not isinstance(given, dict):
        raise TypeError(f"a stack ({given}) must be a MiniLMConfig or a dictionary of its fields; give one of them.")
    fields = {key: value for key, value in (given or {}).items() if key not in ("model_type", "auto_map")}
    return MiniLMConfig(**{**_ALONE, **of_whole, **fields})


__all__ = ["MiniLMSeq2SeqConfig"]
