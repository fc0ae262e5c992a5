"""An audit's facts and tables, for the terminal."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from store.view.marks import PALETTE, rgb, short_text
from store.view.terminal import Cell, data_table, fact_table, plain

# Blue and vermilion can be distinguished with every kind of colour vision; the columns need no colour.
TOP_COLOUR, LABEL_COLOUR = rgb(PALETTE[0]), rgb(PALETTE[3])


def summary(audit: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and value of each line at the head of an audit; nothing in it is escaped yet."""
    present, none = audit["present"], audit["images_with_classes"][0]
    one, two, more = audit["images_with_classes"][1:]
    lines = [
        ("store", audit["store"]),
        ("images", f"{audit['images']:,}, and {len(audit['quarantined']):,} undecodable"),
        ("labels", _labels(audit)),
    ]
    if audit["with_label"]:
        in_a_cell = audit["statistics"]["label_top1_in_a_cell"]
        lines += [
            ("label is top-1", _share(audit, audit["label_on_top"]) + ": the most probable class of the whole image"),
            ("label elsewhere", _share(audit, audit["label_present"]) + ": present in a part of the image only"),
            ("contradicted", _share(audit, audit["label_contradicted"]) + ": present nowhere"),
            ("label in cells", _share(audit, in_a_cell) + ": top-1 in at least one cell"),
        ]
    return [
        *lines,
        ("present is", f"top-1 with a probability of {present['probability']:g} or more in at least "
         f"{present['cells']:,} of an image's cells"),
        ("images with", f"no class present: {none:,}; one: {one:,}; two: {two:,}; three or more: {more:,}"),
        *_statistics(audit),
    ]  # fmt: skip


def worst_classes(audit: dict[str, Any], top: int) -> list[dict[str, Any]]:
    """The classes with the most labelled images whose top-1 class is another."""
    wrong = [entry for entry in audit["classes"] if entry["labelled"] > entry["agree"]]
    return sorted(wrong, key=lambda entry: entry["agree"] - entry["labelled"])[:top]


def _labels(audit: dict[str, Any]) -> str:
    """How many images have a label to compare the maps with."""
    unknown = audit["unknown_label"]
    strange = f"; {unknown:,} have a number that is none of the teacher's classes" if unknown else ""
    if not audit["with_label"]:
        return f"none, so nothing to compare the maps with: audited for their classes only{strange}"
    if not audit["without_label"]:
        return f"{audit['with_label']:,} images have one{strange}"
    return (f"{audit['with_label']:,} images have one, {audit['without_label']:,} have none and are audited for "
            f"their classes only{strange}")  # fmt: skip


def _share(audit: dict[str, Any], images: int) -> str:
    return f"{images:,} images ({images / audit['with_label']:.1%})"


def _statistics(audit: dict[str, Any]) -> Iterator[tuple[str, str]]:
    statistics = audit["statistics"]
    never = len(statistics["classes_never_seen"])
    yield "classes seen", f"{statistics['classes_seen']:,} are top-1 in at least one cell, {never:,} in none"
    bits, most = statistics["entropy_bits"], statistics["max_entropy_bits"]
    if bits is not None:
        mean, p5, median, p95 = (bits[name] for name in ("mean", "p5", "p50", "p95"))
        hot = "" if audit["temperature"] == 1 else f"temperature {audit['temperature']:g}: "
        yield "target entropy", (f"{hot}mean {mean:.2f} of max {most:.2f} bits (p5 {p5:.2f}, median {median:.2f}, "
                                 f"p95 {p95:.2f})")  # fmt: skip
    for notice in audit["notices"]:
        yield "notice", notice


def render_audit(audit: dict[str, Any], top: int) -> Iterator[RenderableType]:
    """The parts of an audit for the terminal; empty tables are left out."""
    yield fact_table(summary(audit))
    if bad := audit["damaged"]:
        yield _titled("Damaged groups, not audited", ("group", "problem"), map(_damaged, bad))
    if images := audit["suspicious"]:
        title = (
            "Images whose label is not top-1, the least probable label first (probabilities: best cell, whole image)"
        )
        yield _titled(title, ("key", "label", "best cell", "image", "top-1 class", "image"), map(_suspicious, images))
    if pairs := audit["confusions"][:top]:
        yield _titled("Most frequent confusions", ("label", "top-1 class", "images"), map(_pair, pairs))
    if images := audit["several_classes"]:
        title = "Images with the most classes"
        yield _titled(title, ("key", "classes", "entropy in bits", "present"), map(_several, images))
    if classes := worst_classes(audit, top):
        title = "Classes whose labels are least often top-1"
        yield _titled(title, ("class", "labelled", "label is top-1", "top-1", "present"), map(_counts, classes))
    if seen := audit["statistics"]["most_seen"]:
        yield _titled("Classes present in the most images", ("class", "images"), map(_seen, seen))
    if (bad := audit["quarantined"]) and top:
        title = f"Undecodable images: {len(bad):,}" + (f", the first {top:,}" if len(bad) > top else "")
        yield _titled(title, ("key", "group", "row", "reason"), map(_undecodable, bad[:top]))


def _titled(title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Group:
    return Group(Text(title, style="bold"), data_table(columns, rows))


def _suspicious(image: dict[str, Any]) -> list[Cell]:
    label = _class(image["label"], image["label_name"], LABEL_COLOUR)
    top = _class(image["top"], image["top_name"], TOP_COLOUR)
    best, whole, top_whole = (f"{image[name]:.3f}" for name in ("label_best_cell", "label_whole", "top_probability"))
    return [plain(image["key"]), label, best, whole, top, top_whole]


def _pair(pair: dict[str, Any]) -> list[Cell]:
    label = _class(pair["label"], pair["label_name"], LABEL_COLOUR)
    return [label, _class(pair["top"], pair["top_name"], TOP_COLOUR), f"{pair['images']:,}"]


def _several(image: dict[str, Any]) -> list[Cell]:
    names = Text(", ").join(_class(entry["class"], entry["name"]) for entry in image["classes"])
    return [plain(image["key"]), str(len(image["classes"])), f"{image['entropy_bits']:.2f}", names]


def _counts(entry: dict[str, Any]) -> list[Cell]:
    counts = (f"{entry[name]:,}" for name in ("labelled", "agree", "on_top", "present"))
    return [_class(entry["class"], entry["name"]), *counts]


def _seen(entry: dict[str, Any]) -> list[Cell]:
    return [_class(entry["class"], entry["name"]), f"{entry['images']:,}"]


def _undecodable(bad: dict[str, Any]) -> list[Cell]:
    return [plain(bad["key"]), plain(bad["group"]), str(bad["row"]), plain(bad["reason"])]


def _damaged(bad: dict[str, Any]) -> list[Cell]:
    return [plain(bad["group"]), plain(bad["problem"])]


def _class(class_id: int, name: str, style: str = "") -> Text:
    return Text(short_text(class_id, name), style=style)
