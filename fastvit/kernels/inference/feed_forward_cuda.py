"""Kernel of feed_forward.cu, for Hopper: its source text for a shape, its packed weights, and its launch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvit.kernels.inference.cuda_text import TYPES, kernel_text
from fastvit.kernels.inference.fragments import four_in_a_row
from fastvit.kernels.inference.nvrtc import INT64, POINTER, Kernel

ARCH = "sm_90a"
_SIGNATURE = (POINTER,) * 6 + (INT64,)
# In bytes: shared memory that a block may use, less the loss by alignment; size of a row; alignment of slots.
_SHARED, _ROW, _ALIGNED = 227 * 1024 - 1024, 128, 1024
_PIXELS = 64
# Numbers of hidden channels at a time, and numbers of slots for weights that are fetched repeatedly.
_BLOCKS, _SLOTS = (64, 48, 32), (8, 6, 5, 4, 3)
# Most registers of a thread for its sums and their GELU without spilling more than a few bytes, by the number of
# groups: if all weights are resident (True), and if an additional group fetches them (False).
_SUMS = {True: {4: 80, 3: 120}, False: {3: 112, 2: 200}}


@dataclass(frozen=True)
class Layout:
    """Partition of a ConvFFN into blocks.

    Attributes:
        channels: channels of the map, a multiple of 4.
        hidden: hidden channels, between the two products.
        block: hidden channels of a group at a time, a multiple of 16, at most 64.
        groups: groups of a thread block; each has four warps and 64 pixels.
        slots: slots in shared memory, each for the weights up or down of a block of hidden channels.
        buffers: sets of pixels of a group: 1, or 2 to load the next one early.
    """

    channels: int
    hidden: int
    block: int
    groups: int
    slots: int
    buffers: int

    @property
    def options(self) -> tuple[tuple[str, int], ...]:
        """Fields that a choice stores: all but the channels, which come from the step."""
        return tuple((name, value) for name, value in asdict(self).items() if name not in ("channels", "hidden"))

    @property
    def blocks(self) -> int:
        """Number of blocks of hidden channels."""
        return -(-self.hidden // self.block)

    @property
    def chunks(self) -> int:
        """Number of chunks of 64 channels."""
        return -(-self.channels // 64)

    @property
    def columns(self) -> int:
        """Elements of a row of the second product's weights."""
        return 64 if self.block > 32 else 32

    @property
    def width(self) -> int:
        """Channels of the second product: those of the map, rounded up to a multiple of 8."""
        return -(-self.channels // 8) * 8

    @property
    def parts(self) -> int:
        """Number of parts of the second product; each has up to 256 channels."""
        return -(-self.width // 256)

    @property
    def resident(self) -> bool:
        """True if all weights stay in shared memory."""
        return self.slots == 2 * self.blocks

    @property
    def slot(self) -> int:
        """Size of a slot in bytes: the weights up or down of a block."""
        weights = max(self.chunks * self.block * _ROW, self.width * 2 * self.columns)
        return -(-weights // _ALIGNED) * _ALIGNED

    @property
    def shared(self) -> int:
        """Shared memory of a thread block, in bytes."""
        maps = self.groups * self.buffers * self.chunks * _PIXELS * _ROW
        return maps + self.slots * (self.slot + 16) + 4 * self.blocks * self.block

    @property
    def sums(self) -> int:
        """Registers of a thread for the sums of both products and for the input of the second one."""
        return self.width // 2 + self.block // 2 + self.block // 4

    @property
    def threads(self) -> int:
        """Threads of a thread block."""
        return 128 * (self.groups + (not self.resident))

    def fits(self) -> bool:
        """Return whether the shared memory and the registers suffice, and the parts are multiples of 8 channels."""
        cut = self.width % (8 * self.parts) == 0
        most = _SUMS[self.resident].get(self.groups, 0)
        return cut and self.slots >= 3 and self.shared <= _SHARED and self.sums <= most


def layouts(channels: int, hidden: int) -> list[Layout]:
    """Return the layouts that fit, the likeliest first; an empty list if the kernel does not support these channels."""
    if channels % 4:
        return []
    resident, streamed = [], []
    # First the blocks with little padding in the last one; among them the largest.
    for block in sorted(_BLOCKS, key=lambda block: (-hidden % block > 0.06 * hidden, -block)):
        everything = 2 * -(-hidden // block)
        for groups, buffers in ((4, 2), (4, 1), (3, 2), (3, 1)):
            layout = Layout(channels, hidden, block, groups, everything, buffers)
            resident += [layout] if layout.fits() else []
        for groups, buffers in ((2, 2), (2, 1), (3, 2), (3, 1)):
            some = (Layout(channels, hidden, block, groups, slots, buffers) for slots in _SLOTS)
            streamed += [layout for layout in some if layout.slots < everything and layout.fits()][:1]
    return resident or streamed


@cache
def source(layout: Layout, dtype: torch.dtype) -> str:
    """Return CUDA C++ with the kernel function `feed_forward`."""
    number, suffix = TYPES[dtype]
    names = {name.upper(): value for name, value in asdict(layout).items() if name != "hidden"}
    names |= {"BLOCKS": layout.blocks, "RESIDENT": int(layout.resident)}
    products = _product_up(layout.block, suffix) + _product_down(layout.width // layout.parts, suffix)
    types = f"typedef {number} Number;\ntypedef unsigned long long u64;\n"
    return kernel_text("feed_forward", names, f"{types}#ifndef HOST\n{products}#endif\n")


def _product_up(columns: int, suffix: str) -> str:
    """Return a function for sum += a b of 64 pixels, 16 channels and some columns, with both sides in shared memory."""
    return _product("product_up", columns, suffix, "u64 a", ['"l"(a)'], "{}", "0, 0")


def _product_down(columns: int, suffix: str) -> str:
    """Return a function for sum += a b, with the left side in registers."""
    inputs = [f'"r"(a{i})' for i in range(4)]
    return _product(
        "product_down", columns, suffix, "unsigned a0, unsigned a1, unsigned a2, unsigned a3", inputs, "{{{}}}", "0"
    )


def _product(
    name: str, columns: int, suffix: str, parameters: str, left: list[str], operand: str, transposed: str
) -> str:
    """Return a function for a matrix instruction, whose text depends on the number of columns."""
    sums = columns // 2
    places = [f"%{i}" for i in range(sums + len(left) + 1)]
    outputs = ", ".join(f'"+f"(sum[{i}])' for i in range(sums))
    *a, b = places[sums:]
    instruction = f"wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{suffix}.{suffix}"
    operands = f"{{{', '.join(places[:sums])}}}, {operand.format(', '.join(a))}, {b}, 1, 1, 1, {transposed}"
    return (
        f"static __device__ __forceinline__ void {name}(float (&sum)[{sums}], {parameters}, u64 b) {{\n"
        f'    asm volatile("{instruction} {operands};"\n'
        f'        : {outputs}\n        : {", ".join(left)}, "l"(b));\n'
        "}\n"
    )


def swizzled(rows: Tensor) -> Tensor:
    """Return (..., R, 64 or 32) rows with their pieces of 16 bytes in the order in which matrix units read them.

    In the byte offset of an element, the bits of the piece (4 and up) are XORed with the bits 7 and up.
    """
    *_, count, columns = rows.shape
    pieces, several = rows.unflatten(-1, (-1, 8)), columns // 8
    row, piece = (torch.arange(n, device=rows.device) for n in (count, several))
    exchanged = piece[None, :] ^ (row[:, None] * several // 8) % several  # its own inverse
    return pieces.gather(-2, exchanged[:, :, None].expand(pieces.shape)).flatten(-2)


@dataclass(frozen=True)
class Weights:
    """Packed weights for the kernel.

    Attributes:
        slots: weights up and down, (2 * blocks, bytes of a slot), uint8.
        bias: biases of the first product with padding, float32.
    """

    slots: Tensor
    bias: Tensor


def pack(layout: Layout, up: Tensor, up_bias: Tensor, down: Tensor) -> Weights:
    """Pack weights in the order in which the kernel has them in shared memory.

    Args:
        layout: layout of the kernel.
        up: weights of the first product, (hidden, channels), float16 or bfloat16.
        up_bias: biases of the first product, (hidden,).
        down: weights of the second product, (channels, hidden), in the dtype of `up`.
    """
    block, blocks, width = layout.block, layout.blocks, layout.width
    hidden = blocks * block - layout.hidden
    padded = F.pad(up, (0, layout.chunks * 64 - layout.channels, 0, hidden))
    first = swizzled(padded.view(blocks, block, layout.chunks, 64).transpose(1, 2))
    padded = F.pad(down, (0, hidden, 0, width - layout.channels))[four_in_a_row(width)]
    second = swizzled(F.pad(padded.view(width, blocks, block).transpose(0, 1), (0, layout.columns - block)))
    parts = (part.contiguous().view(torch.uint8).reshape(blocks, -1) for part in (first, second))
    ups, downs = (F.pad(part, (0, layout.slot - part.shape[1])) for part in parts)
    # Slots are in the order in which the kernel needs them.
    between = torch.stack([ups[1:], downs[:-1]], 1).flatten(0, 1)
    return Weights(torch.cat([ups[:1], between, downs[-1:]]), F.pad(up_bias.float(), (0, hidden)))


@cache
def _kernel(layout: Layout, dtype: torch.dtype, device: int) -> Kernel:
    return Kernel(source(layout, dtype), "feed_forward", device, layout.shared + 1024, ARCH)


def feed_forward(layout: Layout, x: Tensor, weights: Weights, bias: Tensor, residual: Tensor) -> Tensor:
    """Compute residual + down(GELU(up(x))) on a GPU.

    Args:
        layout: layout of the kernel.
        x: input map, (..., channels), contiguous, float16 or bfloat16.
        weights: packed weights from `pack`.
        bias: biases of the second product, (channels,), float32.
        residual: map that is added, of the shape and dtype of `x`, contiguous.
    """
    device = x.device.index or 0
    y, rows = torch.empty_like(x), x.numel() // layout.channels
    blocks = min(-(-rows // (_PIXELS * layout.groups)), torch.cuda.get_device_properties(device).multi_processor_count)
    addresses = (tensor.data_ptr() for tensor in (x, weights.slots, weights.bias, bias, residual, y))
    _kernel(layout, x.dtype, device)((blocks, 1), layout.threads, (*addresses, rows), _SIGNATURE)
    return y
