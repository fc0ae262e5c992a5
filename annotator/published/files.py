"""One published map: bytes of a `.pt` to checked arrays, and back.

Source: the official repository's loader, which reads [2, K, A, B]: scores, then class ids.
Shape letters: K ranks, A B cells in the order of the file, which is (y, x) or (x, y).
"""

import io
import pickle
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from annotator.published.archive import ZIP_MAGIC, checked_archive
from annotator.published.pickles import check_legacy
from annotator.topk import FLOAT16_MAX
from store.errors import LabelMapError

MAX_FILE_BYTES = 1 << 24  # 16 MiB; a map of 5 x 15 x 15 takes 9,300 to 10,600
EXACT_IN_FLOAT16 = 2048  # the largest class id up to which float16 tells all apart


@dataclass(frozen=True, slots=True, eq=False)
class PublishedMap:
    """A label map whose cells lie as the file has them."""

    classes: NDArray[np.uint16]  # (K, A, B), rank 0 the highest score
    scores: NDArray[np.float16]  # (K, A, B) logits, descending along K

    @property
    def shape(self) -> tuple[int, int, int]:
        """K, A, B."""
        ranks, first, second = self.classes.shape
        return ranks, first, second

    def turned(self) -> "PublishedMap":
        """The same map with its two cell axes exchanged."""
        return PublishedMap(self.classes.swapaxes(1, 2), self.scores.swapaxes(1, 2))


def load_map(data: bytes, where: str, *, num_classes: int) -> PublishedMap:
    """Read one published map from the bytes of its file, never running code from it.

    Args:
        data: The whole file, at most `MAX_FILE_BYTES`.
        where: The file, for messages.
        num_classes: C; ids must be below it.

    Returns:
        The map, its ranks sorted by score where the file's are not.

    Raises:
        LabelMapError: more than one plain tensor, another shape or type, or values that no label map has.
    """
    tensor, stored_bytes = _load_tensor(data, where)
    _check_tensor(tensor, stored_bytes, where, num_classes)
    values = tensor.detach().resolve_neg().numpy()
    scores, ids = values[0].astype(np.float32, copy=False), values[1].astype(np.float32, copy=False)
    if not (np.abs(scores) <= FLOAT16_MAX).all():  # false for NaN too
        raise LabelMapError(f"{where}: scores that are NaN or beyond 65,504, which a store cannot hold")
    with np.errstate(invalid="ignore"):  # of signalling NaNs
        whole = ids == np.floor(ids)
    if not ((ids >= 0) & (ids < num_classes) & whole).all():
        raise LabelMapError(f"{where}: class ids that are no integers from 0 to {num_classes - 1}; see --num-classes")
    return _by_rank(scores.astype(np.float16), ids.astype(np.uint16), where)


def dump_map(published: PublishedMap) -> bytes:
    """A `.pt` as the official loader reads it: float32 [2, K, A, B], scores, then class ids."""
    both = np.empty((2, *published.shape), np.float32)  # in C order, whatever that of the parts
    both[0], both[1] = published.scores, published.classes
    file = io.BytesIO()
    torch.save(torch.from_numpy(both), file)
    return file.getvalue()


def _load_tensor(data: bytes, where: str) -> tuple[Tensor, int]:
    """The tensor of a file, and how many bytes the file has for it."""
    stored_bytes = len(data)
    if data.startswith(ZIP_MAGIC):
        data, stored_bytes = checked_archive(data, where)
    else:
        check_legacy(data, where)
    try:
        with warnings.catch_warnings(action="ignore"):  # about pickles that are refused just below
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise LabelMapError(f"{where}: not loaded: its pickle is damaged, or holds more than a tensor") from error
    except Exception as error:  # hostile files make torch raise whatever they like
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise LabelMapError(f"{where}: not a tensor saved by torch: {lines[0][:200]}") from error
    if type(content) is not Tensor:
        raise LabelMapError(f"{where}: holds a {type(content).__name__}, expected one tensor [2, K, H, W]")
    return content, stored_bytes


def _check_tensor(tensor: Tensor, stored_bytes: int, where: str, num_classes: int) -> None:
    shape, dense = tuple(tensor.shape), tensor.layout == torch.strided and tensor.device.type == "cpu"
    if tensor.dtype not in (torch.float32, torch.float16) or not dense:
        raise LabelMapError(f"{where}: a {tensor.layout} {tensor.dtype} tensor, expected float32 or float16 on the CPU")
    if len(shape) != 4 or shape[0] != 2 or 0 in shape:
        raise LabelMapError(f"{where}: a tensor of shape {list(shape)}, expected [2, K, H, W]: scores, then class ids")
    # A stride of 0 lets a kilobyte claim any number of elements; a storage may claim more than torch has read.
    claimed = max(tensor.untyped_storage().nbytes(), tensor.numel() * tensor.element_size())
    if not tensor.is_contiguous() or claimed > stored_bytes:
        raise LabelMapError(
            f"{where}: {tensor.numel():,} elements over {stored_bytes:,} stored bytes; save it with .contiguous()"
        )
    if shape[1] > num_classes:
        raise LabelMapError(f"{where}: {shape[1]} ranks of {num_classes} classes; see --num-classes")
    if tensor.dtype == torch.float16 and num_classes > EXACT_IN_FLOAT16 + 1:
        raise LabelMapError(f"{where}: float16 cannot tell the ids of {num_classes} classes apart; save it as float32")


def _by_rank(scores: NDArray[np.float16], classes: NDArray[np.uint16], where: str) -> PublishedMap:
    """Ranks sorted by score, highest first; equal scores stay in the file's order."""
    ids = np.sort(classes, axis=0)
    if (ids[1:] == ids[:-1]).any():
        raise LabelMapError(f"{where}: a class comes twice in one cell")
    if (scores[:-1] < scores[1:]).any():
        order = np.argsort(-scores, axis=0, kind="stable")
        scores, classes = np.take_along_axis(scores, order, 0), np.take_along_axis(classes, order, 0)
    return PublishedMap(classes, scores)
