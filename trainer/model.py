"""The student: any timm classifier, built from scratch for the store's classes."""

from difflib import get_close_matches

import timm
import torch
from torch import nn

from store.errors import SettingsError
from trainer.settings import TrainSettings


def build_student(settings: TrainSettings, num_classes: int) -> nn.Module:
    """A student with random weights that takes the settings' images and gives one logit per class.

    Raises:
        SettingsError: no such model, arguments it does not take, or an image size that does not fit it.
    """
    if not timm.is_model(settings.model):
        near = get_close_matches(settings.model, timm.list_models(), n=3, cutoff=0.6)
        hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() names them"
        raise SettingsError(f"model={settings.model!r}: timm has no such model; {hint}")
    try:
        model: nn.Module = timm.create_model(
            settings.model, pretrained=False, num_classes=num_classes, **settings.model_args
        )
    except (TypeError, ValueError, AssertionError, RuntimeError, NotImplementedError, KeyError) as error:
        raise SettingsError(f"model={settings.model!r}, model_args={settings.model_args}: {error}") from error
    for size in {settings.image_size, settings.val_size}:
        _try_out(model, settings.model, size, num_classes)
    return model


def _try_out(model: nn.Module, name: str, size: int, num_classes: int) -> None:
    """One image through the model, so that a size that does not fit is known before training."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            logits = model(torch.zeros(1, 3, size, size))
    except (ValueError, AssertionError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SettingsError(
            f"model={name!r} does not take images of {size} x {size} pixels ({reason}); "
            'change image_size and val_size, or give model_args={"img_size": ...} if it has that'
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (1, num_classes):
        raise SettingsError(f"model={name!r} does not give one logit for each of {num_classes} classes")
    model.train(was_training)
