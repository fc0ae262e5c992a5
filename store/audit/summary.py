"""What an audit found, in words and numbers for terminal and page; nothing here is escaped yet."""

from typing import Any


def summary(audit: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and value of each line at the head of an audit."""
    present, none = audit["present"], audit["images_with_classes"][0]
    one, two, more = audit["images_with_classes"][1:]
    lines = [
        ("store", audit["store"]),
        ("images", f"{audit['images']:,}, {len(audit['quarantined']):,} more are quarantined"),
        ("original labels", _labels(audit)),
    ]
    if audit["with_label"]:
        lines += [
            ("label on top", _share(audit, "label_on_top") + " have it as the class of highest probability"),
            ("label elsewhere", _share(audit, "label_present") + " have it in some part of the image only"),
            ("contradicted", _share(audit, "label_contradicted") + " show it nowhere"),
        ]
    return [
        *lines,
        ("present is", f"what leads with a probability of {present['probability']:g} or more in at least "
         f"{present['cells']:,} of an image's cells"),
        ("images with", f"no class: {none:,}; one: {one:,}; two: {two:,}; three or more: {more:,}"),
        ("fill", audit["fill"]),
    ]  # fmt: skip


def worst_classes(audit: dict[str, Any], top: int) -> list[dict[str, Any]]:
    """The classes with the most labelled images whose top class is another."""
    wrong = [entry for entry in audit["classes"] if entry["labelled"] > entry["agree"]]
    return sorted(wrong, key=lambda entry: entry["agree"] - entry["labelled"])[:top]


def _labels(audit: dict[str, Any]) -> str:
    """Whether there is anything to compare the maps with."""
    unknown = audit["unknown_label"]
    strange = f"; {unknown:,} have a number that is none of the teacher's classes" if unknown else ""
    if not audit["with_label"]:
        return f"none, so nothing to compare the maps with: audited for their classes only{strange}"
    if not audit["without_label"]:
        return f"{audit['with_label']:,} images have one{strange}"
    return (f"{audit['with_label']:,} images have one, {audit['without_label']:,} have none and are audited for "
            f"their classes only{strange}")  # fmt: skip


def _share(audit: dict[str, Any], name: str) -> str:
    return f"{audit[name]:,} ({audit[name] / audit['with_label']:.1%})"
