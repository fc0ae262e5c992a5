"""A teacher that takes its time, so that a test can strike while it is at work."""

import time

import torch
from torch import Tensor, nn


class SlowTeacher(nn.Module):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.seconds = seconds
        self.body, self.top = nn.Conv2d(3, 8, 16, 16), nn.Linear(8, 12)

    def features(self, images: Tensor) -> Tensor:
        time.sleep(self.seconds)
        return torch.relu(self.body(images))

    def head(self, cells: Tensor) -> Tensor:
        logits: Tensor = self.top(cells)
        return logits


def make(seconds: float = 0.0) -> SlowTeacher:
    return SlowTeacher(seconds)
