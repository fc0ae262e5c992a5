"""A classifier in two parts: features of cells, and a head that maps one cell to logits.

timm's networks are wrapped; a custom model has the two methods itself.

Shape letters: B batch, N cells of any number of images, D features, P prefix tokens, C classes, H W cells (y, x).
"""

import math
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from store.errors import TeacherError

Layout = Literal["BDHW", "BHWD", "tokens"]  # tokens: (B, P + H*W, D), cells row by row


class Classifier(Protocol):
    """The methods of a network that the annotator calls."""

    def features(self, images_B3hw: Tensor) -> Tensor:
        """(B, 3, h, w) normalised images to (B, D, H, W) features."""

    def head(self, cells_ND: Tensor) -> Tensor:
        """(N, D) features to (N, C) logits, each cell by itself."""


class TimmClassifier:
    """A timm network; its own `forward_head` is the head, so layers after pooling are applied to each cell.

    Args:
        network: in evaluation mode.
        name: for messages.
    """

    def __init__(self, network: nn.Module, name: str) -> None:
        self.network, self.name = network, name
        self.depth = int(network.num_features)  # type: ignore[arg-type]
        self.prefix = int(getattr(network, "num_prefix_tokens", 0))
        self.layout: Layout = "BDHW"  # until the first features show it

    def features(self, images_B3hw: Tensor) -> Tensor:
        """(B, 3, h, w) normalised images to (B, D, H, W) features.

        Raises:
            TeacherError: the network's features are not those of cells.
        """
        features = self.network.forward_features(images_B3hw)  # type: ignore[operator]
        self.layout = self._find_layout(features)
        if self.layout == "tokens":
            height, width = images_B3hw.shape[2:]
            return self._grid(features, height / width)
        return features if self.layout == "BDHW" else features.permute(0, 3, 1, 2)  # type: ignore[no-any-return]

    def head(self, cells_ND: Tensor) -> Tensor:
        """(N, D) features to (N, C) logits: the network's own head on maps of one cell."""
        return self.pooled(cells_ND[:, :, None, None])

    def pooled(self, features_BDHW: Tensor) -> Tensor:
        """(B, D, H, W) features to (B, C) logits: the network's own head, with its pooling."""
        if self.layout == "BHWD":
            features_BDHW = features_BDHW.permute(0, 2, 3, 1)
        elif self.layout == "tokens":
            tokens_BLD = features_BDHW.flatten(2).transpose(1, 2)
            features_BDHW = torch.cat([tokens_BLD.new_zeros(len(tokens_BLD), self.prefix, self.depth), tokens_BLD], 1)
        logits: Tensor = self.network.forward_head(features_BDHW)  # type: ignore[operator]
        return logits

    def _find_layout(self, features: object) -> Layout:
        if isinstance(features, Tensor):
            if features.dim() == 4 and features.shape[1] == self.depth:
                return "BDHW"
            if features.dim() == 4 and features.shape[3] == self.depth:
                return "BHWD"
            if features.dim() == 3 and features.shape[2] == self.depth:
                return "tokens"
            found = f"have the shape {tuple(features.shape)}"
        else:
            found = "are several tensors"
        raise unsupported(self.name, f"its features {found}, expected one map or grid of tokens, {self.depth} deep")

    def _grid(self, tokens_BLD: Tensor, aspect: float) -> Tensor:
        """(B, P + H*W, D) tokens to (B, D, H, W) features, of the image's aspect (height / width)."""
        count = tokens_BLD.shape[1] - self.prefix
        height = round(math.sqrt(count * aspect))
        if count < 1 or count % max(height, 1):
            raise unsupported(self.name, f"its {count} tokens do not form a grid of the image's aspect")
        return tokens_BLD[:, self.prefix :].transpose(1, 2).reshape(len(tokens_BLD), -1, height, count // height)


def unsupported(name: str, reason: str) -> TeacherError:
    """The error for a network whose cells cannot be used."""
    return TeacherError(f"teacher {name!r} is not supported: {reason}")
