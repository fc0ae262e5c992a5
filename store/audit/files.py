"""The CSV of an audit, with a line for every image that is not quarantined."""

import csv
import io
import math
from typing import BinaryIO

from store.audit.figures import GroupAudit
from store.schema import StoreSchema
from store.text import printable

COLUMNS = ("group", "row", "key", "label", "label_name", "label_whole", "label_best_cell", "top", "top_name",
           "top_probability", "entropy_bits", "classes")  # fmt: skip
# What makes a spreadsheet take a text for a formula; tabs and line ends are escaped before.
FORMULA_STARTS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # noqa: RUF001  (the full-width ones count too)


class CsvAudit:
    """A CSV in UTF-8 with a line for every image that is not quarantined, in the order of groups and rows."""

    def __init__(self, handle: BinaryIO, schema: StoreSchema) -> None:
        self._text = io.TextIOWrapper(handle, encoding="utf-8", newline="", write_through=True)
        self._lines = csv.writer(self._text, lineterminator="\n")
        self._lines.writerow(COLUMNS)
        self._names = [safe_cell(schema.class_name(c)) for c in range(schema.num_classes)]

    def add(self, group: GroupAudit) -> None:
        """Write a group's images."""
        figures, name, names = group.figures, safe_cell(group.name), self._names
        columns = zip(
            group.rows.tolist(),
            group.keys,
            group.targets.tolist(),
            figures.label_whole.tolist(),
            figures.label_best.tolist(),
            figures.top.tolist(),
            figures.top_probability.tolist(),
            figures.entropy.tolist(),
            figures.classes.tolist(),
            strict=True,
        )
        for row, key, label, whole, best, top, probability, bits, classes in columns:
            label_cells = ("", "") if label < 0 else (label, names[label] if label < len(names) else "")
            self._lines.writerow((
                name, row, safe_cell(key), *label_cells, _number(whole), _number(best), top, names[top],
                _number(probability), _number(bits), classes,
            ))  # fmt: skip

    def close(self) -> None:
        """Hand the file back, still open."""
        self._text.detach()


def safe_cell(text: str) -> str:
    r"""A text that neither a terminal nor a spreadsheet takes for anything else.

    Control characters become escapes; what a spreadsheet would take for a formula gets an apostrophe before it.

    >>> safe_cell("=1+2"), safe_cell("\t=1"), safe_cell("n01_7")
    ("'=1+2", '\\t=1', 'n01_7')
    """
    shown = text if text.isprintable() else printable(text)
    return f"'{shown}" if shown.lstrip(" ").startswith(FORMULA_STARTS) else shown


def _number(value: float) -> str:
    """Six digits, nothing for NaN."""
    return "" if math.isnan(value) else f"{value:.6g}"
