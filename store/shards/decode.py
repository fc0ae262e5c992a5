"""Decode images to RGB pixels. Their bytes are hostile.

Pillow and simplejpeg are imported when the first image is decoded: printing label maps needs neither.
EXIF orientation is ignored here as everywhere, so that boxes, label maps and crops use the same coordinates.
"""

import io
import warnings

import numpy as np
from numpy.typing import NDArray

from store.errors import ImageError

MAX_PIXELS = 80_000_000  # a larger header is taken for a decompression bomb
JPEG_MAGIC = b"\xff\xd8\xff"
PILLOW_FORMATS = ("PNG", "WEBP")
SIMPLEJPEG_COLOURS = ("RGB", "YCbCr", "Gray")


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG, PNG or WebP image, told apart by its magic bytes.

    Returns:
        (H, W, 3) uint8, RGB. Greyscale, palette, CMYK and 16-bit images are converted; alpha is dropped.

    Raises:
        ImageError: damaged, truncated, animated, of another format, or larger than `MAX_PIXELS`.
    """
    if not data.startswith(JPEG_MAGIC):
        return _decode_pillow(data, PILLOW_FORMATS)
    import simplejpeg

    try:
        height, width, colour, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(width, height)
        if colour not in SIMPLEJPEG_COLOURS:  # CMYK and YCCK
            return _decode_pillow(data, ("JPEG",))
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB")
    except ImageError:
        raise
    except ValueError as error:
        raise ImageError(f"damaged JPEG: {error}") from error
    return pixels


def _check_size(width: int, height: int) -> None:
    if min(width, height) < 1:
        raise ImageError(f"an image of {width} x {height} pixels")
    if width * height > MAX_PIXELS:
        raise ImageError(f"the header claims {width} x {height} pixels, more than {MAX_PIXELS:,}")


def _decode_pillow(data: bytes, formats: tuple[str, ...]) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=formats) as image:
            _check_size(*image.size)
            if (frames := getattr(image, "n_frames", 1)) > 1:
                raise ImageError(f"an animation of {frames} frames, expected one image")
            if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip
                grey = (np.asarray(image) >> 8).astype(np.uint8)
                return np.repeat(grey[:, :, None], 3, axis=2)
            # A palette's transparency has to be resolved before its alpha can be dropped.
            opaque = image.convert("RGBA") if image.mode == "P" else image
            return np.asarray(opaque.convert("RGB"))
    except UnidentifiedImageError as error:
        raise ImageError("not a readable JPEG, PNG or WebP image") from error
    except ImageError:
        raise
    except Exception as error:  # Pillow's plugins raise whatever a hostile chunk makes them raise
        raise ImageError(f"damaged image: {error}") from error
