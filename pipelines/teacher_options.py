"""The options that say which teacher annotates, folded into one `TeacherSettings`."""

from collections.abc import Callable
from dataclasses import fields
from functools import reduce, wraps
from pathlib import Path
from typing import Any

import click

from annotator.settings import TeacherSettings
from pipelines.options import parse_channels, parse_size, teacher_arg_option

OPTIONS = (
    click.option(
        "--teacher",
        "name",
        required=True,
        metavar="NAME",
        help="A timm model, such as resnet50.a1_in1k; or package.module:function, which builds a module of your own.",
    ),
    teacher_arg_option,
    click.option(
        "--checkpoint",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The teacher's weights, safetensors or a PyTorch state dict; without it timm downloads its own.",
    ),
    click.option(
        "--input-size",
        callback=parse_size,
        metavar="PIXELS",
        help="Images are squashed to this size (480, or 480x320 as height x width). Default: the teacher's.",
    ),
    click.option("--mean", callback=parse_channels, metavar="M", help="Pixel mean in [0, 1]: one number or R,G,B."),
    click.option("--std", callback=parse_channels, metavar="S", help="Pixel standard deviation: one number or R,G,B."),
    click.option(
        "--num-classes",
        type=click.IntRange(1, 65_535),
        help="Classes of the checkpoint's head, if not timm's; of a module of your own, as a check.",
    ),
    click.option(
        "--device", default="auto", show_default=True, help="cuda, cuda:1, cpu; auto takes a GPU if there is one."
    ),
    click.option(
        "--precision",
        type=click.Choice(["float32", "bfloat16", "float16"]),
        default="float32",
        show_default=True,
        help="Of the teacher's features; head and top-k are always float32.",
    ),
    click.option(
        "--compile",
        "compiled",
        is_flag=True,
        help="Let torch.compile make the teacher faster; the first batch then takes minutes.",
    ),
)


def teacher_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options, and their values as its argument `teacher`."""

    @wraps(command)
    def call(teacher_args: dict[str, Any], **values: Any) -> None:  # noqa: ANN401  (click has checked the values)
        names = {field.name for field in fields(TeacherSettings)} & values.keys()
        chosen = {name: values.pop(name) for name in names}
        command(teacher=TeacherSettings(args=teacher_args, **chosen), **values)

    return reduce(lambda function, option: option(function), reversed(OPTIONS), call)
