"""Tests of `generate`, in place of the suite's own, which transformers' source distribution leaves out.

Their truth is the model's own forward over the whole sequence, without a cache: whatever way of generating is asked for
must give the tokens, or the logits, that this forward gives.
"""

from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig, PreTrainedModel, set_seed
from transformers.testing_utils import torch_device

NEW_TOKENS = 6


class GenerationTesterMixin:
    """For test cases with a `model_tester` and `all_generative_model_classes`."""

    def generators(self) -> list[PreTrainedModel]:
        """Build every class that generates, with weights large enough that what it attends to decides the token."""
        models = []
        for model_class in self.all_generative_model_classes:
            config = self.model_tester.get_config()
            config.initializer_range = 1.0
            config.tie_word_embeddings = False  # tied, the likeliest next token is mostly the last one again
            set_seed(5)
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

    def greedily(self, model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
        """Append the likeliest token again and again, by a forward over all of them."""
        for _ in range(NEW_TOKENS):
            with torch.no_grad():
                logits = model(tokens, use_cache=False).logits
            tokens = torch.cat((tokens, logits[:, -1:].argmax(-1)), dim=1)
        return tokens

    def test_greedy_generation_takes_the_likeliest_token_of_a_whole_forward(self):
        for model in self.generators():
            expected = self.greedily(model, self.prompt())
            assert len(expected[:, -NEW_TOKENS:].unique()) > 3, "hardly depends on the prompt"
            for use_cache in (True, False):
                generated = self.generate(model, self.prompt(), use_cache=use_cache)
                assert generated.tolist() == expected.tolist()

    def test_a_left_padded_prompt_generates_what_it_generates_alone(self):
        for model in self.generators():
            tokens, mask = torch.zeros_like(self.prompt()), torch.zeros_like(self.prompt())
            prompts = [self.prompt()[:1, :length] for length in (2, 5, 7)]
            for row, prompt in enumerate(prompts):
                tokens[row, -prompt.shape[1] :], mask[row, -prompt.shape[1] :] = prompt, 1
            generated = self.generate(model, tokens, attention_mask=mask)[:, 7:]
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
            with torch.no_grad():
                logits = model(outputs.sequences[:, :-1], use_cache=False).logits
            steps = torch.stack(outputs.logits, dim=1)
            torch.testing.assert_close(steps, logits[:, -NEW_TOKENS:].float(), atol=1e-4, rtol=1e-4)
            layers = model.config.num_hidden_layers
            assert [len(step) for step in outputs.hidden_states] == [layers + 1] * NEW_TOKENS

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
            second = self.generate(
                model, first.sequences, past_key_values=first.past_key_values, max_new_tokens=NEW_TOKENS - 2
            )
            assert second.tolist() == expected.tolist()

    def test_a_prompt_read_in_pieces_generates_what_it_generates_at_once(self):
        for model in self.generators():
            generated = self.generate(model, self.prompt(), prefill_chunk_size=3)
            assert generated.tolist() == self.greedily(model, self.prompt()).tolist()

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
                assert generated.tolist() == self.greedily(model, self.prompt())[:, -NEW_TOKENS:].tolist()

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
            window = earlier.triu(1 - (model.config.sliding_window or 7))
            whole = {
                "full_attention": earlier & told[:, None, None, :],
                "sliding_attention": window & told[:, None, None, :],
            }
            if set(model.config.layer_types) == {"full_attention"}:
                whole = whole["full_attention"]
            with torch.no_grad():
                expected = model(tokens, attention_mask=mask).logits
                logits = model(tokens, attention_mask=whole).logits
            torch.testing.assert_close(logits[told], expected[told], atol=1e-5, rtol=1e-5)

    def test_only_the_logits_asked_for_are_returned(self):
        for model in self.generators():
            with torch.no_grad():
                every = model(self.prompt()).logits
                for kept, expected in (
                    (1, every[:, -1:]),
                    (3, every[:, -3:]),
                    (torch.tensor([0, 4]), every[:, [0, 4]]),
                ):
                    logits = model(self.prompt(), logits_to_keep=kept).logits
                    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)

    def test_a_cache_filled_piece_by_piece_gives_the_logits_of_a_whole_forward(self):
        for model in self.generators():
            cache, pieces = DynamicCache(config=model.config), []
            with torch.no_grad():
                for piece in self.prompt().split([3, 1, 2, 1], dim=1):
                    pieces.append(model(piece, past_key_values=cache).logits)
                expected = model(self.prompt(), use_cache=False).logits
            torch.testing.assert_close(torch.cat(pieces, dim=1), expected, atol=1e-4, rtol=1e-4)

    def test_a_step_is_captured_as_one_graph(self):
        for model in self.generators():
            expected = self.generate(model, self.prompt(), cache_implementation="static")
            torch.compiler.reset()
            # The backend that compiles nothing: whether one graph holds the step is decided before.
            model.forward = torch.compile(model.forward, fullgraph=True, backend="eager")
            generated = self.generate(model, self.prompt(), cache_implementation="static")
            assert generated.tolist() == expected.tolist()
