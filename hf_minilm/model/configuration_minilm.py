"""Configuration of the hf_minilm models: what is built, never how it is trained."""

import copy
import difflib
import math
from typing import Any, ClassVar, Literal, cast

import torch
from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.utils import logging

logger = logging.get_logger(__name__)

AUTO_MAP = {
    "AutoConfig": "configuration_minilm.MiniLMConfig",
    "AutoModel": "modeling_minilm.MiniLMModel",
    "AutoModelForPreTraining": "modeling_minilm.MiniLMForPreTraining",
    "AutoModelForMaskedLM": "modeling_minilm.MiniLMForMaskedLM",
    "AutoModelForNextSentencePrediction": "modeling_minilm.MiniLMForNextSentencePrediction",
    "AutoModelForCausalLM": "modeling_minilm.MiniLMForCausalLM",
    "AutoModelForSequenceClassification": "modeling_minilm.MiniLMForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_minilm.MiniLMForTokenClassification",
    "AutoModelForQuestionAnswering": "modeling_minilm.MiniLMForQuestionAnswering",
    "AutoModelForMultipleChoice": "modeling_minilm.MiniLMForMultipleChoice",
    "AutoModelForTextEncoding": "modeling_minilm.MiniLMModel",
}
"""Which class answers to which Auto class. Saving writes the whole map, so any head opens from any head's folder."""

_COUNTED = (
    "vocab_size",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "type_vocab_size",
    "max_position_embeddings",
    "relative_attention_num_buckets",
    "cross_attention_hidden_size",
)
LAYER_TYPES = ("full_attention", "sliding_attention")
"""What `layer_types` may name: layers that see the whole sequence, and layers that see a window of it."""

ROPE_TYPES = ("default", "linear", "dynamic", "yarn", "llama3")
"""What `rope_parameters["rope_type"]` may be; `positions.py` says what each does."""

MOST_PARAMETERS = 10**11
"""What a configuration may describe, learned or computed: a file of a hundred bytes can ask for any amount of memory,
and has to be refused before any of it is taken."""

MOST_LAYERS = 10_000
"""Ten times those of the deepest transformer (Wang et al. 2022, arXiv:2203.00555); a million layers of nothing would
take minutes to build."""

MOST_LABELS = 1_000_000
"""Each has a name in the configuration, written out when it is opened."""

