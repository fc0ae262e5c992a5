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
    click.option(
        "--checkpoint",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The teacher's weights, safetensors or a PyTorch state dict. Default: those that timm downloads.",
    ),
    click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="DEVICE",
        help="Where the teacher runs: cuda, cuda:1 or cpu; auto takes a GPU if there is one.",
    ),
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
    click.option(
        "--mean",
        callback=parse_channels,
        metavar="M",
        help="Mean of the pixels, which are scaled to 0 to 1: one number or R,G,B. Default: the teacher's.",
    ),
    click.option(
        "--std",
        callback=parse_channels,
        metavar="S",
        help="Standard deviation of the pixels, likewise. Default: the teacher's.",
    ),
    click.option(
        "--num-classes",
        type=click.IntRange(1, 65_535),
        metavar="N",
        help="Number of classes of --checkpoint. Default: that of timm's weights. For a module of your own it is only "
        "checked.",
    ),
    teacher_arg_option,
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
