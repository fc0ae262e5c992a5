import os
from dataclasses import replace
from pathlib import Path

import pytest

from store.errors import ChangedShardError, ShardError
from store.shards.images import ImageMember, read_image, read_images
from store.shards.index import Sample, image_digest, index_shard
from store.shards.remote import RemoteShard
from tests.builders.servers import web_server
from tests.builders.stores import make_members, write_tar


def test_indexed_image_is_read_exactly(tmp_path: Path) -> None:
    members = make_members(3)
    path = write_tar(tmp_path / "a.tar", members)
    images = [data for name, data in members if name.endswith(".jpg")]
    assert [read_image(path, sample) for sample in index_shard(path).samples] == images


def test_shard_that_ends_within_an_image_is_named_with_the_key(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", make_members(2))
    sample = index_shard(path).samples[1]
    os.truncate(path, sample.offset + 5)
    for broken in (sample, replace(sample, offset=1 << 40), replace(sample, length=1 << 62)):
        with pytest.raises(
            ShardError, match=rf"^{tmp_path}/a\.tar: ends within the image of '{sample.key}'; run again"
        ):
            read_image(path, broken)


def test_unreadable_copy_is_named_after_its_source(tmp_path: Path) -> None:
    source = RemoteShard("http://127.0.0.1:1/a.tar")
    message = r"^http://127\.0\.0\.1:1/a\.tar: cannot be read: No such file or directory \(the image of 'k'\)$"
    with pytest.raises(ShardError, match=message):
        read_image(tmp_path / "gone.tar", Sample("k", 512, 5, -1), source=source)


@pytest.mark.parametrize("is_remote", [False, True])
def test_hashed_images_are_compared_by_their_bytes_alone(tmp_path: Path, *, is_remote: bool) -> None:
    """Locally and on a server alike; unlike the trainer's check, which reads the name in the tar header."""
    path = write_tar(tmp_path / "a.tar", make_members(1))
    sample = index_shard(path).samples[0]
    digest = image_digest(read_image(path, sample))
    member = ImageMember(row=3, key="renamed", offset=sample.offset, length=sample.length, digest=digest)
    with web_server(tmp_path) as url:
        shard = RemoteShard(f"{url}/a.tar") if is_remote else path
        assert next(read_images([(shard, member)], hashed=True)) == read_image(path, sample)
        with pytest.raises(ChangedShardError, match=r"annotated as 'renamed' \(row 3\), but 'img0000\.jpg'; give"):
            next(read_images([(shard, member)]))
        member = replace(member, key=sample.key, digest=digest ^ 1)
        assert next(read_images([(shard, member)])) == read_image(path, sample)
        with pytest.raises(ChangedShardError, match=r"annotated as 'img0000' \(row 3\), but other bytes; give"):
            next(read_images([(shard, member)], hashed=True))
