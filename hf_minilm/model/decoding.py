"""Writing token by token: the tokens that transformers' loop writes, in a fraction of the time.

A step of generation computes little and calls much. The layers' products are a small part of it; the rest goes into
hundreds of small calls, into a cache that is copied whole to grow by one token, into what transformers' loop prepares
anew at every step, and into a product with the vocabulary that stays far below what the memory could deliver, as few
rows meet a matrix that is stored for many. So for the tokens after the first one, on a CPU, this file has

    products    of matrices laid out for few rows, once a call of `generate`; query, key and value are one matrix, and
                so are gate and up
    memory      for keys and values that has room for the tokens to come
    a step      that is the layers' formulas written in a row, and says no more than they do
    a loop      that is transformers' own, without what it does for models that are not here

The first token comes from the model itself, so nothing is laid out before it is certain that a second one is wanted.
Nothing is kept from one call to the next either: weights may change between two, and not every change can be seen.
While it writes, a call holds its matrices once more, and keys and values in float32. On a GPU the loop is the same,
and the step a recording of the model's own, see `decoding_on_gpu`.

`FastGenerationMixin` puts this under `generate`, greedy or sampling, with every logits processor, stopping criterion
and streamer. Tokens are those of transformers' loop in float32; in bfloat16 both round, at places of their own. Where
it does not apply, transformers' loop runs: on other devices, in other types than these, for a handful of tokens,
with beams or an assistant, when caches, scores, attentions or hidden states are to be given back, with a cache that is
not `generate`'s own, for subclasses, and where hooks, adapters, quantisation or another attention implementation than
eager and sdpa have taken the place of what is written out here. `obstacle_to` says which. One thing is not the same:
in layers with a window of a single token, transformers' cache keeps the keys that it should drop; this one drops them.

Shapes: B batch, H query heads, K key and value heads, G = H / K, S key positions, D head size, E hidden size,
V vocabulary, C tokens that the memory has room for.
"""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn
from transformers import DynamicCache, GenerationConfig, GenerationMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .attention import Attention, written_out_attention
from .decoding_on_gpu import SPARE_TOKENS, RecordedStep, first_room
from .layers import Embeddings, FeedForward, Layer
from .positions import POSITION_SCHEMES, PositionScheme, RotaryPositions, Rotation, SinusoidalPositions

DECODINGS = ("auto", "fast", "plain")
"""What `FastGenerationMixin.decoding` may be: the way of this file where it applies and pays, this way or an error, or
transformers' own."""

FEWEST_NEW_TOKENS = {"cpu": 10, "cuda": 32}
"""With fewer new tokens, laying out the matrices takes longer than it saves: some 30 ms at 4 x 256 in float32 on a CPU.
On a GPU it is the recording of a step."""

_ROWS = 16
"""For how many rows matrices are laid out: as fast for 1 and for 64 as a layout for these."""
_TOKENS_AHEAD = 32
"""For how many tokens positions are told at once."""
_BLOCK, _FEW_SCORES = 256, 100_000
"""How many scores make a block for `likeliest`, and below how many in all it asks torch."""
_DTYPES = {"cpu": (torch.float32, torch.bfloat16), "cuda": (torch.float32, torch.bfloat16, torch.float16)}
_KNOWN_INPUTS = {"attention_mask", "position_ids", "token_type_ids", "past_key_values", "use_cache", "logits_to_keep"}
_PREPARING = ("prepare_inputs_for_generation", "_update_model_kwargs_for_generation", "_prefill")
_OURS = (Attention, Embeddings, FeedForward, Layer)
_TORCHS = (nn.Dropout, nn.Embedding, nn.Identity, nn.LayerNorm, nn.Linear, nn.RMSNorm)
_FORWARDS: dict[type, Any] = {kind: kind.forward for kind in (*_OURS, *_TORCHS)}
"""What the classes whose work is written out here did at first: somebody may replace it for a whole class."""
_RECORDERS = "transformers.utils.output_capturing"
"""Where transformers' own hooks come from: they stay once installed, and do nothing unless an output is asked for."""

