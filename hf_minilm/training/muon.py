"""Muon for the matrices of the layers and AdamW for all else, as one optimizer.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) steps along the nearest orthogonal matrix to the
momentum of a gradient, found by five Newton-Schulz iterations in bfloat16, or in float32 on a CPU without a kernel for
that. The update is `torch.optim.Muon`'s own, with Nesterov momentum and the factor 0.2 sqrt(max(rows, columns)) of
Moonlight (Liu et al. 2025, arXiv:2502.16982, section 2.2): the update's root mean square is then about AdamW's, so that
one learning rate and one decay serve both.

Which parameters Muon takes. Jordan: those of the hidden layers; embeddings, the output layer, gains and biases go to
AdamW, the first two even though they are matrices. Moonlight: matrices, but for embeddings and language-model head.
Here: the weights of the linear projections inside the layers, attention's and the feed-forward's. What stands after
the layers stays with AdamW: the vocabulary projection and classifiers, which are output layers, and the prediction
transform and pooler, which could go either way. Query, key and value are orthogonalised apart, as Jordan advises, and
so are gate and up, each being a matrix of its own; the heads within one matrix are not.

The cost of a step does not depend on the batch. On one core, 28 matrices of 4 layers of width 256 take 39 ms, where
AdamW takes 2 ms, and 84 of 12 layers of width 768 take 1.97 s against 0.10 s. That is the arithmetic. On two cores the
28 take 54 ms one by one and 44 ms in stacks, where one core takes 89 ms; see `stacked_muon`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers.modeling_layers import GradientCheckpointingLayer

from .sharded_muon import ShardedMuon
from .stacked_muon import StackedMuon

MUON_GROUP = "muon"
"""The name of the parameter group that Muon steps; AdamW steps every other."""


def layer_matrices(model: nn.Module) -> list[torch.Tensor]:
    """List the trainable weights of the linear projections inside the layers, each once.

    A layer is what transformers calls one: our `Layer`, or that of a native model.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    linear = [module for layer in layers for module in layer.modules() if isinstance(module, nn.Linear)]
    return list({id(each.weight): each.weight for each in linear if each.weight.requires_grad}.values())


class MuonWithAdamW(torch.optim.Optimizer):
    """`torch.optim.Muon` and `torch.optim.AdamW` behind the face of one optimizer.

    Its groups and its state are those of the two, not copies: what is set on a group takes effect. A group that is
    added later is AdamW's.

    Args:
        groups: Parameter groups with names; the one called `MUON_GROUP` holds matrices alone.
        lr: Learning rate of both.
        momentum: Muon's.
        betas: AdamW's.
        eps: AdamW's.
        fused: AdamW's.

    Attributes:
        found_inf: As of `StackedMuon`, and of torch's fused optimizers.
    """

    found_inf: torch.Tensor | None = None

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        betas: tuple[float, float],
        eps: float,
        fused: bool | None = None,
    ) -> None:
        matrices = [group for group in groups if group["name"] == MUON_GROUP]
        # torch refuses no groups at all, but not an empty one.
        others = [group for group in groups if group["name"] != MUON_GROUP] or [{"params": []}]
        is_sharded = any(isinstance(matrix, DTensor) for group in matrices for _, matrix in group["params"])
        kind = ShardedMuon if is_sharded else StackedMuon
        self.muon = kind(matrices, lr=lr, momentum=momentum, adjust_lr_fn="match_rms_adamw")
        self.adamw = torch.optim.AdamW(others, lr=lr, betas=betas, eps=eps, fused=fused)
        super().__init__(groups, {})
        self.defaults = self.adamw.defaults

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every parameter that has a gradient.

        Args:
            closure: Computes the loss anew, with its gradients.

        Returns:
            The closure's loss.
        """
        with torch.enable_grad():
            loss = None if closure is None else closure()
        self._share()
        self.muon.step()
        self.adamw.step()
        return loss

    def _share(self) -> None:
        """Give the two what this one has: the groups and the state, which `load_state_dict` makes anew.

        Accelerate calls that when it prepares an optimizer.
        """
        self.muon.found_inf = self.adamw.found_inf = self.found_inf  # type: ignore[attr-defined]
        self.muon.param_groups = [group for group in self.param_groups if group.get("name") == MUON_GROUP]
        self.adamw.param_groups = [group for group in self.param_groups if group.get("name") != MUON_GROUP]
        self.muon.state = self.adamw.state = self.state
