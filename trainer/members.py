"""One image out of a tar by its byte range, checked against the tar's own header of it.

The 512 bytes before an image's data are its tar header, so one read brings both. Its name must belong to the row's
key: every sample that is trained on was joined to its label by name, not by position alone.
"""

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from store.errors import JoinError, RelabelError
from store.shards.index import IMAGE_EXTENSIONS, image_digest
from store.shards.remote import Shard
from store.shards.tar import BLOCK
from trainer.ranges import Range, read_ranges

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