Transform = Callable[[torch.Tensor], torch.Tensor]

Turn = tuple[torch.Tensor, torch.Tensor, int]
"""Cosine and signed sine [B or 1, H + 2K, D] of a position's angles, and how many pairs of features are turned."""

Told = tuple[int, Turn | None, int, torch.Tensor | None]
"""What layers of one type are told: the tokens' place, their turn, and what `Seen.by` gives."""


class FastGenerationMixin(GenerationMixin):
    """`generate` with the loop of this file, where it applies; `decoding` chooses, see `DECODINGS`."""

    decoding = "auto"

    def _sample(
        self,
        input_ids: torch.Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: GenerationConfig,
        synced_gpus: bool = False,
        streamer: Any = None,
        **model_kwargs: Any,
    ) -> Any:
        """Continue token ids [B, T] greedily or by sampling, as transformers' method of this name.

        Raises:
            ValueError: If `decoding` is unknown, or `fast` and something stands in its way.
        """
        if self.decoding not in DECODINGS:
            raise ValueError(f"decoding ({self.decoding}) must be one of {', '.join(DECODINGS)}.")
        is_plain = self.decoding == "plain"
        if self.decoding == "auto":
            end, fewest = generation_config.max_length, FEWEST_NEW_TOKENS.get(input_ids.device.type, 0)
            is_plain = end is not None and end - input_ids.shape[1] < fewest
        if not is_plain:
            obstacle = obstacle_to(cast(Any, self), input_ids, generation_config, model_kwargs, synced=synced_gpus)
            if obstacle is None:
                write = FastWriting(self, logits_processor, stopping_criteria, generation_config, streamer)
                return write(input_ids, model_kwargs)
            if self.decoding == "fast":
                raise ValueError(f"decoding (fast) must have nothing in its way, and {obstacle}; use auto or plain.")
        return cast(Any, super())._sample(
            input_ids,
            logits_processor=logits_processor,
            stopping_criteria=stopping_criteria,
            generation_config=generation_config,
            synced_gpus=synced_gpus,
            streamer=streamer,
            **model_kwargs,
        )


class FastWriting:
    """The loop of `GenerationMixin._sample`, for a model without encoder whose caller wants the tokens alone."""

    def __init__(self, model: Any, processor: Any, criteria: Any, config: GenerationConfig, streamer: Any) -> None:
        self.model, self.processor, self.criteria, self.config = model, processor, criteria, config
        self.streamer = streamer
        self.pads = any(hasattr(criterion, "eos_token_id") for criterion in criteria)

    def __call__(self, input_ids: torch.Tensor, model_kwargs: dict[str, Any]) -> torch.Tensor:
        """Continue token ids [B, T] until the criteria stop every row."""
        outputs = self.model._prefill(input_ids, self.config, model_kwargs, is_first_iteration=True)
        model_kwargs = self.model._update_model_kwargs_for_generation(outputs, model_kwargs, is_encoder_decoder=False)
        logits = outputs.logits[:, -1]
        del outputs  # the whole prompt's
        unfinished, step = input_ids.new_ones(len(input_ids)), None
        build_step = DecodingStep if input_ids.device.type == "cpu" else RecordedStep
        while True:
            tokens = self._next_tokens(input_ids, logits, unfinished)
            input_ids = torch.cat((input_ids, tokens[:, None]), dim=1)
            unfinished = unfinished & ~self.criteria(input_ids, None)
            if self.streamer is not None:
                self.streamer.put(tokens.cpu())
            if not unfinished.any():
                break
            step = step or build_step(self.model, model_kwargs, longest=self.config.max_length)
            logits = step(tokens)
        if self.streamer is not None:
            self.streamer.end()
        return input_ids

    def _next_tokens(self, input_ids: torch.Tensor, logits: torch.Tensor, unfinished: torch.Tensor) -> torch.Tensor:
        """Choose a token [B] for every row by its logits [B, V]; a finished row gets padding."""
        # A copy where there are processors, as they may write into it.
        scores = self.processor(input_ids, logits.to(copy=bool(self.processor), dtype=torch.float32))
        if self.config.do_sample:
            tokens = torch.multinomial(scores.softmax(dim=-1), num_samples=1).squeeze(1)
        else:
            tokens = likeliest(scores)
        if self.pads:
            tokens = tokens * unfinished + cast(Any, self.config)._pad_token_tensor * (1 - unfinished)
        return tokens


