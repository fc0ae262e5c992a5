"""A look at written labels: what speaks against training with them, said while the run can still be stopped."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from store.errors import RelabelError
from store.maps.notices import score_notice, target_notices
from store.maps.statistics import labels_top1, not_positive, pool_whole, softmax_entropy
from store.reader import LabelStore

CHECKED_ROWS = 256
MIN_LABELS = 20  # with fewer, disagreement may be chance


def check_targets(labels: Path | str, name: str) -> Iterator[str]:
    """Say what speaks against training with a group's first label maps, or why they cannot be read.

    Nothing else fails when a teacher numbers its classes differently from the shards, sees images at a size that it
    cannot use, or has logits of another kind.
    """
    try:
        group = LabelStore.open(labels).group(name)
        stop = min(len(group), CHECKED_ROWS)
        usable = group.usable(stop=stop)
        maps, own_labels = group.read(stop=stop, with_tail=False).select(usable), group.labels[:stop][usable]
    except RelabelError as error:  # the labels are written; the run has not failed
        yield f"the written labels cannot be read: {error}"
        return
    num_classes = group.schema.num_classes
    if not len(own_labels):
        return
    yield from score_notice(float(not_positive(maps, num_classes=num_classes).mean()))
    _, entropy = softmax_entropy(pool_whole(maps, num_classes=num_classes))
    with_label = int((own_labels >= 0).sum())
    is_enough = with_label >= MIN_LABELS
    yield from target_notices(
        entropy_bits=float(entropy.mean()),
        most_bits=float(np.log2(num_classes)),
        with_label=with_label if is_enough else 0,
        label_top1=int(labels_top1(maps, own_labels).sum()) if is_enough else 0,
    )
