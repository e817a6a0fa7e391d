"""Every model class that an Auto class may name: the backbone, and one head for each thing it can be asked.

Shapes: B batch, T positions, E hidden size, V vocabulary, C classes or choices, N predicted positions.
"""

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    CausalLMOutputWithPast,
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    NextSentencePredictorOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils.generic import ModelOutput, can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .attention import Attention, packed_sequence_ids, packing, token_mask
from .configuration_minilm import MiniLMConfig, with_direction
from .decoding import FastGenerationMixin
from .input_checks import labels_checked, refuse_bad_inputs
from .layers import Embeddings, Layer, Pooler, PredictionTransform, build_norm, first_tokens, pooled, pooling_of
from .losses import (
    Count,
    Labels,
    classification_loss,
    kept_positions,
    next_tokens,
    normalised_cross_entropy,
    order_cross_entropy,
    predicted_positions,
    problem_of,
    sequence_count,
    span_cross_entropy,
)
from .positions import build_positions
from .variable_length import VARIABLE_LENGTH, Line, fits_in_a_line
from .vocabulary_loss import vocabulary_cross_entropy


class MiniLMPreTrainedModel(PreTrainedModel):
    """What all classes share: loading, saving, initial weights, and what transformers may do with them."""

    config_class = MiniLMConfig
    config: MiniLMConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Layer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": Layer, "attentions": Attention}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        shrinks = self.config.scale_residual_initializer and getattr(module, "ends_in_residual", False)
        if shrinks and isinstance(module, nn.Linear):
            # Each of the 2 x layers adds its own variance to the residual sum; with cross-attention 3 x layers do.
            sub_layers = 2 if self.config.cross_attention_hidden_size is None else 3
            added = sub_layers * self.config.num_hidden_layers
            shrunk = cast(float, self.config.initializer_range) / math.sqrt(added)
            init.normal_(module.weight, mean=0.0, std=shrunk)