def likeliest(scores: torch.Tensor) -> torch.Tensor:
    """Give the first of the highest of scores [B, V] in each row, [B], as `argmax` does.

    On a CPU torch compares one by one in `argmax`, and many at once in `amax`: for 16 x 30,522 that is 0.20 ms and
    0.02. So the highest is looked for among the blocks' maxima and what is left over behind the blocks, and then in its
    block.
    """
    num_blocks = scores.shape[1] // _BLOCK
    if num_blocks == 0 or scores.numel() < _FEW_SCORES or scores.device.type != "cpu":
        return scores.argmax(dim=-1)
    behind = num_blocks * _BLOCK
    blocks = scores[:, :behind].unflatten(1, (num_blocks, _BLOCK))
    best = torch.cat((blocks.amax(dim=-1), scores[:, behind:]), dim=1).argmax(dim=-1)
    inside = blocks[torch.arange(len(scores)), best.clamp(max=num_blocks - 1)].argmax(dim=-1)
    return torch.where(best < num_blocks, best * _BLOCK + inside, best - num_blocks + behind)


class Memory:
    """Keys and values of a layer, with room for more: [B, 2K, C, D], the keys first.

    They are kept in float32: torch's attention for a single query takes seven times as long in bfloat16 (16 rows, 272
    keys of 4 heads of 64: 0.74 ms and 0.10).
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, *, length: int, room: int) -> None:
        # A sliding layer's cache has kept the last tokens alone: what lies before is never looked at.
        self._hold(torch.cat((keys, values), dim=1).float(), end=length, room=room)

    def _hold(self, tensor: torch.Tensor, *, end: int, room: int) -> None:
        """Copy [B, 2K, S, D] into a larger tensor, so that it ends at `end`."""
        self.both = tensor.new_empty((*tensor.shape[:2], room, tensor.shape[3]))
        self.both[:, :, end - tensor.shape[2] : end] = tensor
        self.keys, self.values = self.both.chunk(2, dim=1)

    def add(self, both: torch.Tensor, place: int) -> None:
        """Write the keys and values [B, 2K, D] of the tokens at a place."""
        room = self.both.shape[2]
        if place == room:
            self._hold(self.both, end=room, room=2 * room)
        self.both.select(2, place).copy_(both)


class Positions:
    """What a scheme tells the next tokens: for many of them at once where that gives the same, else one by one."""

    def __init__(self, scheme: PositionScheme, position_ids: torch.Tensor, layers: list[Layer]) -> None:
        # Rows without padding are all at the same position, and are told it once.
        is_common = bool((position_ids == position_ids[:1]).all())
        self.scheme, self.position_ids = scheme, position_ids[:1] if is_common else position_ids  # [B or 1, 1]
        self.attentions = {layer.layer_type: layer.attention for layer in layers}
        self.ahead = _TOKENS_AHEAD if _tells_each_alone(scheme) else 1
        self.told: list[tuple[torch.Tensor | None, dict[str, Turn | None]]] = []

    def next(self) -> tuple[torch.Tensor | None, dict[str, Turn | None]]:
        """Give the vectors [B or 1, E] to add to the next tokens, and the turn of their features by layer type."""
        self.scheme.refuse_unknown_positions(self.position_ids)
        if not self.told:
            ids = self.position_ids + torch.arange(self.ahead)
            added = self.scheme.added_to_embeddings(ids)
            turns = {kind: turns_of(self.scheme.rotation(ids, kind), at) for kind, at in self.attentions.items()}
            self.told = [
                (
                    None if added is None else added[:, step],
                    {kind: None if turn is None else turn[step] for kind, turn in turns.items()},
                )
                for step in reversed(range(self.ahead))
            ]
        self.position_ids = self.position_ids + 1
        return self.told.pop()


def _tells_each_alone(scheme: PositionScheme) -> bool:
    """Tell whether what is told of a position is known to depend on no other; and may be asked beyond the text's end.

    A table ends, dynamic frequencies look at the longest position, and of a scheme of the user's nothing is known.
    """
    if type(scheme) is RotaryPositions:
        return all(parameters["rope_type"] != "dynamic" for parameters in scheme.rope_parameters.values())
    return type(scheme) in (PositionScheme, SinusoidalPositions)


def turns_of(rotation: Rotation | None, attention: Attention) -> list[Turn] | None:
    """Write a rotation [B or 1, 1, n, R] as factors for the features of all heads, for each of the n positions.

    `rotate` gives x cos(a) + (-x2, x1) sin(a) for the halves x1 and x2 of the R features that are turned. With the
    minus in the sine it is (x1, x2) cos(a) + (x2, x1) (-sin(a), sin(a)); and where the sine is 0 and the cosine 1 all
    stays as it is, so that values can go along with queries and keys.
    """
    if rotation is None:
        return None
    cosine, sine = (angles.squeeze(1).transpose(0, 1)[:, :, None] for angles in rotation)  # [n, B or 1, 1, R]
    size, head_dim = cosine.shape[-1], attention.head_dim
    signs = torch.ones(size).index_fill(0, torch.arange(size // 2), -1.0)
    turned = (attention.query.out_features + attention.key.out_features) // head_dim
    padding = (0, head_dim - size, 0, attention.value.out_features // head_dim)
    factors = (
        nn.functional.pad(angles.expand(-1, -1, turned, -1), padding, value=beyond)
        for angles, beyond in ((cosine, 1.0), (sine * signs, 0.0))
    )
    return [(cosine, sine, size // 2) for cosine, sine in zip(*(factor.unbind() for factor in factors), strict=True)]


class Seen:
    """Which keys the next token looks at in the layers of one type, and what is added to its scores."""

    def __init__(self, layer: Layer, positions: PositionScheme, attention_mask: torch.Tensor | None) -> None:
        self.window, self.positions = layer.attention.sliding_window, positions
        self.key_heads = layer.attention.key.out_features // layer.attention.head_dim
        self.dtype = layer.attention.output.weight.dtype
        self.padding: torch.Tensor | None = None
        if attention_mask is not None:
            self.padding = torch.zeros(attention_mask.shape).masked_fill(attention_mask == 0, -math.inf)

    def by(self, place: int) -> tuple[int, torch.Tensor | None]:
        """Give the first place that the tokens at a place look at, and what to add: [B or 1, 1 or K, 1 or G, S]."""
        first = 0 if self.window is None else max(0, place + 1 - self.window)
        bias = padding = None
        if self.positions.is_added_to_scores:
            # As `score_bias` has it: counted from the cache, whatever padding came first; and rounded as there.
            keys = torch.arange(first, place + 1)[None]
            bias = cast(torch.Tensor, self.positions.added_to_scores(keys[:, -1:], keys)).to(self.dtype).float()
            bias = bias.unflatten(1, (self.key_heads, -1)).squeeze(3)
        if self.padding is not None:
            missing = place + 1 - self.padding.shape[1]
            if missing > 0:
                self.padding = nn.functional.pad(self.padding, (0, max(missing, SPARE_TOKENS)))
            padding = self.padding[:, None, None, first : place + 1]
        if bias is None or padding is None:
            return first, padding if bias is None else bias
        return first, bias + padding


class FastLayer:
    """`Layer` for one token a row, [B, E] to [B, E]: the same formulas, in few calls."""

    def __init__(self, layer: Layer, memory: Memory) -> None:
        attention, feed_forward = layer.attention, layer.feed_forward
        self.memory, self.norm_first, self.layer_type = memory, layer.norm_first, layer.layer_type
        self.head_dim, self.scaling = attention.head_dim, attention.scaling
        self.query_key_value = product(attention.query, attention.key, attention.value)
        self.output = product(attention.output)
        self.heads = attention.query.out_features // self.head_dim
        self.key_heads = attention.key.out_features // self.head_dim
        self.normalises = nn.RMSNorm in (type(attention.query_norm), type(attention.key_norm))
        self.query_norm, self.key_norm = norm(attention.query_norm), norm(attention.key_norm)
        self.attention_norm, self.feed_forward_norm = norm(layer.attention_norm), norm(layer.feed_forward_norm)
        gate, up = feed_forward.gate, feed_forward.up
        self.is_gated = gate is not None
        self.up = product(up) if gate is None else product(gate, up)
        self.down, self.activation = product(feed_forward.down), feed_forward.activation

    def __call__(self, hidden_states: torch.Tensor, told: Told) -> torch.Tensor:
        """Apply the sub-layers."""
        if self.norm_first:
            hidden_states = hidden_states + self._attend(self.attention_norm(hidden_states), *told)
            return hidden_states + self._feed_forward(self.feed_forward_norm(hidden_states))
        hidden_states = self.attention_norm(hidden_states + self._attend(hidden_states, *told))
        return self.feed_forward_norm(hidden_states + self._feed_forward(hidden_states))

    def _attend(
        self, tokens: torch.Tensor, place: int, turn: Turn | None, first: int, added: torch.Tensor | None
    ) -> torch.Tensor:
        """Let the tokens at a place gather from those at all places from the first one on."""
        heads, key_heads = self.heads, self.key_heads
        features = self.query_key_value(tokens).view(len(tokens), -1, self.head_dim)  # [B, H + 2K, D]
        if self.normalises:
            query, key, value = features.split((heads, key_heads, key_heads), dim=1)
            features = torch.cat((self.query_norm(query), self.key_norm(key), value), dim=1)
        features = features.float()
        if turn is not None:
            features = turned(features, turn)
        query, both = features.split((heads, 2 * key_heads), dim=1)
        self.memory.add(both, place)
        attended = nn.functional.scaled_dot_product_attention(
            # The query heads that share a key head stand as its queries: a key is then read once for all of them.
            query.view(len(tokens), key_heads, -1, self.head_dim),
            self.memory.keys.narrow(2, first, place + 1 - first),
            self.memory.values.narrow(2, first, place + 1 - first),
            attn_mask=added,
            scale=self.scaling,
        )
        return self.output(attended.reshape(len(tokens), -1).to(tokens.dtype))

    def _feed_forward(self, tokens: torch.Tensor) -> torch.Tensor:
        if not self.is_gated:
            return self.down(self.activation(self.up(tokens)))
        gate, up = self.up(tokens).chunk(2, dim=-1)
        return self.down(self.activation(gate) * up)


def turned(features: torch.Tensor, turn: Turn) -> torch.Tensor:
    """Turn the features [B, H + 2K, D] of all heads as `turns_of` says, in float32."""
    cosine, sine, half = turn
    rest = features.shape[-1] - 2 * half
    first, second, left = features.split((half, half, rest), dim=-1)
    return torch.cat((second, first, left), dim=-1).mul_(sine).addcmul_(features, cosine)


class DecodingStep:
    """A model made ready to take one token a row after another, from the cache of what came before.

    Args:
        model: The causal model.
        model_kwargs: As `generate` keeps them after the prompt: the cache, positions and mask up to the next token.
        longest: Most tokens of a text, where that is known.
    """

    def __init__(self, model: Any, model_kwargs: dict[str, Any], *, longest: int | None) -> None:
        backbone, cache = model.model, model_kwargs["past_key_values"]
        layers = [cast(Layer, layer) for layer in backbone.layers]
        self.embeddings, self.norm = cast(Embeddings, backbone.embeddings), norm(backbone.norm)
        self.embedding_norm = norm(self.embeddings.norm)
        self.vocabulary = product(model.lm_head)
        self.place = cast(int, cache.get_seq_length())
        self.positions = Positions(backbone.positions, model_kwargs["position_ids"][:, -1:], layers)
        self.types = self._types(model_kwargs.get("token_type_ids"))
        room = first_room(self.place, longest)
        self.layers: list[FastLayer] = []
        self.seen: dict[str, Seen] = {}
        for layer in layers:
            kept = cache.layers[layer.attention.layer_idx]
            self.layers.append(FastLayer(layer, Memory(kept.keys, kept.values, length=self.place, room=room)))
            if layer.layer_type not in self.seen:
                self.seen[layer.layer_type] = Seen(layer, backbone.positions, model_kwargs.get("attention_mask"))

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Take the next token [B] of every row, and score the ones after it, [B, V]."""
        added, turns = self.positions.next()
        told = {kind: (self.place, turns[kind], *seen.by(self.place)) for kind, seen in self.seen.items()}
        self.place += 1
        # A tenth faster than no_grad. The scheme is asked outside of it: what it may keep is no part of this.
        with torch.inference_mode():
            hidden_states = self._embed(tokens, added)
            for layer in self.layers:
                hidden_states = layer(hidden_states, told[layer.layer_type])
            return self.vocabulary(self.norm(hidden_states))

    def _types(self, token_type_ids: torch.Tensor | None) -> torch.Tensor | None:
        """Give the vectors [E] or [B, E] of the new tokens' type, which is that of the last one before them."""
        table = self.embeddings.token_types
        if table is None:
            return None
        return table.weight[0] if token_type_ids is None else table(token_type_ids[:, -1])

    def _embed(self, tokens: torch.Tensor, added: torch.Tensor | None) -> torch.Tensor:
        vectors = self.embeddings.tokens(tokens)  # [B, E]
        if self.embeddings.scale is not None:
            vectors = vectors * self.embeddings.scale
        if self.types is not None:
            vectors = vectors + self.types
        if added is not None:
            vectors = vectors + added.to(vectors.dtype)
        return self.embedding_norm(vectors)


