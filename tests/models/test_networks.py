from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.geometry import Box, CropGeometry
from models.networks.batch_norm import fold_batch_norm
from models.networks.encoders import TimmEncoder, build_encoder
from models.networks.heads import HeatmapHead, SimccHead
from models.networks.normalise import Normalise
from models.networks.pose import PoseNetwork, PoseShape
from models.networks.tinypose import TinyPoseTrunk, load_pp_tinypose
from tests.norms import shaken
from training.data.images import read_image

pytestmark = pytest.mark.usefixtures("one_thread")

TEACHER = "tinypose_256x192.onnx"
WEIGHTS = "tinypose_256x192_convs_fp16.safetensors"


def _count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.fixture(scope="module")
def image(data: Path) -> Tensor:
    """A photo as the encoders take it; an encoder says little of noise."""
    pixels = read_image(data / "demo" / "astronaut.jpg")
    geometry = CropGeometry.from_box(Box(0, 0, pixels.shape[1], pixels.shape[0]), (192, 256))
    normalised: Tensor = Normalise()(torch.from_numpy(geometry.cut(pixels))[None])
    return normalised


# PP-TinyPose's trunk


@pytest.mark.data
def test_the_trunk_answers_as_the_published_network(data: Path, image: Tensor) -> None:
    trunk = TinyPoseTrunk().eval()
    head = load_pp_tinypose(trunk, data / "models" / "teacher" / WEIGHTS)
    session = ort.InferenceSession(data / "models" / "teacher" / TEACHER)
    fused, heatmap = session.run(["fused4", "heatmap"], {"image": image.numpy()})
    with torch.no_grad():
        features = trunk(image)
        maps = nn.functional.conv2d(features, head["weight"], head["bias"])
    assert np.abs(fused).max() > 0.5
    np.testing.assert_allclose(features, fused, atol=1e-4)
    np.testing.assert_allclose(maps, heatmap, atol=1e-4)


@pytest.mark.data
def test_folding_the_published_trunk_changes_nothing(data: Path, image: Tensor) -> None:
    trunk = TinyPoseTrunk().eval()
    load_pp_tinypose(trunk, data / "models" / "teacher" / WEIGHTS)
    with torch.no_grad():
        before = trunk(image)
        fold_batch_norm(trunk)
        after = trunk(image)
    np.testing.assert_allclose(after, before, atol=1e-4)


def test_the_trunk_has_the_published_size() -> None:
    trunk = TinyPoseTrunk()
    convs = sum(
        m.weight.numel() + m.out_channels for m in trunk.modules() if isinstance(m, nn.Conv2d)
    )
    # 1.30 M with the heatmap's last convolution, 17 * 40 + 17.
    assert convs + 697 == pytest.approx(1.30e6, abs=5e3)
    assert sum(isinstance(m, nn.Conv2d) for m in trunk.modules()) == 268


