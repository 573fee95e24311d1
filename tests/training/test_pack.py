import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from models.bundle import file_digest
from models.geometry import CropGeometry
from models.keypoints import COCO17
from models.networks.pose import PoseShape
from tests.training.sets import JOINTS, row, write_set
from training import pack as module
from training.cli import app
from training.config import (
    DataSource,
    Experiment,
    HeadPhase,
    Schedule,
    Serving,
    Teachers,
)
from training.data.annotations import read_people
from training.data.examples import Augmentation, Examples, set_epoch
from training.data.images import read_image
from training.errors import DataError
from training.looks import Looks
from training.pack import Pack, open_pack, write_pack, write_packs
from training.train import train, training_data

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = PoseShape(size=(64, 64), cells=(4, 4), nerpe_width=16, nerpe_hidden=(16, 8))
WILD = Augmentation(half_body=0.5, rotation_share=0.9)
Configure = Callable[..., Experiment]


def _enlarge(images: Path, file: Path, times: float) -> None:
    """The same photos and labels, as a better camera takes them."""
    content = json.loads(file.read_text())
    for photo in content["images"]:
        path = images / photo["file_name"]
        photo["width"], photo["height"] = int(240 * times), int(320 * times)
        pixels = cv2.resize(read_image(path), (photo["width"], photo["height"]))
        cv2.imwrite(str(path), cv2.GaussianBlur(pixels, (0, 0), times))
    for person in content["annotations"]:
        person["bbox"] = [times * value for value in person["bbox"]]
        for start in range(0, 51, 3):
            person["keypoints"][start] *= times
            person["keypoints"][start + 1] *= times
    file.write_text(json.dumps(content))


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """Three people: all of one, one at the photo's edge, one with a half of their joints."""
    edge = row(2, bbox=[0.0, 100.0, 150.0, 219.0])
    half = row(3, keypoints=[*row(3)["keypoints"][:24], *[0] * 27])
    file, images = write_set(tmp_path / "set", [row(1), edge, half], photos=3)

    def build(times: float = 1, **changes: Any) -> Experiment:  # noqa: ANN401
        if times != 1:
            _enlarge(images, file, times)
        source = DataSource(annotations=file, images=images, split="all")
        fields: dict[str, Any] = {
            "name": "tiny", "runs": tmp_path / "runs", "threads": 1, "workers": 0,
            "train": [source], "dev": source, "shape": SHAPE, "augmentation": WILD,
            "warm_up": HeadPhase(passes=0), "schedule": Schedule(steps=2, batch=2, ramp=1),
            "serving": Serving(data="painted", start="nothing"), "checkpoint_every": 1,
        }  # fmt: skip
        return Experiment(**(fields | changes))

    return build


def _packed(experiment: Experiment) -> Experiment:
    list(write_packs(experiment))
    return experiment.model_copy(update={"packed": True})