def norm(module: nn.Module) -> Transform:
    """Give a norm's formula without the module around it, whose calls take longer than the formula."""
    if type(module) is not nn.LayerNorm and type(module) is not nn.RMSNorm:
        return module
    shape, weight, eps = list(module.normalized_shape), module.weight, module.eps
    if isinstance(module, nn.RMSNorm):
        return lambda vectors: torch.rms_norm(vectors, shape, weight, eps)
    bias = module.bias
    return lambda vectors: torch.layer_norm(vectors, shape, weight, bias, cast(float, eps))


def product(*projections: nn.Linear) -> Transform:
    """Join linear projections of the same vectors, and lay their matrix out for few rows: [B, E] to [B, all sizes].

    In oneDNN's own layout, as `torch.compile` has it for frozen weights. With that, 1 and 16 rows times the matrix of
    30,522 x 256 of the size mini take 1.1 and 1.8 ms in float32 and 0.2 and 0.7 ms in bfloat16, on two cores of an AMD
    EPYC with AVX-512; `nn.functional.linear` takes 4.1 and 6.3, 1.0 and 1.2 ms, and serves where there is no oneDNN.
    """
    weight: torch.Tensor = projections[0].weight.detach()
    bias: torch.Tensor | None = projections[0].bias
    if len(projections) > 1:
        weight = torch.cat([projection.weight for projection in projections])
        if any(projection.bias is not None for projection in projections):
            bias = torch.cat([_bias_of(projection) for projection in projections])
    if not _lays_out(weight.dtype):
        return lambda vectors: nn.functional.linear(vectors, weight, bias)
    laid_out = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
    multiply = torch.ops.mkldnn._linear_pointwise.default
    return lambda vectors: multiply(vectors, laid_out, bias, "none", [], "")


