"""`relabel-store browse`: its answers, the hosts it refuses, and damaged stores."""

import re
import shutil
import signal
import socket
import zipfile
from collections.abc import Iterator
from dataclasses import replace as replace_field
from html import unescape
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from click.testing import CliRunner
from msgspec.structs import replace
from numpy.typing import NDArray

from store.audit.index import read_index
from store.browse.orders import SORTS, Sorting
from store.browse.rows import OPEN_GROUPS, Groups, Spot
from store.browse.search import Query, parse_classes, search
from store.browse.thumbnails import make_thumbnail
from store.cli.main import main
from store.errors import AuditIndexError
from store.maps.pooling import cell_confidence, crop_target
from store.reader import LabelStore
from store.text import printable
from store.view.images import ShardImages
from store.view.marks import class_text, short_text
from store.writer import GroupLabels, StoreWriter
from tests.builders.browse_server import Server, browse, write_index
from tests.builders.stores import PROVENANCE, TAR, make_jpeg, make_labels, make_schema, write_tar
from tests.builders.view_store import BAD_ROW, EVIL_KEY, HEIGHT, ROWS, WIDTH, shard_keys, write_view_store

GROUPS = 5  # of 7 rows: more than a page of 24


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return write_view_store(tmp_path_factory.mktemp("browse"), GROUPS)


@pytest.fixture(scope="module")
def server(made: tuple[Path, str]) -> Iterator[Server]:
    index = write_index(made[0].parent / "index.npz", made[0])
    with browse(made[0], "--shards", made[1], "--audit", index) as server:
        yield server


def keys_of(page: str) -> list[str]:
    return [unescape(key) for key in re.findall(r"<b title=[^>]*><bdi>(.*?)</bdi></b>", page)]


def link(page: str, rel: str) -> str:
    found = re.search(rf'<a rel="{rel}" href="([^"]*)"', page)
    assert found, f"no link {rel}"
    return unescape(found[1])


ALL_KEYS = [printable(key) for seed in range(GROUPS) for key in shard_keys(seed)]


def test_pages_go_through_the_whole_store_and_back(server: Server) -> None:
    first = server.page("/")
    assert keys_of(first) == ALL_KEYS[:24]
    second = server.page(link(first, "next"))
    assert keys_of(second) == ALL_KEYS[24:]
    assert 'rel="next"' not in second
    assert keys_of(server.page(link(second, "prev"))) == ALL_KEYS[:24]


def test_samples_follow_one_another_across_groups(server: Server) -> None:
    path, seen = "/sample?at=train-0:0", []
    for _ in range(2 * ROWS):
        page = server.page(path)
        seen.append(unescape(re.search(r"<h1><bdi>(.*?)</bdi></h1>", page)[1]))  # type: ignore[index]
        path = link(page, "next")
    assert seen == ALL_KEYS[: 2 * ROWS]
    assert f"<bdi>{seen[-1]}</bdi>" in server.page(path)  # the link back


def test_sorted_by_disagreement_the_worst_come_first_and_unlabelled_ones_last(server: Server) -> None:
    usable = [key for key in ALL_KEYS if key != ALL_KEYS[BAD_ROW]]
    first = server.page("/?sort=disagreement")
    expected = [*usable[-2::-1], usable[-1]]
    assert keys_of(first) == expected[:24]
    assert "disagreement 0.970" in first
    assert keys_of(server.page(link(first, "next"))) == expected[24:]
    sample = server.page("/sample?sort=disagreement&at=1")
    assert f"previous (p): <bdi>{expected[0]}</bdi>" in sample
    assert f"next (n): <bdi>{expected[2]}</bdi>" in sample


def test_equal_figures_keep_the_order_of_the_store(server: Server) -> None:
    usable = [key for key in ALL_KEYS if key != ALL_KEYS[BAD_ROW]]
    assert keys_of(server.page("/?sort=classes")) == usable[:24]
    assert keys_of(server.page("/?sort=entropy"))[:3] == usable[4:15:5]


def test_whole_key_leads_to_its_sample(server: Server) -> None:
    status, _, headers = server.ask("/?key=" + quote(EVIL_KEY))
    assert (status, headers["location"]) == (303, "/sample?at=train-0%3A1")


