"""Options of a hand mesh regressor and of its training. Needs no torch."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from fastvit.errors import UserError
from fastvit.ranges import NOT_NEGATIVE, POSITIVE, PROBABILITY, SIDE, Range, check_bounds, check_ranges


@dataclass(frozen=True)
class RegressorConfig:
    """Layers of a hand mesh regressor on the backbone.

    Attributes:
        head: "mlp" predicts pose and shape of the hand model from pooled features, as in the paper; "tokens" predicts
            the vertices from features sampled at the joint positions that heat maps predict (after SimpleHand, arXiv
            2403.01813).
        head_channels: channels of the head's hidden layers, a multiple of 32; the three blocks of "tokens" have all, a
            half and a quarter of them.
        sides: "right" for right hands only, as in FreiHAND, or "both": the network then predicts the side too.
    """

    head: Literal["mlp", "tokens"] = "mlp"
    head_channels: int = 256
    sides: Literal["right", "both"] = "right"

    def __post_init__(self) -> None:
        for name, known in (("head", ("mlp", "tokens")), ("sides", ("right", "both"))):
            if (value := getattr(self, name)) not in known:
                raise UserError(f"{name} of a hand mesh regressor must be {' or '.join(known)}, got {value!r}")
        if self.head_channels < 32 or self.head_channels % 32:
            raise UserError(
                f"head_channels of a hand mesh regressor must be a multiple of 32, got {self.head_channels}"
            )


@dataclass(frozen=True)
class HandInfo:
    """Description of the hand model whose arrays are saved with the weights.

    Attributes:
        name: name of the hand model, such as "MANO_RIGHT" or "procedural".
        vertices: number of vertices of the mesh.
        shapes: number of shape coefficients.
        triangles: packed triangles of the mesh, see `faces`.
    """

    name: str
    vertices: int
    shapes: int
    triangles: str

    @classmethod
    def of(cls, name: str, vertices: int, shapes: int, faces: np.ndarray) -> HandInfo:
        """Create the description of a hand model, and pack its triangles.

        Args:
            name: name of the hand model.
            vertices: number of vertices of the mesh, at most 65,536.
            shapes: number of shape coefficients.
            faces: (F, 3) triangles, vertex indices from 0.
        """
        packed = zlib.compress(faces.astype("<u2").tobytes(), 9)
        return cls(name, vertices, shapes, base64.b64encode(packed).decode())

    @property
    def faces(self) -> np.ndarray:
        """Triangles of the mesh, (F, 3) int64 vertex indices.

        Raises:
            UserError: the packed triangles are corrupt.
        """
        try:
            flat = np.frombuffer(zlib.decompress(base64.b64decode(self.triangles)), "<u2")
            return flat.reshape(-1, 3).astype(np.int64)
        except (binascii.Error, zlib.error, ValueError) as error:
            raise UserError(f"the faces of the hand {self.name} are corrupt: {error}") from error


@dataclass(frozen=True)
class HandRegressorConfig:
    """Configuration of a regressor without its backbone.

    Attributes:
        network: layers on the backbone.
        hand: description of the hand model.
    """

    network: RegressorConfig
    hand: HandInfo

    def __post_init__(self) -> None:
        # In files they are plain dictionaries.
        for name, kind in (("network", RegressorConfig), ("hand", HandInfo)):
            if isinstance(value := getattr(self, name), Mapping):
                plain: Mapping[str, Any] = value
                object.__setattr__(self, name, kind(**plain))


@dataclass(frozen=True)
class LossWeights:
    """Weights of the parts of the loss, mean absolute errors (L1) if not stated otherwise.

    Attributes:
        joints: weight of the error of the 21 joints, in meters from the root joint.
        vertices: weight of the error of the mesh's vertices, in meters from the root joint.
        projected: weight of the error of the joints in the image, whose sides are at -1 and 1.
        rotations: weight of the error of the joints' rotation matrices, if the data contain them; head "mlp" only.
        shape: weight of the error of the shape coefficients, if the data contain them; head "mlp" only.
        side: weight of the cross entropy of the predicted side; networks for both sides only.
    """

    joints: float = 10.0
    vertices: float = 10.0
    projected: float = 1.0
    rotations: float = 0.5
    shape: float = 0.05
    side: float = 0.1

    def __post_init__(self) -> None:
        check_ranges(self, dict.fromkeys(vars(self), NOT_NEGATIVE), "hand_mesh.losses.")


@dataclass(frozen=True)
class HandMeshOptions:
    """Options for training a hand mesh regressor.

    Attributes:
        network: layers on the backbone.
        hand: hand model: "procedural", "mano" (from ~/.cache/fastvit/mano) or a file; None uses hand.npz in the data's
            folder, which `fastvit synth hands` writes, or "mano" if there is no such file.
        size: height and width of the images, in pixels, at least 32.
        rotation: largest random rotation of the images, in degrees, in both directions.
        scale: smallest and largest factor of the random scaling.
        translation: largest random shift in x and y, as a fraction of the image's side.
        hflip: probability of a horizontal flip, which turns a right hand into a left one; networks for both sides only.
        color: strength of random brightness, contrast and saturation changes, 0 to 1; the hue changes by a tenth of it.
        losses: weights of the parts of the loss.
    """

    network: RegressorConfig = field(default_factory=RegressorConfig)
    hand: str | None = None
    size: int = 224
    rotation: float = 90.0
    scale: tuple[float, float] = (0.9, 1.1)
    translation: float = 0.05
    hflip: float = 0.0
    color: float = 0.3
    losses: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        shares = dict.fromkeys(("translation", "hflip", "color"), PROBABILITY)
        check_ranges(self, {"size": SIDE, "rotation": Range(0, 180), **shares}, "hand_mesh.")
        check_bounds("hand_mesh.scale", self.scale, POSITIVE)
        if self.hflip and self.network.sides == "right":
            raise UserError(
                "hand_mesh.hflip creates left hands: set hand_mesh.network.sides to both, or hand_mesh.hflip to 0"
            )
