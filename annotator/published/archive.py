"""The zip archive that `torch.save` writes, checked before torch sees it."""

import io
import zipfile

from annotator.published.pickles import check_pickle
from store.errors import LabelMapError

ZIP_MAGIC = b"PK\x03\x04"
RECORDS = ("data.pkl", "byteorder", "version")
MAX_ENTRIES = 64  # torch.save writes seven for one tensor


def checked_archive(data: bytes, where: str) -> tuple[bytes, int]:
    """A copy of a zipped `.pt` that holds nothing but what one tensor needs, each part as long as the file says.

    The copy is what makes the checks hold: another zip reader may find other entries in the original's bytes.

    Returns:
        The copy, and how many bytes it has for the tensor's values.

    Raises:
        LabelMapError: not a readable archive, compressed, claiming more bytes than it has, with a part twice, or with
            a pickle that does more than one tensor needs.
    """
    copy, sizes, seen = io.BytesIO(), [], set[str]()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(copy, "w") as checked:
            entries = archive.infolist()
            _check_entries(entries, len(data), where)
            for entry in entries:
                name = entry.filename.partition("/")[2]
                if name in RECORDS or name.startswith("data/"):
                    if name in seen:
                        raise LabelMapError(f"{where}: an archive with two parts named {name[:60]!r}")
                    seen.add(name)
                    checked.writestr(f"map/{name}", archive.read(entry))
                sizes += [entry.file_size] if name.startswith("data/") else []
    except LabelMapError:
        raise
    except Exception as error:  # zipfile raises half a dozen types on hostile bytes
        raise LabelMapError(f"{where}: a damaged .pt archive: {error}") from error
    if len(sizes) != 1:
        raise LabelMapError(f"{where}: {len(sizes)} tensors, expected one [2, K, H, W]")
    if "data.pkl" in seen:
        with zipfile.ZipFile(copy) as checked, checked.open("map/data.pkl") as pickled:
            check_pickle(pickled, where)
    return copy.getvalue(), sizes[0]


def _check_entries(entries: list[zipfile.ZipInfo], size: int, where: str) -> None:
    if len(entries) > MAX_ENTRIES:
        raise LabelMapError(f"{where}: an archive of {len(entries)} files, so not a published map")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise LabelMapError(f"{where}: a compressed archive, which torch.save does not write; it is not unpacked")
    if (claimed := sum(entry.file_size for entry in entries)) > size:
        raise LabelMapError(f"{where}: claims {claimed:,} bytes in a file of {size:,}; it is not unpacked")