class MiniLMModel(MiniLMPreTrainedModel):
    """The backbone: embeddings and layers, without a head."""

    argument_prefix = ""  # before the arguments' names in what is said of them
    _input_embed_layer = "tokens"  # of `embeddings`: there transformers finds and replaces the token embeddings

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.positions = build_positions(config)
        self.layers = nn.ModuleList(Layer(config, layer_idx) for layer_idx in range(config.num_hidden_layers))
        self.norm = build_norm(config) if config.norm_placement == "pre" else nn.Identity()
        self.gradient_checkpointing = False
        self.post_init()

    def init_parallel_plans(self) -> None:
        """Share out over processes only what is there, and no attention whose bias is computed for all heads."""
        super().init_parallel_plans()
        modules = dict(self.named_modules())
        is_biased = self.positions.is_added_to_scores
        self._tp_plan = {
            name: style
            for name, style in (self._tp_plan or {}).items()
            if name.replace("*", "0") in modules and not (is_biased and ".attention." in name)
        }

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Turn tokens into vectors that know their context.

        Args:
            input_ids: Token ids [B, T]; or give `inputs_embeds`.
            attention_mask: 1 for tokens and 0 for padding [B, T]; with a cache, [B, earlier + T]. Or as `token_mask`
                takes it.
            token_type_ids: Segment of each token [B, T], from 0; not looked at when `type_vocab_size` is 0.
            position_ids: Positions from 0, [B or 1, T]. Where they do not go on by one a new sequence begins, and no
                token looks across: that is how several sequences share a row.
            past_key_values: Keys and values of earlier tokens, for causal attention.
            inputs_embeds: Token vectors [B, T, E] in place of ids.
            use_cache: Return keys and values; by default when attention is causal, outside training, unless the rows
                are packed.
            encoder_hidden_states: Another text's vectors, for layers with cross-attention.
            **kwargs: Passed on to the attention implementation; `cross_attention_mask` to cross-attention.

        Returns:
            `last_hidden_state` [B, T, E], `past_key_values`, and on request `hidden_states` and `attentions`.

        Raises:
            ValueError: If `refuse_bad_inputs` refuses them, or a sequence is longer than the positions reach.
        """
        given = {"attention_mask": attention_mask, "token_type_ids": token_type_ids, "position_ids": position_ids}
        refuse_bad_inputs(self, input_ids, inputs_embeds, **given, has_cache=past_key_values is not None)
        if inputs_embeds is None:
            inputs_embeds = self.embeddings.tokens(input_ids)
        batch_size, length = inputs_embeds.shape[:2]

        sequence_ids = None
        if past_key_values is None:
            sequence_ids, bounds = packing(self.config, position_ids, attention_mask, kwargs, batch_size=batch_size)
            kwargs |= bounds
            caches = self.config.is_causal and self.config._attn_implementation != VARIABLE_LENGTH
            if use_cache and caches and not self.training and sequence_ids is None and not bounds:
                past_key_values = DynamicCache(config=self.config)
        if position_ids is None:
            seen = 0 if past_key_values is None else past_key_values.get_seq_length()
            position_ids = (torch.arange(length, device=inputs_embeds.device) + seen).unsqueeze(0)
        self.positions.refuse_unknown_positions(position_ids)
        line = None
        inside = kwargs.get("output_hidden_states")
        is_alone = past_key_values is None and encoder_hidden_states is None
        if is_alone and fits_in_a_line(self.config, attention_mask, hidden_states_wanted=inside):
            line = Line(cast(torch.Tensor, attention_mask), sequence_ids)
            inputs_embeds, position_ids = line.of(inputs_embeds), line.of(position_ids)
            token_type_ids = None if token_type_ids is None else line.of(token_type_ids)
            attention_mask = line.bounds

        hidden_states = self.embeddings(inputs_embeds, position_ids, token_type_ids, self.positions)
        context = self._context(hidden_states, attention_mask, position_ids, sequence_ids, past_key_values)
        for layer in self.layers:
            told = context[cast(str, layer.layer_type)]
            hidden_states = layer(
                hidden_states,
                told["position_bias"],
                encoder_hidden_states,
                attention_mask=told["attention_mask"],
                rotation=told["rotation"],
                past_key_values=past_key_values,
                position_ids=position_ids,
                **kwargs,
            )
        hidden_states = self.norm(hidden_states)
        if line is not None:
            hidden_states = line.rows(hidden_states)
        return BaseModelOutputWithPast(last_hidden_state=hidden_states, past_key_values=past_key_values)

    def _context(
        self,
        embeddings: torch.Tensor,
        attention_mask: torch.Tensor | None,
        position_ids: torch.Tensor,
        sequence_ids: torch.Tensor | None,
        cache: Cache | None,
    ) -> dict[str, dict[str, Any]]:
        """Compute what layers are told, which is the same for all of one type: for the first of each."""
        layers = [cast(Layer, layer) for layer in self.layers]
        masks: dict[str, Any] = {"sequence_ids": sequence_ids, "past_key_values": cache}
        return {
            kind: {
                "attention_mask": token_mask(self.config, embeddings, attention_mask, layer_type=kind, **masks),
                "rotation": self.positions.rotation(position_ids, kind),
                "position_bias": self.positions.score_bias(position_ids, cache, layer.attention.layer_idx),
            }
            for kind, layer in {layer.layer_type: layer for layer in reversed(layers)}.items()
        }


class LanguageModelHead(MiniLMPreTrainedModel):
    """What the heads over the vocabulary share: the output projection, tied to the token embeddings by default."""

    _tied_weights_keys = {"lm_head.weight": "model.embeddings.tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}
    _fsdp_plan = {"lm_head": "keep_full_weight"}
    is_causal_head = False
    vocabulary_loss = "auto"  # how the loss is computed, one of VOCABULARY_LOSSES

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__(with_direction(config, is_causal=self.is_causal_head, head=type(self).__name__))
        self.model = MiniLMModel(self.config)
        transforms = config.causal_transform if self.is_causal_head else config.prediction_transform
        self.transform = PredictionTransform(config) if transforms else nn.Identity()
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=config.output_bias)

    def predict(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Score the vocabulary, [..., E] to [..., V]."""
        return self.lm_head(self.transform(hidden_states))

    def predict_labels(
        self,
        hidden_states: torch.Tensor,
        labels: Labels,
        *,
        count: Count,
        return_logits: bool | None,
        kept: int | torch.Tensor = 0,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Compute the loss of the labelled positions [B, T] alone, and logits only if they are wanted, of what is kept.

        `return_logits` None means yes, unless the model trains on labels: then nobody reads them.
        """
        if return_logits is None:
            return_logits = labels is None or not self.training
        logits = self.predict(kept_positions(hidden_states, kept)) if return_logits else None
        if labels is None:
            return None, logits
        chosen, targets = predicted_positions(hidden_states, labels)
        chosen, implementation = self.transform(chosen), self.vocabulary_loss
        loss = vocabulary_cross_entropy(chosen, self.lm_head, targets, count=count, implementation=implementation)
        return loss, logits


class MiniLMForCausalLM(LanguageModelHead, FastGenerationMixin):
    """Each token from the ones before it (GPT); `generate` works, with a key-value cache."""

    is_causal_head = True

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__(config)
        self.post_init()

    @can_return_tuple
    @labels_checked(labels="vocabulary", shift_labels="vocabulary")
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        return_logits: bool | None = None,
        num_items_in_batch: Count = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Predict the next token at every position.

        Args:
            input_ids: As for `MiniLMModel`, like the arguments not named here.
            attention_mask: See `MiniLMModel`.
            token_type_ids: See `MiniLMModel`.
            position_ids: See `MiniLMModel`.
            past_key_values: See `MiniLMModel`.
            inputs_embeds: See `MiniLMModel`.
            labels: The tokens themselves [B, T], not shifted; -100 where nothing is predicted. In packed rows the
                first token of a sequence is not predicted, whatever its label.
            use_cache: See `MiniLMModel`.
            logits_to_keep: Which logits to return, see `kept_positions`; 0 is all.
            return_logits: Whether to return logits; by default not in training on labels.
            num_items_in_batch: Predicted tokens of all micro-batches and processes; None: of this batch.
            **kwargs: `shift_labels`: the token after each position [B, T], in place of `labels` where a row is split
                over processes, or `Targets` of these. The rest is passed on to the attention implementation.

        Returns:
            `loss` in nats per predicted token, `logits` [B, T, V], `past_key_values`.
        """
        # Not named above: Trainer takes arguments with "label" in their names for labels that every batch must have.
        shift_labels: Labels = kwargs.pop("shift_labels", None)
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs | {"return_dict": True},
        )
        if labels is not None and shift_labels is None:
            shift_labels = next_tokens(labels, packed_sequence_ids(position_ids, batch_size=len(labels)))
        counted: dict[str, Any] = {"count": num_items_in_batch, "return_logits": return_logits}
        loss, logits = self.predict_labels(outputs.last_hidden_state, shift_labels, kept=logits_to_keep, **counted)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


