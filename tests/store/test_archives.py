"""Archives that torch.save did not write are refused before their bytes are read or unpacked."""

import zipfile
from pathlib import Path

import pytest

from store.archives import saved_problem


def test_entries_over_the_same_bytes_are_not_read(tmp_path: Path) -> None:
    file = tmp_path / "a.pt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", bytes(100_000))
        for number in range(9):  # in the directory only
            again = zipfile.ZipInfo(f"a/data/{number}")
            again.file_size = again.compress_size = 100_000
            again.header_offset = again.CRC = 0
            archive.filelist.append(again)
            archive.NameToInfo[again.filename] = again
    assert saved_problem(file) == "an archive that claims more bytes than it has; copy or download it again"


@pytest.mark.parametrize(("name", "how"), [("a/data.pkl", zipfile.ZIP_DEFLATED), ("model.pth", zipfile.ZIP_STORED)])
def test_compressed_and_other_archives_are_not_torchs(tmp_path: Path, name: str, how: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w", how) as archive:
        archive.writestr(name, bytes(100_000))
    assert saved_problem(tmp_path / "a.pt") == (
        "an archive that torch.save did not write; unpack it, or save the state_dict again"
    )


def test_older_format_is_refused_where_only_archives_are_taken(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"\x80\x02.")
    assert saved_problem(tmp_path / "a.pt") is None
    assert saved_problem(tmp_path / "a.pt", zip_only=True) == "no zip archive, which torch.save writes"
