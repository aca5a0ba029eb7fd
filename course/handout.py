"""Writes what a student gets: the solved files cut, a README, data to try them on.

write(ASSIGNMENTS["signs"], Path("hw2"), "zh", images=100)
"""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from course import Assignment
from course.cutting import blanks, cut, numbered
from lab.console import LabError, progress, say
from lab.files import attempt, write_whole
from lab.folders import near
from world.signs import CLASSES, draw_dataset, draw_sign
from world.street import draw_street

STREET = (256, 256)
TEXTS = {
    "en": {
        "task": "Fill in the blanks, each between `# TODO` and `# END OF TODO`: replace the line "
        "`raise NotImplementedError`, and keep the two marks. Code elsewhere stays as it is.",
        "head": "| blank | file | points |", "install": "What is needed, once:", "run": "Then:",
        "hand_in": "Hand in the Python files as a zip, without data, pictures and checkpoints.",
    },
    "zh": {
        "task": "请填写 `# TODO` 与 `# END OF TODO` 之间的空白：替换 `raise NotImplementedError` "
        "这一行，并保留两处标记。其余代码不用修改。",
        "head": "| 空白 | 文件 | 分值 |", "install": "所需的库，安装一次：", "run": "然后：",
        "hand_in": "把 Python 文件打包为 zip 提交，不含数据、图片与检查点。",
    },
}  # fmt: skip


def write(assignment: Assignment, out: Path, lang: str, images: int) -> None:
    """Write a folder that stands alone.

    Args:
        images: to draw, of each class or in all; 0 for no data.

    Raises:
        LabError: the folder is not empty, or cannot be written.
    """
    with attempt(f"write into {out}"):
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise LabError(f"{out} is not empty; give --out a new folder, so that nothing is lost")
    rows = []
    for name in (*assignment.blanked, *assignment.whole):
        starter = cut((assignment.folder / name).read_text(encoding="utf-8"), lang)
        write_whole(out / name, starter)
        rows += [(todo, name) for todo in sorted(blanks(numbered(starter)))]
    write_whole(out / "README.md", readme(assignment, rows, lang))
    say(f"{near(out)}: {len(rows)} blanks in {', '.join(assignment.blanked)}")
    if images and assignment.data:
        with attempt(f"draw into {out / 'data'}"):
            DATA[assignment.data](out / "data", images)
        say(f"{near(out / 'data')}: drawn to try it on")


def readme(assignment: Assignment, rows: list[tuple[str, str]], lang: str) -> str:
    text = TEXTS[lang]
    table = [text["head"], "|---|---|---|"]
    table += [f"| TODO {todo} | `{name}` | {assignment.points[todo]:g} |" for todo, name in rows]
    install = "pip install torch torchvision matplotlib scikit-learn pillow"
    commands = "\n".join(f"    python {one}" for one in assignment.commands)
    parts = (
        f"# {assignment.title[lang]}", text["task"], "\n".join(table), text["install"],
        f"    {install}", text["run"], commands, text["hand_in"],
    )  # fmt: skip
    return "\n\n".join(parts) + "\n"


# ---------------------------------------------------------------- data


def draw_signs(folder: Path, images: int) -> None:
    """train/, val/ and test/ with a folder a class, as the assignment has them."""
    few = max(2, images // 5)
    splits = {"train": images, "val": few, "test": few}
    total = sum(splits.values()) * len(CLASSES)
    with progress(total=total, label="drawing") as bar:
        draw_dataset(folder, splits=splits, progress=bar.update)


def draw_pictures(folder: Path, images: int) -> None:
    """A few signs and streets as pictures, to look into networks with and to paint."""
    folder.mkdir(parents=True)
    for index in range(4):
        rng = np.random.default_rng(index)
        draw_sign(5 * index, rng).resize((224, 224)).save(folder / f"sign_{index}.jpg")
        Image.fromarray(draw_street(rng, STREET).picture).save(folder / f"street_{index}.jpg")


def draw_streets(folder: Path, images: int) -> None:
    """Streets, the label of every pixel, and the signs' boxes as shares of the picture."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    rows = []
    for index in range(images):
        view = draw_street(np.random.default_rng(index), STREET)
        Image.fromarray(view.picture).save(folder / f"images/{index:03d}.jpg")
        Image.fromarray(view.labels).save(folder / f"labels/{index:03d}.png")
        for seen in view.objects:
            if seen.kind == "sign" and seen.clear:
                box = [round(side / STREET[0], 4) for side in seen.box]
                rows.append([f"{index:03d}.jpg", 0, *box])
    with open(folder / "boxes.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["image", "class", "left", "top", "right", "bottom"], *rows])


DATA = {"signs": draw_signs, "pictures": draw_pictures, "streets": draw_streets}
