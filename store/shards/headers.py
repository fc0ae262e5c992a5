"""What JPEG and PNG files say of themselves before anything is decoded. Their bytes are hostile."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from store.errors import ImageError

# JPEG: 0xff and a marker. 0xff00 is a byte of data, and restart markers (d0 to d7) stand in the middle of data.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_WITHOUT_LENGTH = frozenset({0x01, 0xD8})

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = frozenset({b"tRNS", b"acTL", b"fcTL", b"fdAT"})  # ancillary chunks that concern pixels and frames


class JpegFrame(NamedTuple):
    """The size of a JPEG and the work of decoding it."""

    width: int
    height: int
    components: int
    scans: int  # each goes over the pixels again


def jpeg_frame(data: bytes) -> JpegFrame:
    """The frame header of a JPEG, and the number of its scans.

    Raises:
        ImageError: no frame header.
    """
    found, is_progressive, scans = b"", False, 0
    for marker, _, at in _segments(data):
        if marker in _START_OF_FRAME and not found:
            found, is_progressive = data[at + 3 : at + 8], marker in _PROGRESSIVE
        if marker == _START_OF_SCAN:
            scans += 1
            if not is_progressive and data[at + 2 : at + 3] == found[4:]:  # with all components: there is no other
                break
    if len(found) < 5:
        raise ImageError("damaged JPEG: no frame header")
    height, width = int.from_bytes(found[:2], "big"), int.from_bytes(found[2:4], "big")
    return JpegFrame(width, height, found[4], scans)


def jpeg_end(data: bytes) -> int | None:
    """Where the marker at a JPEG's end begins; None without one. Phones put previews and videos after it."""
    return next((start for marker, start, _ in _segments(data) if marker == _END_OF_IMAGE), None)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The markers of a JPEG up to its end, with the positions where each begins and where its segment does."""
    at, marker = 2, 0
    while marker != _END_OF_IMAGE and (match := _MARKER.search(data, at)):
        marker, at = data[match.end() - 1], match.end()
        yield marker, match.start(), at
        if marker not in _WITHOUT_LENGTH:
            at += max(int.from_bytes(data[at : at + 2], "big"), 2)


def png_without_notes(data: bytes) -> bytes:
    """A PNG without the chunks that do not concern its pixels, such as texts and colour profiles.

    Pillow refuses an image for a profile above 1 MiB, or a damaged text. A chunk that is cut short is kept, so that it
    is found to be damage.
    """
    parts, at = [data[: len(PNG_MAGIC)]], len(PNG_MAGIC)
    while at < len(data):
        kind = data[at + 4 : at + 8]
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")  # length, kind, content and checksum
        is_note = kind.isalpha() and kind[:1].islower() and kind not in _PNG_KEPT and end <= len(data)
        if not is_note:
            parts.append(data[at:end])
        at = end
    return b"".join(parts)
