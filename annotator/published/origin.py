"""What the files of published maps do not say: the network that made them, its classes and its preprocessing."""

import hashlib
from dataclasses import dataclass

from annotator.published.files import Axes
from store.format.schema import Preprocessing, StoreSchema, TeacherIdentity


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """The network that made the maps and its preprocessing; by default those of the published ImageNet maps.

    Preprocessing: timm's configuration of tf_efficientnet_l2.ns_jft_in1k_475, the teacher of the paper (section 3.1).
    """

    architecture: str = "published-relabel"
    num_classes: int = 1000  # C; ids in the maps are below it
    class_names: tuple[str, ...] | None = None
    input_size: tuple[int, int] = (475, 475)  # height, width in pixels
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def identity(self) -> TeacherIdentity:
        """A teacher known by name only: its digest is of a fixed text and the name (docs/published_maps.md)."""
        text = f"relabel published maps 1\0{self.architecture}"
        digest = hashlib.sha256(text.encode()).hexdigest()
        return TeacherIdentity(architecture=self.architecture, arguments={}, digest=digest)

    def preprocessing(self) -> Preprocessing:
        """The whole image, squashed."""
        return Preprocessing(input_size=self.input_size, interpolation=self.interpolation, mean=self.mean, std=self.std)

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
