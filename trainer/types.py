"""Literal types of the settings, in a module without imports of torch."""

from typing import Literal

Interpolation = Literal["bilinear", "bicubic"]
Schedule = Literal["cosine", "tanh", "poly", "step", "multistep", "constant"]
"""Names of timm's learning-rate schedules."""

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16"]
