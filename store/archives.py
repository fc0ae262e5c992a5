"""What a file of weights is, before torch reads it: other content under its name, or a zip archive that is damaged.

Needs no torch, so that teachers and students are checked by the same code.
"""

import zipfile
from pathlib import Path

HEAD_BYTES = 1024
ZIP_MAGIC = b"PK\x03\x04"
LFS_POINTER = b"version https://git-lfs."
PAGE_STARTS = (b"<!doctype html", b"<html", b"<?xml", b"<!--")


def foreign_content(head: bytes) -> str | None:
    r"""What the first bytes of a file say it is instead of data, and what to do; None if they say nothing.

    >>> foreign_content(b"version https://git-lfs.github.com/spec/v1\noid sha256:0")
    'a Git LFS pointer, not the file itself; fetch it with `git lfs pull`'
    >>> foreign_content(b"PK\x03\x04")
    """
    if not head:
        return "an empty file; copy or download it again"
    if head.startswith(LFS_POINTER):
        return "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:20].lower().startswith(PAGE_STARTS):
        return "a web page, such as a server sends with a refusal; download the file itself"
    return None


def saved_problem(file: Path, *, zip_only: bool = False) -> str | None:
    """Why a file is not one that torch.save wrote, and what to do; None if it may be one.

    torch compares no checksums, so that a flipped bit would become a weight. Files of its older format have none.

    Args:
        file: of any content.
        zip_only: refuse the older format, too.

    Raises:
        OSError: the file cannot be read.
    """
    with file.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    if head.startswith(ZIP_MAGIC):
        return _archive_problem(file)
    return foreign_content(head) or ("no zip archive, which torch.save writes" if zip_only else None)


def _archive_problem(file: Path) -> str | None:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            names = {entry.filename.rpartition("/")[2] for entry in entries}
            if "constants.pkl" in names:
                return "a TorchScript program; save the state_dict() of its module"
            if "data.pkl" not in names or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                # Compressed parts could unpack to any size.
                return "an archive that torch.save did not write; unpack it, or save the state_dict again"
            if sum(entry.file_size for entry in entries) > file.stat().st_size:  # entries over the same bytes
                return "an archive that claims more bytes than it has; copy or download it again"
            if (damaged := archive.testzip()) is not None:
                return f"damaged: the checksum of {damaged[:100]!r} in it does not match; copy or download it again"
    except OSError:
        raise
    except Exception:  # zipfile raises half a dozen types on hostile bytes
        return "a damaged or incomplete archive; copy or download it again"
    return None
