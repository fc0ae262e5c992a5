"""What published maps do not say of themselves: which network made them, from which view, of which classes."""

import hashlib
from dataclasses import dataclass

from annotator.published.axes import Axes
from store.schema import StoreSchema, TeacherIdentity, View


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

    def view(self) -> View:
        """The whole image, squashed."""
        return View(input_size=self.input_size, interpolation=self.interpolation, mean=self.mean, std=self.std)

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
            view=self.view(),
            num_classes=self.num_classes,
            top_k=ranks,
            map_size=(first, second) if axes == "yx" else (second, first),
            class_names=self.class_names,
        )
