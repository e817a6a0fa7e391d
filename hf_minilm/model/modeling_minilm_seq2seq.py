"""The encoder-decoder of Vaswani et al. 2017: one stack reads a source, another writes a target while looking at it.

Both stacks are `MiniLMModel`, with the same attention, positions and layers as everything else here; the decoder's
layers have a third sub-layer, cross-attention. Its head predicts the target's tokens.

Shapes: B batch, S source positions, T target positions, E hidden size, V vocabulary.
"""

import copy
from typing import Any, cast

import torch
from torch import nn
from transformers import DynamicCache, EncoderDecoderCache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput, Seq2SeqModelOutput
from transformers.utils import logging
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import OutputRecorder

from .attention import Attention, cross_attention_mask, packed_sequence_ids
from .configuration_minilm import MiniLMConfig
from .configuration_minilm_seq2seq import MiniLMSeq2SeqConfig
from .input_checks import is_plain, labels_checked, refuse_bad_inputs, refuse_bad_mask
from .layers import Layer
from .losses import Count, kept_positions, normalised_cross_entropy, predicted_positions, previous_tokens
from .modeling_minilm import MiniLMForCausalLM, MiniLMModel
from .vocabulary_loss import vocabulary_cross_entropy

logger = logging.get_logger(__name__)


class Decoder(MiniLMModel):
    """A causal stack with cross-attention, which tells the two kinds of attention apart in what it returns."""

    argument_prefix = "decoder_"
    _can_record_outputs = {
        "hidden_states": Layer,
        "attentions": OutputRecorder(Attention, index=1, layer_name="attention"),
        "cross_attentions": OutputRecorder(Attention, index=1, layer_name="cross_attention"),
    }


class MiniLMSeq2SeqPreTrainedModel(PreTrainedModel):
    """What the classes share: loading, saving, and what transformers may do with them."""

    config_class = MiniLMSeq2SeqConfig
    config: MiniLMSeq2SeqConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Layer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def resize_token_embeddings(self, *arguments: Any, **options: Any) -> nn.Embedding:
        """Resize the token embedding, which must be one for both stacks; the arguments are those of transformers.

        Raises:
            ValueError: If each stack has its own.
        """
        if not self.config.share_embeddings:
            raise ValueError(
                "share_embeddings (False) must be True to resize the vocabulary, as one size cannot serve two; resize "
                "the encoder's with model.get_encoder().resize_token_embeddings."
            )
        embeddings = super().resize_token_embeddings(*arguments, **options)
        self.config.vocab_size = embeddings.num_embeddings
        return embeddings


