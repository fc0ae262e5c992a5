"""Random label maps and boxes for tests of LabelPooling."""

import numpy as np
import torch
from torch import Tensor


def random_maps(seed: int, batch: int, top_k: int, num_classes: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, num_classes, height, width)
    classes = torch.rand(shape, generator=generator).argsort(1)[:, :top_k]
    scores = (torch.randn(shape, generator=generator) * 4).sort(1, descending=True).values[:, :top_k]
    return classes.to(torch.uint16), scores.half()


def random_boxes(seed: int, batch: int, height: int, width: int) -> Tensor:
    """(B, 4) float32; of each side half are aligned to cells, where a rounding error would flip `ceil`.

    A quarter of the aligned ones are one cell long; a quarter of the others lie within less than one.
    """
    rng = np.random.default_rng(seed)
    sides = []
    for cells in (width, height):
        free = np.sort(rng.random((batch, 2)), axis=1)
        low = rng.integers(0, cells, batch)
        aligned = np.stack([low, rng.integers(low + 1, cells + 1)], axis=1) / cells
        small = rng.random((batch, 1)) < 0.25
        aligned = np.where(small, np.stack([low, low + 1], axis=1) / cells, aligned)
        free = np.where(small, free[:, :1] * (1 - 1 / cells) + np.sort(rng.random((batch, 2)), axis=1) / cells, free)
        side = np.where(rng.random((batch, 1)) < 0.5, aligned, free).astype(np.float32)
        side[side[:, 0] >= side[:, 1]] = (0, 1)
        sides.append(side)
    return torch.from_numpy(np.stack([sides[0][:, 0], sides[1][:, 0], sides[0][:, 1], sides[1][:, 1]], axis=1))
