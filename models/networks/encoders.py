"""Encoders by name: normalised crops to features on one stride."""

from __future__ import annotations

import timm
import torch
from timm.models import FeatureInfo
from torch import Tensor, nn

from models.networks.tinypose import TinyPoseTrunk


class TimmEncoder(nn.Module):
    """A timm backbone's features of one stride."""

    def __init__(self, name: str, *, stride: int, pretrained: bool = False) -> None:
        """Build it.

        Args:
            name: as `timm.list_models` has it.
            stride: of the features to take, px of the crop a cell.
            pretrained: fetch timm's weights (needs its hub).

        Raises:
            ValueError: the backbone has no features of that stride.
        """
        super().__init__()
        strides = _feature_info(timm.create_model(name, features_only=True)).reduction()
        if stride not in strides:
            raise ValueError(f"{name} has features of strides {strides}, not {stride}")
        self.body = timm.create_model(
            name, features_only=True, out_indices=(strides.index(stride),), pretrained=pretrained
        )
        self.channels = int(_feature_info(self.body).channels()[0])
        self.stride = stride

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, channels, H/stride, W/stride)."""
        features: Tensor = self.body(image)[0]
        return features

    def load_classifier(self, state: dict[str, Tensor]) -> None:
        """Start from the weights of timm's classifier of the same name.

        Raises:
            ValueError: weights of this trunk are missing in `state`.
        """
        own = self.body.state_dict()
        # features_only renames `blocks.0.x` to `blocks_0.x` where it flattens a sequence.
        known = {name.replace(".", "_"): tensor.float() for name, tensor in state.items()}
        missing = [name for name in own if name.replace(".", "_") not in known]
        missing = [name for name in missing if not name.endswith("num_batches_tracked")]
        if missing:
            raise ValueError(f"the classifier lacks {len(missing)} tensors, first {missing[0]}")
        self.body.load_state_dict(
            {name: known.get(name.replace(".", "_"), own[name]) for name in own}, strict=True
        )


def _feature_info(body: nn.Module) -> FeatureInfo:
    """What timm says of a backbone's features."""
    info = body.feature_info
    assert isinstance(info, FeatureInfo)
    return info


Encoder = TinyPoseTrunk | TimmEncoder
"""(B, 3, H, W) normalised RGB to (B, channels, H/stride, W/stride)."""


def build_encoder(name: str) -> Encoder:
    """`tinypose`, or `timm:<model>:<stride>`.

    Raises:
        ValueError: neither.
    """
    if name == "tinypose":
        return TinyPoseTrunk()
    kind, _, rest = name.partition(":")
    model, _, stride = rest.rpartition(":")
    if kind == "timm" and model and stride.isdigit():
        return TimmEncoder(model, stride=int(stride))
    raise ValueError(f"encoder {name!r}: ask for tinypose or timm:<model>:<stride>")


class Normalise(nn.Module):
    """(B, H, W, 3) uint8 RGB to (B, 3, H, W) float32 with ImageNet's mean and deviation."""

    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        mean = torch.tensor([0.485, 0.456, 0.406]) * 255
        std = torch.tensor([0.229, 0.224, 0.225]) * 255
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("scale", 1 / std, persistent=False)

    def forward(self, crops: Tensor) -> Tensor:
        """Pixels to the encoder's input."""
        return ((crops.float() - self.mean) * self.scale).permute(0, 3, 1, 2)
