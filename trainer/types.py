"""The words that settings and tensor code share; a leaf that imports nothing heavy."""

from typing import Literal

TargetKind = Literal["relabel", "global", "local-single", "global-single", "original"]
"""What the student is trained on, the arms of the paper's ablation (ReLabel, CVPR 2021, section 4.1).

`relabel` pools the crop's box; `global` the whole map (no localization); the `-single` kinds keep only the arg max;
`original` is the dataset's own label.
"""

Fill = Literal["zero", "tail", "min"]
"""The logit of classes outside a cell's top K: 0, the tail's mass spread evenly, or the cell's lowest kept score."""

Interpolation = Literal["bilinear", "bicubic"]
Schedule = Literal["cosine", "tanh", "poly", "step", "multistep", "constant"]
"""timm's names."""

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16"]