def _bias_of(projection: nn.Linear) -> torch.Tensor:
    return projection.weight.new_zeros(projection.out_features) if projection.bias is None else projection.bias


def _lays_out(dtype: torch.dtype) -> bool:
    """Tell whether oneDNN is there and computes in a type."""
    if not (torch.backends.mkldnn.is_available() and torch._C._get_mkldnn_enabled()):
        return False
    operators = torch.ops.mkldnn
    if not (hasattr(operators, "_reorder_linear_weight") and hasattr(operators, "_linear_pointwise")):
        return False
    return dtype != torch.bfloat16 or bool(operators._is_mkldnn_bf16_supported())


def obstacle_to(
    model: Any,
    input_ids: torch.Tensor,
    generation_config: GenerationConfig,
    model_kwargs: dict[str, Any],
    *,
    synced: bool | None = False,
) -> str | None:
    """Say what keeps the way of this file from giving what transformers' loop gives; None: nothing does.

    Args:
        model: The causal model.
        input_ids: The prompt [B, T].
        generation_config: Of this call.
        model_kwargs: What `generate` hands on to the model.
        synced: Whether other processes wait for every step.
    """
    return (
        _obstacle_in_the_surroundings(input_ids, synced=bool(synced))
        or _obstacle_in_the_request(generation_config, model_kwargs)
        or _obstacle_in_the_model(model, input_ids.device)
    )


