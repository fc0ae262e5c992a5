import errno
import os
from pathlib import Path

import pytest

from store.errors import ShardError
from store.shards.patterns import expand_shards, expand_sources, find_sources


def test_patterns_expand_in_the_order_given(tmp_path: Path) -> None:
    for name in ("b-0.tar", "b-1.tar", "a-07.tar", "a-08.tar"):
        (tmp_path / name).touch()
    found = expand_shards([str(tmp_path / "b-*.tar"), str(tmp_path / "a-{07..08}.tar")])
    assert [path.name for path in found] == ["b-0.tar", "b-1.tar", "a-07.tar", "a-08.tar"]


@pytest.mark.parametrize(
    "pattern", ["a{0..999999999999}.tar", "a{-5..9999999999..3}.tar", "{a,b}" * 30 + ".tar", "{a..z}" * 5]
)
def test_pattern_of_too_many_names_is_refused_at_once(pattern: str) -> None:
    with pytest.raises(ShardError, match="more than 100,000 shards"):
        expand_shards([pattern])


@pytest.mark.parametrize("pattern", ["{0..1" + "0" * 5000 + "}", "{" * 100_000, "{" * 5000 + "a" + "}" * 5000, "a{b"])
def test_pattern_that_cannot_be_read_is_one_clear_error(pattern: str) -> None:
    with pytest.raises(ShardError, match=r"not a valid brace pattern|check the braces"):
        expand_shards([pattern])


def test_shard_that_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.tar").mkdir()
    with pytest.raises(ShardError, match=r"1 of 1 shards are missing or not regular files: '.*a\.tar'"):
        expand_shards([str(tmp_path / "a.tar")])


@pytest.mark.parametrize("folder", ["data [v2]", "d{x,y}[z]", "a*b", "[!a]?"])
def test_path_that_exists_is_taken_as_it_is_written(tmp_path: Path, folder: str) -> None:
    path = tmp_path / folder / "a.tar"
    assert find_sources([str(path)])[0] == []
    path.parent.mkdir()
    path.touch()
    assert expand_shards([str(path)]) == [path]
    assert find_sources([str(path)]) == ([path], [])


@pytest.mark.parametrize("name", ["a[0].tar", "a{0,1}.tar", "a*.tar"])
def test_shard_whose_name_is_no_group_is_refused_and_not_taken_for_a_pattern(tmp_path: Path, name: str) -> None:
    for file in (name, "a0.tar", "a1.tar"):
        (tmp_path / file).touch()
    with pytest.raises(ShardError, match=r"the name must match .*; rename the shard"):
        expand_shards([str(tmp_path / name)])
    shards, problems = find_sources([str(tmp_path / name)])
    assert (shards, len(problems)) == ([], 1)


def test_folder_with_brackets_is_searched_by_a_glob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data[v2]").mkdir()
    for name in ("b-1.tar", "b-0.tar"):
        (tmp_path / "data[v2]" / name).touch()
    monkeypatch.chdir(tmp_path)
    for pattern in ("data[v2]/b-*.tar", "data[v2]/b-{0..1}.tar", f"{tmp_path}/data[v2]/b-[01].tar", "**/b-?.tar"):
        found = expand_shards([pattern])
        assert [path.absolute() for path in found] == [tmp_path / "data[v2]" / f"b-{i}.tar" for i in (0, 1)]
    assert find_sources(["gone/b-*.tar"])[1] == ["gone: there is no such folder"]


def test_two_stars_search_all_folders_below_and_follow_links_but_no_loops(tmp_path: Path) -> None:
    root, names = tmp_path / "data", ("a-0.tar", "x/a-1.tar", "x/y/a-2.tar", ".hidden/a-9.tar", "x/b.tar")
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a-3.tar").touch()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "x" / "loop").symlink_to(root)
    expected = [root / name for name in ("a-0.tar", "linked/a-3.tar", "x/a-1.tar", "x/y/a-2.tar")]
    assert expand_shards([f"{root}/**/a-*.tar"]) == expected
    assert expand_shards([f"{root}/**/**/a-{{1..2}}.tar"]) == expected[2:]
    assert expand_shards([f"{root}/x/**/y/*.tar"]) == [root / "x/y/a-2.tar"]


def test_folder_that_cannot_be_searched_is_no_silent_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

    monkeypatch.setattr(os, "scandir", refuse)
    (tmp_path / "closed").mkdir()
    with pytest.raises(ShardError, match="closed: cannot be read: Permission denied"):
        expand_shards([f"{tmp_path}/closed/**/*.tar"])


@pytest.mark.parametrize("pattern", ["data/train-**.tar", "data**/a.tar", "s3://bucket/train-**.tar"])
def test_two_stars_within_a_name_are_refused(pattern: str) -> None:
    with pytest.raises(ShardError, match=r"\*\* .*; write \* for a part of a name"):
        expand_sources([pattern])
