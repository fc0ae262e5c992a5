import json
import math
from dataclasses import fields
from typing import Any

import pytest

from pipelines.train.recipes import RECIPES
from store.errors import SettingsError
from tests.builders.training import small_settings
from trainer.settings import (
    ADDED,
    MAY_DIFFER,
    SETTINGS,
    TrainSettings,
    settings_differences,
    settings_from_json,
    settings_to_json,
    with_overrides,
    without_retired,
)
from trainer.student.model import pretrained_settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs=0: expected 1 to 1,000,000"),
        ({"epochs": 10**400}, "epochs=10000.*0000: expected 1 to 1,000,000"),
        ({"image_size": 65_536}, "image_size=65536: expected 1 to 65,535"),
        ({"val_size": 65_536}, "val_size=65536: expected 1 to 65,535"),
        ({"crop_scale": (0.5, 0.1)}, r"crop_scale=\(0.5, 0.1\): expected low,high with 0 < low <= high <= 1"),
        ({"crop_ratio": (0.0, 1.0)}, r"crop_ratio=\(0.0, 1.0\): expected low,high with 0.01 <= low <= high <= 100"),
        ({"crop_ratio": (1.0, 101.0)}, "crop_ratio="),
        ({"crop_ratio": (1.0, math.nan)}, "crop_ratio="),
        ({"lr": math.nan}, "lr=nan: expected above 0, at most 1,000,000"),
        ({"lr": 0.0}, "lr=0.0"),
        *(({name: 1e308}, rf"{name}=1e\+308: expected .*1,000,000") for name in ("lr", "warmup_lr", "min_lr")),
        ({"weight_decay": math.inf}, "weight_decay=inf: expected 0 to 1,000,000"),
        ({"std": (0.5, 1e-50, 0.5)}, "std="),
        ({"mean": (0.5, math.nan, 0.5)}, "mean="),
        ({"mean": (1e50, 0.5, 0.5)}, "mean="),
        ({"momentum": 1.0}, "momentum=1.0"),
        ({"target": "both"}, "target='both': expected one of relabel, global, local-single, global-single, original"),
        ({"temperature": 0.0}, "temperature=0"),
        ({"original_weight": 1.5}, "original_weight=1.5: expected 0 to 1"),
        ({"target": "original", "original_weight": 0.5}, "original_weight=0.5: expected 0 with target=original"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0"),
        ({"seed": 2**32}, "seed=4294967296"),
        ({"workers": -1}, "workers=-1"),
        ({"workers": 65}, "workers=65: expected 0 to 64"),
        ({"val_crop_pct": 0.009}, "val_crop_pct=0.009: expected 0.01 to 1"),
        ({"sched_args": {"noise_pct": float("nan")}}, "sched_args=.*: expected JSON of finite numbers"),
        ({"model_args": {"a": object()}}, "model_args=.*: expected JSON of finite numbers"),
        (
            {"model_args": {"a": [[[[[[[[]]]]]]]]}},
            "model_args=.*: expected JSON of finite numbers, nested at most 8 deep",
        ),
        ({"warmup_epochs": 2}, "warmup_epochs=2: expected 0 to 1, fewer than epochs"),
        ({"model": ""}, "model=''"),
    ],
)
def test_values_out_of_range_are_refused_by_field_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        small_settings(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": "3"}, "epochs='3': expected a whole number"),
        ({"epochs": 2.0}, "epochs=2.0: expected a whole number"),
        ({"seed": True}, "seed=True: expected a whole number"),
        ({"lr": False}, "lr=False: expected a number"),
        ({"flip": 1}, "flip=1: expected true or false"),
        ({"model": None}, "model=None: expected text"),
        ({"target": ["relabel"]}, r"target=\['relabel'\]: expected text"),
        ({"mean": 0.5}, "mean=0.5: expected 3 numbers"),
        ({"model_args": []}, "model_args=.*: expected a JSON object"),
    ],
)
def test_values_of_the_wrong_type_are_refused_by_field_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        small_settings(**changes)


def test_every_setting_has_a_type_a_default_within_its_range_and_a_meaning() -> None:
    assert list(SETTINGS) == [field.name for field in fields(TrainSettings)]
    for setting in SETTINGS.values():
        assert setting.meaning
        assert setting.type in ("int", "float", "bool", "text", "2 floats", "3 floats", "JSON object")
        assert setting.range or setting.type in ("bool", "text"), setting.name
        if setting.name != "model":
            setting.check(setting.default)


def test_settings_do_not_share_their_default_arguments() -> None:
    one, other = TrainSettings(model="a"), TrainSettings(model="a")
    one.model_args["drop_rate"] = 0.1
    assert (other.model_args, TrainSettings(model="a").model_args, SETTINGS["model_args"].default) == ({}, {}, {})


def test_the_widest_values_are_taken() -> None:
    widest = small_settings(
        image_size=65_535, val_size=65_535, val_crop_pct=0.01, crop_ratio=(0.01, 100.0), lr=1e6, weight_decay=0.0,
        std=(0.001, 1000.0, 1.0), mean=(-1000.0, 1000.0, 0.0), seed=2**32 - 1, workers=64,
        model_args={"a": [[[[[[]]]]]]},
    )  # fmt: skip
    assert settings_from_json(settings_to_json(widest)) == widest


@pytest.mark.parametrize(
    ("changes", "needs_labels"),
    [({}, False), ({"original_weight": 0.5}, True), ({"target": "original"}, True)],
)
def test_settings_know_whether_they_need_labels(changes: dict[str, Any], needs_labels: bool) -> None:
    assert small_settings(**changes).needs_labels == needs_labels