def _obstacle_in_the_surroundings(input_ids: torch.Tensor, *, synced: bool) -> str | None:
    found = {
        "other processes wait for every step": synced,
        "the tokens are on neither a CPU nor a GPU": input_ids.device.type not in _DTYPES,
        "there are no tokens": input_ids.dim() != 2 or 0 in input_ids.shape,
        "gradients are followed": torch.is_grad_enabled(),
        "autocast chooses the types": torch.is_autocast_enabled(input_ids.device.type),
        "code is being compiled": torch.compiler.is_compiling(),
        "a CUDA graph is being recorded": input_ids.is_cuda and torch.cuda.is_current_stream_capturing(),
        "hooks are set on all modules": nn.modules.module._has_any_global_hook(),
    }
    return next((what for what, is_there in found.items() if is_there), None)


def _obstacle_in_the_request(config: GenerationConfig, model_kwargs: dict[str, Any]) -> str | None:
    unknown = sorted(name for name, value in model_kwargs.items() if name not in _KNOWN_INPUTS and value is not None)
    cache, position_ids = model_kwargs.get("past_key_values"), model_kwargs.get("position_ids")
    mask, types = model_kwargs.get("attention_mask"), model_kwargs.get("token_type_ids")
    settings = cast(Any, config)
    found = {
        f"the model is given {', '.join(unknown)}": bool(unknown),
        "more than the tokens is asked for": bool(settings.return_dict_in_generate),
        "the model assists another": bool(getattr(settings, "is_assistant", False)),
        "the prompt is read in pieces": settings.prefill_chunk_size is not None,
        "compilation is asked for": settings.compile_config is not None,
        "there is no cache": not model_kwargs.get("use_cache") or cache is None,
        "the cache is not the usual one": type(cache) is not DynamicCache or bool(getattr(cache, "offloading", False)),
        "the cache is not generate's own": bool(getattr(cache, "_is_user_defined", False)) or _seen_by(cache) > 0,
        "positions are not told for each token": position_ids is None or position_ids.dim() != 2,
        "the mask is not one for each token": mask is not None and mask.dim() != 2,
        "token types are not told for each token": types is not None and types.dim() != 2,
    }
    return next((what for what, is_there in found.items() if is_there), None)


