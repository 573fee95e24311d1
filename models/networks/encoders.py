"""Encoders by name: normalised crops to features on one stride."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import timm
from timm.models import FeatureInfo
from timm.models.efficientnet import EfficientNetFeatures
from timm.models.mobilenetv3 import MobileNetV3Features
from torch import Tensor, nn

from models.networks.folded import FoldedTrunk, dense_trunk
from models.networks.tinypose import TinyPoseTrunk
from models.networks.tokenpose import TokenPoseEncoder


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
        taken = _feature_info(self.body).get_dicts()[0]
        if "stage" in taken:
            # timm keeps, and runs, the stages of its mobile networks that come after.
            del self.body.get_submodule("blocks")[taken["stage"] :]  # type: ignore[operator]
        self.channels = int(taken["num_chs"])
        self.stride = stride
        self.held = 0

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, channels, H/stride, W/stride)."""
        features: Tensor = self.body(image)[0]
        return features

    def hold(self, stages: int) -> None:
        """Keep the stem and the first stages as they are, their batch norms' statistics too.

        Raises:
            ValueError: the trunk is not made of a stem and stages that can be told apart.
        """
        if not isinstance(self.body, EfficientNetFeatures | MobileNetV3Features):
            raise ValueError("only timm's mobile networks have stages that can be held")
        self.held = stages
        for part in self._held_parts():
            part.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """All but what is held, where a norm would follow the batches without any gradient."""
        super().train(mode)
        for part in self._held_parts():
            part.eval()
        return self

    def _held_parts(self) -> Iterable[nn.Module]:
        if self.held:
            body = self.body
            assert isinstance(body, EfficientNetFeatures | MobileNetV3Features)
            yield from (body.conv_stem, body.bn1, *body.blocks[: self.held])

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


class HighResolutionEncoder(nn.Module):
    """HRNet's finest branch, as pose networks take it: the others end unread, and unbuilt."""

    stride = 4

    def __init__(self, width: int) -> None:
        """Build it; `width` is the finest branch's channels: 18, 30, 32, 40, 44, 48 or 64."""
        super().__init__()
        self.channels = width
        body = timm.create_model(f"hrnet_w{width}")
        for part in ("incre_modules", "downsamp_modules", "final_layer", "classifier"):
            setattr(body, part, None)
        last = body.get_submodule("stage4")[-1]  # type: ignore[index]
        last.fuse_layers = last.fuse_layers[:1]
        self.body = body

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, width, H/4, W/4)."""
        finest: Tensor = self.body.forward_features(image)[0]  # type: ignore[operator]
        return finest


Encoder = TinyPoseTrunk | FoldedTrunk | TimmEncoder | HighResolutionEncoder | TokenPoseEncoder
"""(B, 3, H, W) normalised RGB to features (B, channels, h, w)."""


def build_encoder(name: str, joints: int = 17) -> Encoder:
    """An encoder by its name.

    Args:
        name: `tinypose`, `tinypose-dense`, `hrnet:<width>`, `tokenpose:<w>x<h>` (patches on a
            quarter of the crop: 1x1 for 64x64, 2x2 for 128x128, 3x4 for 192x256) or
            `timm:<model>:<stride>`.
        joints: K, which TokenPose has tokens of.

    Raises:
        ValueError: none of these.
    """
    kind, _, rest = name.partition(":")
    match kind, rest.split("x" if kind == "tokenpose" else ":"):
        case "tinypose", [""]:
            return TinyPoseTrunk()
        case "tinypose-dense", [""]:
            return dense_trunk()
        case "hrnet", [width] if f"hrnet_w{width}" in timm.list_models("hrnet_w*"):
            return HighResolutionEncoder(int(width))
        case "tokenpose", [width, height] if width.isdigit() and height.isdigit():
            return TokenPoseEncoder(joints, (int(width), int(height)))
        case "timm", [model, stride] if model and stride.isdigit():
            return TimmEncoder(model, stride=int(stride))
    raise ValueError(
        f"encoder {name!r}: ask for tinypose, tinypose-dense, hrnet:<width>, tokenpose:<w>x<h> "
        "or timm:<model>:<stride>"
    )
