"""A sign that a teacher numbers its classes otherwise than the shards do: nothing else fails when it does."""

from pathlib import Path

from store.errors import RelabelError
from store.reader import LabelStore
from store.text import printable
from store.whole_image import labels_lead

ROWS = 256  # that are looked at
ENOUGH = 20  # labels; of fewer it may be chance
FEW = 0.5  # share of the labels; even of an unsure teacher most lead in some cell


def doubt_numbering(labels: Path | str, name: str) -> str | None:
    """A line if few of a group's original labels lead in any cell of their map, or it cannot be read; else None."""
    try:
        group = LabelStore.open(labels).group(name)
        stop = min(len(group), ROWS)
        labelled = group.usable(stop=stop) & (group.targets[:stop] >= 0)
        lead = int((labels_lead(group.read(stop=stop, tail=False), group.targets[:stop]) & labelled).sum())
    except RelabelError as error:  # the labels are written; the run must not end as one that failed
        return f"what was written cannot be looked at: {printable(str(error))}"
    count = int(labelled.sum())
    if count < ENOUGH or lead >= FEW * count:
        return None
    return (
        f"only {lead:,} of {count:,} labels of {printable(name)} lead in any cell of their map; "
        "does the teacher number its classes as the shards do?"
    )
