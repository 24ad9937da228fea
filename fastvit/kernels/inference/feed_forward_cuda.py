"""The kernel of feed_forward.cu, for Hopper: its text for a shape, its weights as it wants them, and its launch."""

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
# Bytes of shared memory that a block may ask for, less what alignment loses; of a row; and what slots are aligned to.
_SHARED, _ROW, _ALIGNED = 227 * 1024 - 1024, 128, 1024
_PIXELS = 64
# Hidden channels at a time, and slots for weights that are fetched again and again.
_BLOCKS, _SLOTS = (64, 48, 32), (8, 6, 5, 4, 3)
# Registers that a thread may have for its sums and what GELU makes of them, for so many groups, before more than a few
# bytes are spilled: where all weights stay, and where one group more fetches them.
_SUMS = {True: {4: 80, 3: 120}, False: {3: 112, 2: 200}}


@dataclass(frozen=True)
class Layout:
    """How a ConvFFN is cut up.

    Attributes:
        channels: of the map, a multiple of 4.
        hidden: channels between the products.
        block: of these that a group has at a time, a multiple of 16, at most 64.
        groups: of four warps with 64 pixels each, of a block of threads.
        slots: for the weights up or down of a block in shared memory.
        buffers: sets of pixels a group, the one in use and the next.
    """

    channels: int
    hidden: int
    block: int
    groups: int
    slots: int
    buffers: int

    @property
    def options(self) -> tuple[tuple[str, int], ...]:
        """What a choice of it has to say; the step knows the widths."""
        return tuple((name, value) for name, value in asdict(self).items() if name not in ("channels", "hidden"))

    @property
    def blocks(self) -> int:
        return -(-self.hidden // self.block)

    @property
    def chunks(self) -> int:
        """Of 64 channels."""
        return -(-self.channels // 64)

    @property
    def columns(self) -> int:
        """Of a row of the second product's weights."""
        return 64 if self.block > 32 else 32

    @property
    def width(self) -> int:
        """Channels of the second product."""
        return -(-self.channels // 8) * 8

    @property
    def parts(self) -> int:
        """Of the second product, of up to 256 channels."""
        return -(-self.width // 256)

    @property
    def resident(self) -> bool:
        """All weights stay in shared memory."""
        return self.slots == 2 * self.blocks

    @property
    def slot(self) -> int:
        """Bytes of a block's weights up or down."""
        weights = max(self.chunks * self.block * _ROW, self.width * 2 * self.columns)
        return -(-weights // _ALIGNED) * _ALIGNED

    @property
    def shared(self) -> int:
        """Bytes of shared memory."""
        maps = self.groups * self.buffers * self.chunks * _PIXELS * _ROW
        return maps + self.slots * (self.slot + 16) + 4 * self.blocks * self.block

    @property
    def sums(self) -> int:
        """Registers of a thread for the sums of both products, and for a block as the second one takes it."""
        return self.width // 2 + self.block // 2 + self.block // 4

    @property
    def threads(self) -> int:
        return 128 * (self.groups + (not self.resident))

    def fits(self) -> bool:
        cut = self.width % (8 * self.parts) == 0
        most = _SUMS[self.resident].get(self.groups, 0)
        return cut and self.slots >= 3 and self.shared <= _SHARED and self.sums <= most


def layouts(channels: int, hidden: int) -> list[Layout]:
    """Those that fit, the likeliest first; none where there is no kernel."""
    if channels % 4:
        return []
    resident, streamed = [], []
    # Little of the last block is padding, then the largest.
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
    """CUDA C++ with an entry `feed_forward`."""
    number, suffix = TYPES[dtype]
    names = {name.upper(): value for name, value in asdict(layout).items() if name != "hidden"}
    names |= {"BLOCKS": layout.blocks, "RESIDENT": int(layout.resident)}
    products = _product_up(layout.block, suffix) + _product_down(layout.width // layout.parts, suffix)
    types = f"typedef {number} Number;\ntypedef unsigned long long u64;\n"
    return kernel_text("feed_forward", names, f"{types}#ifndef HOST\n{products}#endif\n")


def _product_up(columns: int, suffix: str) -> str:
    """Sum += a b of 64 pixels, 16 channels and some columns, both sides in shared memory."""
    return _product("product_up", columns, suffix, "u64 a", ['"l"(a)'], "{}", "0, 0")


def _product_down(columns: int, suffix: str) -> str:
    """The same with the left side in registers."""
    inputs = [f'"r"(a{i})' for i in range(4)]
    return _product(
        "product_down", columns, suffix, "unsigned a0, unsigned a1, unsigned a2, unsigned a3", inputs, "{{{}}}", "0"
    )


def _product(
    name: str, columns: int, suffix: str, parameters: str, left: list[str], operand: str, transposed: str
) -> str:
    """A function for an instruction of the matrix units, whose text depends on how many columns it has."""
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
    """(..., R, 64 or 32) rows with their pieces of 16 bytes exchanged as the matrix units read them.

    Bits 4 and up of an element's place in bytes are those of the piece, exclusive or bits 7 and up.
    """
    *_, count, columns = rows.shape
    pieces, several = rows.unflatten(-1, (-1, 8)), columns // 8
    row, piece = (torch.arange(n, device=rows.device) for n in (count, several))
    exchanged = piece[None, :] ^ (row[:, None] * several // 8) % several  # its own inverse
    return pieces.gather(-2, exchanged[:, :, None].expand(pieces.shape)).flatten(-2)


@dataclass(frozen=True)
class Weights:
    """As the kernel wants them: slots by their bytes, and the first biases with those that are padding."""

    slots: Tensor
    bias: Tensor


def pack(layout: Layout, up: Tensor, up_bias: Tensor, down: Tensor) -> Weights:
    """Weights as they lie in shared memory.

    Args:
        layout: of the kernel.
        up: (hidden, channels), float16 or bfloat16.
        up_bias: (hidden,).
        down: (channels, hidden).
    """
    block, blocks, width = layout.block, layout.blocks, layout.width
    hidden = blocks * block - layout.hidden
    padded = F.pad(up, (0, layout.chunks * 64 - layout.channels, 0, hidden))
    first = swizzled(padded.view(blocks, block, layout.chunks, 64).transpose(1, 2))
    padded = F.pad(down, (0, hidden, 0, width - layout.channels))[four_in_a_row(width)]
    second = swizzled(F.pad(padded.view(width, blocks, block).transpose(0, 1), (0, layout.columns - block)))
    parts = (part.contiguous().view(torch.uint8).reshape(blocks, -1) for part in (first, second))
    ups, downs = (F.pad(part, (0, layout.slot - part.shape[1])) for part in parts)
    # In the order in which they are needed.
    between = torch.stack([ups[1:], downs[:-1]], 1).flatten(0, 1)
    return Weights(torch.cat([ups[:1], between, downs[-1:]]), F.pad(up_bias.float(), (0, hidden)))


@cache
def _kernel(layout: Layout, dtype: torch.dtype, device: int) -> Kernel:
    return Kernel(source(layout, dtype), "feed_forward", device, layout.shared + 1024, ARCH)


def feed_forward(layout: Layout, x: Tensor, weights: Weights, bias: Tensor, residual: Tensor) -> Tensor:
    """Run it on a GPU.

    Args:
        layout: of the kernel.
        x, residual: (..., channels), contiguous, float16 or bfloat16.
        weights: from `pack`.
        bias: (channels,), float32.
    """
    device = x.device.index or 0
    y, rows = torch.empty_like(x), x.numel() // layout.channels
    blocks = min(-(-rows // (_PIXELS * layout.groups)), torch.cuda.get_device_properties(device).multi_processor_count)
    addresses = (tensor.data_ptr() for tensor in (x, weights.slots, weights.bias, bias, residual, y))
    _kernel(layout, x.dtype, device)((blocks, 1), layout.threads, (*addresses, rows), _SIGNATURE)
    return y
