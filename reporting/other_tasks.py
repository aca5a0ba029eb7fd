"""The other tasks, as far as their runs are there: what each run is, and what its test gave."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from lab.console import as_text, command
from lab.curves import draw_comparison
from lab.drawing import save_closed
from reporting import claims, runs
from reporting.blocks import Page
from reporting.runs import RunFiles

TITLES = {
    "detection": ("Detection", "目标检测"),
    "segmentation": ("Segmentation", "语义分割"),
    "video": ("Video", "视频"),
    "diffusion": ("Diffusion", "扩散模型"),
}


def add_chapter(page: Page, task: str, root: Path, pictures: Path) -> None:
    """Add a task's chapter: for each measure that its runs are ranked by, a table and curves.

    The runs are folders in `root`; a stage of a run may be a folder in it. Curves are drawn here,
    into `pictures`.
    """
    page.heading(2, *TITLES.get(task, (task.capitalize(), task)))
    folders = sorted(path.parent for deep in ("*", "*/*") for path in root.glob(f"{deep}/run.json"))
    current = [folder for folder in folders if not folder.name.startswith("previous_")]
    trained = [files for folder in current if (files := runs.read(folder))]
    trained = [files for files in trained if files.trained.get("task") == task]
    if untested := [files.folder for files in trained if not files.test]:
        page.paragraph("Trained, but not tested yet:", "已训练但尚未测试：")
        page.code(command("test.py", "--ckpt_path", folder) for folder in untested)
    tested = [files for files in trained if files.test]
    if not tested:
        page.paragraph(
            f"**This chapter is missing**: no tested run of `--task {task}` is in `{root}`. It "
            "begins with:",
            f"**本章缺失**：`{root}` 中没有 `--task {task}` 的已测试的实验。可以这样开始：",
        )
        run = ("--ckpt_path", root / task)
        page.code((command("train.py", "--task", task, *run), command("test.py", *run)))
        return
    for measure in dict.fromkeys(files.trained["ranks_by"] for files in tested):
        own = [files for files in tested if files.trained["ranks_by"] == measure]
        add_runs(page, task, measure, own, root, pictures)
    page.heading(3, "The commands", "所用命令")
    page.code(session["command"] for files in tested for session in files.sessions)


def add_runs(
    page: Page, task: str, measure: str, tested: Sequence[RunFiles], root: Path, pictures: Path
) -> None:
    """Add the table of runs with one measure, their curves, and the pictures of the first.

    A task that ranks nothing has no measure: its runs stand in the order of their names.
    """
    tested = sorted(tested, key=lambda files: (
        str(files.trained["dataset"]), -files.test["figures"].get(measure, 0), files.folder.name
    ))  # fmt: skip
    named = {files.folder.relative_to(root).as_posix(): files for files in tested}
    names = dict.fromkeys(name for files in tested for name in files.test["figures"])
    figures = [measure] * (measure in names) + [n for n in names if n not in ("loss", measure)]
    head = [("run", "实验"), ("network", "网络"), ("data", "数据"), ("parameters", "参数量"),
            ("epoch", "轮次")]  # fmt: skip
    for name in figures:
        head += [name, ("95 % interval", "95 % 置信区间")] if name == "accuracy" else [name]
    page.table(head, (row(name, files, figures) for name, files in named.items()))
    curves = pictures / f"{task}_{measure or 'loss'}.jpg"
    histories = {name: files.history for name, files in named.items()}
    bests = {name: files.tested_epoch for name, files in named.items()}
    save_closed(draw_comparison(histories, measure, bests), curves)
    en, zh = f"Loss, and {measure} by epoch", f"损失与 {measure} 随轮次的变化"
    if not measure:
        en, zh = "Loss by epoch", "损失随轮次的变化"
    page.figure(curves, (en, en), (zh, zh))
    for path in sorted(tested[0].folder.glob("*.jpg")):
        if path.stem != "loss_and_acc":
            about = (f"{path.stem.replace('_', ' ')} ({next(iter(named))})",) * 2
            page.figure(path, about, about, f"{task}_{measure}_{path.stem}")


def row(name: str, files: RunFiles, figures: Sequence[str]) -> Iterator[str]:
    """Yield the cells of a run: what it is, and the figures of its test.

    Accuracy is a share of the inputs: the one figure whose interval is known. A track that is used
    both ways counts once.
    """
    values, trained, elsewhere = files.test["figures"], files.trained, files.test.get("data_root")
    count = files.test.get("independent", files.test["inputs"])
    yield f"`{name}`"
    yield str(trained["network"])
    yield f"{trained['dataset']}" + (f", `{elsewhere}`" if elsewhere else "")
    yield f"{trained['parameters']:,}"
    yield str(files.tested_epoch or "–")
    for figure in figures:
        yield as_text(values[figure]) if figure in values else "–"
        if figure == "accuracy":
            yield claims.from_to(*claims.wilson(values[figure], count)) + " %"