def _seen_by(cache: Any) -> int:
    return 0 if cache is None else int(cache.get_seq_length())


def _obstacle_in_the_model(model: Any, device: torch.device) -> str | None:
    backbone, kernel = model.model, model.config._attn_implementation
    function = ALL_ATTENTION_FUNCTIONS.get_interface(kernel, written_out_attention)
    found = {
        # A subclass may compute otherwise.
        "the model is of a subclass": FastGenerationMixin not in type(model).__bases__
        or type(backbone).__module__ != type(model).__module__,
        f"attention is {kernel}": function not in (written_out_attention, sdpa_attention_forward),
        "the position scheme has a bias for each layer": type(backbone.positions).score_bias
        is not PositionScheme.score_bias,
        "the position scheme is not known to let itself be recorded": device.type == "cuda"
        and type(backbone.positions) not in POSITION_SCHEMES.values(),
        "the head has more than a projection": type(model.transform) is not nn.Identity,
        "somebody else prepares its inputs": any(_is_replaced(model, name) for name in _PREPARING),
    }
    at_large = next((what for what, is_there in found.items() if is_there), None)
    if at_large is not None:
        return at_large
    dtypes = {parameter.dtype for parameter in model.parameters()}
    if len(dtypes) > 1 or not dtypes.issubset(_DTYPES[device.type]):
        return f"the weights are {', '.join(sorted(map(str, dtypes)))}"
    if any(type(p) is not nn.Parameter or p.device != device for p in model.parameters()):
        return "the weights are not plain numbers where the tokens are"
    strange = (name for name, module in model.named_modules() if not _does_what_is_written(module))
    name = next((name or "model" for name in strange), None)
    return None if name is None else f"{name} has hooks, trains, is compiled or was replaced"


