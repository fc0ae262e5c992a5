"""What has changed in a run's labels since it was started; rows that became undecodable do not end it.

A shard with a rotten image is annotated again, and then has one more undecodable row. The run keeps the order of its
start, and other samples stand in these rows' places, so that nothing else changes.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from store.group import LabelGroup
from trainer.data.join import JoinedShard

Rows = dict[str, list[int]]  # rows by the group's name
# Arrays that a newly undecodable row leaves as they are. Lengths differ where a shard holds other images.
OWN = ("keys", "offsets", "targets")
DIGEST_CHARACTERS = 16  # 64 bits: no adversary chooses both


def label_digests(joined: Sequence[JoinedShard]) -> dict[str, list[str]]:
    """For each group the digest of its keys, places and labels, and that of all its objects."""
    return {shard.group.name: [_digest(shard.group, OWN), _digest(shard.group)] for shard in joined}


def undecodable_by_group(joined: Sequence[JoinedShard]) -> Rows:
    """The undecodable rows of the groups that have any."""
    return {shard.group.name: sorted(shard.group.undecodable) for shard in joined if shard.group.undecodable}


def rows_through_all(joined: Sequence[JoinedShard], rows: Rows) -> tuple[int, ...]:
    """Rows by group as numbers through all shards; rows that a group does not have are left out."""
    return tuple(
        shard.start + row
        for shard in joined
        for row in sorted(set(rows.get(shard.group.name, ())))
        if 0 <= row < len(shard.group)
    )


def newly_undecodable(started: Mapping[str, Any], now: Mapping[str, Any]) -> Rows | None:
    """The rows that became undecodable since the start, by group; None if anything else of the labels has changed.

    Label maps of a group that was annotated again by the same teacher may differ by rounding.

    Args:
        started: `labels` of the run's settings.json.
        now: the same of the labels as they are.
    """
    if started["digest"] == now["digest"]:
        return {}
    then_digests, now_digests = started["groups"], now["groups"]
    if then_digests.keys() != now_digests.keys():  # also where an earlier release started the run
        return None
    found: Rows = {}
    for name, digests in now_digests.items():
        if digests == then_digests[name]:
            continue
        then, here = (set(labels["undecodable"].get(name, ())) for labels in (started, now))
        if digests[0] != then_digests[name][0] or not then < here:
            return None
        found[name] = sorted(here - then)
    return found


def describe_rows(rows: Rows) -> str:
    """One line on rows that became undecodable."""
    count = sum(map(len, rows.values()))
    places = "; ".join(f"{name}: {', '.join(map(str, found))}" for name, found in rows.items())
    who, others = ("image", "another stands in its place") if count == 1 else ("images", "others stand in their places")
    return f"{count:,} {who} became undecodable since the run was started, and {others} (rows {places})"


def _digest(group: LabelGroup, arrays: Iterable[str] = ()) -> str:
    found = hashlib.sha256()
    for path, record in sorted(group.commit.objects.items()):
        if not arrays or path.partition("/")[0] in arrays:
            found.update(f"{path} {record.sha256}\n".encode())
    return found.hexdigest()[:DIGEST_CHARACTERS]
