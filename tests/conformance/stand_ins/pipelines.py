"""What every pipeline of a text model must answer, in place of the suite's own, which the distribution leaves out.

A class answers to the name of a task in `PIPELINES`: `get_test_pipeline` builds the pipeline and examples for it,
`run_pipeline_test` compares its answers with the model's own outputs.
"""

from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, pipeline

EXAMPLES = ["Ana sees the dog.", "The dog sees Ana and the garden."]


class TextPipelineTests:
    """What the tasks share."""

    task: str
    settings: ClassVar[dict[str, Any]] = {}

    def get_test_pipeline(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dtype: str = "float32", **_: Any
    ) -> tuple[Any, list[str]]:
        """Build the pipeline in the type of numbers asked for, and give examples."""
        built = pipeline(self.task, model=model, tokenizer=tokenizer, dtype=dtype, **self.settings)
        return built, self.examples(tokenizer)

    def examples(self, tokenizer: PreTrainedTokenizerBase) -> list[str]:
        """Give texts of unequal length."""
        return EXAMPLES

    def outputs(self, built: Any, text: str) -> Any:
        """Ask the model itself."""
        with torch.no_grad():
            return built.model(**built.tokenizer(text, return_tensors="pt").to(built.device))


class FeatureExtractionPipelineTests(TextPipelineTests):
    task = "feature-extraction"

    def run_pipeline_test(self, built: Any, examples: list[str]) -> None:
        """Expect the vectors of the last layer."""
        for text in examples:
            expected = self.outputs(built, text).last_hidden_state.float().cpu()
            torch.testing.assert_close(torch.tensor(built(text)), expected, atol=1e-3, rtol=1e-3)


class FillMaskPipelineTests(TextPipelineTests):
    task = "fill-mask"

    def examples(self, tokenizer: PreTrainedTokenizerBase) -> list[str]:
        return [f"Ana sees the {tokenizer.mask_token}.", f"{tokenizer.mask_token} sees the dog and Ana."]

    def run_pipeline_test(self, built: Any, examples: list[str]) -> None:
        """Expect the likeliest tokens at the masked place, and their shares."""
        for text in examples:
            ids = built.tokenizer(text)["input_ids"]
            logits = self.outputs(built, text).logits[0, ids.index(built.tokenizer.mask_token_id)].cpu()
            shares, tokens = logits.softmax(-1).topk(3)
            answers = built(text, top_k=3)
            assert [answer["token"] for answer in answers] == tokens.tolist()
            torch.testing.assert_close(
                torch.tensor([answer["score"] for answer in answers]), shares.float(), atol=1e-3, rtol=1e-2
            )


class TextClassificationPipelineTests(TextPipelineTests):
    task = "text-classification"

    def run_pipeline_test(self, built: Any, examples: list[str]) -> None:
        """Expect the likeliest label and its share."""
        for text in examples:
            shares = self.outputs(built, text).logits[0].float().softmax(-1)
            (answer,) = built(text)
            assert answer["label"] == built.model.config.id2label[int(shares.argmax())]
            assert abs(answer["score"] - float(shares.max())) < 1e-3


class TokenClassificationPipelineTests(TextPipelineTests):
    task = "token-classification"

    def run_pipeline_test(self, built: Any, examples: list[str]) -> None:
        """Expect the likeliest label of each token that is not a special one."""
        for text in examples:
            labels = self.outputs(built, text).logits[0].argmax(-1).tolist()
            names = [built.model.config.id2label[label] for label in labels][1:-1]
            answers = {answer["index"]: answer["entity"] for answer in built(text, ignore_labels=[])}
            assert [answers[index] for index in sorted(answers)] == names


class TextGenerationPipelineTests(TextPipelineTests):
    task = "text-generation"

    def run_pipeline_test(self, built: Any, examples: list[str]) -> None:
        """Expect the prompt and what the model generates after it."""
        for text in examples:
            inputs = built.tokenizer(text, return_tensors="pt", return_token_type_ids=False).to(built.device)
            tokens = built.model.generate(**inputs, max_new_tokens=5, do_sample=False)
            (answer,) = built(text, max_new_tokens=5, do_sample=False)
            assert answer["generated_text"].startswith(text)
            after = tokens[0, inputs["input_ids"].shape[1] :]
            assert answer["generated_text"] == text + built.tokenizer.decode(after, skip_special_tokens=True)


class ZeroShotClassificationPipelineTests(TextPipelineTests):
    task = "zero-shot-classification"

    settings: ClassVar[dict[str, Any]] = {"candidate_labels": ["dogs", "gardens", "people"]}

    def run_pipeline_test(self, built: Any, examples: list[str]) -> None:
        """Expect every candidate once, the likeliest first, with shares that sum to 1."""
        for text in examples:
            answer = built(text)
            assert sorted(answer["labels"]) == self.settings["candidate_labels"]
            assert answer["scores"] == sorted(answer["scores"], reverse=True)
            assert abs(sum(answer["scores"]) - 1) < 1e-3


PIPELINES = {
    "feature-extraction": FeatureExtractionPipelineTests,
    "fill-mask": FillMaskPipelineTests,
    "text-classification": TextClassificationPipelineTests,
    "text-generation": TextGenerationPipelineTests,
    "token-classification": TokenClassificationPipelineTests,
    "zero-shot": ZeroShotClassificationPipelineTests,
}
