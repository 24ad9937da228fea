"""Heads of hand mesh regressors: pose and shape from pooled features, or the mesh from features of the joints."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastvit.model.layers import ConvNorm, LayerNorm2d, upsampled
from fastvit.model.mixers import SelfAttention
from fastvit.tasks.hand_mesh.hand_model import HandModel
from fastvit.tasks.hand_mesh.rotations import from_six
from fastvit.tasks.hand_mesh.skeleton import JOINTS, TURNING

# Outputs for a weak-perspective camera: scale, x and y. The scale is _SCALE times the exponential of its output, so it
# is above 0; a hand of 20 cm that fills the image has a scale of 10 per meter.
CAMERA = 3
_SCALE = 6.0
# Number of tokens of the token head's second and third block; the first block has one token per joint.
_TOKENS = (84, 336)
# Number of the backbone's last maps that the token head uses: strides 8, 16 and 32.
_MAPS = 3


def camera_of(values: Tensor) -> Tensor:
    """Convert outputs (B, 3) to a weak-perspective camera (B, 3): scale above 0, and x and y of the root joint."""
    return torch.cat([_SCALE * values[:, :1].exp(), values[:, 1:]], 1)


class MlpHead(nn.Module):
    """Head that predicts camera, pose and shape of the hand model (FastViT, arXiv 2303.14189, section 4.3).

    Args:
        channels: channels of the backbone's maps, the finest first; only the last map is used.
        head_channels: channels of the hidden layers.
        hand: hand model.
    """

    def __init__(self, channels: Sequence[int], head_channels: int, hand: HandModel) -> None:
        super().__init__()
        shapes = hand.shape_directions.shape[2]
        self.sizes = CAMERA, 6 * TURNING, shapes
        self.layers = nn.Sequential(
            *(nn.Linear(channels[-1], head_channels), nn.GELU(), nn.Linear(head_channels, head_channels), nn.GELU()),
            nn.Linear(head_channels, sum(self.sizes)),
        )
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():  # start near the hand at rest
            last.weight.mul_(0.1)
            last.bias.zero_()
            last.bias[CAMERA : CAMERA + 6 * TURNING] = torch.tensor([1.0, 0, 0, 0, 1, 0]).repeat(TURNING)

    def forward(self, maps: Sequence[Tensor], hand: HandModel) -> dict[str, Tensor]:
        """Predict the mesh and its parameters.

        Args:
            maps: (B, C, h, w) feature maps of the backbone.
            hand: hand model.

        Returns:
            "vertices" (B, V, 3), "joints" (B, 21, 3), "camera" (B, 3), "rotations" (B, 16, 3, 3) and "shape" (B, S).
        """
        camera, six, shape = self.layers(maps[-1].mean((2, 3))).split(self.sizes, 1)
        rotations = from_six(six.unflatten(1, (TURNING, 6)))
        vertices, joints = hand(rotations, shape)
        return {
            "vertices": vertices,
            "joints": joints,
            "camera": camera_of(camera),
            "rotations": rotations,
            "shape": shape,
        }


class TokenHead(nn.Module):
    """Head that predicts the vertices directly, from features at the joints' positions in the image.

    Written from the description of SimpleHand (arXiv 2403.01813): 21, 84 and 336 tokens, then the mesh. A heat map is
    predicted for each joint from the last maps of the backbone; the joint's features are sampled at its center. The
    joints in space are sums of the vertices, as in the hand model.

    Args:
        channels: channels of the backbone's maps, the finest first.
        head_channels: channels of the first block; the second has half of them, the third a quarter.
        hand: hand model, which gives the number of vertices.
    """

    def __init__(self, channels: Sequence[int], head_channels: int, hand: HandModel) -> None:
        super().__init__()
        count = len(JOINTS)
        self.laterals = nn.ModuleList(ConvNorm(chs, head_channels, 1) for chs in channels[-_MAPS:])
        self.heat = nn.Conv2d(head_channels, count, 1)
        self.camera = nn.Linear(channels[-1], CAMERA)
        self.whole = nn.Linear(channels[-1], head_channels)
        self.positions = nn.Linear(2, head_channels)
        self.joint_tokens = nn.Parameter(torch.empty(1, head_channels, count, 1))
        nn.init.trunc_normal_(self.joint_tokens, std=0.02)
        channel_counts, counts = (head_channels, head_channels // 2, head_channels // 4), (count, *_TOKENS)
        self.blocks = nn.ModuleList(TokenBlock(w) for w in channel_counts)
        self.narrow = nn.ModuleList(
            nn.Conv2d(a, b, 1) for a, b in zip(channel_counts, channel_counts[1:], strict=False)
        )
        self.grow = nn.ModuleList(nn.Linear(a, b) for a, b in zip(counts, counts[1:], strict=False))
        self.norm = LayerNorm2d(channel_counts[-1])
        self.to_space = nn.Conv2d(channel_counts[-1], 3, 1)
        self.to_mesh = nn.Linear(counts[-1], len(hand.template))
        with torch.no_grad():
            self.camera.weight.mul_(0.1)
            self.camera.bias.zero_()

    def forward(self, maps: Sequence[Tensor], hand: HandModel) -> dict[str, Tensor]:
        """Predict the mesh and the joints' positions in the image.

        Args:
            maps: (B, C, h, w) feature maps of the backbone.
            hand: hand model.

        Returns:
            "vertices" (B, V, 3), "joints" (B, 21, 3), "camera" (B, 3) and "places" (B, 21, 2) in -1 to 1.
        """
        pooled = maps[-1].mean((2, 3))
        fine = self._fine(maps[-_MAPS:])
        places = centers(self.heat(fine))
        tokens = sampled(fine, places) + self.whole(pooled)[:, None] + self.positions(places)
        x = tokens.transpose(1, 2)[..., None] + self.joint_tokens
        for index, block in enumerate(self.blocks):
            if index:
                x = self.grow[index - 1](self.narrow[index - 1](x)[..., 0])[..., None]
            x = block(x)
        moves = self.to_mesh(self.to_space(self.norm(x))[..., 0]).transpose(1, 2)
        vertices = hand.template + 0.1 * moves  # scaled to the size of a hand, in meters
        return {
            "vertices": vertices,
            "joints": hand.joints(vertices),
            "camera": camera_of(self.camera(pooled)),
            "places": places,
        }

    def _fine(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the sum of the maps' features at the size of the finest map, (B, head_channels, h, w)."""
        finest, *others = (lateral(x) for lateral, x in zip(self.laterals, maps, strict=True))
        return F.gelu(sum((upsampled(x, finest) for x in others), finest))


