"""What a UNet2DConditionModel consists of: its blocks in their order, and a picture of the U.

blocks = census(unet)                 # of a network on the meta device as well: no weights needed
say_census("Stable Diffusion 1.5", blocks)
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from diffusers import UNet2DConditionModel
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.patches import FancyBboxPatch
from torch import nn

from lab.console import say
from lab.drawing import draw_part, plain

COLOURS = {"words": "#f6c177", "none": "#9ccfd8", "ends": "#d8d8d8"}  # of attention to words


@dataclass(frozen=True)
class Block:
    """A block of a UNet.

    Attributes:
        kind: its class.
        place: down, mid or up; "ends" for what is before, after and beside the U.
        channels: of what it puts out.
        side: of its maps, the largest of them.
        parameters: numbers that are trained.
        resnets, attentions: residual blocks and transformers in it; a transformer attends to the
            map's own places, then to the words.
    """

    kind: str
    place: str
    channels: int
    side: int
    parameters: int
    resnets: int = 0
    attentions: int = 0


def census(unet: UNet2DConditionModel) -> list[Block]:
    """Return the blocks of a UNet, in the order in which a picture passes them."""
    channels, side = unet.config.block_out_channels, unet.config.sample_size
    sides = [side // 2**level for level in range(len(channels))]
    width = unet.time_embedding.linear_2.out_features  # of what tells blocks the time
    blocks = [outer_block("time_embedding", unet.time_embedding, width, 1)]
    if (pooling := getattr(unet, "add_embedding", None)) is not None:
        blocks.append(outer_block("add_embedding", pooling, width, 1))  # of the prompt as a whole
    blocks.append(outer_block("conv_in", unet.conv_in, channels[0], side))
    levels = zip(unet.down_blocks, channels, sides, strict=True)
    blocks += [inner_block(block, "down", *own) for block, *own in levels]
    if unet.mid_block is not None:
        blocks.append(inner_block(unet.mid_block, "mid", channels[-1], sides[-1]))
    levels = zip(unet.up_blocks, channels[::-1], sides[::-1], strict=True)
    blocks += [inner_block(block, "up", *own) for block, *own in levels]
    last = nn.ModuleList([unet.conv_norm_out, unet.conv_out])
    return [*blocks, outer_block("conv_out", last, unet.config.out_channels, side)]


def outer_block(name: str, module: nn.Module, channels: int, side: int) -> Block:
    """Return what is no block of the U."""
    return Block(name, "ends", channels, side, count(module))


def inner_block(block: nn.Module, place: str, channels: int, side: int) -> Block:
    """Return a block of the U."""
    inside = [len(getattr(block, name, None) or ()) for name in ("resnets", "attentions")]
    return Block(type(block).__name__, place, channels, side, count(block), *inside)


def count(module: nn.Module) -> int:
    """Return the numbers that are trained in a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def say_census(name: str, blocks: Sequence[Block]) -> None:
    """Print a UNet's blocks: kind, channels, side of the maps, what is in them, parameters."""
    say(f"{name}, {sum(block.parameters for block in blocks):,} parameters")
    for block in blocks:
        inside = ""
        if block.place != "ends":
            inside = f"{block.resnets} residual blocks, {block.attentions} transformers"
        size = f"{block.channels} channels at {block.side}x{block.side}"
        say(f"  {block.place:4}  {block.kind:24}  {size:25}  {inside:36} {block.parameters:13,}")
    kinds = Counter(block.kind for block in blocks if block.place != "ends")
    say("  " + ", ".join(f"{number} {kind}" for kind, number in kinds.items()))


@dataclass(frozen=True, eq=False)
class Diagram:
    """The U of a UNet: down at the left, up at the right, what is handed across between them.

    Attributes:
        name: of the network.
        blocks: as `census` returns them.
    """

    name: str
    blocks: Sequence[Block]
    width = 9.5  # inches

    @property
    def size(self) -> tuple[float, float]:
        levels = sum(block.place == "down" for block in self.blocks)
        return self.width, 0.95 * (levels + 2.2)


@draw_part.register
def draw_diagram(diagram: Diagram, figure: FigureBase) -> None:
    """Draw a box a block; its height in the picture is the scale of its maps."""
    axis = figure.add_axes((0, 0, 1, 1))
    blocks, named = diagram.blocks, {block.kind: block for block in diagram.blocks}
    down, up = ([block for block in blocks if block.place == side] for side in ("down", "up"))
    levels = len(down)
    _box(axis, named["conv_in"], 0, 0.0)
    _box(axis, named["conv_out"], 2, 0.0)
    for level, block in enumerate(down, 1):
        _box(axis, block, 0, level)
        _arrow(axis, (0, level - 0.68), (0, level - 0.32))
    for level, block in enumerate(up):
        _box(axis, block, 2, levels - level)
        _arrow(axis, (2, levels - level - 0.32), (2, levels - level - 0.68))
        _arrow(axis, (0.42, levels - level), (1.58, levels - level), "0.6")
        axis.text(1, levels - level - 0.05, "skip", ha="center", fontsize=7, color="0.4")
    for block in blocks:
        if block.place == "mid":
            _box(axis, block, 1, levels + 1.0)
            _arrow(axis, (0, levels + 0.32), (0.58, levels + 1.0))
            _arrow(axis, (1.42, levels + 1.0), (2, levels + 0.32))
    total = sum(block.parameters for block in blocks)
    axis.text(1, -0.2, plain(diagram.name), ha="center", fontsize=12)
    axis.text(1, 0.1, f"{total:,} parameters", ha="center", fontsize=9)
    axis.set(xlim=(-0.5, 2.5), ylim=(levels + 1.5, -0.5))
    axis.axis("off")


def _box(axis: Axes, block: Block, column: float, row: float) -> None:
    kind = "ends" if block.place == "ends" else "words" if block.attentions else "none"
    place = (column - 0.41, row - 0.31)
    style = "round,pad=0,rounding_size=0.04"
    axis.add_patch(FancyBboxPatch(place, 0.82, 0.62, style, fc=COLOURS[kind], ec="0.3"))
    size = f"{block.channels} channels, {block.side}x{block.side}"
    lines = [f"{size}, {block.parameters:,} parameters"]
    if block.place != "ends":
        lines.append(f"{block.resnets} residual, {block.attentions} attending to words")
    axis.text(column, row - 0.13, block.kind, ha="center", va="center", fontsize=8)
    axis.text(column, row + 0.11, "\n".join(lines), ha="center", va="center", fontsize=6.5)


def _arrow(axis: Axes, start: tuple, end: tuple, colour: str = "0.2") -> None:
    axis.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": colour})
