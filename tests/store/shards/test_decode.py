import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from store.errors import ImageError
from store.shards.decode import decode_image
from tests.builders.jpegs import COMMENT, END, SOS, claiming, sampled_jpeg, segment, with_scans
from tests.builders.paths import ROOT
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


def test_bombs_are_refused_by_their_header() -> None:
    with pytest.raises(ImageError, match=r"^the header claims 65000 x 65000"):
        decode_image(claiming(make_jpeg(), 65_000, 65_000))
    png = bytearray(encode(PIXELS, "PNG"))
    png[16:24] = struct.pack(">II", 65_000, 65_000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    with pytest.raises(ImageError, match="4225000000 pixels"):
        decode_image(bytes(png))
    webp = bytearray(encode(PIXELS, "WEBP"))
    webp[26:30] = struct.pack("<HH", 8_000, 8_000)
    with pytest.raises(ImageError, match=r"^the header claims 8000 x 8000 pixels, more than 53,687,091$"):
        decode_image(bytes(webp))


PROGRESSIVE = encode(PIXELS, "JPEG", progressive=True)  # of ten scans


@pytest.mark.parametrize("before", [b"", segment(COMMENT, END)])
def test_scans_are_bounded_by_the_pixels_that_each_goes_over(before: bytes) -> None:
    """A few kilobytes could take minutes otherwise; an end of the image within a comment is none."""
    assert decode_image(PROGRESSIVE).shape == PIXELS.shape
    bomb = claiming(with_scans(PROGRESSIVE, 41, before=before), 4000, 4000)
    with pytest.raises(ImageError, match=r"^51 scans of 4000 x 4000 pixels, more than 800,000,000 pixels in all$"):
        decode_image(bomb)


def test_what_follows_the_end_of_a_jpeg_is_no_part_of_it() -> None:
    """Phones put previews and videos there."""
    assert np.array_equal(decode_image(PROGRESSIVE + 5_000 * (SOS + b"\0\2")), decode_image(PROGRESSIVE))


SAMPLINGS = [((h, v), (1, 1), (1, 1)) for h in range(1, 5) for v in range(1, 5) if h * v <= 8]


@pytest.mark.parametrize(
    "samplings", [*SAMPLINGS, ((2, 2), (2, 1), (1, 1)), ((1, 1), (2, 2), (2, 2)), ((2, 2), (1, 1), (1, 1), (1, 1))]
)
def test_every_sampling_of_a_jpeg_has_pillows_pixels(samplings: Sequence[tuple[int, int]]) -> None:
    """simplejpeg knows some, ends with a KeyError for 1 x 4, and calls the others damaged."""
    data = sampled_jpeg(samplings)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(decode_image(data), expected)


@pytest.mark.parametrize("samplings", SAMPLINGS)
def test_damage_of_a_jpeg_is_found_whatever_its_sampling(samplings: Sequence[tuple[int, int]]) -> None:
    """Pillow alone gives pixels for all of these but the last."""
    data = sampled_jpeg(samplings)
    middle = (data.index(SOS) + len(data)) // 2
    for damaged in (
        data[:middle] + END,
        data[:middle] + data[middle + 50 :],
        data[:-2] + bytes(50) + END,
        data[:middle],
    ):
        with pytest.raises(ImageError, match="damaged"):
            decode_image(damaged)


@pytest.mark.parametrize("error", [KeyError(6), IndexError(), ValueError("no"), RuntimeError("x")])
def test_every_error_of_a_decoder_is_the_images(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    for function, data in (("simplejpeg.decode_jpeg", make_jpeg()), ("PIL.Image.open", encode(PIXELS, "PNG"))):
        monkeypatch.setattr(function, fail)
        with pytest.raises(ImageError, match=r"^damaged"):
            decode_image(data)


def chunk(kind: bytes, content: bytes, *, crc: int | None = None) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc or zlib.crc32(kind + content))


BIG_TEXT = zlib.compress(bytes(2_000_000))


@pytest.mark.parametrize(
    "note",
    [
        chunk(b"iCCP", b"p\0\0" + BIG_TEXT),
        chunk(b"zTXt", b"p\0\0" + BIG_TEXT),
        chunk(b"tEXt", b"a\0b", crc=1),
        chunk(b"eXIf", b"\xff" * 9),
    ],
)
@pytest.mark.parametrize("at", [33, -12])  # behind the header, before the end
def test_notes_in_a_png_do_not_matter(note: bytes, at: int) -> None:
    png = encode(PIXELS, "PNG")
    assert np.array_equal(decode_image(png[:at] + note + png[at:]), PIXELS)


def test_damaged_chunks_of_a_png_matter() -> None:
    png = encode(PIXELS, "PNG")
    data = png.index(b"IDAT")
    for damaged in (
        png[:data] + b"iDAT" + png[data + 4 :],
        png[:29] + bytes(4) + png[33:],
        png[:33] + b"\xff" + png[33:],
    ):
        with pytest.raises(ImageError):
            decode_image(damaged)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_tall_images_are_converted_like_others(mode: str) -> None:
    """Some rows at a time."""
    grey = np.arange(600 * 3, dtype=np.uint16).reshape(600, 3) * 36
    image = Image.fromarray(grey) if mode == "I;16" else Image.fromarray((grey >> 8).astype(np.uint8)).convert(mode)
    file = io.BytesIO()
    image.save(file, "PNG")
    rgb = np.repeat((grey >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    expected = np.asarray(image.convert("RGB")) if mode == "1" else rgb
    assert np.array_equal(decode_image(file.getvalue()), expected)


LITTLE_MEMORY = """
import resource, sys
from store.shards.decode import decode_image
small, image = open(sys.argv[1], "rb").read(), open(sys.argv[2], "rb").read()
decode_image(small)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (int(sys.argv[3]) << 20),) * 2)
try:
    decode_image(image)
except MemoryError as error:
    print("MemoryError")
"""


@pytest.mark.parametrize(
    ("kind", "options", "mebibytes"), [("JPEG", {}, 8), ("JPEG", {"progressive": True}, 60), ("PNG", {}, 8)]
)
def test_lack_of_memory_is_no_fault_of_the_image(
    tmp_path: Path, kind: str, options: dict[str, object], mebibytes: int
) -> None:
    for name, side in (("small", 8), ("large", 4000)):
        (tmp_path / name).write_bytes(encode(np.zeros((side, side, 3), np.uint8), kind, **options))
    files = [str(tmp_path / "small"), str(tmp_path / "large")]
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY, *files, str(mebibytes)],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("MemoryError\n", "")


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


def test_cmyk_jpeg_that_was_cut_short_and_closed_is_damaged() -> None:
    out = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 4)).astype(np.uint8)
    Image.fromarray(pixels, "CMYK").save(out, "JPEG")
    assert decode_image(out.getvalue()).shape == (64, 64, 3)
    for cut in (200, 1000):
        with pytest.raises(ImageError, match="damaged"):
            decode_image(out.getvalue()[:-cut] + b"\xff\xd9")
