"""Tests of `generate`, in place of the suite's own, which transformers' source distribution leaves out.

Their truth is the model's own forward over the whole sequence, without a cache: whatever way of generating is asked for
must give the tokens, or the logits, that this forward gives.

A model of one stack goes on from its prompt; one with an encoder reads the prompt and begins with a start token. The
few methods before the tests say what differs.
"""

from typing import Any

import torch
from transformers import Cache, DynamicCache, EncoderDecoderCache, GenerationConfig, PreTrainedModel, set_seed
from transformers.testing_utils import torch_device

NEW_TOKENS = 6


class GenerationTesterMixin:
    """For test cases with a `model_tester` and `all_generative_model_classes`."""

    hidden_states_of_steps = "hidden_states"
    mask_of_tokens = "attention_mask"
    seed_of_weights = 5

    def beginning(self, model: PreTrainedModel, prompt: torch.Tensor) -> torch.Tensor:
        """Give the tokens [B, n] after which the model writes: the prompt itself."""
        return prompt

    def logits(
        self, model: PreTrainedModel, prompt: torch.Tensor, tokens: torch.Tensor, **arguments: Any
    ) -> torch.Tensor:
        """Score what comes after each of the tokens [B, n], of which the prompt is the first part."""
        with torch.no_grad():
            return model(tokens, **arguments).logits

    def go_on(self, model: PreTrainedModel, prompt: torch.Tensor, tokens: torch.Tensor, **arguments: Any) -> Any:
        """Generate what comes after tokens [B, n], of which the prompt is the first part."""
        return self.generate(model, tokens, **arguments)

    def empty_cache(self, model: PreTrainedModel) -> Cache:
        """Make a cache that holds nothing yet."""
        return DynamicCache(config=model.config)

    def padded(self, prompts: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Make one batch of prompts [1, n] of unequal length, and its mask: padding on the left."""
        tokens = torch.zeros(len(prompts), max(prompt.shape[1] for prompt in prompts), dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for row, prompt in enumerate(prompts):
            tokens[row, -prompt.shape[1] :], mask[row, -prompt.shape[1] :] = prompt, 1
        return tokens.to(torch_device), mask.to(torch_device)

    def generators(self) -> list[PreTrainedModel]:
        """Build every class that generates, with weights large enough that what it attends to decides the token."""
        models = []
        for model_class in self.all_generative_model_classes:
            config = self.model_tester.get_config()
            for stack in [getattr(config, name) for name in config.sub_configs] or [config]:
                stack.initializer_range = 1.0
            config.tie_word_embeddings = False  # tied, the likeliest next token is mostly the last one again
            set_seed(self.seed_of_weights)
            models.append(model_class(config).eval().to(torch_device))
        return models

    def prompt(self) -> torch.Tensor:
        """Draw a prompt [3, 7], the same each time and without padding."""
        generator = torch.Generator().manual_seed(3)
        return torch.randint(1, self.model_tester.vocab_size, (3, 7), generator=generator).to(torch_device)

    def generate(self, model: PreTrainedModel, tokens: torch.Tensor, **arguments: Any) -> Any:
        """Generate greedily, without an end token, unless the arguments say otherwise."""
        fields = {"do_sample": False, "pad_token_id": 0, "eos_token_id": None, "max_new_tokens": NEW_TOKENS}
        arguments.setdefault("attention_mask", torch.ones_like(tokens))
        return model.generate(tokens, generation_config=GenerationConfig(**fields), **arguments)

    def greedily(self, model: PreTrainedModel, prompt: torch.Tensor) -> torch.Tensor:
        """Append the likeliest token again and again, by a forward over all of them."""
        tokens = self.beginning(model, prompt)
        for _ in range(NEW_TOKENS):
            logits = self.logits(model, prompt, tokens, use_cache=False)
            tokens = torch.cat((tokens, logits[:, -1:].argmax(-1)), dim=1)
        return tokens

    def test_greedy_generation_takes_the_likeliest_token_of_a_whole_forward(self):
        for model in self.generators():
            expected = self.greedily(model, self.prompt())
            assert len(expected[:, -NEW_TOKENS:].unique()) > 3, "hardly depends on the prompt"
            for use_cache in (True, False):
                generated = self.generate(model, self.prompt(), use_cache=use_cache)
                assert generated.tolist() == expected.tolist()

    def test_a_padded_prompt_generates_what_it_generates_alone(self):
        for model in self.generators():
            prompts = [self.prompt()[:1, :length] for length in (2, 5, 7)]
            tokens, mask = self.padded(prompts)
            generated = self.generate(model, tokens, attention_mask=mask)[:, -NEW_TOKENS:]
            expected = [self.greedily(model, prompt)[0, -NEW_TOKENS:].tolist() for prompt in prompts]
            assert generated.tolist() == expected

    def test_the_scores_of_every_step_are_the_logits_of_a_whole_forward(self):
        for model in self.generators():
            outputs = self.generate(
                model,
                self.prompt(),
                return_dict_in_generate=True,
                output_logits=True,
                output_hidden_states=True,
                output_attentions=True,
            )
            logits = self.logits(model, self.prompt(), outputs.sequences[:, :-1], use_cache=False)
            steps = torch.stack(outputs.logits, dim=1)
            # Weights this large make 2e-4 of float32's rounding, which processors do differently.
            torch.testing.assert_close(steps, logits[:, -NEW_TOKENS:].float(), atol=5e-4, rtol=1e-4)
            layers = model.config.num_hidden_layers
            assert [len(step) for step in outputs[self.hidden_states_of_steps]] == [layers + 1] * NEW_TOKENS

    def test_beams_and_samples_are_the_same_with_and_without_a_cache(self):
        ways = (
            {"num_beams": 3},
            {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.7},
            {"do_sample": True, "top_k": 5},
            {"do_sample": True, "num_beams": 2},
        )
        for model in self.generators():
            for way in ways:
                generated = []
                for use_cache in (True, False):
                    set_seed(9)
                    generated.append(self.generate(model, self.prompt(), use_cache=use_cache, **way).tolist())
                assert generated[0] == generated[1], way

    def test_a_cache_of_fixed_size_generates_what_a_growing_one_does(self):
        for model in self.generators():
            expected = self.generate(model, self.prompt())
            generated = self.generate(model, self.prompt(), cache_implementation="static")
            assert generated.tolist() == expected.tolist()

    def test_generation_goes_on_from_the_cache_that_it_returned(self):
        for model in self.generators():
            expected = self.greedily(model, self.prompt())
            first = self.generate(model, self.prompt(), max_new_tokens=2, return_dict_in_generate=True)
            left = {"past_key_values": first.past_key_values, "max_new_tokens": NEW_TOKENS - 2}
            second = self.go_on(model, self.prompt(), first.sequences, **left)
            assert second.tolist() == expected.tolist()

    def test_a_prompt_read_in_pieces_generates_what_it_generates_at_once(self):
        for model in self.generators():
            expected = self.greedily(model, self.prompt())
            start = expected[:, : max(self.beginning(model, self.prompt()).shape[1], 5)]
            left = expected.shape[1] - start.shape[1]
            generated = self.go_on(model, self.prompt(), start, prefill_chunk_size=3, max_new_tokens=left)
            assert generated.tolist() == expected.tolist()

    def test_the_embeddings_of_a_prompt_generate_what_the_prompt_does(self):
        for model in self.generators():
            embeddings = model.get_input_embeddings()(self.prompt())
            for cache in ({}, {"use_cache": False}, {"cache_implementation": "static"}):
                generated = model.generate(
                    inputs_embeds=embeddings,
                    attention_mask=torch.ones_like(self.prompt()),
                    max_new_tokens=NEW_TOKENS,
                    do_sample=False,
                    pad_token_id=0,
                    **cache,
                )
                expected = self.greedily(model, self.prompt())[:, -NEW_TOKENS:]
                assert generated[:, -NEW_TOKENS:].tolist() == expected.tolist()

    def test_tokens_guessed_ahead_change_nothing(self):
        for model in self.generators():
            prompt = self.prompt()[:1].repeat(1, 2)  # said twice, so that a guess from the prompt finds something
            expected = self.greedily(model, prompt).tolist()
            set_seed(8)
            other = type(model)(model.config).eval().to(torch_device)
            for guesser in ({"assistant_model": model}, {"assistant_model": other}, {"prompt_lookup_num_tokens": 2}):
                assert self.generate(model, prompt, **guesser).tolist() == expected, list(guesser)

    def test_every_attention_implementation_generates_the_same(self):
        for model in self.generators():
            generated = []
            for implementation in ("eager", "sdpa"):
                model.set_attn_implementation(implementation)
                generated.append(self.generate(model, self.prompt()).tolist())
            assert generated[0] == generated[1]

    def test_a_whole_mask_means_what_the_mask_of_padding_means(self):
        for model in self.generators():
            tokens, mask = self.prompt(), torch.ones_like(self.prompt())
            mask[0, :2] = 0
            earlier, told = torch.ones_like(mask[0]).bool().expand(7, 7).tril(), mask.bool()
            config = model.config.get_text_config(decoder=True)
            window = earlier.triu(1 - (config.sliding_window or 7))
            whole = {
                "full_attention": earlier & told[:, None, None, :],
                "sliding_attention": window & told[:, None, None, :],
            }
            if set(config.layer_types) == {"full_attention"}:
                whole = whole["full_attention"]
            expected = self.logits(model, tokens, tokens, **{self.mask_of_tokens: mask})
            logits = self.logits(model, tokens, tokens, **{self.mask_of_tokens: whole})
            torch.testing.assert_close(logits[told], expected[told], atol=1e-5, rtol=1e-5)

    def test_only_the_logits_asked_for_are_returned(self):
        for model in self.generators():
            every = self.logits(model, self.prompt(), self.prompt())
            for kept, expected in (
                (1, every[:, -1:]),
                (3, every[:, -3:]),
                (torch.tensor([0, 4]), every[:, [0, 4]]),
            ):
                logits = self.logits(model, self.prompt(), self.prompt(), logits_to_keep=kept)
                torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)

    def test_a_cache_filled_piece_by_piece_gives_the_logits_of_a_whole_forward(self):
        for model in self.generators():
            cache, pieces = self.empty_cache(model), []
            for piece in self.prompt().split([3, 1, 2, 1], dim=1):
                pieces.append(self.logits(model, self.prompt(), piece, past_key_values=cache))
            expected = self.logits(model, self.prompt(), self.prompt(), use_cache=False)
            torch.testing.assert_close(torch.cat(pieces, dim=1), expected, atol=1e-4, rtol=1e-4)

    def test_a_step_is_captured_as_one_graph(self):
        for model in self.generators():
            expected = self.generate(model, self.prompt(), cache_implementation="static")
            torch.compiler.reset()
            # The backend that compiles nothing: whether one graph holds the step is decided before.
            model.forward = torch.compile(model.forward, fullgraph=True, backend="eager")
            generated = self.generate(model, self.prompt(), cache_implementation="static")
            assert generated.tolist() == expected.tolist()


class Seq2SeqGenerationTesterMixin(GenerationTesterMixin):
    """For classes with an encoder, which reads the prompt."""

    hidden_states_of_steps = "decoder_hidden_states"
    mask_of_tokens = "decoder_attention_mask"
    seed_of_weights = 6  # with these the tokens vary in every architecture, where little more than the source decides

    def beginning(self, model: PreTrainedModel, prompt: torch.Tensor) -> torch.Tensor:
        """Give the start token, [B, 1]."""
        return torch.full_like(prompt[:, :1], model.config.decoder_start_token_id)

    def logits(
        self, model: PreTrainedModel, prompt: torch.Tensor, tokens: torch.Tensor, **arguments: Any
    ) -> torch.Tensor:
        """Score what comes after each of the decoder's tokens [B, n]."""
        return super().logits(model, prompt, prompt, decoder_input_ids=tokens, **arguments)

    def go_on(self, model: PreTrainedModel, prompt: torch.Tensor, tokens: torch.Tensor, **arguments: Any) -> Any:
        """Generate what comes after the decoder's tokens [B, n]."""
        # By the length of this mask transformers knows that the tokens are all, whatever the cache holds of them.
        arguments["decoder_attention_mask"] = torch.ones_like(tokens)
        return super().go_on(model, prompt, prompt, decoder_input_ids=tokens, **arguments)

    def empty_cache(self, model: PreTrainedModel) -> Cache:
        """Make a cache for both kinds of attention; cross-attention has no window."""
        return EncoderDecoderCache(DynamicCache(config=model.config.decoder), DynamicCache())

    def padded(self, prompts: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Put padding on the right, as the encoder counts positions from a row's first place."""
        tokens, mask = super().padded([prompt.flip(1) for prompt in prompts])
        return tokens.flip(1), mask.flip(1)
