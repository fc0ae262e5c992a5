"""One published map: bytes of a `.pt` to checked arrays, and back.

Source: the official repository's loader, which reads [2, K, A, B]: scores, then class ids.
Shape letters: K ranks, A B cells in the order of the file, which is (y, x) or (x, y).
"""

import hashlib
import io
import pickle
import pickletools
import warnings
import zipfile
from dataclasses import dataclass
from typing import IO, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.serialization import MAGIC_NUMBER

from annotator.teacher.topk import FLOAT16_MAX
from store.errors import LabelMapError
from store.format.schema import Preprocessing, StoreSchema, TeacherIdentity
from store.text import first_line

MAX_IMAGE_BYTES = 1 << 30  # a sparse tar may claim any number


Axes = Literal["yx", "xy"]


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
        raise LabelMapError(f"{where}: not a tensor saved by torch: {first_line(error)}") from error
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


# The zip archive that `torch.save` writes, checked before torch sees it.


ZIP_MAGIC = b"PK\x03\x04"
RECORDS = ("data.pkl", "byteorder", "version")
MAX_ENTRIES = 64  # torch.save writes seven for one tensor


def checked_archive(data: bytes, where: str) -> tuple[bytes, int]:
    """A copy of a zipped `.pt` that holds nothing but what one tensor needs, each part as long as the file says.

    The copy is what makes the checks hold: another zip reader may find other entries in the original's bytes.

    Returns:
        The copy, and how many bytes it has for the tensor's values.

    Raises:
        LabelMapError: not a readable archive, compressed, claiming more bytes than it has, with a part twice, or with
            a pickle that does more than one tensor needs.
    """
    copy, sizes, seen = io.BytesIO(), [], set[str]()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(copy, "w") as checked:
            entries = archive.infolist()
            _check_entries(entries, len(data), where)
            for entry in entries:
                name = entry.filename.partition("/")[2]
                if name in RECORDS or name.startswith("data/"):
                    if name in seen:
                        raise LabelMapError(f"{where}: an archive with two parts named {name[:60]!r}")
                    seen.add(name)
                    checked.writestr(f"map/{name}", archive.read(entry))
                sizes += [entry.file_size] if name.startswith("data/") else []
    except LabelMapError:
        raise
    except Exception as error:  # zipfile raises half a dozen types on hostile bytes
        raise LabelMapError(f"{where}: a damaged .pt archive: {error}") from error
    if len(sizes) != 1:
        raise LabelMapError(f"{where}: {len(sizes)} tensors, expected one [2, K, H, W]")
    if "data.pkl" in seen:
        with zipfile.ZipFile(copy) as checked, checked.open("map/data.pkl") as pickled:
            check_pickle(pickled, where)
    return copy.getvalue(), sizes[0]


def _check_entries(entries: list[zipfile.ZipInfo], size: int, where: str) -> None:
    if len(entries) > MAX_ENTRIES:
        raise LabelMapError(f"{where}: an archive of {len(entries)} files, so not a published map")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise LabelMapError(f"{where}: a compressed archive, which torch.save does not write; it is not unpacked")
    if (claimed := sum(entry.file_size for entry in entries)) > size:
        raise LabelMapError(f"{where}: claims {claimed:,} bytes in a file of {size:,}; it is not unpacked")


# The pickles in a `.pt`, checked before torch runs them: with `weights_only` they still may call `bytearray(1 << 40)`.
#
# Without reading the memo nothing can be nested in itself, so few steps cannot grow to many.


GLOBALS = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2"} | {
    f"torch {kind}Storage"
    for kind in ("Float", "Half", "Double", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
}
STEPS = frozenset(
    """
    PROTO STOP GLOBAL REDUCE BINPERSID MARK BINPUT LONG_BINPUT NONE NEWTRUE NEWFALSE
    TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_TUPLE EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS
    BININT BININT1 BININT2 LONG1 BINUNICODE SHORT_BINSTRING
    """.split()  # noqa: SIM905
)
MAX_STEPS = 256  # torch.save takes about 50 for one tensor
MAX_NUMBER = 1 << 24  # sizes, strides and positions in a file of at most 16 MiB
LEGACY_PICKLES = 5  # magic number, protocol, system, tensor, names of storages; then come the values


def check_legacy(data: bytes, where: str) -> None:
    """Refuse a `.pt` that is no archive unless its pickles are those of tensors.

    Raises:
        LabelMapError: damaged, or more than one tensor needs.
    """
    stream = io.BytesIO(data)
    for _ in range(LEGACY_PICKLES):
        check_pickle(stream, where)


def check_pickle(stream: IO[bytes], where: str) -> None:
    """Read past one pickle, none of whose steps does more than putting a tensor together.

    Raises:
        LabelMapError: damaged, or more than one tensor needs.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd texts in steps that are refused a line later
            for count, (step, value, _) in enumerate(pickletools.genops(stream)):
                if count >= MAX_STEPS or not _is_plain(step.name, value):
                    raise LabelMapError(f"{where}: not loaded: its pickle is damaged, or holds more than a tensor")
    except LabelMapError:
        raise
    except ValueError as error:
        raise LabelMapError(f"{where}: not a tensor saved by torch: {first_line(error)!r}") from error


def _is_plain(step: str, value: object) -> bool:
    if step == "GLOBAL":
        return value in GLOBALS
    if isinstance(value, int) and not 0 <= value <= MAX_NUMBER and value != MAGIC_NUMBER:
        return False
    return step in STEPS


# What published maps do not say of themselves: which network made them, from which view, of which classes.


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """The network that made the maps; by default that of the published ImageNet maps.

    View: timm's configuration of tf_efficientnet_l2.ns_jft_in1k_475, the teacher of the paper (section 3.1).
    """

    architecture: str = "published-relabel"
    num_classes: int = 1000  # ids in the maps are below it
    class_names: tuple[str, ...] | None = None
    input_size: tuple[int, int] = (475, 475)  # height, width in pixels
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def identity(self) -> TeacherIdentity:
        """A teacher known by its name alone: the digest is of a fixed text and the name (docs/published_maps.md)."""
        text = f"relabel published maps 1\0{self.architecture}"
        digest = hashlib.sha256(text.encode()).hexdigest()
        return TeacherIdentity(architecture=self.architecture, arguments={}, digest=digest)

    def preprocessing(self) -> Preprocessing:
        """The whole image, squashed."""
        return Preprocessing(input_size=self.input_size, interpolation=self.interpolation, mean=self.mean, std=self.std)

    def schema(self, shape: tuple[int, int, int], axes: Axes) -> StoreSchema:
        """What a store of these maps holds.

        Args:
            shape: K, A, B of the files.
            axes: The order of A and B.

        Raises:
            LabelMapError: class names that do not match the class count.
        """
        ranks, first, second = shape
        return StoreSchema(
            teacher=self.identity(),
            preprocessing=self.preprocessing(),
            num_classes=self.num_classes,
            top_k=ranks,
            map_size=(first, second) if axes == "yx" else (second, first),
            class_names=self.class_names,
        )
