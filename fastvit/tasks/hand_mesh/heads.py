"""What stands on the backbone: pooled features -> pose and shape of a hand, or features of its joints -> its mesh."""

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

# Scale and place of a weak-perspective camera; the scale is the exponential of the first number times this, so that it
# stays above 0: a hand of 20 cm that fills the image from side to side has 10 a meter.
CAMERA = 3
_SCALE = 6.0
# Tokens in front of each block of the token head, but the first, which has one a joint.
_TOKENS = (84, 336)
# The last maps of the backbone that it looks at: of strides 8, 16 and 32.
_MAPS = 3


def camera_of(numbers: Tensor) -> Tensor:
    """(B, 3) of any size -> (B, 3) weak-perspective camera: scale above 0, and where the root joint is."""
    return torch.cat([_SCALE * numbers[:, :1].exp(), numbers[:, 1:]], 1)


class MlpHead(nn.Module):
    """Pooled features -> camera, rotations and shape -> the hand model's mesh (FastViT, arXiv 2303.14189, section 4.3).

    Args:
        channels: of the backbone's maps, the finest first; only the last is looked at.
        width: of the hidden layers.
        hand: what is posed.
    """

    def __init__(self, channels: Sequence[int], width: int, hand: HandModel) -> None:
        super().__init__()
        shapes = hand.shape_directions.shape[2]
        self.sizes = CAMERA, 6 * TURNING, shapes
        self.layers = nn.Sequential(
            *(nn.Linear(channels[-1], width), nn.GELU(), nn.Linear(width, width), nn.GELU()),
            nn.Linear(width, sum(self.sizes)),
        )
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():  # begins near the resting hand
            last.weight.mul_(0.1)
            last.bias.zero_()
            last.bias[CAMERA : CAMERA + 6 * TURNING] = torch.tensor([1.0, 0, 0, 0, 1, 0]).repeat(TURNING)

    def forward(self, maps: Sequence[Tensor], hand: HandModel) -> dict[str, Tensor]:
        """Maps (B, C, h, w) -> "camera" (B, 3), "rotations" (B, 16, 3, 3), "shape" (B, S), "vertices", "joints"."""
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
    """Features at the joints' places in the image -> tokens that become more from block to block -> vertices.

    Written from the description of SimpleHand (arXiv 2403.01813): 21 -> 84 -> 336 tokens -> the mesh. Each joint has a
    heat map, made of the last maps of the backbone; its center is where the joint's features are taken. The joints
    in space are sums of the vertices, as the hand model has them.

    Args:
        channels: of the backbone's maps, the finest first.
        width: of the first block; the following ones have a half and a quarter.
        hand: says how many vertices there are.
    """

    def __init__(self, channels: Sequence[int], width: int, hand: HandModel) -> None:
        super().__init__()
        count = len(JOINTS)
        self.laterals = nn.ModuleList(ConvNorm(chs, width, 1) for chs in channels[-_MAPS:])
        self.heat = nn.Conv2d(width, count, 1)
        self.camera = nn.Linear(channels[-1], CAMERA)
        self.whole = nn.Linear(channels[-1], width)
        self.positions = nn.Linear(2, width)
        self.joint_tokens = nn.Parameter(torch.empty(1, width, count, 1))
        nn.init.trunc_normal_(self.joint_tokens, std=0.02)
        widths, counts = (width, width // 2, width // 4), (count, *_TOKENS)
        self.blocks = nn.ModuleList(TokenBlock(w) for w in widths)
        self.narrow = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(widths, widths[1:], strict=False))
        self.grow = nn.ModuleList(nn.Linear(a, b) for a, b in zip(counts, counts[1:], strict=False))
        self.norm = LayerNorm2d(widths[-1])
        self.to_space = nn.Conv2d(widths[-1], 3, 1)
        self.to_mesh = nn.Linear(counts[-1], len(hand.template))
        with torch.no_grad():
            self.camera.weight.mul_(0.1)
            self.camera.bias.zero_()

    def forward(self, maps: Sequence[Tensor], hand: HandModel) -> dict[str, Tensor]:
        """Maps (B, C, h, w) -> "camera" (B, 3), "places" (B, 21, 2) in -1 to 1, "vertices", "joints" (B, ., 3)."""
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
        vertices = hand.template + 0.1 * moves  # about a hand's reach, in meters
        return {
            "vertices": vertices,
            "joints": hand.joints(vertices),
            "camera": camera_of(self.camera(pooled)),
            "places": places,
        }

    def _fine(self, maps: Sequence[Tensor]) -> Tensor:
        """(B, width, h, w), of the size of the finest map: what all of them say."""
        finest, *others = (lateral(x) for lateral, x in zip(self.laterals, maps, strict=True))
        return F.gelu(sum((upsampled(x, finest) for x in others), finest))


class TokenBlock(nn.Module):
    """Attention between tokens, then two layers for each: (B, C, N, 1) -> (B, C, N, 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = LayerNorm2d(channels), LayerNorm2d(channels)
        self.mixer = SelfAttention(channels, head_dim=min(32, channels))
        self.widen, self.narrow = nn.Conv2d(channels, 2 * channels, 1), nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.norm_1(x))
        return x + self.narrow(F.gelu(self.widen(self.norm_2(x))))


def centers(heat: Tensor) -> Tensor:
    """(B, N, h, w) heat maps, logits -> (B, N, 2) places x, y of their centers, where the map's sides are at -1 and 1.

    Means of the cells' middles, weighted by each map's softmax: integral regression (arXiv 1711.08229).
    """
    down, across = (
        (2 * torch.arange(side, dtype=heat.dtype, device=heat.device) + 1) / side - 1 for side in heat.shape[2:]
    )
    shares = heat.flatten(2).softmax(2).unflatten(2, heat.shape[2:])
    # Sums and no product with a vector, which Core ML's converter ends in an error over.
    return torch.stack([(shares.sum(2) * across).sum(2), (shares.sum(3) * down).sum(2)], 2)


def sampled(maps: Tensor, places: Tensor) -> Tensor:
    """(B, C, h, w) maps at (B, N, 2) places x, y, of which the map's sides are at -1 and 1 -> (B, N, C).

    Bilinear, 0 beyond the sides, as `grid_sample` has it without aligned corners; as two products of matrices, which
    every runtime knows.
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