def test_settings_of_earlier_releases_are_read_where_they_mean_the_same() -> None:
    values = settings_to_json(small_settings())
    del values["temperature"]
    assert settings_from_json(values | {"fill": "zero"}) == small_settings()
    with pytest.raises(SettingsError, match="fill='tail' is a setting of an earlier release"):
        settings_from_json(values | {"fill": "tail"})


def test_overrides_take_each_fields_type() -> None:
    texts = [
        "lr=1e-2", "epochs=3", "flip=false", "crop_scale=0.25,1", "mean=0.5, 0.5,0.5", "model=resnet18",
        'model_args={"output_stride": 16}', "target=global-single", "min_lr=0",
    ]  # fmt: skip
    changed = with_overrides(small_settings(), texts)
    assert (changed.lr, changed.epochs, changed.flip, changed.min_lr) == (0.01, 3, False, 0.0)
    assert (changed.crop_scale, changed.mean) == ((0.25, 1.0), (0.5, 0.5, 0.5))
    assert (changed.model, changed.model_args, changed.target) == ("resnet18", {"output_stride": 16}, "global-single")
    assert type(changed.min_lr) is float


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr", "expected key=value"),
        ("label_smooth=0.1", "no setting is called 'label_smooth'; did you mean label_smoothing"),
        ("zzz=1", "no setting is called 'zzz'; `relabel-train settings` lists them"),
        ("lr=fast", "lr='fast': expected a number"),
        ("lr=\u0661", "lr='\u0661': expected a number"),
        ("epochs=\uff13\uff10", "epochs='\uff13\uff10': expected a whole number"),
        ("crop_scale=0.2,\u06f1", "expected 2 numbers with commas between them"),
        ("epochs=2.5", "epochs=2.5: expected a whole number"),
        ("epochs=inf", "epochs=inf: expected a whole number"),
        ("flip=yes", "flip='yes': expected true or false"),
        ("flip=1", "flip=1: expected true or false"),
        ("crop_scale=0.5", "expected 2 numbers with commas between them"),
        ("mean=0.5,0.5", "expected 3 numbers with commas between them"),
        ("model_args=[1]", "expected a JSON object"),
        ("model_args={", "expected a JSON object"),
        ("model_args=" + "[" * 100_000, "expected a JSON object"),
        ("model_args=" + "[" * 500 + "]" * 500, "expected a JSON object"),
        ('model_args={"a": ' + "[" * 500 + "]" * 500 + "}", "expected JSON of finite numbers, nested at most 8 deep"),
        ("target=both", "expected one of relabel"),
    ],
)
def test_bad_overrides_are_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        with_overrides(small_settings(), [text])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("recipe", RECIPES)
def test_settings_are_equal_after_a_round_trip_through_json(recipe: str) -> None:
    settings = RECIPES[recipe]()
    assert settings_from_json(json.loads(json.dumps(settings_to_json(settings)))) == settings


@pytest.mark.parametrize("name", [name for name in ADDED if name not in MAY_DIFFER])
def test_settings_of_an_earlier_release_mean_what_they_meant_then(name: str) -> None:
    written = settings_to_json(small_settings())
    then = {key: value for key, value in written.items() if key != name}
    assert settings_from_json(then) == small_settings(**{name: ADDED[name]})
    assert not list(settings_differences(then, written | {name: ADDED[name]}))
    other = not ADDED[name]
    assert list(settings_differences(then, written | {name: other})) == [f"{name}: {ADDED[name]} then, {other} now"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": "0.1"}, "lr='0.1': expected a number"),
        ({"epochs": 1.5}, "epochs=1.5: expected a whole number"),
        ({"epochs": True}, "epochs=True: expected a whole number"),
        ({"crop_scale": 3}, "crop_scale=3: expected 2 numbers"),
        ({"crop_scale": [0.5, "1"]}, "crop_scale=.*: expected 2 numbers"),
        ({"lr": 10**400}, "lr=inf: expected above 0, at most 1,000,000"),
        ({"mean": [0, 0, -(10**400)]}, "mean=.*: expected 3 numbers from -1,000 to 1,000"),
        ({"colour": 1}, "no setting is called 'colour'"),
    ],
)
def test_damaged_json_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings_from_json(settings_to_json(small_settings()) | change)


def test_json_settings_with_missing_fields_are_refused() -> None:
    values = settings_to_json(small_settings())
    del values["lr"]
    with pytest.raises(SettingsError, match="settings without lr"):
        settings_from_json(values)
    with pytest.raises(SettingsError, match="should be a JSON object, found list"):
        settings_from_json([])


def test_settings_cannot_be_changed() -> None:
    settings = small_settings()
    with pytest.raises(AttributeError):
        settings.lr = 1.0  # type: ignore[misc]
    assert isinstance(settings, TrainSettings)


def test_networks_whose_images_timm_does_not_crop_centrally_need_a_crop() -> None:
    name = "convnext_tiny.fb_in22k_ft_in1k_384"
    with pytest.raises(SettingsError, match="crop_mode=squash"):
        pretrained_settings(name, {}, {})
    assert pretrained_settings(name, {}, {"val_crop_pct": 1.0})[0].val_size == 384


def test_retired_settings_do_not_concern_a_trained_student() -> None:
    values = settings_to_json(small_settings()) | {"fill": "tail"}
    assert settings_from_json(without_retired(values)) == small_settings()


@pytest.mark.parametrize(("crops", "expected"), [(3, "a divisor of batch_size=32"), (0, "1 to 1,000,000")])
def test_crops_of_an_image_divide_a_batch(crops: int, expected: str) -> None:
    with pytest.raises(SettingsError, match=rf"^crops_per_image={crops}: expected {expected}$"):
        small_settings(batch_size=32, crops_per_image=crops)