def _compare(
    experiment: Experiment, epochs: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far packed examples are from the photos': joints (crop px), pixels (levels: max, mean).

    Returns:
        (examples,) and (examples, 2).
    """
    photos, packed = training_data(experiment), training_data(_packed(experiment))
    moved, levels = [], []
    assert len(photos) == len(packed) == 3
    for epoch in range(epochs):
        for data in (photos, packed):
            set_epoch(data, epoch)
        for index in range(3):
            one, other = photos[index], packed[index]
            assert one.keys() == other.keys()
            assert torch.equal(one["visible"], other["visible"])
            seen = one["visible"]
            moved.append((one["points"] - other["points"])[seen].abs().max().item())
            difference = (one["crop"].float() - other["crop"].float()).abs()
            levels.append((difference.max().item(), difference.mean().item()))
    return np.array(moved), np.array(levels)


def _lossless(pixels: NDArray[np.uint8]) -> bytes:
    return bytes(cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1])


def test_a_packed_example_is_the_photo_s_to_the_pixel_but_for_jpeg(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "encoded_picture", _lossless)
    # Large enough crops that no photo is reduced before the warp: blocks have another origin then.
    moved, levels = _compare(configure(shape=PoseShape()), 40)
    assert moved.max() < 1e-4
    # Nothing that an augmented crop shows was left out, and black is where it was. OpenCV's warp
    # rounds positions to 1/32 px, which another origin may round otherwise.
    assert levels[:, 0].max() <= 8
    assert np.mean(levels[:, 0] == 0) > 0.9


def test_a_large_photo_s_person_is_packed_in_fewer_pixels_and_seen_alike(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "encoded_picture", _lossless)
    experiment = configure(times=6)
    moved, levels = _compare(experiment, 20)
    assert moved.max() < 1e-4
    # Both are reduced before they are warped, by blocks that begin elsewhere.
    assert levels[:, 1].mean() < 2
    (photo,) = {read_image(path).shape for path in experiment.train[0].images.iterdir()}
    pack = open_pack(experiment, 0)
    whole = pack.pictures[0].shape
    assert all(side <= -(-full // 4) for side, full in zip(whole[:2], photo[:2], strict=True))
    # The closest look at a whole person still has a pixel for each of its own.
    box = pack.people[0].box
    assert 1.25 * (1 - WILD.scale) * box.height >= SHAPE.size[1]


def test_jpeg_leaves_little(configure: Configure) -> None:
    _, levels = _compare(configure(), 3)
    assert 0 < levels[:, 1].mean() < 2


def test_teachers_maps_come_along_and_move_alike(configure: Configure) -> None:
    whole = Augmentation(half_body=0)
    experiment = configure(teachers=Teachers(files=[]), augmentation=whole)
    experiment.folder.mkdir(parents=True)
    maps = np.random.default_rng(0).uniform(0, 1, (3, 17, 64, 48)).astype(np.float16)
    maps[:, :, :8] = -0.01
    np.save(experiment.teacher_file(0), maps)
    photos, packed = training_data(experiment), training_data(_packed(experiment))
    for index in range(3):
        one, other = photos[index]["maps"], packed[index]["maps"]
        assert one.shape == other.shape == (17, 64, 48)
        # Bumps that are kept as narrow as they were take an error times the zoom's square.
        assert (one.clamp(min=0) - other).abs().max() < (0.5 / 255 + 0.011) / (1 - whole.scale) ** 2
        assert other.max() > 0.8


def test_shards_are_plain_tar_files_under_the_limit_with_their_digests(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = configure()
    (whole,) = write_packs(experiment)
    (single,) = whole.shards
    assert single.people == 3
    folder = experiment.pack_folder(0)
    assert single.bytes == (folder / single.file).stat().st_size
    limit = 20 * 1024
    assert single.bytes >= limit
    monkeypatch.setattr(module, "LARGEST_SHARD", limit)
    (manifest,) = write_packs(experiment)
    assert len(manifest.shards) > 1
    assert sum(shard.people for shard in manifest.shards) == 3
    numbers = []
    for shard in manifest.shards:
        path = folder / shard.file
        assert path.stat().st_size == shard.bytes <= limit
        assert file_digest(path) == shard.sha256
        with tarfile.open(path) as tar:
            names = tar.getnames()
        # WebDataset: the files of a sample lie together and share what is before the first dot.
        keys = [name.split(".", 1)[0] for name in names]
        assert names == [f"{key}.{kind}" for key in dict.fromkeys(keys) for kind in ("jpg", "json")]
        numbers += [int(key) for key in dict.fromkeys(keys)]
    assert numbers == [0, 1, 2]
    assert sorted(path.name for path in folder.iterdir()) == [
        *(shard.file for shard in manifest.shards), "manifest.json",
    ]  # fmt: skip
    # The same people make the same bytes.
    (again,) = write_packs(experiment)
    assert again == manifest
    monkeypatch.setattr(module, "LARGEST_SHARD", 1024)
    with pytest.raises(DataError, match="larger than a shard"):
        list(write_packs(experiment))


def test_training_needs_a_pack_and_no_photos(configure: Configure) -> None:
    experiment = _packed(configure())
    shutil.rmtree(experiment.train[0].images)
    experiment.train[0].annotations.unlink()
    assert torch.load(train(experiment), weights_only=True)["step"] == 2


def test_the_command_says_where_it_put_whom(configure: Configure, tmp_path: Path) -> None:
    source = configure().train[0]
    paths = f"annotations = {json.dumps(str(source.annotations))}\n"
    paths += f'images = {json.dumps(str(source.images))}\nsplit = "all"\n'
    config = tmp_path / "tiny.toml"
    config.write_text(
        f'name = "tiny"\nruns = {json.dumps(str(tmp_path))}\n'
        'serving = { data = "painted", start = "nothing" }\nschedule = { steps = 1 }\n'
        f"[dev]\n{paths}[[train]]\n{paths}"
    )
    result = CliRunner().invoke(app, ["pack", str(config)])
    assert result.exit_code == 0, result.output
    folder = tmp_path / "tiny" / "pack-0"
    assert result.stdout == f"{folder}: 3 people, 0.0 MB, 1 shards\n"
    assert len(Pack(folder).people) == 3


def test_a_shard_that_travelled_badly_is_refused(configure: Configure) -> None:
    experiment = _packed(configure())
    shard = experiment.pack_folder(0) / "00000.tar"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"00000\.tar is not what its manifest describes"):
        training_data(experiment)


@pytest.mark.parametrize(
    ("changes", "lacking"),
    [
        ({"augmentation": Augmentation(scale=0.5)}, "crops of another shape"),
        ({"shape": PoseShape(size=(192, 256))}, "crops of another shape"),
        ({"shape": PoseShape(size=(128, 128))}, "crops of another shape, or larger"),
        ({"teachers": Teachers(files=[])}, "what teachers saw"),
        ({"smallest": 50}, "other people"),
    ],
)
def test_a_pack_of_something_else_is_refused(
    configure: Configure, changes: dict[str, Any], lacking: str
) -> None:
    experiment = _packed(configure())
    if "smallest" in changes:
        changes = {"train": [experiment.train[0].model_copy(update=changes)]}
    with pytest.raises(DataError, match=f"lacks {lacking}"):
        training_data(experiment.model_copy(update=changes))


def test_a_pack_of_another_file_is_refused_where_that_file_is_there(configure: Configure) -> None:
    experiment = _packed(configure())
    annotations = experiment.train[0].annotations
    content = json.loads(annotations.read_text())
    content["annotations"].pop()
    annotations.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"lacks the people of .* as it is now: pack it again"):
        open_pack(experiment, 0)
    annotations.unlink()
    assert len(open_pack(experiment, 0).people) == 3


def test_a_pack_of_other_teachers_is_refused_where_they_are_there(
    configure: Configure, tmp_path: Path
) -> None:
    teacher = tmp_path / "teacher.onnx"
    teacher.write_bytes(b"one")
    experiment = configure(teachers=Teachers(files=[teacher]))
    experiment.folder.mkdir(parents=True)
    np.save(experiment.teacher_file(0), np.zeros((3, 17, 64, 48), np.float16))
    experiment = _packed(experiment)
    assert open_pack(experiment, 0).maps is not None
    teacher.write_bytes(b"another")
    with pytest.raises(DataError, match="lacks what these teachers saw: pack it again"):
        open_pack(experiment, 0)
    teacher.unlink()
    assert open_pack(experiment, 0).maps is not None
    more = experiment.model_copy(update={"teachers": Teachers(files=[teacher, teacher])})
    with pytest.raises(DataError, match="these teachers"):
        open_pack(more, 0)


def test_a_pack_serves_closer_looks_than_it_was_made_for(configure: Configure) -> None:
    experiment = _packed(configure())
    still = Augmentation(scale=0.1, rotation=0, shift=0, half_body=0)
    shape = PoseShape(size=(32, 32), cells=(2, 2))
    assert training_data(experiment.model_copy(update={"augmentation": still, "shape": shape}))


@pytest.mark.data
def test_real_people_are_seen_alike_from_packs(data: Path, tmp_path: Path) -> None:
    coco = data / "coco"
    people = read_people(
        coco / "annotations/person_keypoints_val.json", coco / "images", COCO17, smallest=32
    ).people[:40]
    looks = Looks(size=(192, 256), scale=0.35, shift=0.08, half_body=True)
    source = DataSource(annotations=coco, images=coco)
    write_pack(tmp_path / "pack", source, people, None, looks)
    pack = Pack(tmp_path / "pack")
    for one, other in zip(people, pack.people, strict=True):
        assert (one.image_id, one.annotation_id) == (other.image_id, other.annotation_id)

    def examples(packed: bool) -> Examples:
        return Examples(
            pack.people if packed else people, COCO17, (192, 256), "udp",
            augmentation=Augmentation(colour=0, cutout=0),
            pictures=pack.pictures if packed else None,
        )  # fmt: skip

    differences = []
    photos, packed = examples(False), examples(True)
    for index in range(len(people)):
        own, travelled = photos[index], packed[index]
        seen = own["visible"]
        torch.testing.assert_close(
            own["points"][seen], travelled["points"][seen], atol=1e-3, rtol=0
        )
        difference = own["crop"].float() - travelled["crop"].float()
        differences.append(difference.abs().mean().item())
    assert np.mean(differences) < 3
    assert max(differences) < 6


def test_the_part_that_is_packed_is_whole_pixels_of_the_photo(configure: Configure) -> None:
    experiment = configure()
    (person, *_) = read_people(
        experiment.train[0].annotations, experiment.train[0].images, COCO17
    ).people
    photo = read_image(person.image)
    part = Looks.of(experiment).part(person, (photo.shape[1], photo.shape[0]))
    assert isinstance(part, CropGeometry)
    x, y = -part.matrix[:, 2].astype(int)
    np.testing.assert_array_equal(part.cut(photo), photo[y : y + part.height, x : x + part.width])
    np.testing.assert_array_equal(part.to_crop(JOINTS), JOINTS - [x, y])