class TokenBlock(nn.Module):
    """Self-attention between tokens and a feed-forward network, (B, C, N, 1) to (B, C, N, 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = LayerNorm2d(channels), LayerNorm2d(channels)
        self.mixer = SelfAttention(channels, head_dim=min(32, channels))
        self.widen, self.narrow = nn.Conv2d(channels, 2 * channels, 1), nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.norm_1(x))
        return x + self.narrow(F.gelu(self.widen(self.norm_2(x))))


def centers(heat: Tensor) -> Tensor:
    """Return the centers (B, N, 2) of heat maps (B, N, h, w) of logits: x and y, the map's sides at -1 and 1.

    A center is the mean of the cells' positions, weighted by the map's softmax: integral regression (arXiv 1711.08229).
    """
    down, across = (
        (2 * torch.arange(side, dtype=heat.dtype, device=heat.device) + 1) / side - 1 for side in heat.shape[2:]
    )
    shares = heat.flatten(2).softmax(2).unflatten(2, heat.shape[2:])
    # Sums, because Core ML's converter fails on a product with a vector.
    return torch.stack([(shares.sum(2) * across).sum(2), (shares.sum(3) * down).sum(2)], 2)


def sampled(maps: Tensor, places: Tensor) -> Tensor:
    """Sample maps (B, C, h, w) at positions (B, N, 2), x and y with the map's sides at -1 and 1: (B, N, C).

    Bilinear, with zeros outside, like `grid_sample` with align_corners=False; computed by matrix products, which every
    runtime supports.
    """
    rows, columns = (
        F.relu(
            1
            - (
                (place[..., None] + 1) * (side / 2) - 0.5 - torch.arange(side, dtype=place.dtype, device=place.device)
            ).abs()
        )
        for place, side in ((places[..., 1], maps.shape[2]), (places[..., 0], maps.shape[3]))
    )
    each = (rows[..., :, None] * columns[..., None, :]).flatten(2)
    return each @ maps.flatten(2).transpose(1, 2)