class MiniLMSeq2SeqModel(MiniLMSeq2SeqPreTrainedModel):
    """The encoder and the decoder, without a head."""

    def __init__(self, config: MiniLMSeq2SeqConfig) -> None:
        super().__init__(config)
        self.encoder = MiniLMModel(config.encoder)
        self.decoder = Decoder(config.decoder)
        one = {"decoder.embeddings.tokens.weight": "encoder.embeddings.tokens.weight"}
        self._tied_weights_keys = one if config.share_embeddings else {}
        self.post_init()

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Say which weights are one: the token embeddings, whether or not the output projection is one with them."""
        if all_submodels:
            return super().get_expanded_tied_weights_keys(all_submodels=True)
        return dict(self._tied_weights_keys)

    def get_input_embeddings(self) -> nn.Module:
        """Give the encoder's token embeddings, V x E."""
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the encoder's token embeddings, and the decoder's where they are the same."""
        self.encoder.set_input_embeddings(value)
        if self.config.share_embeddings:
            self.decoder.set_input_embeddings(value)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        decoder_position_ids: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[torch.Tensor, ...] | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> Seq2SeqModelOutput:
        """Read the source, and write the target's vectors.

        Args:
            input_ids: Source tokens [B, S]; or give `inputs_embeds`, or `encoder_outputs`.
            attention_mask: 1 for the source's tokens and 0 for its padding, [B, S].
            token_type_ids: Segment of each source token, for an encoder that has segments.
            position_ids: Source positions from 0, [B or 1, S]. Where they do not go on by one a new sequence begins:
                that is how several pairs share a row, the k-th source with the k-th target.
            decoder_input_ids: What the decoder reads [B, T], the start token first.
            decoder_attention_mask: 1 for the target's tokens and 0 for padding, [B, T]; with a cache, [B, earlier + T].
            decoder_position_ids: Target positions from 0, [B or 1, T].
            encoder_outputs: What the encoder has made of the source already, [B, S, E] first.
            past_key_values: Keys and values of earlier target tokens, and of the source.
            inputs_embeds: Source vectors [B, S, E] in place of ids.
            decoder_inputs_embeds: Target vectors [B, T, E] in place of ids.
            use_cache: Return keys and values; by default outside training, unless the rows are packed.
            **kwargs: Passed on to the attention implementation, and what to return.

        Returns:
            `last_hidden_state` [B, T, E], `encoder_last_hidden_state` [B, S, E], `past_key_values`, and on request
            hidden states and the three kinds of attention.

        Raises:
            ValueError: If the source or the target is missing, given twice, or not what `refuse_bad_inputs` lets pass.
        """
        kwargs = self._outputs_wanted(kwargs)
        target = {"attention_mask": decoder_attention_mask, "position_ids": decoder_position_ids}
        batch_size, length = self._shape_of_target(decoder_input_ids, decoder_inputs_embeds, target, past_key_values)
        encoded = self._encode(
            encoder_outputs,
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        source = encoded.last_hidden_state
        target_ids = None if past_key_values else packed_sequence_ids(**target, batch_size=batch_size)
        if past_key_values is None and target_ids is None:
            past_key_values = self._new_cache(use_cache)
        decoder_outputs = self.decoder(
            decoder_input_ids,
            **target,
            past_key_values=past_key_values,
            inputs_embeds=decoder_inputs_embeds,
            use_cache=False,  # what is kept is made above, for both kinds of attention
            encoder_hidden_states=source,
            cross_attention_mask=cross_attention_mask(
                self.config.decoder,
                source,
                attention_mask,
                query_length=length,
                encoder_sequence_ids=packed_sequence_ids(position_ids, attention_mask, batch_size=batch_size),
                decoder_sequence_ids=target_ids,
            ),
            **kwargs,
        )
        return Seq2SeqModelOutput(
            last_hidden_state=decoder_outputs.last_hidden_state,
            past_key_values=decoder_outputs.past_key_values,
            decoder_hidden_states=decoder_outputs.hidden_states,
            decoder_attentions=decoder_outputs.attentions,
            cross_attentions=decoder_outputs.get("cross_attentions"),
            encoder_last_hidden_state=source,
            encoder_hidden_states=encoded.hidden_states,
            encoder_attentions=encoded.attentions,
        )

    def _outputs_wanted(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Say to both stacks what the whole configuration says of outputs; they know their own ones."""
        asked = {name: value for name, value in kwargs.items() if value is not None}
        names = [name for name in ("output_hidden_states", "output_attentions") if getattr(self.config, name, False)]
        return dict.fromkeys(names, True) | asked | {"return_dict": True}

    def _shape_of_target(
        self, ids: torch.Tensor | None, vectors: torch.Tensor | None, others: dict[str, Any], cache: Any
    ) -> tuple[int, int]:
        """Give B and T of what the decoder reads, checked before masks are made of it."""
        given = ids if vectors is None else vectors
        if given is None:
            raise ValueError("decoder_input_ids (None) must be given, or labels to a head; generate makes them itself.")
        refuse_bad_inputs(self.decoder, ids, vectors, **others, token_type_ids=None, has_cache=cache is not None)
        return given.shape[0], given.shape[1]

    def _encode(self, encoder_outputs: Any, **inputs: Any) -> Any:
        """Run the encoder, unless somebody has."""
        if encoder_outputs is None:
            return self.encoder(**inputs)
        encoded = BaseModelOutput(*encoder_outputs) if isinstance(encoder_outputs, tuple) else encoder_outputs
        vectors, mask = cast(torch.Tensor, encoded.last_hidden_state), inputs["attention_mask"]
        if is_plain(vectors) and is_plain(mask) and mask.dim() == 2:
            refuse_bad_mask("attention_mask", mask, vectors.shape[:2], any_width=True)
        return encoded

    def _new_cache(self, use_cache: bool | None) -> EncoderDecoderCache | None:
        wanted = self.config.decoder.use_cache if use_cache is None else use_cache
        if not wanted or self.training:
            return None
        # Of the source all is kept, whatever window the decoder's layers have.
        return EncoderDecoderCache(DynamicCache(config=self.config.decoder), DynamicCache())


