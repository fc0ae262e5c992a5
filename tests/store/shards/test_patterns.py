from pathlib import Path

import pytest

from store.errors import ShardError
from store.shards.patterns import expand_shards


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
