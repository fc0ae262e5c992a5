"""What the files of published maps do not say: the network that made them, its classes and its preprocessing."""

import hashlib
from dataclasses import dataclass

from msgspec import UNSET

from annotator.published.files import Axes
from store.format.schema import CENTRE, SQUASH, Preprocessing, StoreSchema, TeacherIdentity


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """The network that made the maps and its preprocessing; by default those of the published ImageNet maps.

    Size: of tf_efficientnet_l2.ns_jft_in1k_475, the teacher of the paper (section 3.1). Interpolation, mean and std: of
    the code in issue 10 of the official repository, whose `Resize((S, S))` is torchvision's, bilinear by default.
    """

    architecture: str = "published-relabel"
    num_classes: int = 1000  # C; ids in the maps are below it
    class_names: tuple[str, ...] | None = None
    input_size: tuple[int, int] = (475, 475)  # height, width in pixels
    crop_pct: float | None = None  # of a centre crop, as timm's; None: the whole image, squashed
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def identity(self) -> TeacherIdentity:
        """A teacher known by name only: its digest is of a fixed text and the name (docs/published_maps.md)."""
        text = f"relabel published maps 1\0{self.architecture}"
        digest = hashlib.sha256(text.encode()).hexdigest()
        return TeacherIdentity(architecture=self.architecture, arguments={}, digest=digest)

    def preprocessing(self) -> Preprocessing:
        """The part of the image that the maps cover, and how it was resized.

        Raises:
            LabelMapError: a crop that is none, or that is not a square.
        """
        return Preprocessing(
            mode=SQUASH if self.crop_pct is None else CENTRE,
            crop_pct=UNSET if self.crop_pct is None else self.crop_pct,
            input_size=self.input_size,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
        )

    def schema(self, shape: tuple[int, int, int], axes: Axes) -> StoreSchema:
        """The schema of a store of these maps.

        Args:
            shape: K, A, B of the files.
            axes: the order of A and B.

        Raises:
            LabelMapError: class names that do not match the class count.
        """
        top_k, first, second = shape
        return StoreSchema(
            score_kind="logit",  # the published maps hold the network's own
            teacher=self.identity(),
            preprocessing=self.preprocessing(),
            num_classes=self.num_classes,
            top_k=top_k,
            map_size=(first, second) if axes == "yx" else (second, first),
            class_names=self.class_names,
        )