# Trainer moves the labels that it smooths for the classes of this table alone, and registering does not add to it.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[MiniLMConfig.model_type] = MiniLMForCausalLM.__name__


class MiniLMForMaskedLM(LanguageModelHead):
    """Masked tokens from all the others (Devlin et al. 2019, task 1)."""

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__(config)
        self.post_init()

    @can_return_tuple
    @labels_checked(labels="vocabulary")
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: Labels = None,
        return_logits: bool | None = None,
        num_items_in_batch: Count = None,
        **kwargs: Any,
    ) -> MaskedLMOutput:
        """Predict the tokens at masked positions.

        Args:
            input_ids: As for `MiniLMModel`, like the arguments not named here.
            attention_mask: See `MiniLMModel`.
            token_type_ids: See `MiniLMModel`.
            position_ids: See `MiniLMModel`.
            inputs_embeds: See `MiniLMModel`.
            labels: The original tokens at masked positions and -100 elsewhere, [B, T]; or `Targets` of these.
            return_logits: Whether to return logits; by default not in training on labels.
            num_items_in_batch: Predicted tokens of all micro-batches and processes; None: of this batch.
            **kwargs: Passed on to the attention implementation.

        Returns:
            `loss` in nats per predicted token, `logits` [B, T, V].
        """
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **kwargs | {"return_dict": True},
        )
        loss, logits = self.predict_labels(
            outputs.last_hidden_state, labels, count=num_items_in_batch, return_logits=return_logits
        )
        return MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


