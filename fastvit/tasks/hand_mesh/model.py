"""Hand mesh regressor: a FastViT backbone and a head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastvit.model.backbone import Backbone
from fastvit.model.config import FastViTConfig
from fastvit.model.preprocessing import Preprocessing
from fastvit.model.task_model import TaskModel
from fastvit.tasks.hand_mesh.hand_file import HandArrays, procedural_hand
from fastvit.tasks.hand_mesh.hand_model import HandModel
from fastvit.tasks.hand_mesh.heads import MlpHead, TokenHead
from fastvit.tasks.hand_mesh.options import HandInfo, HandRegressorConfig, RegressorConfig
from fastvit.tasks.hand_mesh.skeleton import CLASSES, ROOT

HEADS = {"mlp": MlpHead, "tokens": TokenHead}


class HandRegressor(TaskModel):
    """Hand mesh regressor: images (B, in_chans, H, W) of one hand each to a dictionary of tensors.

    - "vertices" (B, V, 3) and "joints" (B, 21, 3) in FreiHAND's order, in meters from the root joint, the base of the
      middle finger; x to the right of the image, y down, z away.
    - "camera" (B, 3): scale s, and position (u, v) of the root joint. A point (x, y, z) is projected to
      (s x + u, s y + v), where the sides of the image are at -1 and 1.
    - "rotations" (B, 16, 3, 3) and "shape" (B, S), head "mlp" only: parameters of the right hand model.
    - "places" (B, 21, 2), head "tokens" only: positions of the joints in the image, the centers of the heat maps.
    - "side" (B, 1), networks for both sides only: logit of a left hand.

    For a left hand, the mesh of the right hand model is mirrored.

    Attributes:
        backbone: stages of the FastViT variant.
        hand: hand model, whose arrays are saved with the weights.
        head: head on the backbone's feature maps.
        side: linear layer that predicts the side; None for right hands only.
        output_names: names of the tensors that `outputs` returns, in their order.
    """

    task = "hand_mesh"
    default_preprocessing = Preprocessing((224, 224), resize="letterbox")

    def __init__(
        self,
        config: FastViTConfig,
        variant: str = "custom",
        *,
        classes: Sequence[str] | None = CLASSES,
        preprocessing: Preprocessing | None = None,
        options: HandRegressorConfig | None = None,
    ) -> None:
        chosen = options or regressor_config(procedural_hand())
        super().__init__(config, variant, classes=classes, preprocessing=preprocessing, options=chosen)
        network = chosen.network
        self.backbone = Backbone(config)
        self.hand = HandModel(chosen.hand.vertices, chosen.hand.shapes)
        self.head = HEADS[network.head](config.channels, network.head_channels, self.hand)
        self.side = nn.Linear(config.channels[-1], 1) if network.sides == "both" else None
        self.output_names = ("vertices", "joints", "camera", *(["side"] if self.side else []))

    @property
    def faces(self) -> Tensor:
        """Triangles of the right hand's mesh, (F, 3) int64 vertex indices."""
        return torch.from_numpy(self.options.hand.faces)

    def take_hand(self, arrays: HandArrays) -> None:
        """Load the arrays of the hand model that the options describe."""
        like = self.hand.template
        self.hand.load_state_dict(HandModel.of(arrays, like.dtype).state_dict())

    def forward(self, images: Tensor, left: Tensor | None = None) -> dict[str, Tensor]:
        """Predict the tensors that the class describes, by name.

        Args:
            images: (B, in_chans, H, W) normalized images.
            left: (B,) bool, true for images of left hands, as known in training; None uses the predicted side.
        """
        maps = self.backbone(images)
        found = self.head(maps, self.hand)
        root = found["joints"][:, ROOT : ROOT + 1]
        found |= {name: found[name] - root for name in ("vertices", "joints")}
        if self.side is not None:
            found["side"] = self.side(maps[-1].mean((2, 3)))
            mirror = found["side"][:, 0] > 0 if left is None else left
            sign = 1 - 2 * mirror.to(images.dtype)
            flip = torch.stack([sign, torch.ones_like(sign), torch.ones_like(sign)], 1)[:, None]
            found |= {name: found[name] * flip for name in ("vertices", "joints")}
        return found

    def outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        found = self(images)
        return tuple(found[name] for name in self.output_names)


def regressor_config(hand: HandArrays, network: RegressorConfig | None = None) -> HandRegressorConfig:
    """Return the configuration of a regressor for a hand model."""
    vertices, _, shapes = hand.shape_directions.shape
    return HandRegressorConfig(network or RegressorConfig(), HandInfo.of(hand.name, vertices, shapes, hand.faces))
