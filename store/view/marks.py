"""How the views name and mark classes: texts, and a letter and a colour for each of the most frequent top-1 classes."""

from collections.abc import Iterable, Iterator, Sequence

from store.view.describe import Description

# Okabe and Ito's colours can be distinguished with every kind of colour vision; each class also has a letter.
PALETTE = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (213, 94, 0), (204, 121, 167), (86, 180, 233), (240, 228, 66))
LETTERS = "ABCDEFG"
OTHER, OTHER_LETTER = (128, 128, 128), "."  # any other class
OTHERS = (OTHER_LETTER, OTHER)

Colour = tuple[int, int, int]
Mark = tuple[str, Colour]
Marks = dict[int, Mark]


def class_text(class_id: int, name: str) -> str:
    """Number and name, or the number alone where the class has no name."""
    return name if name == str(class_id) else f"{class_id} {name}"


def label_text(label: int, name: str | None) -> str:
    """An image's label: its class, the number alone if it is none of the classes (no name), or "none"."""
    return "none" if label < 0 else class_text(label, name or str(label))


def class_marks(classes: Iterable[int]) -> Marks:
    """Letter and colour of the first classes; the order is that of `top1_cells`, most cells first."""
    return {c: (letter, colour) for c, letter, colour in zip(classes, LETTERS, PALETTE, strict=False)}


def row_marks(row: Description) -> Marks:
    """The marks of a `describe_row`."""
    return class_marks(entry["class"] for entry in row["dominant"])


def legend(row: Description, marks: Marks) -> Iterator[tuple[Mark, str, int]]:
    """Mark, text and number of cells of each marked class of a `describe_row`, then of all others together."""
    dominant = row["dominant"]
    for entry in dominant[: len(marks)]:
        yield marks[entry["class"]], class_text(entry["class"], entry["name"]), entry["cells"]
    if others := dominant[len(marks) :]:
        yield OTHERS, f"{len(others)} other classes", sum(entry["cells"] for entry in others)


def cell_colour(colour: Colour, confidence: float) -> Colour:
    """A class's colour mixed with white, the paler the less confident the teacher is in a cell."""
    strength = 0.25 + 0.75 * confidence
    red, green, blue = (round(255 - (255 - value) * strength) for value in colour)
    return red, green, blue


def is_dark(colour: Colour) -> bool:
    """Whether white text reads better on a colour than black."""
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue < 140


def rgb(colour: Sequence[int]) -> str:
    """A colour as rich and CSS write it."""
    return "rgb({},{},{})".format(*colour)