@dataclass
class MiniLMForPreTrainingOutput(ModelOutput):
    """Outputs of `MiniLMForPreTraining`.

    Attributes:
        loss: Sum of the two losses, a scalar.
        prediction_logits: Scores of the vocabulary, [B, T, V].
        seq_relationship_logits: Scores of 0 (is the next sentence) and 1 (is not), [B, 2]; for packed rows [number of
            labelled sequences, 2].
        masked_lm_loss: In nats per predicted token, detached.
        next_sentence_loss: In nats per labelled sequence, detached.
        hidden_states: On request, of every layer.
        attentions: On request, of every layer.
    """

    loss: torch.Tensor | None = None
    prediction_logits: torch.Tensor | None = None
    seq_relationship_logits: torch.Tensor | None = None
    masked_lm_loss: torch.Tensor | None = None
    next_sentence_loss: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class MiniLMForPreTraining(LanguageModelHead):
    """Masked tokens, and whether the second segment follows the first (Devlin et al. 2019, section 3.1)."""

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__(config)
        self.pooler = Pooler(config)
        self.next_sentence = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @can_return_tuple
    @labels_checked(labels="vocabulary", next_sentence_label="order")
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: Labels = None,
        next_sentence_label: Labels = None,
        return_logits: bool | None = None,
        num_items_in_batch: Count = None,
        num_sequences_in_batch: Count = None,
        **kwargs: Any,
    ) -> MiniLMForPreTrainingOutput:
        """Predict masked tokens and the order of two segments.

        Args:
            input_ids: As for `MiniLMModel`, like the arguments not named here.
            attention_mask: See `MiniLMModel`.
            token_type_ids: See `MiniLMModel`.
            position_ids: See `MiniLMModel`.
            inputs_embeds: See `MiniLMModel`.
            labels: The original tokens at masked positions and -100 elsewhere, [B, T]; or `Targets` of these.
            next_sentence_label: 0 = the second segment is the next, 1 = it is not, [B]; for packed rows [B, T], at the
                first token of each sequence, and -100 elsewhere; or `Targets` of these.
            return_logits: Whether to return the vocabulary's logits; by default not in training on labels.
            num_items_in_batch: Predicted tokens of all micro-batches and processes; None: of this batch.
            num_sequences_in_batch: Labelled sequences of all micro-batches and processes; None: `sequence_count`.
            **kwargs: Passed on to the attention implementation.

        Returns:
            See `MiniLMForPreTrainingOutput`.
        """
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **kwargs | {"return_dict": True},
        )
        hidden_states = outputs.last_hidden_state
        token_loss, logits = self.predict_labels(
            hidden_states, labels, count=num_items_in_batch, return_logits=return_logits
        )
        firsts = first_tokens(hidden_states, attention_mask, next_sentence_label)
        order_logits = self.next_sentence(self.pooler(firsts))
        order_loss = None
        if next_sentence_label is not None:
            if num_sequences_in_batch is None:
                num_sequences_in_batch = sequence_count(labels, next_sentence_label, tokens=num_items_in_batch)
            order_loss = order_cross_entropy(order_logits, next_sentence_label, count=num_sequences_in_batch)
        losses = [loss for loss in (token_loss, order_loss) if loss is not None]
        return MiniLMForPreTrainingOutput(
            loss=sum(losses[1:], losses[0]) if losses else None,
            prediction_logits=logits,
            seq_relationship_logits=order_logits,
            masked_lm_loss=None if token_loss is None else token_loss.detach(),
            next_sentence_loss=None if order_loss is None else order_loss.detach(),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class MiniLMForNextSentencePrediction(MiniLMPreTrainedModel):
    """Whether the second segment follows the first (Devlin et al. 2019, task 2)."""

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__(with_direction(config, is_causal=False, head=type(self).__name__))
        self.model = MiniLMModel(self.config)
        self.pooler = Pooler(config)
        self.next_sentence = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @can_return_tuple
    @labels_checked(labels="order")
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: Count = None,
        **kwargs: Any,
    ) -> NextSentencePredictorOutput:
        """Score 0 (is the next sentence) and 1 (is not).

        Args:
            input_ids: As for `MiniLMModel`, like the arguments not named here.
            attention_mask: See `MiniLMModel`.
            token_type_ids: See `MiniLMModel`.
            position_ids: See `MiniLMModel`.
            inputs_embeds: See `MiniLMModel`.
            labels: 0 or 1, [B]; for packed rows [B, T], -100 but at the first token of each sequence.
            num_items_in_batch: Labelled sequences of all micro-batches and processes; None: of this batch.
            **kwargs: Passed on to the attention implementation.

        Returns:
            `loss` in nats per sequence, `logits` [B, 2].
        """
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **kwargs | {"return_dict": True},
        )
        firsts = first_tokens(outputs.last_hidden_state, attention_mask, labels)
        logits = self.next_sentence(self.pooler(firsts))
        loss = None if labels is None else order_cross_entropy(logits, labels, count=num_items_in_batch)
        return NextSentencePredictorOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class ClassifierHead(MiniLMPreTrainedModel):
    """What the fine-tuning heads share: backbone, pooling, transform and dropout. The direction stays as it is."""

    def __init__(self, config: MiniLMConfig, *, has_pooler: bool) -> None:
        super().__init__(config)
        self.model = MiniLMModel(config)
        self.pooling = pooling_of(config)
        # The pooler is trained on the first token.
        has_pooler = has_pooler and self.pooling == "first" and not config.classifier_transform
        self.pooler = Pooler(config) if has_pooler else nn.Identity()
        self.transform = PredictionTransform(config) if config.classifier_transform else nn.Identity()
        dropout = config.hidden_dropout if config.classifier_dropout is None else config.classifier_dropout
        self.dropout = nn.Dropout(dropout)


