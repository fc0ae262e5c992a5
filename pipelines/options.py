"""Options that several commands share, and the parsing of their values."""

import ast
import re
from collections.abc import Callable
from dataclasses import fields
from functools import reduce, wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from annotator.settings import BadLimit, TeacherSettings
from store.cli.options import LocalPath, Location
from store.errors import SettingsError

C = TypeVar("C", bound=Callable[..., Any])


def parse_size(_: object, __: object, text: str | None) -> tuple[int, int] | None:
    """Parse pixels: 480, or 480x320 for height x width."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    if not match or int(match[1]) == 0 or match[2] == "0":
        raise click.BadParameter("expected pixels such as 480, or height x width such as 480x320")
    return int(match[1]), int(match[2] or match[1])


def parse_channels(_: object, __: object, text: str | None) -> tuple[float, float, float] | None:
    """Parse one number for all channels, or three with commas."""
    if text is None:
        return None
    try:
        values = [float(value) for value in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 3):
        raise click.BadParameter("expected one number or three with commas, such as 0.485,0.456,0.406")
    red, green, blue = values if len(values) == 3 else values * 3
    return red, green, blue


def parse_arguments(_: object, __: object, pairs: tuple[str, ...]) -> dict[str, Any]:
    """Parse KEY=VALUE pairs; a value is a Python literal where it parses as one, else text."""
    arguments: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise click.BadParameter(f"{pair!r}: expected KEY=VALUE, such as pad_type=same")
        try:
            arguments[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            arguments[key] = value
        if not isinstance(arguments[key], (str, int, float, bool, type(None))):
            raise click.BadParameter(f"{pair!r}: the value must be text, a number, True, False or None")
    return arguments


def parse_bad_limit(_: object, __: object, text: str) -> BadLimit:
    """Parse a number of images, or a share such as 1%."""
    try:
        return BadLimit.parse(text)
    except SettingsError as error:
        raise click.BadParameter(str(error)) from error


def read_class_names(file: Path) -> tuple[str, ...]:
    """Read one class name a line.

    Raises:
        SettingsError: the file cannot be read or has an empty line.
    """
    try:
        # Not splitlines: it also breaks at characters that a name may hold. Editors add the mark and the last newline.
        names = file.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: class names cannot be read: {error}") from error
    if not names or not all(name.strip() for name in names):
        raise SettingsError(f"{file}: expected one class name a line, found an empty one")
    return tuple(name.strip() for name in names)


def mean_option(note: str = "") -> Callable[[C], C]:
    """The option `--mean`, whose help ends with a note on its default."""
    text = "Mean of the pixels, which are scaled to 0 to 1: one number or R,G,B."
    return click.option("--mean", callback=parse_channels, metavar="M", help=f"{text} {note}".rstrip())


def std_option(note: str = "") -> Callable[[C], C]:
    """The option `--std`, whose help ends with a note on its default."""
    text = "Standard deviation of the pixels, likewise."
    return click.option("--std", callback=parse_channels, metavar="S", help=f"{text} {note}".rstrip())


sources_option = click.option(
    "--shards",
    "patterns",
    type=Location(),
    multiple=True,
    required=True,
    metavar="PATTERN",
    help="Image shards: paths or URLs (s3://, http://) with braces ({0000..1023}) or globs (*, **), in quotes, so that "
    "the shell does not expand them. Repeatable.",
)

store_option = click.option(
    "--labels",
    type=Location(),
    required=True,
    metavar="STORE",
    help="The label store to write, a path or a URL such as s3://bucket/labels.zarr; created if absent, "
    "continued if it was interrupted.",
)

class_names_option = click.option(
    "--class-names",
    type=LocalPath(),
    metavar="FILE",
    help="Text file with one class name a line, in the order of the class ids (0 first).",
)

teacher_arg_option = click.option(
    "--teacher-arg",
    "teacher_args",
    multiple=True,
    callback=parse_arguments,
    metavar="KEY=VALUE",
    help="An argument for timm.create_model, or for your own function, such as pad_type=same. Repeatable.",
)

checkpoint_option = click.option(
    "--checkpoint",
    type=LocalPath(),
    metavar="FILE",
    help="The teacher's weights, safetensors or a PyTorch checkpoint. Default: timm's pretrained weights.",
)

device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="DEVICE",
    help="Device of the teacher: cuda, cuda:1 or cpu; auto takes a GPU if there is one.",
)

TEACHER_OPTIONS = (
    click.option(
        "--teacher",
        "name",
        required=True,
        metavar="NAME",
        help="A timm model, such as resnet50.a1_in1k; or package.module:function, which builds a custom model.",
    ),
    checkpoint_option,
    device_option,
    click.option(
        "--precision",
        type=click.Choice(["float32", "bfloat16", "float16"]),
        default="float32",
        show_default=True,
        help="Precision of the teacher's features; its head and the choice of the top classes are always float32.",
    ),
    click.option(
        "--input-size",
        callback=parse_size,
        metavar="PIXELS",
        help="Images are squashed to this size (480, or 480x320 as height x width). Default: the teacher's.",
    ),
    mean_option("Default: the teacher's."),
    std_option("Default: the teacher's."),
    click.option(
        "--num-classes",
        type=click.IntRange(1, 65_535),
        metavar="N",
        help="Number of classes of --checkpoint. Default: that of timm's weights. The classes of a custom model are "
        "counted, and compared with N.",
    ),
    teacher_arg_option,
    click.option(
        "--allow-disagreement",
        is_flag=True,
        help="Take a custom model whose cells disagree with the logits of its own forward.",
    ),
    click.option(
        "--compile",
        "compiled",
        is_flag=True,
        help="Run the teacher through torch.compile, which is faster; the first batch then takes minutes.",
    ),
)


def teacher_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the `TEACHER_OPTIONS`, and their values as one argument `teacher`, a `TeacherSettings`."""

    @wraps(command)
    def call(teacher_args: dict[str, Any], **values: Any) -> None:  # noqa: ANN401  (click has checked the values)
        names = {field.name for field in fields(TeacherSettings)} & values.keys()
        chosen = {name: values.pop(name) for name in names}
        command(teacher=TeacherSettings(args=teacher_args, **chosen), **values)

    return reduce(lambda function, option: option(function), reversed(TEACHER_OPTIONS), call)
