"""How the views name and mark classes: texts, and a letter and a colour for each of the most frequent top-1 classes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from store.text import printable
from store.view.describe import Description

# Okabe and Ito's colours can be distinguished with every kind of colour vision; each class also has a letter.
PALETTE = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (213, 94, 0), (204, 121, 167), (86, 180, 233), (240, 228, 66))
LETTERS = "ABCDEFG"
OTHER, OTHER_LETTER = (128, 128, 128), "."  # any other class
OTHERS = (OTHER_LETTER, OTHER)
MAX_NAME = 32  # characters of a name where there is little room

Colour = tuple[int, int, int]
Mark = tuple[str, Colour]
Marks = dict[int, Mark]


def class_text(class_id: int, name: str) -> str:
    """Number and whole name, printable; the number alone where the class has no name."""
    return printable(name if name == str(class_id) else f"{class_id} {name}")


def short_text(class_id: int, name: str, length: int = MAX_NAME) -> str:
    """Number and the first synonym of a name, at most `length` characters of it, printable.

    >>> short_text(349, "bighorn, bighorn sheep, cimarron"), short_text(7, "7"), short_text(7, "abcdef", 4)
    ('349 bighorn', '7', '7 abc\u2026')
    """
    first = printable(name.split(", ")[0] or name)
    return class_text(class_id, first if len(first) <= length else first[: length - 1] + "\u2026")


def label_text(label: int, name: str | None) -> str:
    """An image's label in short: its class, the number alone if it is none of the classes (no name), or "none"."""
    return "none" if label < 0 else short_text(label, name or str(label))


def class_marks(classes: Iterable[int]) -> Marks:
    """Letter and colour of the first classes; the order is that of `top1_cells`, most cells first."""
    return {c: (letter, colour) for c, letter, colour in zip(classes, LETTERS, PALETTE, strict=False)}


def row_marks(row: Description) -> Marks:
    """The marks of a `describe_row`."""
    return class_marks(entry["class"] for entry in row["dominant"])


@dataclass(frozen=True, kw_only=True, slots=True)
class LegendEntry:
    """A line of a map's legend: a marked class, or all others together."""

    mark: Mark
    text: str
    title: str  # the class's whole name
    cells: int  # in which it is top-1


def legend(row: Description, marks: Marks) -> Iterator[LegendEntry]:
    """The marked classes of a `describe_row`, then all others together."""
    dominant = row["dominant"]
    for entry in dominant[: len(marks)]:
        class_id, name = entry["class"], entry["name"]
        yield LegendEntry(
            mark=marks[class_id],
            text=short_text(class_id, name),
            title=class_text(class_id, name),
            cells=entry["cells"],
        )
    if others := dominant[len(marks) :]:
        text = f"{len(others)} other classes"
        yield LegendEntry(mark=OTHERS, text=text, title=text, cells=sum(entry["cells"] for entry in others))


def strength(confidence: float) -> float:
    """How strongly a cell's colour and letter are drawn, 0.4 to 1, by the probability of its top-1 class."""
    return 0.4 + 0.6 * confidence


def cell_colour(colour: Colour, confidence: float) -> Colour:
    """A class's colour mixed with white, the paler the less confident the teacher is in a cell."""
    red, green, blue = (round(255 - (255 - value) * strength(confidence)) for value in colour)
    return red, green, blue


def is_dark(colour: Colour) -> bool:
    """Whether white text reads better on a colour than black."""
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue < 140


def rgb(colour: Sequence[int]) -> str:
    """A colour as rich and CSS write it."""
    return "rgb({},{},{})".format(*colour)
