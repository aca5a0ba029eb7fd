"""The course in a box: each assignment solved, what is cut out of it, and what checks each blank.

    python starter.py signs --out FOLDER --lang zh      # what a student gets
    python grade.py FOLDER --out graded                 # what a student has earned

A folder an assignment: solved files in a student's plainest PyTorch, with the blanks between
nbgrader's markers; `probes.py`, what is asked of each blank; `mistakes.txt`, what students often
write instead. The starter is the solved files cut; a blank is right if it answers its probe as the
solution does. The solved files import nothing of the project, and none of its tasks imports them.
"""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
LANGUAGES = ("en", "zh")


@dataclass(frozen=True)
class Assignment:
    """What is handed out and graded under a name; texts are by language."""

    name: str
    title: dict[str, str]
    blanked: tuple[str, ...]  # files with blanks
    points: dict[str, float]  # of each blank, by its number
    commands: tuple[str, ...]  # that the assignment asks for
    whole: tuple[str, ...] = ()  # files handed out as they are
    data: str = ""  # what is drawn into data/, of `handout.DATA`

    @property
    def folder(self) -> Path:
        return FOLDER / self.name


def _each(points: float, *blanks: str) -> dict[str, float]:
    return dict.fromkeys(blanks, points)


_LISTED = (
    Assignment(
        "signs", {"en": "Traffic signs", "zh": "交通标志分类"}, ("datasets.py", "networks.py"),
        _each(3, "1.1", "1.2", "1.3", "2.1", "2.2", "3.1", "3.2", "3.3", "4.1", "4.2"),
        (
            "train.py --ckpt_path checkpoints/default",
            "train.py --ckpt_path checkpoints/bn --bn",
            "train.py --ckpt_path checkpoints/dropout --dropout 0.3",
            "test.py --ckpt_path checkpoints/default --epoch 10",
            "unit_test.py data_loader",
            "train.py --ckpt_path checkpoints/bn_aug --bn --augment",
            "train.py --ckpt_path checkpoints/stn --bn --stn",
            "unit_test.py stn",
            "visualize.py --type filter --ckpt_path checkpoints/bn --layer_idx 0",
            "visualize.py --type feature --ckpt_path checkpoints/bn --layer_idx 1 --image_idx 50",
            "visualize.py --type tsne --ckpt_path checkpoints/bn",
            "visualize.py --type stn --ckpt_path checkpoints/stn",
        ),
        ("train.py", "test.py", "visualize.py", "unit_test.py"), "signs",
    ),
    Assignment(
        "video", {"en": "Video, attention and saliency", "zh": "视频、注意力与显著性"},
        ("attention.py",), _each(10, "3.1", "3.2", "7.1", "7.2"),
        ("attention.py data/street_0.jpg",), data="pictures",
    ),
    Assignment(
        "mnist", {"en": "Digits by two convolutions", "zh": "两层卷积网络识别手写数字"},
        ("mnist.py",), _each(10, "1.1", "1.2", "1.3", "1.4", "1.5"), ("mnist.py",),
    ),
    Assignment(
        "inside", {"en": "Inside networks, and style", "zh": "网络可视化与风格迁移"},
        ("inside.py",), _each(10, "1.1", "1.2", "1.3", "2.1", "2.2", "2.3", "2.4"),
        ("inside.py data/street_0.jpg data/street_1.jpg",), data="pictures",
    ),
    Assignment(
        "detection", {"en": "Fine-tuning, detection, segmentation", "zh": "微调、检测与分割"},
        ("detection.py",), _each(10, "1.1", "2.1", "2.2", "2.3", "2.4", "2.5", "3.1", "3.2"),
        ("detection.py data",), data="streets",
    ),
)  # fmt: skip
ASSIGNMENTS = {one.name: one for one in _LISTED}
