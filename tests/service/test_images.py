import io
import json
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.images import LONGEST_SIDE, PostedImage, quick
from service.problems import TooManyPixels, UnreadableImage, UnsupportedImage

PLENTY = 10_000_000
RNG = np.random.default_rng(7)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def decode(data: bytes) -> np.ndarray:
    return PostedImage(data, PLENTY).pixels()


def scene(width: int = 40, height: int = 24) -> Image.Image:
    """Smooth, so that JPEG keeps it, and different in every corner."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_lossless_kinds_come_back_exactly(kind: str, options: dict[str, object]) -> None:
    np.testing.assert_array_equal(decode(encode(scene(), kind, **options)), np.asarray(scene()))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 2}])
def test_jpeg_comes_back_closely(options: dict[str, object]) -> None:
    pixels = decode(encode(scene(), "JPEG", quality=95, **options))
    assert np.abs(pixels.astype(int) - np.asarray(scene())).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_exif_orientation_is_undone(kind: str, orientation: int) -> None:
    # A plain check by Pillow's own table of what each value means.
    stored = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = scene() if stored is None else scene().transpose(stored)
    pixels = decode(encode(image, kind, exif=exif.tobytes(), quality=95))
    assert pixels.shape == (24, 40, 3)
    assert np.abs(pixels.astype(int) - np.asarray(scene())).mean() < 6


def test_a_meaningless_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    np.testing.assert_array_equal(decode(encode(scene(), exif=exif.tobytes())), np.asarray(scene()))


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    wide = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    pixels = decode(encode(Image.fromarray(wide)))
    np.testing.assert_array_equal(pixels[..., 0], np.round(wide / 257).astype(np.uint8))
    assert pixels.shape == (8, 8, 3)


def png16(rows: np.ndarray, colour_type: int) -> bytes:
    """A 16-bit png, which Pillow does not write in colour."""
    height, width, _ = rows.shape
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    )  # fmt: skip


def test_sixteen_bit_colour_is_scaled() -> None:
    wide = RNG.integers(0, 65536, (5, 7, 3)).astype(np.uint16)
    pixels = decode(png16(wide, colour_type=2))
    assert np.abs(pixels.astype(int) - np.round(wide / 257)).max() <= 1


def test_sixteen_bit_alpha_lies_over_white() -> None:
    wide = np.zeros((2, 2, 4), np.uint16)
    wide[0, :, 3] = 65535
    pixels = decode(png16(wide, colour_type=6))
    assert pixels[0].max() == 0
    assert pixels[1].min() == 255


def test_cmyk_is_converted() -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red, green, blue = decode(encode(image, "JPEG", quality=95))[4, 4]
    assert red > 200
    assert max(green, blue) < 60


def test_grey_has_three_equal_channels() -> None:
    for kind in ("PNG", "JPEG"):
        pixels = decode(encode(scene().convert("L"), kind))
        assert pixels.shape == (24, 40, 3)
        np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


def test_bilevel_is_black_and_white() -> None:
    image = Image.new("1", (4, 4), 1)
    assert decode(encode(image)).min() == 255


def test_palette_is_looked_up() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert decode(encode(image))[0, 0].tolist() == [10, 20, 30]


def test_a_palettes_transparency_lies_over_white() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    data = encode(image, transparency=bytes([255, 0]))
    assert decode(data)[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_alpha_lies_over_white(kind: str) -> None:
    image = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    image.paste((200, 0, 0, 255), (0, 0, 4, 8))
    pixels = decode(encode(image, kind, lossless=True))
    assert pixels[4, 1].tolist() == [200, 0, 0]
    assert pixels[4, 6].tolist() == [255, 255, 255]


def test_of_an_animation_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for kind in ("PNG", "WEBP"):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
        assert decode(data)[4, 4].tolist() == [255, 0, 0]


def test_one_pixel_is_an_image() -> None:
    assert decode(encode(Image.new("RGB", (1, 1), "red"))).shape == (1, 1, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.9])
def test_truncated_bytes_are_unreadable(kind: str, part: float) -> None:
    noise = Image.fromarray(RNG.integers(0, 256, (64, 64, 3)).astype(np.uint8))
    data = encode(noise, kind)
    with pytest.raises(UnreadableImage, match="truncated or corrupt"):
        decode(data[: max(12, int(len(data) * part))])


def test_a_jpeg_with_stray_bytes_between_segments_is_read() -> None:
    data = encode(scene(), "JPEG")
    # After SOI and the first segment, where decoders skip to the next marker.
    length = int.from_bytes(data[4:6], "big")
    stray = data[: 4 + length] + b"\0\0\0" + data[4 + length :]
    assert decode(stray).shape == (24, 40, 3)


@pytest.mark.parametrize("data", [b"GIF89a" + b"\0" * 20, b"<svg/>", b"BM" + b"\0" * 60, b"\0"])
def test_other_kinds_are_unsupported(data: bytes) -> None:
    with pytest.raises(UnsupportedImage, match="JPEG, PNG or WebP"):
        decode(data)


def test_nothing_is_unreadable() -> None:
    with pytest.raises(UnreadableImage, match="empty"):
        decode(b"")


def app2(content: bytes) -> bytes:
    return b"\xff\xe2" + struct.pack(">H", len(content) + 2) + content


@pytest.mark.parametrize(
    ("stuffing", "soon"),
    [
        (b"", True),
        (b"\xff" * 9, True),
        (b"\xff\x00" * 9, True),
        (b"stray", True),
        (app2(b"MPF\0" + bytes(90)) * 100, True),
        (
            b"".join(app2(b"ICC_PROFILE\0%c\x64" % (i + 1) + bytes(60_000)) for i in range(100)),
            False,
        ),
        (b"\xff" * 9_000, False),
    ],
)
def test_what_real_jpegs_have_before_their_pixels_is_read(stuffing: bytes, soon: bool) -> None:
    plain = encode(scene(), "JPEG", quality=95)
    # Before the tables, and behind all that tells the size.
    for at in map(plain.index, (b"\xff\xdb", b"\xff\xda")):
        data = plain[:at] + stuffing + plain[at:]
        assert quick(data) == soon
        np.testing.assert_array_equal(decode(data), decode(plain))


@pytest.mark.parametrize(
    "stuffing",
    [b"\xff", b"\xff\x00", b"\0", b"\xff\xd8", app2(b""), b"\xff\xdb\x00\x43" + bytes(65)],
    ids=repr,
)
def test_a_jpeg_whose_header_has_no_end_is_not_read(stuffing: bytes) -> None:
    plain = encode(scene(), "JPEG")
    for at in map(plain.index, (b"\xff\xdb", b"\xff\xda")):
        data = plain[:at] + stuffing * 100_000
        assert not quick(data)
        with pytest.raises(UnreadableImage, match="no end of its header"):
            PostedImage(data, PLENTY)


def bomb(width: int, height: int) -> bytes:
    """A small png whose header promises many pixels, honestly: it decodes to zeros."""
    return png16(np.zeros((1, 1, 3), np.uint16), 2).replace(
        struct.pack(">II", 1, 1), struct.pack(">II", width, height)
    )


def refreshed(data: bytes) -> bytes:
    """With the header's checksum made right again."""
    header = data[12:29]
    return data[:29] + struct.pack(">I", zlib.crc32(header)) + data[33:]


