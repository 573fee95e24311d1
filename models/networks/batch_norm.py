"""Batch norm, once a network has learnt."""

from __future__ import annotations

from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norm(module: nn.Module) -> None:
    """Put each batch norm into the convolution before it, in place: the same map in eval mode.

    Everything below is in eval mode then, and is trained.

    A small data set does not move good statistics, and without the norms a step is faster.
    """
    module.eval()
    for child in module.children():
        fold_batch_norm(child)
    if isinstance(module, nn.Sequential):
        layers = list(module)
        for index, (first, second) in enumerate(pairwise(layers)):
            # By their very types: what derives from them does more, an activation for one.
            if type(first) is nn.Conv2d and type(second) is nn.BatchNorm2d:
                module[index] = fuse_conv_bn_eval(first, second)
                module[index + 1] = nn.Identity()
    for parameter in module.parameters():
        parameter.requires_grad_(True)