def _is_replaced(model: Any, method: str) -> bool:
    """Tell whether a model has another method in the place of its class's, as PEFT gives it for virtual tokens."""
    own = vars(model).get(method)
    return own is not None and getattr(own, "__func__", None) is not getattr(type(model), method)


def _does_what_is_written(module: nn.Module) -> bool:
    """Tell whether a module runs its class's `forward` and nothing else, and is of the class that it is built as."""
    if module.training or "forward" in vars(module) or hasattr(module, "_hf_hook"):
        return False
    if type(module).forward is not _FORWARDS.get(type(module), type(module).forward):
        return False
    if module._compiled_call_impl is not None or module._forward_pre_hooks:
        return False
    if any(getattr(hook, "__module__", None) != _RECORDERS for hook in module._forward_hooks.values()):
        return False
    return all(type(part) in kinds for part, kinds in _parts_of(module))


def _parts_of(module: nn.Module) -> list[tuple[nn.Module | None, tuple[type, ...]]]:
    """List what a module of ours is made of that is written out here, and what it may be."""
    norms, linear = (nn.LayerNorm, nn.RMSNorm), (nn.Linear,)
    absent, silent = type(None), (nn.Dropout, nn.Identity)
    if isinstance(module, Layer):
        own = [
            (module.attention, (Attention,)),
            (module.feed_forward, (FeedForward,)),
            (module.cross_attention, (absent,)),
            (module.dropout, silent),
        ]
        return [*own, (module.attention_norm, (*norms, nn.Identity)), (module.feed_forward_norm, norms)]
    if isinstance(module, Attention):
        projections = [(part, linear) for part in (module.query, module.key, module.value)]
        head_norms = [(part, (nn.RMSNorm, nn.Identity)) for part in (module.query_norm, module.key_norm)]
        return [*projections, (module.output, linear), *head_norms]
    if isinstance(module, FeedForward):
        return [(module.gate, (nn.Linear, absent)), (module.up, linear), (module.down, linear)]
    if isinstance(module, Embeddings):
        tables = [(module.tokens, (nn.Embedding,)), (module.token_types, (nn.Embedding, absent))]
        return [*tables, (module.dropout, silent)]
    if isinstance(module, FastGenerationMixin):
        model = cast(Any, module)
        layers = [(layer, (Layer,)) for layer in model.model.layers]
        return [(model.lm_head, linear), (model.model.embeddings, (Embeddings,)), *layers]
    return []
