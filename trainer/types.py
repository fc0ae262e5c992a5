"""The words that settings and tensor code share; a leaf that imports nothing heavy."""

from typing import Literal

Interpolation = Literal["bilinear", "bicubic"]
Schedule = Literal["cosine", "tanh", "poly", "step", "multistep", "constant"]
"""timm's names."""

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16"]
