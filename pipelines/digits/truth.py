"""What the scenes of a shard really show, for judging labels and students; no stage of training reads it."""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneTruth:
    """All digits of a scene."""

    key: str
    labels: tuple[int, ...]
    boxes: tuple[Box, ...]  # x1, y1, x2, y2, normalised by the scene

    def labels_touching(self, box: Box) -> set[int]:
        """The digits of which any part may lie within a box."""
        x1, y1, x2, y2 = box
        return {
            label
            for label, (left, top, right, bottom) in zip(self.labels, self.boxes, strict=True)
            if left < x2 and x1 < right and top < y2 and y1 < bottom
        }

    def labels_inside(self, box: Box) -> set[int]:
        """The digits that lie wholly within a box."""
        x1, y1, x2, y2 = box
        return {
            label
            for label, (left, top, right, bottom) in zip(self.labels, self.boxes, strict=True)
            if x1 <= left and y1 <= top and right <= x2 and bottom <= y2
        }


def read_truth(shard: Path) -> Iterator[SceneTruth]:
    """Every scene's digits, from the `.json` members of a shard written by `shards.write_shards`."""
    with tarfile.open(shard) as tar:
        for member in tar:
            key, _, extension = member.name.partition(".")
            if extension == "json" and (file := tar.extractfile(member)):
                content = json.load(file)
                boxes = tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in content["boxes"])
                yield SceneTruth(key=key, labels=tuple(content["labels"]), boxes=boxes)
