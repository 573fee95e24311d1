import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.features import Features
from models.geometry import Box, CropGeometry
from service.features import Entry, KeptPhoto
from service.photo_bytes import pack, unpack

WEIGHTS = {"fake": "sha256:1"}


def entry(people: str = "pfn", seed: int = 0) -> Entry:
    """People of whom only the crop, it and its mirror image, or nothing at all is kept."""
    random = np.random.default_rng(seed)

    def features(kind: str) -> Features | None:
        plain, mirrored = (random.random((1, 3, 4, 2)).astype(np.float16) for _ in range(2))
        return {"p": Features(plain), "f": Features(plain, mirrored), "n": None}[kind]

    crops = tuple(CropGeometry.from_box(Box(*random.uniform(1, 99, 4)), (48, 64)) for _ in people)
    photo = KeptPhoto(640, 480, "fake", crops, tuple(map(features, people)))
    return Entry("an-id", "me", photo, 1_795_216_745.25)


def same(a: Entry, b: Entry) -> bool:
    def arrays(one: Entry) -> list[np.ndarray | None]:
        kept = [(f.plain, f.mirrored) if f else (None, None) for f in one.photo.features]
        return [array for pair in kept for array in pair]

    return (
        (a.id, a.owner, a.expires, a.photo.size, a.photo.model, a.photo.nbytes)
        == (b.id, b.owner, b.expires, b.photo.size, b.photo.model, b.photo.nbytes)
        and all(
            np.array_equal(x.matrix, y.matrix) and (x.width, x.height) == (y.width, y.height)
            for x, y in zip(a.photo.geometries, b.photo.geometries, strict=True)
        )
        and all(
            x is y is None or (x is not None and y is not None and np.array_equal(x, y))
            for x, y in zip(arrays(a), arrays(b), strict=True)
        )
    )


@given(st.text("pfn", max_size=5), st.integers(0, 9))
def test_what_is_packed_comes_back_bit_by_bit(people: str, seed: int) -> None:
    kept = entry(people, seed)
    back = unpack(pack(kept, "sha256:1"), "an-id", "me", WEIGHTS)
    assert back
    assert same(kept, back)


def test_features_are_two_bytes_a_value_and_little_besides() -> None:
    kept = entry("pp")
    assert len(pack(kept, "sha256:1")) < 2 * 24 * 2 + 700


def test_features_do_not_hold_the_whole_message_in_memory() -> None:
    back = unpack(pack(entry("pp"), "sha256:1"), "an-id", "me", WEIGHTS)
    assert back
    assert all(kept and kept.plain.base is None for kept in back.photo.features)


@pytest.mark.parametrize("weights", [{"fake": "sha256:2"}, {"other": "sha256:1"}, {}])
def test_other_weights_are_a_miss(weights: dict[str, str]) -> None:
    assert unpack(pack(entry(), "sha256:1"), "an-id", "me", weights) is None


@given(st.data())
def test_what_is_cut_off_or_too_long_is_a_miss(data: st.DataObject) -> None:
    whole = pack(entry(), "sha256:1")
    assert unpack(whole + b"\0", "an-id", "me", WEIGHTS) is None
    length = data.draw(st.integers(0, len(whole) - 1))
    assert unpack(whole[:length], "an-id", "me", WEIGHTS) is None


@given(st.binary(max_size=60))
def test_bytes_of_others_are_a_miss(data: bytes) -> None:
    assert unpack(data, "an-id", "me", WEIGHTS) is None
    assert unpack(b"SPF1" + data, "an-id", "me", WEIGHTS) is None
    assert unpack(b"SPF2" + pack(entry(), "sha256:1")[4:], "an-id", "me", WEIGHTS) is None


@pytest.mark.parametrize(
    "damage",
    [
        {"shapes": [[3, 3, 4, 2]]}, {"shapes": [[1, -3, 4, 2]]}, {"shapes": [[1, 1 << 40, 4, 2]]},
        {"shapes": [[1, 24]]}, {"shapes": "x"}, {"crops": []}, {"crops": [[1, 2, 3]]},
        {"size": [1]}, {"expires": None}, {"crops": None},
    ],
)  # fmt: skip
def test_a_header_that_does_not_fit_is_a_miss(damage: dict[str, object]) -> None:
    whole = pack(entry("p"), "sha256:1")
    (length,) = struct.unpack_from("<I", whole, 4)
    header = json.loads(whole[8 : 8 + length]) | damage
    text = json.dumps(header).encode()
    changed = b"SPF1" + struct.pack("<I", len(text)) + text + whole[8 + length :]
    assert unpack(changed, "an-id", "me", WEIGHTS) is None
