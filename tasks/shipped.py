"""The networks that come with the project: how each is made, what it has seen, what it cannot do.

    for name, shipped in SHIPPED.items():
        folder = PRETRAINED / name          # read by every script as the folder of a run is

`python pretrain.py NAME` makes one by what stands here (`shipping`). All of them have learned from
drawn data alone, which is why they may be passed on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.flags import VISUALIZED, flag
from lab.folders import PRETRAINED, near
from tasks import DEFAULT

SIGNS = (
    "--bn --stn --augment --dropout 0.25 --batch_size 128 --optim_type muon --lr 4e-3 --warmup 1 "
    "--ema 0.998 --weight_decay 0.02 --label_smoothing 0.1 --epoch 20"
)
ONE_SIGN = "It is shown one sign, cut out; to find signs in a street is the work of `street`."


@dataclass(frozen=True)
class Shipped:
    """A network that comes with the project.

    Attributes:
        does: in the infinitive.
        train: the flags of train.py that make it.
        draws: the data set that it learns from and is tested on, by its name in `world.missing`,
            or the kind of clips.
        few: inputs of the test split, of each class where there are any, that stand for it where
            all take long.
        cannot: what it is no use for, a sentence each.
        task: of `--task`.
        failing: what of it test.py draws its mistakes in.
        shows: what that picture shows.
        noted: what is to be known of its figures.
        reader: of these, what reads for its test.
        begin: flags of the script that is shown first.
    """

    does: str
    train: str
    draws: str
    few: int
    cannot: Sequence[str]
    task: str = DEFAULT
    failing: str = "results/mistakes.jpg"
    shows: str = "Its mistakes in the test split"
    noted: str = ""
    reader: str | None = None
    begin: str = "test.py --ckpt_path {folder} --image photo.jpg"

    @property
    def words(self) -> list[str]:
        """The flags of train.py, one by one."""
        return self.train.split()


SHIPPED = {
    "signs": Shipped(
        "name one of 26 traffic signs", SIGNS, "signs", 50,
        [
            ONE_SIGN,
            "It knows 26 of Germany's signs, and takes any other thing for one of them: "
            "`signs43` knows 43.",
            "Figures of speed limits are what it confuses first where a sign has few pixels.",
        ],
    ),
    "signs43": Shipped(
        "name one of the 43 traffic signs of the German benchmark", f"--dataset signs43 {SIGNS}",
        "signs43", 50,
        [
            ONE_SIGN,
            "It takes whatever is none of the 43 for one of them.",
            "Pictograms in red triangles are what it confuses first: many differ by a few pixels.",
        ],
    ),
    "street": Shipped(
        "find traffic signs in photographs of streets",
        "--task detection --network center_net --optim_type muon --lr 7e-3 --batch_size 32 "
        "--epoch 12",
        "street", 100,
        [
            "What a sign says it tells less surely than where it is: have `signs43` read it "
            "(`--read pretrained/signs43`).",
            "Signs of fewer than a dozen pixels it mostly misses.",
            "It has seen Germany's signs, from a car; some round or red things it takes for one.",
        ],
        task="detection", failing="mistakes.jpg",
        begin="test.py --ckpt_path {folder} --read pretrained/signs43 --image photo.jpg",
    ),
    "segmentation": Shipped(
        "label every pixel of a street as one of eleven classes",
        "--task segmentation", "street", 100,
        [
            "It labels any picture so, also one that shows no street.",
            "Fences, poles and far signs it mostly misses: they are few pixels.",
            "It has seen streets from the middle of the road, by day.",
        ],
        task="segmentation",
    ),
    "clips/motion": Shipped(
        "tell what a sign does in 16 frames, one of ten motions",
        "--task video --dataset motion --network early_fusion --width 16 --epoch 12",
        "motion", 1000,
        ["It knows one sign that moves on a background that stands still, in 32x32 pixels."],
        task="video", begin="test.py --ckpt_path {folder} --image clip.mp4",
    ),
    "clips/memory": Shipped(
        "tell which of ten signs stood in the first four of 64 frames",
        "--task video --dataset memory --network cnn_lstm --width 16 --epoch 8", "memory", 200,
        ["It is of use to show what an LSTM remembers, and for nothing else."],
        task="video", begin="test.py --ckpt_path {folder} --image clip.mp4",
    ),
    "diffusion": Shipped(
        "paint traffic signs from words", "--task diffusion", "captions", 20,
        [
            "It paints 64x64 pixels: one of 26 signs, its weather, light and surroundings. Words "
            "that it has not learned are named, and mean nothing to it.",
            "Of limits of 50 and 80, more than half become other ones.",
        ],
        task="diffusion", failing="painted.jpg", reader="signs",
        shows="What it paints for sentences of the test split, and what `signs` reads",
        noted="What is read as asked are up to ten pictures of each class, painted for sentences "
        "of the test split, by `signs`.",
        begin='diffuse.py --model {folder} --prompt "a roundabout sign at night"',
    ),
}  # fmt: skip


@dataclass(frozen=True)
class ShipFlags:
    """What pretrain.py is asked for, besides the network's name."""

    run: Path | None = flag(
        None, Path, "take this run, which has been trained by the network's command, instead of "
        "training one in checkpoints/pretrained", metavar="FOLDER",
    )  # fmt: skip
    also: list[Path] | None = flag(
        None, Path, "folders of photographs whose test split the card tells of as well",
        nargs="+", metavar="FOLDER",
    )  # fmt: skip
    out: Path | None = flag(None, Path, "folder to make (default: pretrained/NAME)")


def written_to(name: str) -> Path:
    """Return the folder of what scripts make of a network that comes with the project."""
    return VISUALIZED / "pretrained" / name


def shipped_with(task: str | None) -> list[Path]:
    """Return the folders of the networks of a task, None for any, that are there."""
    places = [PRETRAINED / name for name, one in SHIPPED.items() if task in (None, one.task)]
    return [near(place) for place in places if any(place.glob("*.pth"))]
