import io
import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from store.errors import ImageError
from store.shards.decode import decode_image
from tests.builders.stores import make_jpeg

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def encode(pixels: NDArray[np.generic], kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def test_jpeg_pixels_equal_pillows() -> None:
    data = make_jpeg()
    expected = np.asarray(Image.open(io.BytesIO(data)))
    assert np.array_equal(decode_image(data), expected)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_come_back_exactly(kind: str, options: dict[str, object]) -> None:
    assert np.array_equal(decode_image(encode(PIXELS, kind, **options)), PIXELS)


def test_greyscale_and_cmyk_become_rgb() -> None:
    grey = decode_image(encode(np.full((8, 8), 77, np.uint8), "JPEG"))
    assert grey.shape == (8, 8, 3)
    assert np.abs(grey.astype(int) - 77).max() <= 1
    out = io.BytesIO()
    Image.new("CMYK", (8, 4), (0, 255, 255, 0)).save(out, "JPEG")
    red = decode_image(out.getvalue())
    assert red.shape == (4, 8, 3)
    assert red[0, 0, 0] > 200
    assert red[0, 0, 1] < 60


def test_16_bit_png_is_scaled_not_clipped() -> None:
    values = np.array([[0, 1 << 8, 65_535, 40_000]], np.uint16)
    assert decode_image(encode(values, "PNG"))[0, :, 0].tolist() == [0, 1, 255, 156]


def test_palette_with_transparency_becomes_rgb() -> None:
    image = Image.fromarray(PIXELS).quantize(16)
    image.info["transparency"] = bytes(range(16))
    out = io.BytesIO()
    image.save(out, "PNG")
    assert decode_image(out.getvalue()).shape == PIXELS.shape


def test_exif_orientation_is_ignored() -> None:
    image = Image.fromarray(PIXELS)
    exif = image.getexif()
    exif[0x0112] = 6
    out = io.BytesIO()
    image.save(out, "PNG", exif=exif)
    assert np.array_equal(decode_image(out.getvalue()), PIXELS)


def jpeg_claiming(width: int, height: int) -> bytes:
    data = bytearray(make_jpeg())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def test_bombs_are_refused_by_their_header() -> None:
    with pytest.raises(ImageError, match=r"^the header claims 65000 x 65000"):
        decode_image(jpeg_claiming(65_000, 65_000))
    png = bytearray(encode(PIXELS, "PNG"))
    png[16:24] = struct.pack(">II", 65_000, 65_000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    with pytest.raises(ImageError, match="4225000000 pixels"):
        decode_image(bytes(png))


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8\xff", make_jpeg()[:-200], b"GIF89a" + b"\0" * 50, b"\x89PNG\r\n\x1a\n"]
)
def test_damaged_and_foreign_images_are_refused(data: bytes) -> None:
    with pytest.raises(ImageError):
        decode_image(data)


def test_truncated_png_is_refused() -> None:
    with pytest.raises(ImageError, match="damaged"):
        decode_image(encode(PIXELS, "PNG")[:-60])


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_are_refused(kind: str) -> None:
    frames = [Image.fromarray(np.full((9, 7, 3), value, np.uint8)) for value in (10, 200, 90)]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="an animation of 3 frames, expected one image"):
        decode_image(file.getvalue())


def test_images_without_pixels_are_refused() -> None:
    file = io.BytesIO()
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(file, "PNG")
    data = bytearray(file.getvalue())
    data[16:20] = bytes(4)  # the width in the header
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    for image in (bytes(data), b""):
        with pytest.raises(ImageError):
            decode_image(image)