@pytest.mark.parametrize("size", [(64, 64), (192, 256), (96, 160)])
def test_the_trunk_s_features_are_a_quarter_of_the_crop(size: tuple[int, int]) -> None:
    with torch.no_grad():
        features = TinyPoseTrunk().eval()(torch.zeros((2, 3, size[1], size[0])))
    assert features.shape == (2, 40, size[1] // 4, size[0] // 4)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    few = tmp_path / "few.safetensors"
    save_file({"000.weight": torch.zeros((1, 1, 1, 1))}, few)
    with pytest.raises(ValueError, match=r"few\.safetensors does not hold the 269 convolutions"):
        load_pp_tinypose(TinyPoseTrunk(), few)
    odd = tmp_path / "odd.safetensors"
    parts = ("weight", "bias", "mean", "var")
    save_file({f"{i:03d}.{part}": torch.zeros(1) for i in range(269) for part in parts}, odd)
    with pytest.raises(ValueError, match=r"odd\.safetensors: convolution 0 has shape \(1,\)"):
        load_pp_tinypose(TinyPoseTrunk(), odd)


# Folding


@pytest.mark.parametrize("name", ["tinypose", "timm:resnet18:32", "timm:mobilenetv2_050:16"])
def test_folding_is_exact_in_eval_mode(name: str) -> None:
    encoder = shaken(build_encoder(name))
    crop = torch.randn((1, 3, 64, 64))
    with torch.no_grad():
        before = encoder(crop)
        fold_batch_norm(encoder)
        after = encoder(crop)
    np.testing.assert_allclose(after, before, atol=1e-4 * float(before.abs().max()))
    assert all(p.requires_grad for p in encoder.parameters())
    if name == "tinypose":
        assert not any(isinstance(m, nn.BatchNorm2d) for m in encoder.modules())


class _NormWithActivation(nn.BatchNorm2d):
    """As timm has them: to fold it away would lose what it does besides."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


def test_folding_leaves_a_norm_alone_that_does_more_than_norm() -> None:
    layers = shaken(nn.Sequential(nn.Conv2d(3, 4, 3), _NormWithActivation(4)))
    crop = torch.randn((1, 3, 8, 8))
    with torch.no_grad():
        before = layers(crop)
        fold_batch_norm(layers)
        np.testing.assert_allclose(layers(crop), before, atol=1e-6)


# Encoders by name


@pytest.mark.parametrize(
    ("name", "channels", "stride"),
    [
        ("tinypose", 40, 4),
        ("timm:mobilenetv2_100:16", 96, 16),
        ("timm:mobilenetv2_100:8", 32, 8),
        ("timm:resnet18:32", 512, 32),
    ],
)
def test_an_encoder_is_built_by_its_name(name: str, channels: int, stride: int) -> None:
    encoder = build_encoder(name)
    assert (encoder.channels, encoder.stride) == (channels, stride)
    assert isinstance(encoder, nn.Module)
    with torch.no_grad():
        features = encoder.eval()(torch.zeros((1, 3, 64, 96)))
    assert features.shape == (1, channels, 64 // stride, 96 // stride)


def test_held_stages_take_no_gradient() -> None:
    encoder = build_encoder("timm:mobilenetv2_100:8")
    assert isinstance(encoder, TimmEncoder)
    encoder.hold(2)
    encoder(torch.rand((1, 3, 32, 32))).sum().backward()
    moved = {name for name, parameter in encoder.named_parameters() if parameter.grad is not None}
    assert moved == {n for n, _ in encoder.named_parameters() if n.startswith("body.blocks.2.")}
    resnet = build_encoder("timm:resnet18:32")
    assert isinstance(resnet, TimmEncoder)
    with pytest.raises(ValueError, match="only timm's mobile networks have stages"):
        resnet.hold(1)


@pytest.mark.parametrize(
    "name", ["timm:mobilenetv2_050:16", "timm:mobilenetv3_small_050:8", "timm:resnet18:16"]
)
def test_a_backbone_ends_where_it_is_read(name: str) -> None:
    encoder = build_encoder(name)
    encoder(torch.zeros((2, 3, 64, 64))).sum().backward()
    assert not [name for name, p in encoder.named_parameters() if p.grad is None]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet", "encoder 'resnet': ask for tinypose, tinypose-dense, hrnet"),
        ("timm:resnet18", "ask for tinypose, tinypose-dense, hrnet"),
        ("timm::32", "ask for tinypose, tinypose-dense, hrnet"),
        ("timm:resnet18:x", "ask for tinypose, tinypose-dense, hrnet"),
        ("hub:resnet18:32", "ask for tinypose, tinypose-dense, hrnet"),
        ("timm:resnet18:3", r"features of strides \[2, 4, 8, 16, 32\], not 3"),
    ],
)
def test_a_name_that_is_none_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_encoder(name)


@pytest.mark.data
def test_a_classifier_s_weights_start_the_encoder(data: Path) -> None:
    state = load_file(data / "models" / "backbones" / "mobilenetv2_100_in1k_fp16.safetensors")
    classifier = timm.create_model("mobilenetv2_100").eval()
    classifier.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    crop = torch.randn((1, 3, 128, 96), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        stages = classifier.forward_intermediates(crop, intermediates_only=True)  # type: ignore[operator]
    for stride, expected in zip((8, 16, 32), stages[2:], strict=True):
        encoder = TimmEncoder("mobilenetv2_100", stride=stride).eval()
        encoder.load_classifier(state)
        with torch.no_grad():
            np.testing.assert_allclose(encoder(crop), expected, atol=1e-4)
    lacking = {name: tensor for name, tensor in state.items() if name != "conv_stem.weight"}
    with pytest.raises(ValueError, match="lacks 1 tensors, first conv_stem"):
        encoder.load_classifier(lacking)


def test_pixels_are_normalised_as_imagenet_s() -> None:
    crops = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8)
    expected = (crops.double() / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor(
        [0.229, 0.224, 0.225]
    )
    found = Normalise()(crops)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected.permute(0, 3, 1, 2), atol=1e-5)
    assert Normalise().state_dict() == {}


# Heads


def test_simplebaseline_has_the_published_number_of_parameters() -> None:
    backbone = TimmEncoder("resnet50", stride=32)
    assert _count(backbone) == 23508032
    assert backbone.channels == 2048
    heatmap = HeatmapHead(2048, 17, deconvs=3)
    assert _count(backbone, heatmap) == 33999697
    grids = {(64, 64): 3, (128, 128): 3, (192, 256): 2}
    published = (34098385, 34786897, 36753105)
    for (size, split), parameters in zip(grids.items(), published, strict=True):
        shape = PoseShape(size=size, simcc_split=split)
        head = SimccHead(2048, shape.grid(32), 17, shape.simcc.bins, deconvs=3)
        assert _count(backbone, head) == parameters


@pytest.mark.parametrize("deconvs", [0, 1, 3])
def test_each_deconvolution_doubles_the_map(deconvs: int) -> None:
    features = torch.randn((2, 10, 4, 3))
    maps = HeatmapHead(10, 17, deconvs=deconvs).eval()(features)
    assert maps.shape == (2, 17, 4 * 2**deconvs, 3 * 2**deconvs)
    x, y = SimccHead(10, (3, 4), 17, (48, 64), deconvs=deconvs).eval()(features)
    assert (x.shape, y.shape) == ((2, 17, 48), (2, 17, 64))


def test_a_fresh_simcc_head_is_undecided() -> None:
    x, y = SimccHead(10, (3, 4), 17, (48, 64))(torch.randn((2, 10, 4, 3)))
    for logits in (x, y):
        assert logits.softmax(-1).max() < 2 / logits.shape[-1]


# The whole network


@pytest.mark.parametrize(
    "shape",
    [
        PoseShape(size=(64, 64), cells=(4, 4)),
        PoseShape(
            encoder="timm:resnet18:32", size=(96, 128), cells=(3, 4), matrix="legacy",
            simcc_deconvs=1, heatmap_deconvs=3, simcc_split=1.5, sinusoids=3, joints=14,
        ),
    ],
    ids=["tinypose", "resnet18"],
)  # fmt: skip
def test_every_head_answers_in_the_shape_of_its_codec(shape: PoseShape) -> None:
    network = PoseNetwork(shape).eval()
    width, height = shape.size
    crops = torch.randint(0, 256, (2, height, width, 3), dtype=torch.uint8)
    with torch.no_grad():
        features = network.encode(crops)
        x, y = network.simcc(features)
        maps = network.heatmap(features)
        cells = network.nerpe.cells(features)
        values = network.nerpe.field(cells, torch.zeros((2, 5, 2)))
    stride = network.encoder.stride
    assert features.shape == (2, network.encoder.channels, height // stride, width // stride)
    joints = shape.joints
    assert (x.shape[-1], y.shape[-1]) == shape.simcc.bins
    assert maps.shape == (2, joints, *network.heatmap_codec.grid[::-1])
    assert cells.shape[2:] == shape.cells[::-1]
    assert values.shape == (2, 5, joints)
    assert network.heatmap_codec.mapping == shape.matrix
    assert network.heatmap_codec.size == shape.simcc.size == shape.nerpe.size == shape.size