@pytest.mark.parametrize("size", [(14_000, 14_000), (8_000, 7_000), (LONGEST_SIDE + 1, 1)])
def test_too_many_pixels_are_refused_from_the_header(size: tuple[int, int]) -> None:
    data = refreshed(bomb(*size))
    tracemalloc.start()
    with pytest.raises(TooManyPixels):
        PostedImage(data, 50_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def bytes_held(tmp_path: Path, images: Mapping[str, bytes]) -> dict[str, tuple[float, float]]:
    """By name, what decoding was said to hold at its peak and what a fresh process did hold."""
    for name, data in images.items():
        (tmp_path / name).write_bytes(data)
    script = """
import json, re, sys
from pathlib import Path
from service.images import PostedImage
from service.memory import give_back_large_blocks

def resident(which):
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(which + r":\\s+(\\d+) kB", status)[1])

assert give_back_large_blocks()
held = {}
for again in range(2):  # the first time loads what decodes
    for file in Path(sys.argv[1]).iterdir():
        data = file.read_bytes()
        Path("/proc/self/clear_refs").write_text("5")  # the peak is now what there is
        before, posted = resident("VmRSS"), PostedImage(data, 10**8)
        posted.pixels()
        held[file.name] = posted.nbytes, resident("VmHWM") - before
print(json.dumps(held))
"""
    ran = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, check=True)
    return {name: tuple(held) for name, held in json.loads(ran.stdout).items()}


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_decoding_holds_what_it_said_and_gives_it_back(tmp_path: Path) -> None:
    scene_ = scene(2000, 2000)
    grey, alpha = scene_.convert("L"), scene_.convert("RGBA")
    turned = Image.Exif()
    turned[0x0112] = 6
    images = {
        "rgb": encode(scene_, compress_level=1),
        "rgba": encode(alpha, compress_level=1),
        "grey": encode(grey, compress_level=1),
        "sixteen": encode(Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)),
        "palette": encode(grey.convert("P"), transparency=bytes([255, 0])),
        "animated": encode(alpha, save_all=True, append_images=[alpha.rotate(90)], disposal=2),
        "jpeg": encode(scene_, "JPEG"),
        "jpeg turned": encode(scene_, "JPEG", exif=turned.tobytes()),
        "jpeg progressive": encode(scene_, "JPEG", progressive=True, subsampling=0),
        "cmyk": encode(scene_.convert("CMYK"), "JPEG", progressive=True),
        "webp": encode(alpha, "WEBP", method=0),
        "webp lossless": encode(alpha, "WEBP", lossless=True, method=0, quality=0),
    }
    held = bytes_held(tmp_path, images)
    assert set(held) == set(images)
    strips = 8e6
    for name, (said, there) in held.items():
        assert 0.6 * said < there < said + strips, name


def test_pillows_warnings_do_not_leak() -> None:
    image = refreshed(bomb(9_500, 9_500))  # Pillow warns of a bomb from 89 megapixels on
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TooManyPixels):
            PostedImage(image, 50_000_000)
