"""A position scheme of one's own: one class, one line in the registry, and the model has it.

    python examples/add_a_position_scheme.py

The scheme below lowers a score by the logarithm of the distance, at strengths that each head learns. It is trained for
half a minute on built-in stories beside the scheme `none`, and both losses are printed.
"""

import torch
from torch import nn

from hf_minilm import MiniLMConfig, MiniLMForMaskedLM
from hf_minilm.data.world import World, words
from hf_minilm.model.positions import POSITION_SCHEMES, PositionScheme


class LogarithmicDistances(PositionScheme):
    """Subtract strength x log(1 + distance) from the scores, a strength for what comes before and one for after.

    As KERPLE (Chi et al. 2022) with one constant fixed, and for attention that looks both ways. Every second head
    begins with its eyes on what comes before, the others on what comes after.
    """

    def __init__(self, config: MiniLMConfig) -> None:
        super().__init__(config)
        head = torch.arange(config.num_attention_heads)
        self.strengths = nn.Parameter(0.1 + 4.0 * torch.stack((head % 2, 1 - head % 2), dim=-1))

    def added_to_scores(self, query_positions: torch.Tensor, key_positions: torch.Tensor) -> torch.Tensor:
        """Give the bias [B or 1, H, T, S]."""
        distances = key_positions[:, None, None, :] - query_positions[:, None, :, None]
        before, after = self.strengths.abs()[:, :, None, None].unbind(1)
        return -torch.where(distances < 0, before, after) * torch.log1p(distances.abs().float())


POSITION_SCHEMES["logarithmic"] = LogarithmicDistances


def masked_batches(number: int) -> tuple[list[dict[str, torch.Tensor]], int]:
    """Make batches of 16 openings of stories, 24 words each, one word in five masked; 1 is the mask, 0 padding."""
    stories = [words(document.text)[:24] for document in World(["en"]).documents(16 * number)]
    ids = {word: index for index, word in enumerate(sorted({word for story in stories for word in story}), start=2)}
    tokens = torch.tensor([[ids[word] for word in story] for story in stories])
    masked = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(0)) < 0.2
    batches = zip(tokens.masked_fill(masked, 1).split(16), tokens.masked_fill(~masked, -100).split(16), strict=True)
    return [{"input_ids": seen, "labels": hidden} for seen, hidden in batches], len(ids) + 2


def train(scheme: str, *, steps: int = 300) -> float:
    """Train a small model with a scheme; the mean loss of the last tenth of the steps, in nats per masked word."""
    torch.manual_seed(0)
    batches, vocab_size = masked_batches(steps)
    config = MiniLMConfig.preset("modern", "tiny", vocab_size=vocab_size, position_embedding=scheme)
    model = MiniLMForMaskedLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for batch in batches:
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    last = losses[-max(steps // 10, 1) :]
    return sum(last) / len(last)


def main() -> None:
    """Train with each scheme, and print the losses."""
    for scheme in ("none", "logarithmic"):
        print(f"{scheme:>12}: {train(scheme):.2f} nats per masked word")


if __name__ == "__main__":
    main()
