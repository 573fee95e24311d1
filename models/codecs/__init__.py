"""Codecs: keypoints -> target beside field -> keypoints, one for each head.

Each is written once against the array API standard: the same lines serve numpy on the CPU and
torch on a GPU, in training, evaluation and serving.
"""

from models.codecs.decoded import Decoded
from models.codecs.heatmap import HeatmapCodec
from models.codecs.nerpe import NerpeCodec
from models.codecs.simcc import SimccCodec
from models.codecs.simcc_labels import GAUSSIAN, SimccLabels

__all__ = ["GAUSSIAN", "Decoded", "HeatmapCodec", "NerpeCodec", "SimccCodec", "SimccLabels"]
