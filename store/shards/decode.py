"""Decode images to RGB pixels. Their bytes are hostile.

What decoding may cost is bounded by the header, before it begins: time by pixels and scans, memory by pixels, to about
1 GiB an image. Pillow and simplejpeg are imported when the first image is decoded: printing label maps needs neither.
EXIF orientation is ignored here as everywhere, so that boxes, label maps and crops use the same coordinates.
"""

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from store.errors import ImageError
from store.foreign import JPEG_NO_MEMORY, UNKNOWN_SAMPLING, says
from store.shards.headers import PNG_MAGIC, jpeg_end, jpeg_frame, png_without_notes
from store.text import typed_line

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 80_000_000  # a larger header is taken for a decompression bomb
MAX_WEBP_PIXELS = 2**30 // 20  # Pillow needs up to 20 bytes a pixel; phones take photographs of 50 megapixels
MAX_SCANNED = 10 * MAX_PIXELS  # scans times pixels; encoders write up to 10 scans for progressive photographs
JPEG_MAGIC = b"\xff\xd8\xff"
SIMPLEJPEG_COMPONENTS = (1, 3)  # 4: CMYK and YCCK
LAST_BYTES = 32  # of a JPEG's data: those of several blocks
BAND_ROWS = 256  # converted at a time


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG, PNG or WebP image, as its first bytes say.

    Returns:
        (H, W, 3) uint8, RGB. Greyscale, palette, CMYK and 16-bit images are converted; alpha is dropped.

    Raises:
        ImageError: damaged, truncated, animated, of another format, or larger than `MAX_PIXELS`, `MAX_WEBP_PIXELS` or
            `MAX_SCANNED`. No other error of a decoder passes, but
        MemoryError: this process has too little memory, which is no fault of the image.
    """
    if data.startswith(JPEG_MAGIC):
        return _decode_jpeg(data)
    if data.startswith(PNG_MAGIC):
        return _decode_pillow(png_without_notes(data), "PNG", MAX_PIXELS)
    return _decode_pillow(data, "WEBP", MAX_WEBP_PIXELS)


def _decode_jpeg(data: bytes) -> NDArray[np.uint8]:
    """Decode with simplejpeg, which refuses damage that Pillow does not see; with Pillow where it lacks the feature."""
    import simplejpeg

    frame = jpeg_frame(data)
    _check_size(frame.width, frame.height, MAX_PIXELS)
    if frame.scans * frame.width * frame.height > MAX_SCANNED:
        raise ImageError(
            f"{frame.scans} scans of {frame.width} x {frame.height} pixels, more than {MAX_SCANNED:,} pixels in all"
        )
    if frame.components not in SIMPLEJPEG_COMPONENTS:
        return _decode_unusual_jpeg(data, frame.scans)
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB")
        return pixels
    except MemoryError:
        raise
    except Exception as error:
        if says(error, UNKNOWN_SAMPLING):
            return _decode_unusual_jpeg(data, frame.scans)
        if says(error, JPEG_NO_MEMORY):
            raise MemoryError(str(error)) from error
        reason = str(error) if isinstance(error, ValueError) else typed_line(error)
        raise ImageError(f"damaged JPEG: {reason}") from error


def _decode_unusual_jpeg(data: bytes, scans: int) -> NDArray[np.uint8]:
    """Decode a JPEG whose sampling simplejpeg does not know, and refuse damage that Pillow overlooks.

    The decoder of damaged data most often ends before or after their end. Data that are read exactly to their end give
    the same pixels when something follows them, and others when the last bytes are missing.
    """
    pixels = _decode_pillow(data, "JPEG", MAX_PIXELS)
    if (end := jpeg_end(data)) is None:
        raise ImageError("damaged JPEG: no end of the image")
    followed = data[:end] + LAST_BYTES * b"\x5a" + data[end:]
    shortened = data[: end - LAST_BYTES] + data[end:]
    is_read_whole = scans > 1 or not _decodes_to(shortened, pixels)
    if not is_read_whole or not _decodes_to(followed, pixels):
        raise ImageError("damaged JPEG: its data do not end where its last pixels do")
    return pixels


def _decodes_to(data: bytes, pixels: NDArray[np.uint8]) -> bool:
    try:
        return np.array_equal(_decode_pillow(data, "JPEG", MAX_PIXELS), pixels)
    except ImageError:
        return False


def _check_size(width: int, height: int, most: int) -> None:
    if min(width, height) < 1:
        raise ImageError(f"an image of {width} x {height} pixels")
    if width * height > most:
        raise ImageError(f"the header claims {width} x {height} pixels, more than {most:,}")


def _decode_pillow(data: bytes, kind: str, max_pixels: int) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=[kind]) as image:
            _check_size(*image.size, max_pixels)
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and kind != "JPEG":  # further pictures in a JPEG are previews
                raise ImageError(f"an animation of {frames} frames, expected one image")
            image.load()
            return _rgb(image)
    except UnidentifiedImageError as error:
        raise ImageError("not a readable JPEG, PNG or WebP image") from error
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # Pillow's plugins raise many types on hostile chunks
        raise ImageError(f"damaged image: {error}") from error


def _rgb(image: "Image.Image") -> NDArray[np.uint8]:
    """The pixels, some rows at a time: Pillow holds an image several times while it converts it."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, BAND_ROWS):
        band = image.crop((0, top, image.width, min(top + BAND_ROWS, image.height)))
        if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip
            rgb = (np.asarray(band) >> 8).astype(np.uint8)[:, :, None]
        else:
            # A palette's transparency has to be resolved before its alpha can be dropped.
            rgb = np.asarray((band.convert("RGBA") if image.mode == "P" else band).convert("RGB"))
        pixels[top : top + band.height] = rgb
    return pixels
