"""The order of the maps' cells, decided by object boxes or, where they do not decide, by a teacher."""

from collections.abc import Callable, Sequence
from pathlib import Path

from annotator.published.boxes import ask_boxes
from annotator.published.crops import ask_teacher
from annotator.published.files import Axes
from annotator.published.origin import Origin
from annotator.published.source import MapSource
from annotator.published.verdict import Verdict
from annotator.teacher.teacher import Teacher
from store.errors import SettingsError

CHOICES = "--axes yx or --axes xy (docs/published_maps.md says how to tell)"


def find_axes(
    shards: Sequence[Path], source: MapSource, origin: Origin, load_teacher: Callable[[], Teacher] | None
) -> tuple[Axes, Verdict]:
    """Decide between yx and xy; boxes are asked first, because they cost little.

    Args:
        shards: of the images; some of them are read.
        source: of the maps.
        origin: class count and preprocessing of the maps.
        load_teacher: builds the teacher to ask where boxes do not decide; None if there is none.

    Returns:
        The order, and the verdict with the votes.

    Raises:
        SettingsError: no evidence, or not enough of it; or a teacher of other classes.
        TeacherError: the teacher cannot be built, or does not run on crops.
    """
    preprocessing = origin.preprocessing()
    verdict = ask_boxes(shards, source, preprocessing, num_classes=origin.num_classes)
    if verdict.axes is None and load_teacher is not None:
        verdict = ask_teacher(shards, source, load_teacher(), preprocessing, num_classes=origin.num_classes)
        if verdict.axes is None:
            raise SettingsError(f"{verdict}: the maps may be another teacher's or other images'; else pass {CHOICES}")
    if verdict.axes is None:
        problem = str(verdict) if verdict.total else "the files do not give their axes, and the shards have no boxes"
        raise SettingsError(f"{problem}: pass --teacher NAME to compare its predictions, or {CHOICES}")
    return verdict.axes, verdict
