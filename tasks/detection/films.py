"""Objects followed through a film: which detections are one and the same thing, and what it is.

SORT (Bewley et al. 2016) without its Kalman filter: a track expects its box to go on as it went
between the last two frames; boxes and expectations are paired so that the sum of IoUs is highest.
Faint detections continue tracks, but begin none (ByteTrack, Zhang et al. 2022).
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_iou

from lab.console import say
from lab.drawing import pillow_font
from lab.films import annotate, each_frame
from tasks.detection.detector import Detections

FAINT, CLEAR = 0.1, 0.3  # scores from which a detection continues a track, and begins one
OVERLAP = 0.2  # IoU of a detection with what a track expects, at the least
PATIENCE = 5  # frames without a detection, after which a track has ended
FEWEST = 3  # frames of a track that is shown


@dataclass
class Track:
    """One thing.

    Attributes:
        boxes: (4,) by frame.
        votes: sum of scores by label.
    """

    boxes: dict[int, Tensor] = field(default_factory=dict)
    votes: dict[int, float] = field(default_factory=lambda: defaultdict(float))

    def see(self, frame: int, box: Tensor, score: float, label: int) -> None:
        self.boxes[frame] = box
        self.votes[label] += score

    @property
    def label(self) -> int:
        """What the whole track says that it is."""
        return max(self.votes, key=self.votes.__getitem__)

    @property
    def certainty(self) -> float:
        """Share of the votes that say so."""
        return self.votes[self.label] / sum(self.votes.values())

    @property
    def last(self) -> int:
        """The last frame that it was seen in; they come in order."""
        return next(reversed(self.boxes))

    def expected(self, frame: int) -> Tensor:
        """Return the box that it will have, as it moved and grew between its last two."""
        box = self.boxes[self.last]
        if len(self.boxes) < 2:
            return box
        last, before = islice(reversed(self.boxes), 2)
        step = (box - self.boxes[before]) / (last - before)
        moved = box + (frame - last) * step
        return moved if bool((moved[2:] > moved[:2]).all()) else box


class Tracker:
    """Tells, frame by frame, which detections belong together.

    Attributes:
        tracks: all there were, the first ones first.
    """

    def __init__(self) -> None:
        self.tracks: list[Track] = []

    def update(self, frame: int, found: Detections) -> None:
        """Take up what is found in a frame; frames come in order."""
        rows = [k for k, score in enumerate(found["scores"].tolist()) if score >= FAINT]
        boxes, scores, labels = (found[name][rows] for name in ("boxes", "scores", "labels"))
        alive = [t for t in self.tracks if frame - t.last <= PATIENCE]
        free = set(range(len(rows)))
        if alive and rows:
            overlaps = box_iou(torch.stack([t.expected(frame) for t in alive]), boxes).numpy()
            for t, k in zip(*linear_sum_assignment(-overlaps), strict=True):
                if overlaps[t, k] >= OVERLAP:
                    alive[t].see(frame, boxes[k], float(scores[k]), int(labels[k]))
                    free.discard(int(k))
        for k in sorted(free):
            if scores[k] >= CLEAR:
                self.tracks.append(Track())
                self.tracks[-1].see(frame, boxes[k], float(scores[k]), int(labels[k]))

    def shown(self) -> list[Track]:
        """Return the tracks that last."""
        return [track for track in self.tracks if len(track.boxes) >= FEWEST]


def follow(path: Path, search: Callable[[np.ndarray], Detections]) -> Tracker:
    """Search every frame of a film, and follow what is found."""
    tracker = Tracker()
    for number, frame in enumerate(each_frame(path, f"searching {path.name}")):
        tracker.update(number, search(frame))
    return tracker


def annotate_film(
    path: Path, search: Callable[[np.ndarray], Detections], classes: Sequence[str], target: Path
) -> None:
    """Say what is followed through a film, and write it with that.

    Args:
        search: from a frame, uint8 (H, W, 3), to all that is found with a score of FAINT or more.
    """
    began = time.perf_counter()
    tracks = follow(path, search).shown()
    for number, track in enumerate(tracks, 1):
        first, last = next(iter(track.boxes)) + 1, track.last + 1
        share = f"{track.certainty:.0%} of what they say"
        say(f"{path.name}  {number}: {classes[track.label]}, frames {first} to {last}, {share}")
    if not tracks:
        say(f"{path.name}  nothing")

    def mark(frame: np.ndarray, number: int) -> np.ndarray:
        image = Image.fromarray(frame)
        pen = ImageDraw.Draw(image)
        for identity, track in enumerate(tracks, 1):
            if number in track.boxes:
                box = track.boxes[number].tolist()
                pen.rectangle(box, outline="cyan", width=2)
                text = f"{identity} {classes[track.label]}"
                place, font = (box[0], max(0, box[1] - 12)), pillow_font(text)
                pen.rectangle(pen.textbbox(place, text, font), fill="black")
                pen.text(place, text, fill="cyan", font=font)
        return np.array(image)

    annotate(path, target, mark, began)