class MiniLMForSequenceClassification(ClassifierHead):
    """A class, several classes, or a number for a whole text."""

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__(config, has_pooler=True)
        self.num_labels = cast(int, config.num_labels)
        self.classifier = nn.Linear(config.hidden_size, self.num_labels, bias=config.classifier_bias)
        self.post_init()

    @can_return_tuple
    @labels_checked(labels="texts")
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: Count = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Classify each sequence of the batch; rows are not packed.

        Args:
            input_ids: As for `MiniLMModel`, like the arguments not named here.
            attention_mask: See `MiniLMModel`.
            token_type_ids: See `MiniLMModel`.
            position_ids: See `MiniLMModel`.
            inputs_embeds: See `MiniLMModel`.
            labels: Class ids [B]; floats [B] for regression or [B, C] for several classes at once.
            num_items_in_batch: Labels of all micro-batches and processes; None: of this batch.
            past_key_values: See `MiniLMModel`; of tokens that come before all texts, as PEFT trains them.
            **kwargs: Passed on to the attention implementation.

        Returns:
            `loss`, `logits` [B, C].
        """
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            **kwargs | {"return_dict": True},
        )
        features = self.pooler(pooled(outputs.last_hidden_state, attention_mask, self.pooling))
        logits = self.classifier(self.dropout(self.transform(features)))
        loss = None if labels is None else self._loss(logits, labels, num_items_in_batch)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor, count: Count) -> torch.Tensor:
        problem = problem_of(labels, num_labels=self.num_labels, told=self.config.problem_type)
        if self.config.problem_type is None:
            self.config.problem_type = problem
        return classification_loss(logits, labels, problem=problem, count=count)


class MiniLMForTokenClassification(ClassifierHead):
    """A class for every token: names, parts of speech."""

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__(config, has_pooler=False)
        self.num_labels = cast(int, config.num_labels)
        self.classifier = nn.Linear(config.hidden_size, self.num_labels)
        self.post_init()

    @can_return_tuple
    @labels_checked(labels="tokens")
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: Count = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> TokenClassifierOutput:
        """Classify each token.

        Args:
            input_ids: As for `MiniLMModel`, like the arguments not named here.
            attention_mask: See `MiniLMModel`.
            token_type_ids: See `MiniLMModel`.
            position_ids: See `MiniLMModel`.
            inputs_embeds: See `MiniLMModel`.
            labels: Class ids [B, T], -100 where there is none.
            num_items_in_batch: Labelled tokens of all micro-batches and processes; None: of this batch.
            past_key_values: See `MiniLMModel`; of tokens that come before all texts, as PEFT trains them.
            **kwargs: Passed on to the attention implementation.

        Returns:
            `loss` in nats per labelled token, `logits` [B, T, C].
        """
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            **kwargs | {"return_dict": True},
        )
        logits = self.classifier(self.dropout(self.transform(outputs.last_hidden_state)))
        loss = None
        if labels is not None:
            loss = normalised_cross_entropy(logits.flatten(0, 1), labels.flatten(), count=num_items_in_batch)
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class MiniLMForQuestionAnswering(ClassifierHead):
    """Where in a text the answer begins and ends."""

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__(config, has_pooler=False)
        # Not `classifier`: a checkpoint of another head then opens here, whatever its number of classes.
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @can_return_tuple
    @labels_checked(start_positions="places", end_positions="places")
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        start_positions: torch.Tensor | None = None,
        end_positions: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> QuestionAnsweringModelOutput:
        """Score every token as the answer's first and last.

        Args:
            input_ids: As for `MiniLMModel`, like the arguments not named here.
            attention_mask: See `MiniLMModel`.
            token_type_ids: See `MiniLMModel`.
            position_ids: See `MiniLMModel`.
            inputs_embeds: See `MiniLMModel`.
            start_positions: Place of the answer's first token [B]; places outside [0, T) are not counted.
            end_positions: Place of its last token [B], likewise.
            past_key_values: See `MiniLMModel`; of tokens that come before all texts, as PEFT trains them.
            **kwargs: Passed on to the attention implementation.

        Returns:
            `loss`, the mean of both ends' in nats; `start_logits` and `end_logits` [B, T].
        """
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            **kwargs | {"return_dict": True},
        )
        ends = self.qa_outputs(self.dropout(self.transform(outputs.last_hidden_state))).unbind(dim=-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = span_cross_entropy(ends, (start_positions, end_positions))
        return QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=ends[0],
            end_logits=ends[1],
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class MiniLMForMultipleChoice(ClassifierHead):
    """Which of several continuations fits."""

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__(config, has_pooler=True)
        # Not `classifier`: a checkpoint of another head then opens here, whatever its number of classes.
        self.score = nn.Linear(config.hidden_size, 1)
        self.post_init()

    @can_return_tuple
    @labels_checked(labels="choices")
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: Count = None,
        **kwargs: Any,
    ) -> MultipleChoiceModelOutput:
        """Score each choice.

        Args:
            input_ids: Token ids [B, C, T]; the other inputs have the same leading shape.
            attention_mask: [B, C, T].
            token_type_ids: [B, C, T].
            position_ids: [B, C, T].
            inputs_embeds: [B, C, T, E].
            labels: The right choice [B].
            num_items_in_batch: Labels of all micro-batches and processes; None: of this batch.
            **kwargs: Passed on to the attention implementation.

        Returns:
            `loss` in nats per question, `logits` [B, C].
        """
        num_choices = cast(torch.Tensor, inputs_embeds if input_ids is None else input_ids).shape[1]
        each = [
            None if tensor is None else tensor.flatten(0, 1)
            for tensor in (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        ]
        outputs = self.model(
            each[0],
            attention_mask=each[1],
            token_type_ids=each[2],
            position_ids=each[3],
            inputs_embeds=each[4],
            **kwargs | {"return_dict": True},
        )
        features = self.pooler(pooled(outputs.last_hidden_state, each[1], self.pooling))
        logits = self.score(self.dropout(self.transform(features))).view(-1, num_choices)
        loss = None if labels is None else normalised_cross_entropy(logits, labels.view(-1), count=num_items_in_batch)
        return MultipleChoiceModelOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


__all__ = [
    "MiniLMForCausalLM",
    "MiniLMForMaskedLM",
    "MiniLMForMultipleChoice",
    "MiniLMForNextSentencePrediction",
    "MiniLMForPreTraining",
    "MiniLMForQuestionAnswering",
    "MiniLMForSequenceClassification",
    "MiniLMForTokenClassification",
    "MiniLMModel",
    "MiniLMPreTrainedModel",
]
