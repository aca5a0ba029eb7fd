"""An epoch of networks for clips, and the memory of attention across a clip.

Clips a second of train.py's loop against the bare step, clips in memory; of the non-local block, in
the shape that the network has it in for clips of 32 frames, the peak of a step above what a fresh
process held before it.
"""

import statistics
from collections.abc import Hashable
from pathlib import Path

import torch

from lab.runtime import Runtime
from speed import Figures, Turn, ratio, table
from speed.attention import NAIVE, OWN, extra_memory
from speed.training import BARE, bare_turns, own_turns
from speed.training import OWN as LOOP
from tasks.video.data import Split, make_loader
from tasks.video.networks import VideoNetwork, build_network, make_configs

NETWORKS = ("cnn3d", "cnn_lstm", "early_fusion")
BATCH_SIZE = 32
CLIPS = 640  # an epoch
BLOCK = (32, 40, 16, 8, 8)  # (N, C, T', H', W') of the non-local network's block, 32 frames


def contestants(folder: Path, runtime: Runtime) -> dict[Hashable, Turn]:
    """Return the loop and the bare step of each network."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (CLIPS, 16, 32, 32, 3), generator=generator, dtype=torch.uint8)
    split = Split(tuple("0123456789"), pixels, torch.arange(CLIPS) % 10, [""] * CLIPS)
    loader = make_loader(split, BATCH_SIZE, shuffle=True, device=runtime.device)
    return {
        (kind, name): turns(network(name), loader, runtime)
        for name in NETWORKS
        for kind, turns in ((BARE, bare_turns), (LOOP, own_turns))
    }


def network(name: str) -> VideoNetwork:
    """Return a network under test; the same weights each time."""
    torch.manual_seed(0)
    return build_network(name, make_configs(name, num_classes=10, frames=16))


def report(figures: Figures, runtime: Runtime) -> str:
    """Return medians of clips/s with their ratio, and the block's memory."""
    rows = [
        [
            name,
            *(f"{statistics.median(figures[kind, name]):,.0f}" for kind in (BARE, LOOP)),
            ratio(figures, (LOOP, name), (BARE, name)),
        ]
        for name in NETWORKS
    ]
    speeds = table([f"training, batch {BATCH_SIZE}, clips/s", BARE, LOOP, "b/a"], rows)
    memory = {name: extra_memory(name, runtime.device.type, BLOCK) for name in (OWN, NAIVE)}
    blocks = table(
        [f"forward and backward, {BLOCK}, fp32", "extra MiB", "ratio"],
        [
            [name, f"{memory[name] / 2**20:,.0f}", f"1/{memory[NAIVE] / memory[name]:.1f}"]
            for name in (OWN, NAIVE)
        ],
    )
    return f"{speeds}\n\n{blocks}"
