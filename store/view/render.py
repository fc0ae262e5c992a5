"""Drawing a store, its groups and its statistics on a terminal with rich.

All text is made printable first, and never read as markup.
"""

from rich.console import Group, RenderableType
from rich.text import Text

from store.view.describe import Description
from store.view.tables import class_cell, data_table, fact_table, plain

# Okabe and Ito's colours, told apart with every kind of colour vision; each has a letter besides.
PALETTE = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (213, 94, 0), (204, 121, 167), (86, 180, 233), (240, 228, 66))
OTHER = (128, 128, 128)
SHOWN_KEYS = 10
FLAT = 0.9  # share of the bits of a uniform target


def render_store(store: Description) -> RenderableType:
    """A store's teacher, view and sizes, and a table of its groups."""
    teacher, view = store["teacher"], store["view"]
    arguments = ", ".join(f"{name}={value}" for name, value in teacher["arguments"].items())
    facts = fact_table([
        ("store", f"{store['path']} (format version {store['format_version']})"),
        ("teacher", f"{teacher['architecture']} ({arguments}), digest {teacher['digest'][:12]}"),
        ("view", f"{view['mode']} to {_by(view['input_size'])} px, {view['interpolation']}"),
        ("label maps", f"top {store['top_k']} of {store['num_classes']} classes in {_by(store['map_size'])} cells"),
        ("images", f"{store['rows']:,} in {store['groups']:,} groups, {store['quarantined']:,} quarantined"),
        ("size", f"{store['bytes']:,} bytes, {store['bytes'] / max(store['rows'], 1):,.0f} an image"),
    ])  # fmt: skip
    table = data_table("array", "bytes", "bytes an image", "of raw")
    for array in store["arrays"]:
        share = f"{array['bytes'] / array['raw_bytes']:.0%}" if array["raw_bytes"] else ""
        an_image = f"{array['bytes'] / max(array['rows'], 1):,.0f}"
        table.add_row(Text(array["name"]), f"{array['bytes']:,}", an_image, share)
    return Group(facts, Text(), table)


def render_groups(groups: list[Description]) -> RenderableType:
    """A table of a store's groups; damaged ones say what is wrong with them."""
    table = data_table("group", "images", "quarantined", "bytes")
    for group in groups:
        table.add_row(plain(group["name"]), *(f"{group[name]:,}" for name in ("rows", "quarantined", "bytes"))
                      if group["damaged"] is None else (Text("damaged", style="red"),))  # fmt: skip
    return table


def render_stats(stats: Description) -> RenderableType:
    """Classes seen, entropy of the targets, images with several classes."""
    none, one, two, more = stats["images_with_classes"]
    facts = fact_table([
        ("images", f"{stats['images']:,}, quarantined ones left out"),
        ("classes", f"{stats['classes_seen']:,} lead in some cell, {len(stats['classes_never_seen']):,} nowhere"),
        ("labels", f"{stats['label_leads']:,} of {stats['labelled']:,} lead in some cell of their own map"),
        ("present is", f"what leads in a cell with a probability of {stats['threshold']:g} or more"),
        ("images with", f"no class {none:,}, one {one:,}, two {two:,}, three or more {more:,}"),
        *((f"bits, fill {fill}", f"mean entropy of the pooled targets {bits['mean']:.2f} of at most "
           f"{stats['uniform_bits']:.2f}; 5 % have less than {bits['p5']:.2f}, half {bits['p50']:.2f}, 95 % "
           f"{bits['p95']:.2f}{_flatness(bits['mean'], stats['uniform_bits'])}")
          for fill, bits in stats["entropy_bits"].items()),
    ])  # fmt: skip
    table = data_table("most seen", "images")
    for entry in stats["most_seen"]:
        table.add_row(class_cell(entry), f"{entry['images']:,}")
    return Group(facts, Text(), table)


def _flatness(mean: float, uniform: float) -> str:
    """A warning about targets of which a student learns little."""
    return ": nearly uniform, students learn little of these" if mean > FLAT * uniform else ""


def render_group(group: Description) -> RenderableType:
    """A group's origin, its quarantined rows and its first keys."""
    provenance = ", ".join(f"{name} {value}" for name, value in group["provenance"].items())
    facts = fact_table([
        ("group", group["name"]),
        ("images", f"{group['rows']:,}, {len(group['quarantined']):,} quarantined"),
        ("shard", f"{group['tar']['size']:,} bytes, sha256 {group['tar']['sha256'][:12]}"),
        ("made with", provenance),
        ("size", f"{group['bytes']:,} bytes, {group['bytes'] / max(group['rows'], 1):,.0f} an image"),
        ("keys", ", ".join(group["keys"][:SHOWN_KEYS]) + (", ..." if group["rows"] > SHOWN_KEYS else "")),
    ])  # fmt: skip
    if not group["quarantined"]:
        return facts
    table = data_table("row", "quarantined key", "reason")
    for bad in group["quarantined"]:
        table.add_row(str(bad["row"]), plain(bad["key"]), plain(bad["reason"]))
    return Group(facts, Text(), table)


def _by(size: list[int]) -> str:
    return f"{size[0]} x {size[1]}"
