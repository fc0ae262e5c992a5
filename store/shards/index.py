"""Index an image shard: key, label and byte range of every sample that WebDataset would read, or an error.

WebDataset's own iterator ends silently at a truncated or damaged tar and merges keys that contain dots. This index
checks the byte count, every header's checksum and the end-of-archive blocks, and refuses ambiguous samples.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from store.errors import ChangedShardError, ShardError
from store.format.schema import GROUP_NAME, TarIdentity, is_group_name
from store.shards.remote import Shard
from store.shards.tar import DamagedTarError, Member, TarReader, members
from store.text import first_few

IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp"})
LABEL_EXTENSION = "cls"
NO_LABEL = -1
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
MAX_LABEL_BYTES = 32


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of a shard: its key, label, and the byte range of its image in the tar."""

    key: str
    offset: int  # of the image's first byte in the tar
    length: int  # bytes of the image
    label: int  # from the `.cls` member, -1 if there is none or it holds -1


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardIndex:
    """A shard that was read to its end and is undamaged."""

    source: Shard  # as the user named it
    path: Path  # of a local file with its bytes
    name: str
    size: int  # bytes
    mtime_ns: int
    inode: int  # 0 if the source is not a local file
    sha256: str | None  # of the whole tar; None when it was indexed without hashing
    samples: tuple[Sample, ...]

    def identity(self) -> TarIdentity:
        """The shard as the commit record of its labels names it; without a sha256 if it was not hashed."""
        return TarIdentity(size=self.size, mtime_ns=self.mtime_ns, sha256=self.sha256 or "")


def shard_name(path: Shard) -> str:
    """The name of the shard and of its label group.

    Raises:
        ShardError: not `*.tar`, or not a possible name of a group.
    """
    name = path.name.removesuffix(".tar")
    if name == path.name:
        raise ShardError(f"{path}: a shard is an uncompressed tar named *.tar")
    if not is_group_name(name):
        raise ShardError(f"{path}: the name must match {GROUP_NAME.pattern}; rename the shard")
    return name


def index_shard(path: Path, *, hashed: bool = False, source: Shard | None = None) -> ShardIndex:
    """Read all headers of a shard and, when `hashed`, every byte for its sha256.

    Args:
        path: a local file.
        hashed: read every byte.
        source: the shard that the file is a copy of, for messages; None for the file itself.

    Raises:
        ShardError: missing, unreadable, compressed, damaged, truncated or ambiguous; the message says which.
    """
    source = source or path
    name = shard_name(source)
    with _open_tar(path, source, hashlib.sha256() if hashed else None) as tar:
        before = os.fstat(tar.file.fileno())
        samples = _samples(members(tar, lambda member: _split_name(member)[1] == LABEL_EXTENSION))
    if not samples:
        raise ShardError(f"{source}: holds no samples")
    return ShardIndex(
        source=source,
        path=path,
        name=name,
        size=before.st_size,
        mtime_ns=before.st_mtime_ns,
        inode=before.st_ino if source == path else 0,
        sha256=tar.hash.hexdigest() if tar.hash else None,
        samples=samples,
    )


def tar_members(path: Path) -> Iterator[Member]:
    """Name, offset and size of every file in an uncompressed tar, which need not be an image shard.

    Raises:
        ShardError: as `index_shard`, at the member where the tar is damaged.
    """
    with _open_tar(path, path, None) as tar:
        yield from members(tar, lambda _: False)


def check_unchanged(index: ShardIndex) -> None:
    """Raise ChangedShardError if the shard was replaced or touched since it was indexed, ShardError if it is gone."""
    try:
        unchanged = is_unchanged(index)
    except FileNotFoundError as error:
        raise ShardError(f"{index.source}: vanished while it was being read") from error
    except OSError as error:
        raise ShardError(f"{index.source}: cannot be read: {error.strerror or error}") from error
    if not unchanged:
        raise ChangedShardError(f"{index.source}: changed while it was being read; run again once it is complete")


