"""Table of the robustness suites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from types import MappingProxyType

from fastvit.data.datasets import LabeledImages
from fastvit.data.folders import FolderImages
from fastvit.data.imagenet import imagenet_classes, imagenet_synsets
from fastvit.data.subset import Subset
from fastvit.errors import UserError, unknown_name
from fastvit.files import user_path


@dataclass(frozen=True)
class Suite:
    """Published test set.

    Attributes:
        name: name on the command line.
        title: name in its paper.
        layout: layout of its folder, in words.
        paper: authors and arXiv number.
        classes: number of ImageNet's classes in it.
        indices: file in timm with the indices of these classes; empty for all classes.
        published: top-1 accuracy of each variant's released weights in percent, without and with distillation, as
            measured by timm.
    """

    name: str
    title: str
    layout: str
    paper: str
    classes: int = 1000
    indices: str = ""
    published: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def columns(self) -> tuple[int, ...]:
        """Return the indices of the suite's classes among ImageNet's 1000, in ascending order."""
        if not self.indices:
            return tuple(range(1000))
        return tuple(map(int, (resources.files("timm.data") / "_info" / self.indices).read_text().split()))

    def open(self, data: str) -> LabeledImages:
        """Open the images; their labels are indices into `columns`.

        Args:
            data: folder of the suite.

        Raises:
            UserError: the folder does not exist, or has other classes.
        """
        root = user_path(data)
        if not root.is_dir():
            raise UserError(f"the folder {root} does not exist; {self.title} is {self.layout}")
        # The folders of ImageNet-V2 are named by the index of their class.
        numbered = any(path.is_dir() and path.name.isdigit() for path in root.iterdir())
        images = FolderImages(root, tuple(map(str, range(1000))) if numbered else imagenet_classes())
        place = {column: index for index, column in enumerate(self.columns())}
        if strange := sorted({label for label in images.labels if label not in place}):
            raise UserError(
                f"{root} is not {self.title}: {imagenet_synsets()[strange[0]]} is not one of its {self.classes} classes"
            )
        return Subset(images, range(len(images)), [place[label] for label in images.labels])


def _published(*rows: tuple[float, float]) -> Mapping[str, tuple[float, float]]:
    return dict(zip(("t8", "t12", "s12", "sa12", "sa24", "sa36", "ma36"), rows, strict=True))


_SYNSETS = "a folder with one subfolder per class, named by WordNet ids such as n01440764"
_ALL = (
    Suite(
        "imagenet-c",
        "ImageNet-C",
        "CORRUPTION/SEVERITY/CLASS/*.JPEG as published, or clean images of any dataset, which are then corrupted",
        "Hendrycks and Dietterich, arXiv 1903.12261",
    ),
    Suite(
        "imagenet-a",
        "ImageNet-A",
        _SYNSETS,
        "Hendrycks et al., arXiv 1907.07174",
        200,
        "imagenet_a_indices.txt",
        _published((6.8, 7.8), (13.6, 15.6), (15.0, 17.0), (16.3, 21.3), (29.0, 31.4), (33.0, 36.4), (34.5, 37.5)),
    ),
    Suite(
        "imagenet-r",
        "ImageNet-R",
        _SYNSETS,
        "Hendrycks et al., arXiv 2006.16241",
        200,
        "imagenet_r_indices.txt",
        _published((37.2, 37.5), (40.1, 41.8), (39.9, 42.6), (42.9, 44.1), (46.7, 48.0), (48.2, 50.3), (49.5, 51.9)),
    ),
    Suite(
        "imagenet-sketch",
        "ImageNet-Sketch",
        _SYNSETS,
        "Wang et al., arXiv 1905.13549",
        published=_published(
            (25.9, 26.0), (27.9, 29.7), (28.2, 30.2), (29.7, 31.2), (34.1, 35.2), (36.5, 37.1), (36.6, 38.4)
        ),
    ),
    Suite(
        "imagenet-v2",
        "ImageNet-V2",
        "a folder with one subfolder per class, named 0 to 999 as published, or by WordNet ids",
        "Recht et al., arXiv 1902.10811",
    ),
)
SUITES = MappingProxyType({suite.name: suite for suite in _ALL})


def find_suite(name: str) -> Suite:
    """Return the suite with a name.

    Raises:
        UserError: the suite does not exist.
    """
    if name not in SUITES:
        raise unknown_name("suite", name, SUITES)
    return SUITES[name]
