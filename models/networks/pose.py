"""One encoder, three heads."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from models.codecs import HeatmapCodec, NerpeCodec, SimccCodec
from models.geometry import CropMatrix, Size
from models.networks.encoders import Normalise, build_encoder
from models.networks.heads import HeatmapHead, NerpeHead, SimccHead


@dataclass(frozen=True, slots=True)
class PoseShape:
    """What fixes a network's tensors; a checkpoint carries it.

    Attributes:
        encoder: as `build_encoder` takes it.
        size: of the crop (width, height).
        joints: K.
        matrix: how boxes become crops.
        simcc: its codec; likewise `heatmap` and `nerpe`.
        simcc_deconvs: before the SimCC head.
        heatmap_deconvs: before the heatmap head.
        cells: NerPE's grid (columns, rows).
        nerpe_width: channels of a cell's feature.
        nerpe_hidden: widths of its MLP.
        sinusoids: octaves of the encoded position.
    """

    encoder: str = "tinypose"
    size: Size = (192, 256)
    joints: int = 17
    matrix: CropMatrix = "udp"
    simcc_split: float = 2
    simcc_sigma: tuple[float, float] = (4.9, 5.66)
    simcc_deconvs: int = 0
    heatmap_sigma: float = 2.0
    heatmap_deconvs: int = 0
    cells: Size = (12, 16)
    nerpe_sigma: float = 0.06
    nerpe_width: int = 128
    nerpe_hidden: tuple[int, ...] = (128, 128, 64)
    sinusoids: int = 0

    def grid(self, stride: int) -> Size:
        """Of features on a stride (columns, rows)."""
        return self.size[0] // stride, self.size[1] // stride

    @property
    def simcc(self) -> SimccCodec:
        """Of the SimCC head."""
        return SimccCodec(self.size, self.simcc_split, self.simcc_sigma)

    @property
    def nerpe(self) -> NerpeCodec:
        """Of the NerPE head."""
        return NerpeCodec(self.size, self.nerpe_sigma)

    def heatmap(self, stride: int) -> HeatmapCodec:
        """Of the heatmap head on features of a stride."""
        grid = self.grid(stride // 2**self.heatmap_deconvs)
        return HeatmapCodec(self.size, grid, self.heatmap_sigma, self.matrix)


class PoseNetwork(nn.Module):
    """(B, H, W, 3) uint8 crops to features, features to each head's raw values."""

    def __init__(self, shape: PoseShape) -> None:
        super().__init__()
        self.shape = shape
        self.normalise = Normalise()
        self.encoder = build_encoder(shape.encoder)
        channels, stride = self.encoder.channels, self.encoder.stride
        grid = shape.grid(stride)
        self.heatmap_codec = shape.heatmap(stride)
        self.simcc = SimccHead(
            channels, grid, shape.joints, shape.simcc.bins, deconvs=shape.simcc_deconvs
        )
        self.heatmap = HeatmapHead(channels, shape.joints, deconvs=shape.heatmap_deconvs)
        self.nerpe = NerpeHead(
            channels, grid, shape.cells, shape.joints,
            hidden=shape.nerpe_hidden, width=shape.nerpe_width, sinusoids=shape.sinusoids,
        )  # fmt: skip

    def encode(self, crops: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 to (B, C, h, w)."""
        features: Tensor = self.encoder(self.normalise(crops))
        return features