SIZES: dict[str, dict[str, int]] = {
    "tiny": {"num_hidden_layers": 4, "hidden_size": 128, "num_attention_heads": 2},
    "mini": {"num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 4},
    "small": {"num_hidden_layers": 4, "hidden_size": 512, "num_attention_heads": 8},
    "base": {"num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12},
}
"""Layers, width and heads of each size: those of BERT's miniatures (Turc et al. 2019, arXiv:1908.08962, table 1), but
for tiny, which has four layers where theirs has two."""

_MODERN: dict[str, Any] = {
    "position_embedding": "rope",
    "norm_placement": "pre",
    "norm_eps": 1e-5,
    "feed_forward": "gated",
    "attention_bias": False,
    "feed_forward_bias": False,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "type_vocab_size": 0,
    "output_bias": False,
    "tie_word_embeddings": True,
}
"""What small encoders and decoders share since 2023: rotary positions, no biases, no token types, no dropout."""

PRESETS: dict[str, dict[str, Any]] = {
    # Devlin et al. 2019, arXiv:1810.04805.
    "bert": {
        "position_embedding": "learned",
        "norm_placement": "post",
        "embedding_norm": True,
        "norm_eps": 1e-12,
        "norm_bias": True,
        "feed_forward": "plain",
        "hidden_act": "gelu",
        "attention_bias": True,
        "feed_forward_bias": True,
        "hidden_dropout": 0.1,
        "attention_dropout": 0.1,
        "type_vocab_size": 2,
        "prediction_transform": True,
        "output_bias": True,
        "initializer_range": 0.02,
        "scale_residual_initializer": False,
        "is_causal": False,
    },
    # Radford et al. 2019, "Language models are unsupervised multitask learners", section 2.3.
    "gpt2": {
        "position_embedding": "learned",
        "norm_placement": "pre",
        "embedding_norm": False,
        "norm_eps": 1e-5,
        "norm_bias": True,
        "feed_forward": "plain",
        "hidden_act": "gelu_new",
        "attention_bias": True,
        "feed_forward_bias": True,
        "hidden_dropout": 0.1,
        "attention_dropout": 0.1,
        "type_vocab_size": 0,
        "prediction_transform": False,
        "output_bias": False,
        "initializer_range": 0.02,
        "scale_residual_initializer": True,
        "is_causal": True,
        "max_position_embeddings": 1024,
    },
    # Warner et al. 2024, arXiv:2412.13663, section 2.1, with one rotary base and full attention in every layer.
    # Classifiers of texts read the mean of all tokens, as those of the published models do.
    "modern": {
        **_MODERN,
        "norm": "layer_norm",
        "norm_bias": False,
        "embedding_norm": True,
        "first_attention_norm": False,
        "hidden_act": "gelu",
        "prediction_transform": True,
        "classifier_transform": True,
        "classifier_pooling": "mean",
        "is_causal": False,
    },
    # Touvron et al. 2023, arXiv:2302.13971, section 2.2, with the output projection tied and a narrower feed-forward,
    # from which small models learn more in the same time; see model_cards/LOG.md.
    "modern_decoder": {
        **_MODERN,
        "norm": "rms_norm",
        "embedding_norm": False,
        "hidden_act": "silu",
        "prediction_transform": False,
        "classifier_transform": False,
        "classifier_bias": False,
        "is_causal": True,
    },
}
"""The named choices of architecture; `MiniLMConfig.preset` joins one with a size."""


@strict
class MiniLMConfig(PreTrainedConfig):
    """Everything that decides what a hf_minilm model computes; each field is an independent choice.

    Unknown keywords are kept as attributes, as in every transformers configuration, unless one is a near miss of a
    field's name: then it is taken for a misspelling and refused.
    """

    model_type = "hf_minilm"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]
    base_model_tp_plan: ClassVar[dict[str, Any]] = {
        "embeddings.tokens": "embedding_rowwise",
        "layers.*.attention.query": "colwise",
        "layers.*.attention.key": "colwise",
        "layers.*.attention.value": "colwise",
        "layers.*.attention.query_norm": "replicated_with_grad_allreduce",
        "layers.*.attention.key_norm": "replicated_with_grad_allreduce",
        "layers.*.attention.output": "rowwise",
        "layers.*.feed_forward.gate": "colwise",
        "layers.*.feed_forward.up": "colwise",
        "layers.*.feed_forward.down": "rowwise",
    }
    base_model_fsdp_plan: ClassVar[dict[Any, str]] = {
        "embeddings.tokens": "free_full_weight",
        "layers.*": "free_full_weight",
        "norm": "keep_full_weight",
    }

    vocab_size: int = 32000
    """Number of tokens, special ones included."""
    hidden_size: int = 256
    """Width E of every token's vector between layers."""
    num_hidden_layers: int = 4
    """Number of layers."""
    num_attention_heads: int = 4
    """Number of query heads H."""
    num_key_value_heads: int | None = None
    """Key and value heads, each shared by equally many query heads (Ainslie et al. 2023); None: one a query head."""
    head_dim: int | None = None
    """Size D of a head; None: hidden_size / num_attention_heads."""
    intermediate_size: int | None = None
    """Inner width of the feed-forward; None: 4 x hidden_size when plain, 3/2 of it (to a multiple of 32) when gated, as
    the base size of ModernBERT has (Warner et al. 2024, arXiv:2412.13663)."""

    position_embedding: str = "rope"
    """Scheme of positions, a name in the registry of `positions.py`: learned, sinusoidal, rope, alibi, relative_bias or
    none."""
    max_position_embeddings: int = 512
    """Most positions of a sequence: the table's size for `learned`, the declared length for the others."""
    rope_parameters: dict[str, Any] | None = None
    """For `rope`: transformers' dictionary of `rope_type` ("default", "linear", "dynamic", "yarn" or "llama3"),
    `rope_theta` (10,000) and what the type needs, such as `factor`; or a dictionary of these by layer type."""
    partial_rotary_factor: float | int | None = None
    """For `rope`: the share of a head's features that is turned, in (0, 1]; None: all."""
    relative_attention_num_buckets: int = 32
    """For `relative_bias`: number of distances told apart, far ones together; even."""
    relative_attention_max_distance: int = 128
    """For `relative_bias`: distance from which on all share the last bucket."""

    is_causal: bool | None = None
    """True: a token sees itself and earlier ones; False: all tokens; None: the head decides (the bare model: False)."""
    layer_types: list[str] | None = None
    """For each layer "full_attention" or "sliding_attention"; None: all full."""
    sliding_window: int | None = None
    """For sliding layers: causal attention sees so many tokens, the token itself included; bidirectional attention so
    many on either side."""
    attention_bias: bool = False
    """Biases on the query, key, value and output projections."""
    attention_dropout: float | int = 0.0
    """Share of attention weights dropped in training, in [0, 1)."""
    qk_norm: bool = False
    """Normalise queries and keys per head before they are rotated (Henry et al. 2020, arXiv:2010.04245)."""

    norm: Literal["layer_norm", "rms_norm"] = "layer_norm"
    """Kind of normalisation."""
    norm_placement: Literal["pre", "post"] = "pre"
    """pre: before each sub-layer, and once after the last; post: after each residual sum (Vaswani et al. 2017)."""
    norm_eps: float = 1e-5
    """Added to the variance."""
    norm_bias: bool = False
    """Biases in the layer norms; RMS norms have none."""
    embedding_norm: bool = False
    """Normalise the sum of the embeddings before the first layer."""
    first_attention_norm: bool = True
    """False: nothing is normed before the first layer's attention, as the embeddings are already (Warner et al. 2024,
    section 2.1)."""
    scale_embeddings: bool = False
    """Multiply token embeddings by sqrt(hidden_size) (Vaswani et al. 2017, section 3.4)."""
    cross_attention_hidden_size: int | None = None
    """Width of another text's vectors that every layer attends to between self-attention and feed-forward, as a decoder
    does to its encoder's; None: there is no other text."""

    feed_forward: Literal["plain", "gated"] = "gated"
    """plain: down(act(up x)); gated: down(act(gate x) * up x) (Shazeer 2020, arXiv:2002.05202)."""
    hidden_act: str = "gelu"
    """Activation of the feed-forward and of the prediction transform, a name in transformers' ACT2FN."""
    feed_forward_bias: bool = False
    """Biases in the feed-forward."""
    hidden_dropout: float | int = 0.0
    """Share of embeddings and sub-layer outputs dropped in training, in [0, 1)."""

    type_vocab_size: int = 2
    """Number of token types (segments A and B); 0: none, and `token_type_ids` are not looked at."""
    prediction_transform: bool = True
    """Masked heads apply dense, activation and norm before the vocabulary."""
    causal_transform: bool = False
    """The causal head does so, too (Weller et al. 2025, arXiv:2507.11412)."""
    output_bias: bool = False
    """A bias for each token of the vocabulary in the language-model heads."""
    tie_word_embeddings: bool = True
    """The output projection is the token embedding."""
    classifier_transform: bool = False
    """Classifiers, too, apply dense, activation and norm before they project, and no pooler (Warner et al. 2024)."""
    classifier_dropout: float | int | None = None
    """Dropout before a classifier; None: hidden_dropout."""
    classifier_pooling: Literal["first", "mean", "last"] | None = None
    """What a sequence classifier reads; None: the first token, or the last one when attention is causal."""
    classifier_bias: bool = True
    """A bias for each class in the sequence classifier."""

    initializer_range: float | int | None = None
    """Standard deviation of the initial weights; None: sqrt(2 / (5 x hidden_size)) (Nguyen and Salazar 2019,
    arXiv:1910.05895, section 2.2), which is 0.023 at a width of 768 and 0.056 at 128."""
    scale_residual_initializer: bool = True
    """Divide it by sqrt(2 x layers) for projections that end in the residual sum (Radford et al. 2019, section 2.3)."""
    use_cache: bool = True
    """Return keys and values for generation, in evaluation mode and when attention is causal."""

    pad_token_id: int | None = 0
    """Padding token."""
    bos_token_id: int | None = None
    """Token that begins a text for the causal head."""
    eos_token_id: int | list[int] | None = None
    """Token that ends a text for the causal head."""

    @classmethod
    def preset(
        cls,
        name: Literal["modern", "modern_decoder", "bert", "gpt2"] = "modern",
        size: str = "mini",
        **overrides: Any,
    ) -> "MiniLMConfig":
        """Build a named architecture in a named size.

        Args:
            name: `modern` (as ModernBERT), `modern_decoder` (as Llama), `bert` or `gpt2`.
            size: `tiny`, `mini`, `small` or `base`.
            **overrides: Any field, to differ from the preset.

        Raises:
            ValueError: If the name or the size is unknown, or the fields contradict each other.
        """
        for what, value, known in (("preset", name, PRESETS), ("size", size, SIZES)):
            if value not in known:
                raise ValueError(f"{what} ({value}) must be one of {', '.join(known)}.")
        return cls(**{**SIZES[size], **PRESETS[name], **overrides})

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build a configuration that was saved, with the fields among the keywords in the place of its own.

        transformers would set these afterwards, where nothing completes or checks them. Rotary parameters, by their
        old name `rope_scaling` too, keep what they leave open of the saved ones, see `_with_saved_rotation`.

        Args:
            config_dict: The saved fields.
            **kwargs: Fields of this class, and what transformers takes.

        Returns:
            What transformers does: the configuration, and with `return_unused_kwargs` what was left of the keywords.

        Raises:
            ValueError: If the fields contradict each other.
        """
        given = {name: kwargs.pop(name) for name in MiniLMConfig.__annotations__.keys() & kwargs.keys()}
        scaling = kwargs.pop("rope_scaling", None)
        if scaling is not None and given.setdefault("rope_parameters", scaling) is not scaling:
            raise ValueError("rope_parameters and rope_scaling: only one of them must be given, as they are the same.")
        if isinstance(given.get("rope_parameters"), dict):
            given["rope_parameters"] = _with_saved_rotation(given["rope_parameters"], config_dict)
        return super().from_dict({**config_dict, **given}, **kwargs)

    def __post_init__(self, **kwargs: Any) -> None:
        """Derive what was left open, refuse misspelt keywords, and let transformers do the rest."""
        refuse_near_misses(self, kwargs)
        refuse_hostile_keywords(self, kwargs)
        self.num_key_value_heads = self.num_key_value_heads or self.num_attention_heads
        if self.head_dim is None:
            self.head_dim = self.hidden_size // max(self.num_attention_heads, 1)
        if self.intermediate_size is None:
            gated_width = -(-3 * self.hidden_size // (2 * 32)) * 32
            self.intermediate_size = gated_width if self.feed_forward == "gated" else 4 * self.hidden_size
        self._refuse_absurd_sizes()
        if self.layer_types is None:
            self._refuse_window_without_layers()
            self.layer_types = ["full_attention"] * self.num_hidden_layers
        if self.initializer_range is None:
            self.initializer_range = math.sqrt(2 / (5 * max(self.hidden_size, 1)))
        kwargs["auto_map"] = {**AUTO_MAP, **(kwargs.get("auto_map") or {})}
        super().__post_init__(**kwargs)
        # The strict decorator checks again, but wraps what it finds in an error of two lines that is no ValueError.
        self.validate_architecture()

    def count_parameters(self) -> int:
        """Count the parameters of the body, with the table of sinusoids; norms, biases and heads are left out."""
        width, queries = self.hidden_size, self.num_attention_heads * cast(int, self.head_dim)
        keys = cast(int, self.num_key_value_heads) * cast(int, self.head_dim)
        attention = 2 * width * (queries + keys)
        if self.cross_attention_hidden_size is not None:
            attention += 2 * (width * queries + self.cross_attention_hidden_size * keys)
        matrices = 3 if self.feed_forward == "gated" else 2
        layer = attention + matrices * width * cast(int, self.intermediate_size)
        rows = self.vocab_size + self.type_vocab_size
        if self.position_embedding in ("learned", "sinusoidal"):
            rows += self.max_position_embeddings
        biases = 0
        if self.position_embedding == "relative_bias":
            biases = self.relative_attention_num_buckets * self.num_attention_heads
        return rows * width + biases + self.num_hidden_layers * layer

    def _refuse_absurd_sizes(self) -> None:
        if self.num_hidden_layers > MOST_LAYERS:
            raise ValueError(f"num_hidden_layers ({self.num_hidden_layers}) must be at most {MOST_LAYERS:,}.")
        # Of those that are in no product, such as positions that are computed, or stand beside a negative one.
        for name in _COUNTED:
            if (getattr(self, name) or 0) > MOST_PARAMETERS:
                raise ValueError(f"{name} ({getattr(self, name)}) must be at most {MOST_PARAMETERS:,}; give a size.")
        count = self.count_parameters()
        if count > MOST_PARAMETERS:
            raise ValueError(
                f"parameters ({count:,} by vocab_size, hidden_size, num_hidden_layers and the other sizes) must be at "
                f"most {MOST_PARAMETERS:,}; lower a size."
            )

    def _refuse_window_without_layers(self) -> None:
        if self.sliding_window is not None:
            raise ValueError(
                f"sliding_window ({self.sliding_window}) must be given with sliding_attention among layer_types; name "
                "the layers."
            )

    def convert_rope_params_to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Fill `rope_parameters` for rotary positions only: any other scheme keeps None."""
        if self.position_embedding != "rope":
            return kwargs
        kwargs = super().convert_rope_params_to_dict(**kwargs)
        by_layer_type = {name: value for name, value in (self.rope_parameters or {}).items() if isinstance(value, dict)}
        if by_layer_type:
            # Older versions of transformers leave the common values beside the dictionaries, and refuse them later.
            common = {name: value for name, value in (self.rope_parameters or {}).items() if name not in by_layer_type}
            self.rope_parameters = {name: {**common, **value} for name, value in by_layer_type.items()}
        return kwargs

    def validate_architecture(self) -> None:
        """Check the rules between fields.

        Raises:
            ValueError: One line naming the field, its value, the rule and what to do.
        """
        self._validate_sizes()
        self._validate_heads()
        self._validate_layer_types()
        self._validate_positions()
        self._validate_norms()
        self._validate_numbers()

    def _validate_norms(self) -> None:
        if not self.first_attention_norm and not (self.embedding_norm and self.norm_placement == "pre"):
            raise ValueError(
                f"first_attention_norm (False) must be True with embedding_norm ({self.embedding_norm}) and "
                f"norm_placement ({self.norm_placement}); it may be False with True and pre."
            )

    def _validate_numbers(self) -> None:
        if self.hidden_act not in ACT2FN:
            near = difflib.get_close_matches(self.hidden_act, ACT2FN, n=1, cutoff=0.0)[0]
            raise ValueError(f"hidden_act ({self.hidden_act}) must be in transformers' ACT2FN; the nearest is {near}.")
        for name in ("norm_eps", "initializer_range"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} ({getattr(self, name)}) must be finite and not negative.")
        if self.classifier_dropout is not None and not 0 <= self.classifier_dropout < 1:
            raise ValueError(f"classifier_dropout ({self.classifier_dropout}) must lie in [0, 1).")
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(
                f"pad_token_id ({self.pad_token_id}) must be a token, from 0 to {self.vocab_size - 1}; None is no "
                "padding."
            )

    def _validate_sizes(self) -> None:
        heads = ("num_attention_heads", "num_key_value_heads")
        widths = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "max_position_embeddings")
        for name in (*heads, *widths):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} ({getattr(self, name)}) must be at least 1.")
        if self.cross_attention_hidden_size is not None and self.cross_attention_hidden_size < 1:
            raise ValueError(
                f"cross_attention_hidden_size ({self.cross_attention_hidden_size}) must be at least 1; None: no other "
                "text."
            )
        for name in ("attention_dropout", "hidden_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} ({getattr(self, name)}) must lie in [0, 1).")
        if self.type_vocab_size < 0:
            raise ValueError(f"type_vocab_size ({self.type_vocab_size}) must not be negative; 0 means no token types.")

    def _validate_heads(self) -> None:
        heads, width = self.num_attention_heads, self.hidden_size
        key_value_heads = cast(int, self.num_key_value_heads)  # derived above where it was None
        if width % heads and self.head_dim == width // heads:
            nearest = max(-((heads - 2 * width) // (2 * heads)), 1) * heads
            raise ValueError(
                f"hidden_size ({width}) must be a multiple of num_attention_heads ({heads}); the nearest is {nearest}."
            )
        if cast(int, self.head_dim) < 1:
            raise ValueError(f"head_dim ({self.head_dim}) must be at least 1.")
        if heads % key_value_heads:
            raise ValueError(
                f"num_attention_heads ({heads}) must be a multiple of num_key_value_heads ({key_value_heads})."
            )

    def _validate_layer_types(self) -> None:
        layer_types = cast(list[str], self.layer_types)  # derived above where it was None
        if len(layer_types) != self.num_hidden_layers:
            raise ValueError(
                f"layer_types ({len(layer_types)} of them) must name one for each of num_hidden_layers "
                f"({self.num_hidden_layers})."
            )
        unknown = set(layer_types) - set(LAYER_TYPES)
        if unknown:
            raise ValueError(f"layer_types ({', '.join(sorted(unknown))}) must be of {', '.join(LAYER_TYPES)}.")
        if "sliding_attention" in layer_types and self.sliding_window is None:
            raise ValueError("sliding_window (None) must be given where layer_types names sliding_attention.")
        if self.sliding_window is not None and self.sliding_window < 1:
            raise ValueError(f"sliding_window ({self.sliding_window}) must be at least 1.")

    def _validate_positions(self) -> None:
        if self.position_embedding == "rope":
            self._validate_rotation()
        elif self.rope_parameters is not None or self.partial_rotary_factor is not None:
            raise ValueError(
                f"rope_parameters and partial_rotary_factor must be None for position_embedding "
                f"({self.position_embedding})."
            )
        if self.position_embedding == "sinusoidal" and self.hidden_size % 2:
            raise ValueError(f"hidden_size ({self.hidden_size}) must be even for sinusoidal positions.")
        if self.position_embedding == "relative_bias":
            self._validate_buckets()

    def _validate_buckets(self) -> None:
        buckets, farthest = self.relative_attention_num_buckets, self.relative_attention_max_distance
        if buckets < 4 or buckets % 2 or farthest <= buckets:
            raise ValueError(
                f"relative_attention_num_buckets ({buckets}) must be even, at least 4, and less than "
                f"relative_attention_max_distance ({farthest})."
            )

    def _validate_rotation(self) -> None:
        for layer_type in set(cast(list[str], self.layer_types)):
            parameters = self.rope_parameters_of(layer_type)
            self._validate_rotary_numbers(parameters)
            rope_type, share = parameters.get("rope_type"), parameters.get("partial_rotary_factor", 1.0)
            if rope_type not in ROPE_TYPES:
                raise ValueError(f"rope_parameters['rope_type'] ({rope_type}) must be one of {', '.join(ROPE_TYPES)}.")
            turned = int(cast(int, self.head_dim) * share)
            fewest = 4 if rope_type == "dynamic" else 2  # whose exponent divides by two less than there are
            if not 0 < share <= 1 or turned < fewest or turned % 2:
                raise ValueError(
                    f"head_dim ({self.head_dim}) must be even for rope, and so must the share of it that is turned "
                    f"({turned} with a partial_rotary_factor of {share}), at least {fewest}."
                )

    def _validate_rotary_numbers(self, parameters: dict[str, Any]) -> None:
        for name in ("rope_theta", "factor", "partial_rotary_factor"):
            value = parameters.get(name, 1.0)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ValueError(f"rope_parameters[{name!r}] ({value}) must be a number above 0, and finite.")

    def rope_parameters_of(self, layer_type: str) -> dict[str, Any]:
        """Give the rotary parameters of a layer type: its own dictionary where there is one, else the common one."""
        parameters = self.rope_parameters or {}
        return parameters.get(layer_type, parameters)


def _with_saved_rotation(given: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Complete rotary parameters, common ones or by layer type, by those among the fields that were saved.

    Kept are the base, the share that is turned, and the length that the model was trained on: transformers would take
    the new `max_position_embeddings` for it.
    """
    saved = fields.get("rope_parameters")
    saved = saved if isinstance(saved, dict) else {}
    length = fields.get("max_position_embeddings", MiniLMConfig.max_position_embeddings)

    def completed(own: dict[str, Any], saved: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in saved.items() if name in ("rope_theta", "partial_rotary_factor")}
        if own.get("rope_type", own.get("type")) in ("yarn", "llama3"):
            kept["original_max_position_embeddings"] = saved.get("original_max_position_embeddings", length)
        return {**kept, **own}

    by_type = [kind for kind in LAYER_TYPES if isinstance(given.get(kind), dict)]
    by_type = by_type or [kind for kind in LAYER_TYPES if isinstance(saved.get(kind), dict)]
    if not by_type:
        return completed(given, saved)
    common = {name: value for name, value in given.items() if name not in LAYER_TYPES}
    return {kind: completed({**common, **given.get(kind, {})}, saved.get(kind, saved)) for kind in by_type}


def refuse_near_misses(config: PreTrainedConfig, keywords: dict[str, Any]) -> None:
    """Refuse keywords that look like a misspelt field: transformers would keep them and go on with the default.

    Raises:
        ValueError: With the nearest field. A configuration that was saved only warns.
    """
    fields = [name for name in config.__dataclass_fields__ if not name.startswith("_")]
    for keyword in keywords:
        if hasattr(type(config), keyword) or keyword.startswith("_"):
            continue
        near = difflib.get_close_matches(keyword, fields, n=1, cutoff=0.8)
        kind = type(config).__name__
        if near and config.transformers_version is None:
            raise ValueError(f"{keyword} must be a field of {kind}; the nearest is {near[0]}.")
        if near:
            # A configuration that was saved has to open, whatever another library has put into it.
            logger.warning_once(f"{keyword} is no field of {kind} and is not read; the nearest is {near[0]}.")


def refuse_hostile_keywords(config: PreTrainedConfig, keywords: dict[str, Any]) -> None:
    """Refuse what a configuration from elsewhere may ask transformers for, before transformers does it.

    Raises:
        ValueError: For labels without end, for a dtype that is none, and for an attention kernel of another
            repository: transformers would fetch it and run its code. Who wants that one names it when opening.
    """
    labels = keywords.get("num_labels")
    if labels is not None and (type(labels) is not int or not 0 <= labels <= MOST_LABELS):
        raise ValueError(f"num_labels ({labels}) must be a whole number from 0 to {MOST_LABELS:,}.")
    if not isinstance(config.id2label, dict | None):
        raise ValueError(f"id2label ({str(config.id2label)[:40]}) must be names by number; correct it.")
    for name in ("dtype", "torch_dtype"):
        dtype = getattr(config, name, None) if name == "dtype" else keywords.get(name)
        if isinstance(dtype, str) and not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise ValueError(f"{name} ({dtype}) must be the name of a torch.dtype, such as float32.")
    for name in ("attn_implementation", "_attn_implementation"):
        kernel = keywords.get(name)
        if config.transformers_version is not None and isinstance(kernel, str | dict) and "/" in str(kernel):
            raise ValueError(
                f"{name} ({kernel}) must name no repository in a saved configuration; give it to from_pretrained if "
                "its code shall run."
            )


def with_direction(config: MiniLMConfig, *, is_causal: bool, head: str) -> MiniLMConfig:
    """Give the configuration with the direction of attention that a head needs; the one passed in is left alone.

    Warns when the configuration says the other direction, as the same weights then compute something else.
    """
    if config.is_causal == is_causal:
        return config
    if config.is_causal is not None:
        now = "causal" if is_causal else "bidirectional"
        logger.warning(f"{head} makes attention {now}: the configuration says is_causal={config.is_causal}.")
    config = copy.deepcopy(config)
    config.is_causal = is_causal
    return config


__all__ = ["MiniLMConfig"]
