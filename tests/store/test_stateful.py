"""Whatever is done to a store, in whatever order, and wherever writers are killed: it holds what a dict would."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from store.errors import GroupExistsError
from store.maintenance import clean, find_leftovers, merge, verify_group
from store.reader import LabelStore
from store.storage.open import open_backend
from store.writer import StoreWriter
from tests.builders.mortal import Death, mortal, without_exchange
from tests.builders.stores import PROVENANCE, TAR, make_labels, make_schema

SCHEMA = make_schema(num_classes=6, top_k=2, map_size=(2, 2))
ROWS = 3
NAMES = st.sampled_from(["a", "b", "c"])
SEEDS = st.integers(0, 5)


def write(location: str, name: str, seed: int, *, overwrite: bool = False) -> None:
    writer = StoreWriter.open(location, SCHEMA)
    labels = make_labels(SCHEMA, ROWS, seed)
    writer.write(name, labels, tar=TAR, provenance=PROVENANCE, overwrite=overwrite)


def content(location: str) -> dict[str, int]:
    """Group to seed; each group is compared with what that seed gives."""
    if not open_backend(location).is_occupied():
        return {}
    found = {}
    for group in LabelStore.open(location):
        seed = int(group.keys[0].split("/")[0].removeprefix("seed"))
        expected, maps = make_labels(SCHEMA, ROWS, seed), group.read()
        assert np.array_equal(maps.scores, expected.scores)
        assert np.array_equal(maps.classes, expected.classes)
        assert tuple(group.keys) == expected.keys
        assert not verify_group(LabelStore.open(location), group.name, deep=True)
        found[group.name] = seed
    return found


def collect_leftovers(location: str) -> None:
    store = LabelStore.open(location)
    store.backend.min_age = 0.0  # as if hours had gone by
    for leftover in list(find_leftovers(store, min_age=0)):
        clean(store, leftover)
    assert list(find_leftovers(store, min_age=0)) == []


class StoreMachine(RuleBasedStateMachine):
    """Two stores, `first` and `second`, against two dicts."""

    new_location: Callable[[], str]

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = type(self).new_location(), type(self).new_location()
        self.model: dict[str, int] = {}
        self.merged: dict[str, int] = {}
        StoreWriter.open(self.first, SCHEMA)

    @rule(name=NAMES, seed=SEEDS, overwrite=st.booleans())
    def annotate(self, name: str, seed: int, overwrite: bool) -> None:
        if name in self.model and not overwrite:
            with pytest.raises(GroupExistsError):
                write(self.first, name, seed)
            return
        write(self.first, name, seed, overwrite=overwrite)
        self.model[name] = seed

    @rule(name=NAMES, seed=SEEDS, overwrite=st.booleans(), at=st.integers(0, 60), after=st.booleans())
    def annotate_and_die(self, name: str, seed: int, overwrite: bool, at: int, after: bool) -> None:
        old = self.model.get(name)
        with mortal(Death(at, after)):
            try:
                write(self.first, name, seed, overwrite=overwrite)
            except GroupExistsError:
                assert old is not None
        found = content(self.first).get(name)
        assert found in (old, seed)
        if found is not None:
            self.model[name] = found

    @rule()
    def gc(self) -> None:
        for location in (self.first, self.second):
            if open_backend(location).is_occupied():
                collect_leftovers(location)

    @rule()
    def merge(self) -> None:
        if all(self.merged.get(name, seed) == seed for name, seed in self.model.items()):
            list(merge([self.first], self.second))
            self.merged |= self.model

    @rule(at=st.integers(0, 90), after=st.booleans())
    def merge_and_die(self, at: int, after: bool) -> None:
        with mortal(Death(at, after)):
            list(merge([self.first], self.second))
        found = content(self.second)
        assert found.items() >= self.merged.items()
        assert all(self.model.get(name) == seed for name, seed in found.items() if name not in self.merged)
        self.merged = found

    @invariant()
    def stores_hold_what_the_dicts_hold(self) -> None:
        assert content(self.first) == self.model
        assert content(self.second) == self.merged


@contextmanager
def locations(new: Callable[[int], str]) -> Iterator[type[StoreMachine]]:
    numbers = iter(range(1 << 30))

    class Machine(StoreMachine):
        new_location = staticmethod(lambda: new(next(numbers)))

    yield Machine


def run(machine: type[StoreMachine], *, examples: int, steps: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


@pytest.mark.parametrize("examples", [12, pytest.param(150, marks=pytest.mark.slow)])
def test_local_store_holds_what_a_dict_would(tmp_path: Path, examples: int) -> None:
    with locations(lambda i: str(tmp_path / f"{i}" / "labels.zarr")) as machine:
        run(machine, examples=examples, steps=15)


@pytest.mark.parametrize("examples", [1, pytest.param(15, marks=pytest.mark.slow)])
def test_store_in_a_bucket_holds_what_a_dict_would(s3_store: str, examples: int) -> None:
    with locations(lambda i: f"{s3_store}-{i}") as machine:
        run(machine, examples=examples, steps=10)


@pytest.mark.parametrize(
    ("backend", "overwrite"),
    [
        ("local", False),
        ("local", True),
        pytest.param("local without exchange", True, marks=pytest.mark.slow),
        ("bucket", False),
        pytest.param("bucket", True, marks=pytest.mark.slow),
    ],
)
def test_kill_before_or_after_any_write_leaves_the_old_group_or_the_new(
    backend: str, overwrite: bool, tmp_path: Path, s3_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = s3_store if backend == "bucket" else str(tmp_path / "labels.zarr")
    if backend == "local without exchange":
        without_exchange(monkeypatch)

    def attempt(location: str, death: Death) -> dict[str, int]:
        StoreWriter.open(location, SCHEMA)
        if overwrite:
            write(location, "a", 1)
        with mortal(death):
            write(location, "a", 2, overwrite=overwrite)
        return content(location)

    count = Death(None)
    assert attempt(f"{base}-whole", count) == {"a": 2}
    assert count.writes > 14
    old, lost = (1 if overwrite else None), 0
    for at in range(count.writes):
        for after in (False, True):
            location = f"{base}-{at}-{after}"
            found = attempt(location, Death(at, after)).get("a")
            if backend == "local without exchange" and found is None:  # between its two renames
                lost += 1
                assert StoreWriter.open(location, SCHEMA).restored == ["a"]
                found = content(location).get("a")
            assert found in (2, old)
            if backend != "bucket" and found is None:
                collect_leftovers(location)
                assert content(location) == {}
    assert (lost > 0) == (backend == "local without exchange")


def test_dead_writers_do_nothing_more(tmp_path: Path) -> None:
    with mortal(Death(3)) as death:
        write(str(tmp_path / "labels.zarr"), "a", 1)
    assert death.dead
    assert (tmp_path / "labels.zarr.partial").exists()