def test_part_of_a_key_finds_all_that_hold_it(server: Server) -> None:
    assert keys_of(server.page("/?key=img003")) == [f"g{seed}/img003" for seed in range(GROUPS)]
    assert keys_of(server.page("/?key=nobody")) == []
    page = server.page("/?key=g")
    assert "at group 4 of 5 groups" in page
    assert keys_of(page) + keys_of(server.page(link(page, "next"))) == [key for key in ALL_KEYS if key[0] == "g"]


@pytest.fixture(scope="module")
def sure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose rows have class 1 as top-1: unsure everywhere, sure in one cell, in two, in the label alone."""
    names = ("mushroom", "toy, toy terrier", *map(str, range(2, 20)))
    schema = replace(make_schema(map_size=(10, 10)), class_names=names)
    labels = make_labels(schema, 4)
    fields = {name: getattr(labels, name) for name in GroupLabels.__slots__}
    fields["labels"] = np.array([0, 0, 0, 1], np.int32)
    classes, scores = np.empty_like(fields["classes"]), np.full_like(fields["scores"], 0)
    classes[:] = np.array([0, 5, 6])[:, None, None]
    scores[:, 0], fields["tail_logsumexp"] = 2, np.full_like(fields["tail_logsumexp"], 2)
    classes[0, 0] = 1
    classes[0, 1] = 0
    for row, cells in ((1, 1), (2, 2)):
        classes[row, 0, 4, :cells], scores[row, 0, 4, :cells] = 1, 11
    path = tmp_path_factory.mktemp("sure") / "labels.zarr"
    fields |= {"classes": classes, "scores": scores}
    StoreWriter.open(path, schema).write("train-0", GroupLabels(**fields), tar=TAR, provenance=PROVENANCE)
    return path


def test_class_is_found_as_label_and_where_it_is_present_but_in_no_unsure_cell(sure: Path) -> None:
    groups = Groups(LabelStore.open(sure))
    query = Query(classes=parse_classes(groups.store.schema, "terrier"))
    assert search(groups, query, Spot(0, 0), 24).spots == [Spot(0, 2), Spot(0, 3)]
    lower = replace_field(query, threshold=0.1)
    assert search(groups, lower, Spot(0, 0), 24).spots == [Spot(0, 0), Spot(0, 2), Spot(0, 3)]


def test_found_image_says_why(sure: Path, tmp_path: Path) -> None:
    groups = Groups(LabelStore.open(sure))
    images = ShardImages([str(write_tar(tmp_path / "other.tar", [("a.jpg", make_jpeg(1))]))])
    query = Query(classes=parse_classes(groups.store.schema, "TERRIER"), text="TERRIER")
    lines = [make_thumbnail(groups, images, Spot(0, row), "", query=query).lines[0] for row in (2, 3)]
    assert lines == ["found by 1 toy terrier in 2 of 100 cells", "found by its label: 1 toy terrier"]
    by_number = Query(classes=parse_classes(groups.store.schema, "1"), text="1")
    assert make_thumbnail(groups, images, Spot(0, 3), "", query=by_number).lines[0] == "found by its label"
    assert "found" not in make_thumbnail(groups, images, Spot(0, 2), "", query=Query(key="a")).lines[0]


def test_search_for_a_class_reads_numbers_and_any_case(server: Server, made: tuple[Path, str]) -> None:
    expected = [
        printable(row.key)
        for group in LabelStore.open(made[0])
        for row in group
        if row.undecodable is None
        and (row.label == 19 or (cell_confidence(row.scores, row.tail_logsumexp)[row.classes[0] == 19] >= 0.9).any())
    ]
    assert len(expected) >= GROUPS
    assert keys_of(server.page("/?class=19")) == expected[:24]
    assert keys_of(server.page("/?class=CLASS+19")) == expected[:24]
    assert keys_of(server.page("/?class=zebra")) == []
    assert keys_of(server.page("/?class=20")) == []


@pytest.mark.parametrize("sort", SORTS)
def test_search_and_sort_work_together(server: Server, made: tuple[Path, str], sort: str) -> None:
    first = server.page(f"/?sort={sort}")
    order = keys_of(first) + keys_of(server.page(link(first, "next")))
    by_key = [key for key in order if "img00" in key]
    page = server.page(f"/?sort={sort}&key=img00")
    assert keys_of(page) == by_key[:24]
    assert f"{len(by_key)} of 34 images by {sort}, the largest first" in page
    assert keys_of(server.page(link(page, "next"))) == by_key[24:]
    # The index has the class of the first cell as the one that is present.
    rows = [row for group in LabelStore.open(made[0]) for row in group]
    labels = {printable(row.key): {row.label, int(row.classes[0, 0, 0])} for row in rows}
    by_class = [key for key in order if 7 in labels[key]]
    assert keys_of(server.page(f"/?sort={sort}&class=7")) == by_class
    assert keys_of(server.page(f"/?sort={sort}&class=7&key=g2")) == [key for key in by_class if "g2" in key]
    sample = server.page(f"/sample?sort={sort}&class=7&at=1")
    assert f"<h1><bdi>{by_class[1]}" in sample
    assert f"previous (p): <bdi>{by_class[0]}" in sample
    back = re.search(r'<a href="([^"]*)">all images', sample)
    assert back is not None
    assert unescape(back[1]) == f"/?class=7&sort={sort}&at=1"


@pytest.mark.parametrize("threshold", [0.5, 0.9])
def test_audits_index_finds_what_the_maps_have(made: tuple[Path, str], tmp_path: Path, threshold: float) -> None:
    arguments = ["audit", str(made[0]), "--index", str(tmp_path / "i.npz"), "--threshold", str(threshold)]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    groups = Groups(LabelStore.open(made[0]))
    sorting = Sorting(read_index(tmp_path / "i.npz", groups.store), groups)
    assert sorting.threshold == threshold
    for key, wanted in (("", (0,)), ("", (7,)), ("img", (3, 5, 19)), ("g2", tuple(range(10)))):
        query = Query(key=key, classes=wanted, threshold=threshold)
        rows, _ = sorting.search("entropy", query)
        spots = sorted((sorting.spot(int(i)) for i in rows), key=lambda spot: (spot.group, spot.row))
        in_store = [spot for spot in search(groups, query, Spot(0, 0), 100).spots if spot != Spot(0, BAD_ROW)]
        assert spots == in_store != []


def test_links_and_form_keep_search_and_order(server: Server) -> None:
    page = server.page("/?sort=entropy&key=img&class=7")
    links = [unescape(found) for found in re.findall(r'<a href="(/\?[^"]*)">(?:store|disagreement|classes)<', page)]
    assert links == [f"/?key=img&class=7{sort}" for sort in ("", "&sort=disagreement", "&sort=classes")]
    assert '<input type="hidden" name="sort" value="entropy">' in page
    assert 'name="sort"' not in server.page("/?key=img")
    assert "no class has this number or name" in server.page("/?sort=entropy&class=zebra")
    assert "0 of 34 images by entropy" in server.page("/?sort=entropy&key=missing")


def test_group_whose_keys_cannot_be_searched_is_named_in_a_sorted_search(
    made: tuple[Path, str], tmp_path: Path
) -> None:
    labels = tmp_path / "labels.zarr"
    shutil.copytree(made[0], labels)
    groups = Groups(LabelStore.open(labels))
    sorting = Sorting(read_index(write_index(tmp_path / "i.npz", labels), groups.store), groups)
    keys = labels / "train-1" / "keys" / "c" / "0"
    data = keys.read_bytes()
    keys.write_bytes(data[:-1] + b"\0")
    rows, problems = sorting.search("entropy", Query(key="img004"))
    assert (len(rows), len(problems)) == (GROUPS - 1, 1)
    assert "train-1/keys" in problems[0]
    keys.write_bytes(data)
    rows, problems = sorting.search("entropy", Query(key="img004"))
    assert (len(rows), len(problems)) == (GROUPS, 0)


def test_hostile_keys_and_names_are_escaped(server: Server) -> None:
    for path in ("/", "/sample?at=train-0:1", f"/?key={quote(EVIL_KEY[:20])}&class=%22%3E%3Cscript%3E"):
        page = server.page(path)
        assert "<script>alert" not in page
        assert "onerror" not in re.sub(r"u003cimg src=x onerror|&lt;img src=x onerror", "", page)
        assert "\x1b" not in page
        assert "\u202e" not in page
        assert '"><script>' not in page


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "[::1]", ""])
def test_other_hosts_names_are_refused(server: Server, host: str) -> None:
    status, body, _ = server.ask("/", host=host.format(port=server.port))
    assert (status, body) == (400, "Invalid host header")


def test_own_names_are_answered(server: Server) -> None:
    for host in ("127.0.0.1", f"localhost:{server.port}"):
        assert server.ask("/", host=host)[0] == 200


def test_only_this_machine_is_listened_to(server: Server) -> None:
    listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    addresses = re.findall(rf": ([0-9A-F]+):{server.port:04X} 0+:0000 0A", listening)
    assert addresses == ["0100007F"]


def test_answers_cannot_be_embedded_elsewhere(server: Server) -> None:
    for path in ("/", "/sample?at=train-0:1", "/thumb?group=train-0&row=0"):
        headers = server.ask(path)[2]
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "server" not in headers


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/sample?at=train-0:7", 404, "train-0: no row 7"),
        ("/sample?at=train-9:0", 404, "no group 'train-9'"),
        ("/sample?at=../etc:0", 404, "no group '../etc'"),
        ("/sample?at=train-0:-1", 404, "no row"),
        ("/sample", 404, "no row ''; expected a group and a row, such as train-0000:12"),
        ("/sample?sort=entropy&at=999", 404, "no row '999' among the 34 sorted ones"),
        ("/thumb?group=train-0&row=99", 404, "no row 99"),
        ("/thumb?group=train-0&row=2", 500, "JPEG"),
        ("/nothing", 404, "Not Found"),
    ],
)
def test_wrong_addresses_say_what_is_wrong(server: Server, path: str, status: int, message: str) -> None:
    found, body, headers = server.ask(path)
    assert (found, headers["content-type"]) == (status, "text/plain; charset=utf-8")
    assert message in body


def test_nothing_can_be_posted(server: Server) -> None:
    assert server.ask("/", method="POST")[0] == 405


def test_thumbnail_is_a_small_jpeg(server: Server) -> None:
    _, body, headers = server.ask("/thumb?group=train-1&row=4")
    assert headers["content-type"] == "image/jpeg"
    assert "JFIF" in body


def test_thumbnail_says_which_classes_are_how_probable(server: Server, made: tuple[Path, str]) -> None:
    page = server.page("/")
    assert "Probabilities are of the whole image's target." in page
    store = LabelStore.open(made[0])
    for at, key in ((0, "g0/img000"), (3, "g0/img003"), (4, "g0/img004"), (5, "g0/img005")):
        row = store.group("train-0").row(at)
        target = crop_target(store.schema, row)
        thumbnail = next(part for part in page.split('class="thumbnail"') if f"<bdi>{key}</bdi>" in part)
        found = re.findall(
            r'<i>(.*?)</i> <bdi title="(.*?)">(.*?)</bdi>(?:<br>probability ([\d.]+))?</span>', thumbnail
        )
        named = {role: (unescape(title), unescape(text), number) for role, title, text, number in found}

        def shown(c: int, target: NDArray[np.float32] = target) -> tuple[str, str, str]:
            name = store.schema.class_name(c)
            return class_text(c, name), short_text(c, name), f"{target[c]:.3f}"

        best = int(target.argmax())
        if row.label == best:
            assert named == {"label and top-1": shown(best)}
        else:
            label = shown(row.label) if row.label >= 0 else ("none", "none", "")
            assert named == {"label": label, "top-1": shown(best)}


def test_pages_are_of_the_store_that_is_served_now(server: Server) -> None:
    """Another one may be served at this address next."""
    for path in ("/", "/sample?at=train-1:2", "/thumb?group=train-1&row=4", "/?at=train-0:99"):
        assert server.ask(path)[2]["cache-control"] == "no-store"


def test_thumbnails_without_a_shard_say_so(made: tuple[Path, str]) -> None:
    with browse(made[0], "--shards", made[0].parent / "train-0.tar") as server:
        page = server.page("/")
        assert "no image: --shards lacks train-1.tar" in page
        assert "group=train-1" not in page


def test_audit_that_became_stale_is_refused_while_serving(
    made: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = tmp_path / "labels.zarr"
    shutil.copytree(made[0], labels)
    store = LabelStore.open(labels)
    groups = Groups(store)
    sorting = Sorting(read_index(write_index(tmp_path / "i.npz", labels), store), groups)
    monkeypatch.setattr("store.browse.orders.FRESH", 0.0)
    sorting.refuse_stale()
    writer = StoreWriter(store, store.schema)
    writer.write("train-9", make_labels(store.schema, 2), tar=TAR, provenance=PROVENANCE)
    with pytest.raises(AuditIndexError, match="has changed since its audit; audit it again"):
        sorting.refuse_stale()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("row", "other", "changed since it was written"),
        ("present", "other", "changed since it was written"),
        ("group", "other", "changed since it was written"),
        ("entropy", "other", "changed since it was written"),
        ("classes", "type", "changed since it was written"),
        ("digest", "other", "changed since it was written"),
        ("version", "other", "version 3, expected 2"),
        ("version", "absent", "version 0, expected 2"),
        ("left_out", "absent", "left_out"),
        ("group", "bomb", "too large for this store"),
    ],
)
def test_changed_index_is_refused(made: tuple[Path, str], tmp_path: Path, name: str, change: str, message: str) -> None:
    index = write_index(tmp_path / "index.npz", made[0])
    with np.load(index) as archive:
        arrays = dict(archive)
    array = arrays.pop(name)
    if change == "other":
        arrays[name] = np.char.add(array, "x") if array.dtype.kind == "U" else array + 1
    elif change == "type":
        arrays[name] = array.astype(np.int64)
    elif change == "bomb":
        arrays[name] = np.array([1_000_000 * "x"])
    np.savez_compressed(index, **arrays)
    with pytest.raises(AuditIndexError, match=message) as caught:
        read_index(index, LabelStore.open(made[0]))
    assert "\n" not in str(caught.value)


def test_index_member_that_is_no_array_is_refused(made: tuple[Path, str], tmp_path: Path) -> None:
    index = write_index(tmp_path / "index.npz", made[0])
    with zipfile.ZipFile(index) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(index, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, b"garbage" if name == "row.npy" else data)
    with pytest.raises(AuditIndexError, match="not an index of this release"):
        read_index(index, LabelStore.open(made[0]))


def test_undecodable_row_has_its_reason_and_no_picture(server: Server) -> None:
    page = server.page(f"/sample?at=train-0:{BAD_ROW}")
    assert "undecodable, without a label map: damaged JPEG: &lt;b&gt;" in page
    assert "<canvas" not in page
    assert f"group=train-0&amp;row={BAD_ROW}" not in server.page("/")


def test_sorting_without_an_audit_says_how_to_get_one(made: tuple[Path, str], tmp_path: Path) -> None:
    with browse(made[0], "--shards", made[1]) as server:
        page = server.page("/?sort=entropy")
        assert keys_of(page) == ALL_KEYS[:24]
        assert "--index audit.npz" in page
        assert "sort=disagreement" not in page


def test_shard_that_is_missing_or_changed_leaves_the_map(made: tuple[Path, str], tmp_path: Path) -> None:
    jpeg = make_jpeg(77, width=WIDTH, height=HEIGHT)
    shard = write_tar(tmp_path / "train-1.tar", [(f"{key}.jpg", jpeg) for key in shard_keys(1)])
    with browse(made[0], "--shards", shard) as server:
        for at, problem in (
            ("train-1:3", "does not hold the image that was annotated"),
            ("train-0:0", "--shards lacks"),
        ):
            page = server.page(f"/sample?at={at}")
            assert problem in page
            assert "<canvas" in page
            assert 'alt="the image"' not in page


def test_damaged_group_is_named_and_the_others_are_shown(made: tuple[Path, str], tmp_path: Path) -> None:
    labels = tmp_path / "labels.zarr"
    shutil.copytree(made[0], labels)
    (labels / "train-1" / "classes" / "c" / "0" / "0" / "0" / "0").write_bytes(b"")
    with browse(labels, "--shards", made[1]) as server:
        page = server.page("/")
        assert keys_of(page) == [*ALL_KEYS[:ROWS], *ALL_KEYS[2 * ROWS : 2 * ROWS + 24 - ROWS]]
        assert "train-1/classes/c/0/0/0/0: damaged" in page
        assert "train-1" in server.page("/?class=3")


def test_row_that_cannot_be_read_leads_on_to_the_others(made: tuple[Path, str], tmp_path: Path) -> None:
    labels = tmp_path / "labels.zarr"
    shutil.copytree(made[0], labels)
    file = labels / "train-0" / "scores" / "c" / "0" / "0" / "0" / "0"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with browse(labels, "--shards", made[1]) as server:
        status, page, _ = server.ask(f"/sample?at=train-0:{ROWS - 1}")
        assert status == 500
        assert "train-0/scores" in page
        assert link(page, "next") == "/sample?at=train-1%3A0"
        assert link(page, "prev") == f"/sample?at=train-0%3A{ROWS - 2}"


def test_taken_port_is_one_line(made: tuple[Path, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(main, ["browse", str(made[0]), "--shards", made[1], "--port", str(port)])
    assert result.exit_code == 1
    assert f"error: port {port}: Address already in use; choose another with --port" in result.output


def test_interrupt_ends_it_quietly(made: tuple[Path, str]) -> None:
    with browse(made[0], "--shards", made[1]) as server:
        server.page("/")
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 0
        assert server.process.stderr is not None
        assert server.process.stderr.read() == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("digest", "made from another store than"),
        ("cut", "not an index of this release"),
        ("text", "not an index of this release"),
        ("absent", "cannot be read: No such file"),
        ("short", r"not an index of this release \(changed since it was written\)"),
        ("object", "not an index of this release"),
    ],
)
def test_unfit_index_is_refused_in_one_line(made: tuple[Path, str], tmp_path: Path, change: str, message: str) -> None:
    index = write_index(tmp_path / "index.npz", made[0], digest="0" * 64 if change == "digest" else None)
    if change == "cut":
        index.write_bytes(index.read_bytes()[:-100])
    elif change == "text":
        index.write_text("no zip")
    elif change == "absent":
        index.unlink()
    elif change in ("short", "object"):
        with np.load(index) as archive:
            arrays = dict(archive)
        arrays["entropy"] = arrays["entropy"][1:] if change == "short" else np.array([{}] * 34)
        np.savez(index, **arrays)
    with socket.create_server(("127.0.0.1", 0)) as taken:  # so that a server which does start ends at once
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(
            main, ["browse", str(made[0]), "--shards", made[1], "--audit", str(index), "--port", port]
        )
    assert result.exit_code == 1
    assert re.search(message, result.output)
    assert "run `relabel-store audit" in result.output
    assert result.output.count("\n") == 1


def test_few_groups_are_open_at_a_time(made: tuple[Path, str], tmp_path: Path) -> None:
    labels = tmp_path / "labels.zarr"
    shutil.copytree(made[0], labels)
    store = LabelStore.open(labels)
    writer, group = StoreWriter(store, store.schema), store.group("train-4")
    objects = {path: group.read_object(path) for path in group.commit.objects}
    for i in range(2 * OPEN_GROUPS):
        writer.publish(f"copy-{i:02}", objects, group.commit)
    groups = Groups(store)
    assert sum(1 for _ in groups.following(Spot(0, 0))) == len(groups) * ROWS
    assert len(groups._open) == OPEN_GROUPS
    assert sum(1 for _ in groups.preceding(Spot(len(groups) - 1, 3))) == (len(groups) - 1) * ROWS + 3


def test_search_ends_a_page_when_its_time_is_over_and_goes_on_there(
    made: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.browse.search.PATIENCE", -1)
    groups = Groups(LabelStore.open(made[0]))
    start: Spot | None = Spot(0, 0)
    spots, pages = [], 0
    while start is not None:
        found = search(groups, Query(key="img005", classes=None), start, 24)
        spots += found.spots
        start, pages = found.next, pages + 1
    assert spots == [Spot(number, 5) for number in range(GROUPS)]
    assert pages == GROUPS


@pytest.mark.parametrize("count", range(1, 10))
def test_pages_of_a_search_neither_skip_nor_repeat(made: tuple[Path, str], count: int) -> None:
    groups = Groups(LabelStore.open(made[0]))
    start: Spot | None = Spot(0, 0)
    spots = []
    while start is not None:
        found = search(groups, Query(key="img", classes=None), start, count)
        assert len(found.spots) <= count
        spots += found.spots
        start = found.next
    assert spots == [Spot(i // ROWS, i % ROWS) for i, key in enumerate(ALL_KEYS) if "img" in key]
