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


@dataclass(frozen=True)
class RegressorConfig:
    """Layers of a hand mesh regressor on the backbone.

    Attributes:
        head: "mlp" gives the pose and shape of the hand model from pooled features, as the paper has it; "tokens"
            gives vertices, from features at the joints' places in the image, which it finds by heat maps (after
            SimpleHand, arXiv 2403.01813).
        head_channels: channels of the head's hidden layers; of "tokens" those of its first block, of the others a half
            and a quarter.
        sides: "right" hands alone, as FreiHAND has them, or "both": the network then says which it sees.
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
    """The hand model whose arrays are among the weights.

    Attributes:
        name: "MANO_RIGHT", "procedural", ....
        vertices: of its mesh.
        shapes: its shape coefficients.
        triangles: the faces of its mesh, packed: see `faces`.
    """

    name: str
    vertices: int
    shapes: int
    triangles: str

    @classmethod
    def of(cls, name: str, vertices: int, shapes: int, faces: np.ndarray) -> HandInfo:
        """With (F, 3) faces of up to 65,536 vertices packed."""
        packed = zlib.compress(faces.astype("<u2").tobytes(), 9)
        return cls(name, vertices, shapes, base64.b64encode(packed).decode())

    @property
    def faces(self) -> np.ndarray:
        """(F, 3) int64.

        Raises:
            UserError: they are damaged.
        """
        try:
            flat = np.frombuffer(zlib.decompress(base64.b64decode(self.triangles)), "<u2")
            return flat.reshape(-1, 3).astype(np.int64)
        except (binascii.Error, zlib.error, ValueError) as error:
            raise UserError(f"the faces of the hand {self.name} are damaged: {error}") from error


@dataclass(frozen=True)
class HandRegressorConfig:
    """All that a regressor is built from beside its backbone.

    Attributes:
        network: what stands on the backbone.
        hand: what it moves.
    """

    network: RegressorConfig
    hand: HandInfo

    def __post_init__(self) -> None:
        # From a file they come as plain dictionaries.
        for name, kind in (("network", RegressorConfig), ("hand", HandInfo)):
            if isinstance(value := getattr(self, name), Mapping):
                plain: Mapping[str, Any] = value
                object.__setattr__(self, name, kind(**plain))


@dataclass(frozen=True)
class LossWeights:
    """How much each mean absolute error counts.

    Attributes:
        joints: of the 21 joints, from the root joint, in meters.
        vertices: of the mesh, likewise.
        projected: of the joints in the image, whose sides are at -1 and 1.
        rotations: of the joints' rotation matrices, where the hand model's parameters are known; of "mlp".
        shape: of the shape coefficients, likewise.
        side: of the cross entropy of which hand it is; of a network for both.
    """

    joints: float = 10.0
    vertices: float = 10.0
    projected: float = 1.0
    rotations: float = 0.5
    shape: float = 0.05
    side: float = 0.1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0:
                raise UserError(f"hand_mesh.losses.{name} must be at least 0, got {value}")


@dataclass(frozen=True)
class HandMeshOptions:
    """Options for training a hand mesh regressor.

    Attributes:
        network: what stands on the backbone.
        hand: which hand model: "procedural", "mano" (from ~/.cache/fastvit/mano) or a file; None for hand.npz in the
            data's folder where there is one, as `fastvit synth hands` writes it, else "mano".
        size: side of the square that images are shown in, in pixels.
        rotation: images are turned by up to so many degrees either way.
        scale: and scaled by a factor drawn between these two.
        translation: and moved by up to this share of their side, either way in both directions.
        hflip: probability of a horizontal flip, which makes a right hand a left one; for a network for both sides.
        color: how much brightness, contrast, saturation (by up to this share) and hue (by a tenth of it) change.
        losses: how much each part of the loss counts.
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
        if self.size < 32:
            raise UserError(f"hand_mesh.size must be at least 32 pixels, got {self.size}")
        if not 0 <= self.rotation <= 180:
            raise UserError(f"hand_mesh.rotation must be in 0 to 180 degrees, got {self.rotation}")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise UserError(
                f"hand_mesh.scale must be two factors above 0, the smaller one first, got {list(self.scale)}"
            )
        for name in ("translation", "hflip", "color"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise UserError(f"hand_mesh.{name} must be in 0 to 1, got {value}")
        if self.hflip and self.network.sides == "right":
            raise UserError("hand_mesh.hflip makes left hands: set hand_mesh.network.sides to both, or hflip to 0")