class MiniLMForConditionalGeneration(MiniLMSeq2SeqPreTrainedModel, GenerationMixin):
    """A target from a source: translation, simplification, filling of gaps; `generate` works, greedy and with beams."""

    _tp_plan = {"lm_head": "colwise_gather_output"}
    vocabulary_loss = "auto"  # how the loss is computed, one of VOCABULARY_LOSSES
    _fsdp_plan = {"lm_head": "keep_full_weight"}

    def __init__(self, config: MiniLMSeq2SeqConfig) -> None:
        super().__init__(config)
        self.model = MiniLMSeq2SeqModel(config)
        decoder = config.decoder
        self.lm_head = nn.Linear(decoder.hidden_size, decoder.vocab_size, bias=decoder.output_bias)
        # To the first of all that are one: tying goes from one name to another only once.
        first = "encoder" if config.share_embeddings else "decoder"
        self._tied_weights_keys = {"lm_head.weight": f"model.{first}.embeddings.tokens.weight"}
        self.post_init()

    @classmethod
    def from_encoder_decoder(
        cls, encoder: PreTrainedModel | str, decoder: PreTrainedModel | str
    ) -> "MiniLMForConditionalGeneration":
        """Join an encoder and a decoder that were trained apart; the decoder's cross-attention is new.

        Each keeps its vocabulary, and so its tokenizer. Which weights are new is logged as a warning.

        Args:
            encoder: A model with any head, or a folder or Hub name of one.
            decoder: A causal model with its head, or a folder or Hub name of one.

        Returns:
            A model with weights of its own, in evaluation mode.

        Raises:
            ValueError: If the decoder is no MiniLMForCausalLM, or has a dense layer before its vocabulary.
        """
        encoder = MiniLMModel.from_pretrained(encoder) if isinstance(encoder, str) else encoder
        decoder = MiniLMForCausalLM.from_pretrained(decoder) if isinstance(decoder, str) else decoder
        if not isinstance(decoder, MiniLMForCausalLM):
            raise ValueError(f"decoder ({type(decoder).__name__}) must be a MiniLMForCausalLM; give one.")
        if decoder.config.causal_transform:
            raise ValueError(
                "causal_transform (True) of the decoder must be False; give one without a layer before its vocabulary."
            )
        fields = {name: getattr(decoder.config, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        config = MiniLMSeq2SeqConfig(
            encoder=_standalone(encoder.config, is_causal=False),
            decoder=_standalone(decoder.config, is_causal=True),
            share_embeddings=False,
            tie_word_embeddings=decoder.config.tie_word_embeddings,
            **fields,
        )
        model = cls(config)
        model.model.encoder.load_state_dict(encoder.base_model.state_dict())
        new = model.model.decoder.load_state_dict(decoder.base_model.state_dict(), strict=False).missing_keys
        model.lm_head.load_state_dict(decoder.get_output_embeddings().state_dict())
        model.tie_weights()
        number = sum(model.model.decoder.get_parameter(name).numel() for name in new)
        logger.warning(
            f"cross-attention is new and must be trained: {len(new)} weights ({number:,} numbers) of "
            f"{type(model).__name__}, model.decoder.{new[0]} to model.decoder.{new[-1]}."
        )
        return model.eval()

    def prepare_decoder_input_ids_from_labels(
        self, labels: torch.Tensor, sequence_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Give what the decoder reads while it predicts labels [B, T]: the start token, then all but the last.

        With the packed sequence of each token, [B, T], so of each sequence.
        """
        start, padding = self.config.decoder_start_token_id, self.config.pad_token_id
        if start is None or padding is None:
            raise ValueError(
                f"decoder_start_token_id ({start}) and pad_token_id ({padding}) must be set to train on labels."
            )
        return previous_tokens(labels, sequence_ids, first=start, padding=padding)

    @can_return_tuple
    @labels_checked(labels="vocabulary")
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        decoder_position_ids: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[torch.Tensor, ...] | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        return_logits: bool | None = None,
        num_items_in_batch: Count = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Predict each token of the target from the source and the target's earlier tokens.

        Args:
            input_ids: As for `MiniLMSeq2SeqModel`, like the arguments not named here.
            attention_mask: See `MiniLMSeq2SeqModel`.
            token_type_ids: See `MiniLMSeq2SeqModel`.
            position_ids: See `MiniLMSeq2SeqModel`.
            decoder_input_ids: See `MiniLMSeq2SeqModel`; None: made of the labels.
            decoder_attention_mask: See `MiniLMSeq2SeqModel`.
            decoder_position_ids: See `MiniLMSeq2SeqModel`.
            encoder_outputs: See `MiniLMSeq2SeqModel`.
            past_key_values: See `MiniLMSeq2SeqModel`.
            inputs_embeds: See `MiniLMSeq2SeqModel`.
            decoder_inputs_embeds: See `MiniLMSeq2SeqModel`.
            labels: What each position of the decoder predicts [B, T], not to be shifted; -100 where nothing is.
            use_cache: See `MiniLMSeq2SeqModel`.
            logits_to_keep: Which logits to return, see `kept_positions`; 0 is all.
            return_logits: Whether to return logits; by default not in training on labels.
            num_items_in_batch: Predicted tokens of all micro-batches and processes; None: of this batch.
            **kwargs: `label_smoothing`: see `normalised_cross_entropy`; not in evaluation, whose loss is the target's
                own. The rest is passed on to the attention implementation, and says what to return.

        Returns:
            `loss` in nats per predicted token, `logits` [B, T, V], and what `MiniLMSeq2SeqModel` returns.
        """
        # Not named above: Trainer takes arguments with "label" in their names for labels that every batch must have.
        label_smoothing: float = kwargs.pop("label_smoothing", 0.0)
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            packed = packed_sequence_ids(decoder_position_ids, decoder_attention_mask, batch_size=len(labels))
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels, packed)
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            decoder_position_ids=decoder_position_ids,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            **kwargs | {"return_dict": True},
        )
        hidden_states, loss, logits = outputs.last_hidden_state, None, None
        if return_logits or (return_logits is None and (labels is None or not self.training)):
            logits = self.lm_head(kept_positions(hidden_states, logits_to_keep))
        if labels is not None:
            counted: dict[str, Any] = {
                "count": num_items_in_batch,
                "label_smoothing": label_smoothing if self.training else 0.0,
            }
            if logits is not None and logits.shape[:-1] == labels.shape:
                loss = normalised_cross_entropy(logits.flatten(0, 1), labels.flatten(), **counted)
            else:
                chosen, targets = predicted_positions(hidden_states, labels)
                implementation = self.vocabulary_loss
                loss = vocabulary_cross_entropy(chosen, self.lm_head, targets, implementation=implementation, **counted)
        rest = {key: value for key, value in outputs.items() if key != "last_hidden_state"}
        return Seq2SeqLMOutput(loss=loss, logits=logits, **rest)

    def _prepare_cache_for_generation(self, generation_config: Any, model_kwargs: dict[str, Any], *rest: Any) -> Any:
        """Keep all of the source: transformers would drop what a sliding layer's window does not reach."""
        cast(Any, super())._prepare_cache_for_generation(generation_config, model_kwargs, *rest)
        cache = model_kwargs.get("past_key_values")
        slides = "sliding_attention" in self.config.decoder.layer_types
        if slides and isinstance(cache, EncoderDecoderCache) and not cache.is_updated.get(0):
            cache.cross_attention_cache = DynamicCache()


def _standalone(config: Any, *, is_causal: bool) -> MiniLMConfig:
    """Copy a model's configuration and give it a direction, whatever it was trained with."""
    config = copy.deepcopy(config)
    config.is_causal = is_causal
    return config


__all__ = ["MiniLMForConditionalGeneration", "MiniLMSeq2SeqModel", "MiniLMSeq2SeqPreTrainedModel"]
