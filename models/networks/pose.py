"""One encoder, three heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from models.codecs import GAUSSIAN, HeatmapCodec, NerpeCodec, SimccCodec, SimccLabels
from models.geometry import CropMatrix, Size
from models.networks.encoders import build_encoder
from models.networks.gau import GauSimccHead
from models.networks.heads import HeatmapHead, SimccHead
from models.networks.nerpe import Doubling, NerpeHead
from models.networks.normalise import Normalise
from models.networks.tokenpose import (
    PatchMap,
    TokenHeatmapHead,
    TokenPoseEncoder,
    TokenSimccHead,
)

HeadName = Literal["simcc", "heatmap", "nerpe"]
HEADS: tuple[HeadName, ...] = ("simcc", "heatmap", "nerpe")


@dataclass(frozen=True, slots=True)
class PoseShape:
    """What fixes a network's tensors; a checkpoint carries it.

    Attributes:
        encoder: as `build_encoder` takes it.
        size: of the crop (width, height).
        joints: K.
        matrix: how boxes become crops.
        heads: which it has.
        simcc_split: bins a pixel, the paper's k.
        simcc_sigma: of the labels (x, y), bins.
        simcc_labels: their form.
        simcc_attention: RTMPose's head, whose joints attend to each other, in place of SimCC's.
        simcc_deconvs: before the SimCC head.
        simcc_maps: a joint, before SimCC's linear layers.
        heatmap_sigma: of the labels, cells.
        heatmap_rounded: centre labels on cells, as SimpleBaseline does.
        heatmap_deconvs: before the heatmap head.
        deconv_width: channels of the deconvolutions.
        cells: NerPE's grid (columns, rows).
        nerpe_sigma: of its targets, normalised; a Laplace one's scale b.
        nerpe_target: their form.
        nerpe_width: channels of a cell's feature.
        nerpe_hidden: widths of its MLP.
        nerpe_entry: a convolution before features are halved, as published.
        nerpe_doubling: of features coarser than the cells.
        nerpe_ensemble: blend the predictions of the four nearest cells.
        sinusoids: octaves of the encoded position.
    """

    encoder: str = "tinypose"
    size: Size = (192, 256)
    joints: int = 17
    matrix: CropMatrix = "udp"
    heads: tuple[HeadName, ...] = HEADS
    simcc_split: float = 2
    simcc_sigma: tuple[float, float] = (4.9, 5.66)
    simcc_labels: SimccLabels = GAUSSIAN
    simcc_attention: bool = False
    simcc_deconvs: int = 0
    simcc_maps: int = 1
    heatmap_sigma: float = 2.0
    heatmap_rounded: bool = False
    heatmap_deconvs: int = 0
    deconv_width: int = 256
    cells: Size = (12, 16)
    nerpe_sigma: float = 0.06
    nerpe_target: Literal["gaussian", "laplace"] = "gaussian"
    nerpe_width: int = 128
    nerpe_hidden: tuple[int, ...] = (128, 128, 64)
    nerpe_entry: bool = False
    nerpe_doubling: Doubling = "nearest"
    nerpe_ensemble: bool = True
    sinusoids: int = 0

    def grid(self, stride: int) -> Size:
        """Of features on a stride (columns, rows)."""
        return self.size[0] // stride, self.size[1] // stride

    @property
    def simcc(self) -> SimccCodec:
        """Of the SimCC head."""
        return SimccCodec(self.size, self.simcc_split, self.simcc_sigma, self.simcc_labels)

    @property
    def nerpe(self) -> NerpeCodec:
        """Of the NerPE head."""
        return NerpeCodec(self.size, self.nerpe_sigma, self.nerpe_target)

    def heatmap(self, stride: int) -> HeatmapCodec:
        """Of the heatmap head on features of a stride."""
        grid = self.grid(stride // 2**self.heatmap_deconvs)
        return HeatmapCodec(self.size, grid, self.heatmap_sigma, self.matrix)


class PoseNetwork(nn.Module):
    """(B, H, W, 3) uint8 crops to features, features to each head's raw values.

    Attributes:
        simcc: there if its shape's `heads` name it; likewise `heatmap` and `nerpe`.
    """

    simcc: SimccHead | GauSimccHead | TokenSimccHead
    heatmap: HeatmapHead | TokenHeatmapHead
    nerpe: NerpeHead

    def __init__(self, shape: PoseShape) -> None:
        super().__init__()
        self.shape = shape
        self.normalise = Normalise()
        self.encoder = build_encoder(shape.encoder, shape.joints)
        self.heatmap_codec = shape.heatmap(self.encoder.stride)
        if "simcc" in shape.heads:
            self.simcc = self._simcc()
        if "heatmap" in shape.heads:
            self.heatmap = self._heatmap()
        if "nerpe" in shape.heads:
            self.nerpe = self._nerpe()

    def _simcc(self) -> SimccHead | GauSimccHead | TokenSimccHead:
        shape, channels = self.shape, self.encoder.channels
        grid, bins = shape.grid(self.encoder.stride), shape.simcc.bins
        if isinstance(self.encoder, TokenPoseEncoder):
            return TokenSimccHead(shape.joints, bins)
        if shape.simcc_attention:
            return GauSimccHead(channels, grid, shape.joints, bins)
        return SimccHead(
            channels, grid, shape.joints, bins,
            deconvs=shape.simcc_deconvs, width=shape.deconv_width, maps=shape.simcc_maps,
        )  # fmt: skip

    def _heatmap(self) -> HeatmapHead | TokenHeatmapHead:
        shape = self.shape
        if isinstance(self.encoder, TokenPoseEncoder):
            return TokenHeatmapHead(shape.joints, self.heatmap_codec.grid)
        return HeatmapHead(
            self.encoder.channels, shape.joints,
            deconvs=shape.heatmap_deconvs, width=shape.deconv_width,
        )  # fmt: skip

    def _nerpe(self) -> NerpeHead:
        shape, grid = self.shape, self.shape.grid(self.encoder.stride)
        before: nn.Module | None = None
        if isinstance(self.encoder, TokenPoseEncoder):
            grid = grid[0] // self.encoder.patch[0], grid[1] // self.encoder.patch[1]
            before = PatchMap(shape.joints, grid)
        head = NerpeHead(
            self.encoder.channels, grid, shape.cells, shape.joints,
            hidden=shape.nerpe_hidden, width=shape.nerpe_width, sinusoids=shape.sinusoids,
            entry=shape.nerpe_entry, doubling=shape.nerpe_doubling,
            ensemble=shape.nerpe_ensemble,
        )  # fmt: skip
        if before is not None:
            head.zoom.insert(0, before)
        return head

    def encode(self, crops: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 to (B, C, h, w)."""
        features: Tensor = self.encoder(self.normalise(crops))
        return features
