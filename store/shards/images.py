"""Decoding images from hostile bytes. Pillow and simplejpeg are imported on first use: looking at maps needs neither.

EXIF orientation is ignored here as everywhere, so that boxes, label maps and crops share one frame.
"""

import io
import os
import tarfile
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from store.errors import ImageError, JoinError, RelabelError
from store.shards.index import IMAGE_EXTENSIONS, image_digest
from store.shards.remote import RemoteShard, Shard
from store.shards.tar import BLOCK

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


# One image out of a tar by its byte range, checked against the tar's own header of it.
#
# The 512 bytes before an image's data are its tar header, so one read brings both. Its name must belong to the row's
# key: every sample that is trained on was joined to its label by name, not by position alone.


NAME_BYTES = 100  # of a ustar header's name field


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageMember:
    """Where the labels say that a row's image lies."""

    row: int
    key: str
    offset: int  # of the image's first byte in the tar
    length: int  # bytes
    digest: int  # BLAKE2b-64 of the image's bytes, little-endian


def read_images(wanted: Sequence[tuple[Shard, ImageMember]]) -> Iterator[bytes]:
    """The bytes of images, in order; all of them are asked for at once.

    Raises:
        JoinError: another member lies there, or the shard cannot be read that far.
    """
    ranges = (Range(shard, member.offset - BLOCK, BLOCK + member.length) for shard, member in wanted)
    found = read_ranges(list(ranges))
    for shard, member in wanted:
        try:
            data = next(found)
        except RelabelError:
            raise
        except OSError as error:
            raise JoinError(f"{shard}: cannot be read: {error.strerror or error}") from error
        yield _checked(shard, member, data[:BLOCK], data[BLOCK:])


def _checked(shard: Shard, member: ImageMember, header: bytes, image: bytes) -> bytes:
    """The image, if it is the row's."""
    found = _member_name(header, member.length)
    if len(image) != member.length or found is None or not _belongs(found, header, image, member):
        what = "no image of that size" if found is None else repr(found)
        raise JoinError(
            f"{shard}: row {member.row} of its labels is {member.key!r}, the shard holds {what} there; "
            "the shard changed after it was annotated: annotate it again (--overwrite with only this shard)"
        )
    return image


def _member_name(header: bytes, length: int) -> str | None:
    """The name in a tar header, None where there is no header of a file of this length."""
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    return info.name if info.size == length else None


def _belongs(name: str, header: bytes, image: bytes, member: ImageMember) -> bool:
    """Whether a member of this name is the image of the row's key."""
    key, _, extension = name.rpartition(".")
    if key == member.key and extension.lower() in IMAGE_EXTENSIONS:
        return True
    # Names that this header cannot hold whole stand in an extended header before it; it keeps their first 100 bytes,
    # or "?" for what is not ASCII. There the digest of the image's bytes decides.
    shortened = b"\0" not in header[:NAME_BYTES] or not member.key.isascii()
    return shortened and image_digest(image) == member.digest


# Ranges of shards' bytes, never more than a shard has: lengths and places may come from hostile files.
#
# Many are asked for at once, so that a slow disk or a server is waited for once and not for each of them.


REQUESTS = 16  # to servers at the same time, of each process


class Range(NamedTuple):
    """`size` bytes of a shard from `start` on."""

    shard: Shard
    start: int
    size: int


def read_range(path: Path, start: int, count: int) -> bytes:
    """`count` bytes from `start` on; fewer or none where the file does not hold so many there.

    Raises:
        OSError: the file cannot be read.
    """
    return next(_read_files([Range(path, start, count)]))


def read_ranges(ranges: Sequence[Range]) -> Iterator[bytes]:
    """What each range holds, in order; an OSError comes in the turn of the range that cannot be read."""
    files = _read_files([wanted for wanted in ranges if not isinstance(wanted.shard, RemoteShard)])
    objects = _read_objects([wanted for wanted in ranges if isinstance(wanted.shard, RemoteShard)])
    for wanted in ranges:
        yield next(objects if isinstance(wanted.shard, RemoteShard) else files)


def _read_files(ranges: Sequence[Range]) -> Iterator[bytes]:
    opened = [_open(wanted) for wanted in ranges]
    try:
        for (_, start, size), handle in zip(ranges, opened, strict=True):
            if isinstance(handle, OSError):
                raise handle
            held = os.fstat(handle).st_size - start
            yield os.pread(handle, min(size, held), start) if start >= 0 and held > 0 else b""
    finally:
        for handle in opened:
            if isinstance(handle, int):
                os.close(handle)


def _open(wanted: Range) -> int | OSError:
    """A handle of the file, which the kernel has been told to fetch the range of."""
    try:
        handle = os.open(str(wanted.shard), os.O_RDONLY)
    except OSError as error:
        return error
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError, OverflowError):  # of a range that cannot be
            os.posix_fadvise(handle, wanted.start, wanted.size, os.POSIX_FADV_WILLNEED)
    return handle


def _read_objects(ranges: Sequence[Range]) -> Iterator[bytes]:
    with ThreadPoolExecutor(REQUESTS, thread_name_prefix="request") as threads:
        yield from threads.map(_read_object, ranges)


def _read_object(wanted: Range) -> bytes:
    assert isinstance(wanted.shard, RemoteShard)
    return wanted.shard.read_range(wanted.start, wanted.size)