def is_unchanged(index: ShardIndex) -> bool:
    """Whether the shard is the file that was indexed, by size, time and inode; OSError if it cannot be asked."""
    now = index.source.stat()
    inode = now.st_ino if isinstance(now, os.stat_result) else 0
    return (now.st_size, now.st_mtime_ns, inode) == (index.size, index.mtime_ns, index.inode)


def image_digest(data: bytes) -> int:
    """BLAKE2b-64 of an image's bytes, as a little-endian integer."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def hash_file(path: Path) -> str:
    """Hex sha256 of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _open_tar(path: Path, source: Shard, digest: "hashlib._Hash | None") -> Iterator[TarReader]:
    """Open a tar at its start; damage becomes a ShardError that names the shard."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
            file.seek(0)
            if kind := next((kind for magic, kind in COMPRESSED.items() if start.startswith(magic)), None):
                raise DamagedTarError(f"compressed with {kind}; decompress it, since it is read by byte range")
            yield TarReader(file, digest)
    except DamagedTarError as error:
        raise ShardError(f"{source}: {error}") from error
    except OSError as error:
        raise ShardError(f"{source}: cannot be read: {error.strerror or error}") from error


def _split_name(name: str) -> tuple[str, str]:
    """WebDataset's key and extension: split at the first dot of the base name.

    >>> _split_name("a.b/n01_7.JPG")
    ('a.b/n01_7', 'jpg')
    """
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension.lower()


def _samples(found: Iterable[Member]) -> tuple[Sample, ...]:
    """Group members by key, and check that those of a key are adjacent and make one sample."""
    groups: dict[str, dict[str, Member]] = {}
    last = ""
    for member in found:
        key, extension = _split_name(member.name)
        _check_key(member.name, key)
        group = groups.setdefault(key, {})
        if extension in group:
            raise DamagedTarError(f"two members {member.name!r}: two samples with the key {key!r}; keys must be unique")
        if group and key != last:
            first = next(iter(group.values())).name
            raise DamagedTarError(
                f"the members of sample {key!r} are not adjacent: others are between {first!r} and {member.name!r}; "
                "pack the whole folder with tar --sort=name. A key ends at the first dot"
            )
        group[extension] = member
        last = key
    return tuple(_sample(key, group) for key, group in groups.items())


def _check_key(name: str, key: str) -> None:
    if key and not key.endswith("/"):
        return
    base = name.rpartition("/")[2]
    if base.startswith("._") or base == ".DS_Store":
        raise DamagedTarError(
            f"member {name!r} is one that macOS adds; remove all such members with GNU tar: "
            "tar --delete -f SHARD --wildcards --no-anchored '._*' .DS_Store"
        )
    raise DamagedTarError(f"member {name!r} has no key before its first dot; rename it, or leave it out")


def _sample(key: str, group: dict[str, Member]) -> Sample:
    images = [member for extension, member in group.items() if extension in IMAGE_EXTENSIONS]
    if len(images) != 1:
        names = first_few([member.name for member in group.values()])
        raise DamagedTarError(
            f"sample {key!r} has {len(images) or 'no'} image members, expected one "
            f"({', '.join(sorted(IMAGE_EXTENSIONS))}); it holds {names}. A key ends at the first dot"
        )
    label = group.get(LABEL_EXTENSION)
    return Sample(key, images[0].offset, images[0].size, NO_LABEL if label is None else _label(label))


def _label(member: Member) -> int:
    if member.size > MAX_LABEL_BYTES:
        raise DamagedTarError(f"member {member.name!r} holds {member.size} bytes, expected an integer class id")
    text = (member.data or b"").decode("ascii", "replace").strip()
    if not re.fullmatch(rf"[0-9]{{1,9}}|{NO_LABEL}", text):
        raise DamagedTarError(
            f"member {member.name!r} holds {text!r}, expected an integer class id, or {NO_LABEL} for no label"
        )
    return int(text)
