"""The sign assignment: its five runs, what they have reached, and what is seen inside them."""

import os
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import dropwhile, product, takewhile
from pathlib import Path
from statistics import mean
from urllib.parse import quote

from lab.curves import draw_comparison
from lab.drawing import save_closed
from lab.files import read_text
from lab.folders import PROJECT
from lab.run import best_epoch
from reporting import claims, markdown, runs
from reporting.blocks import Block, Heading, Page
from reporting.runs import RunFiles
from reporting.work import Making, Step, Training

# The assignment's five runs: the flags that make each.
RUNS = {
    "default": (),
    "bn": ("--bn",),
    "dropout": ("--dropout", "0.3"),
    "bn_aug": ("--bn", "--augment"),
    "stn": ("--bn", "--stn"),
}
# What a part brings: the run without it, the run with it, what it is called.
PARTS = (
    ("default", "bn", ("Batch norm", "批归一化")),
    ("default", "dropout", ("Dropout", "随机失活（dropout）")),
    ("bn", "bn_aug", ("Augmentation (on top of batch norm)", "数据增广（在批归一化之上）")),
    ("bn", "stn", ("The spatial transformer (on top of batch norm)",
                   "空间变换网络（在批归一化之上）")),
)  # fmt: skip
# What is seen inside: run, view, flags, file, seconds that it takes, its name and what it shows.
LOOKS = (
    ("bn", "filter", ("--layer_idx", "0"), "filter/filter_layer_0.jpg", 12,
     ("Filters", "The first layer's kernels, and the image that excites each filter most."),
     ("卷积核", "第一层的卷积核，以及最能激活每个卷积核的图像。")),
    ("bn", "feature", ("--layer_idx", "1", "--image_idx", "50"),
     "feature/layer_1/feature_map.jpg", 6,
     ("Feature maps", "An image, and where each filter of the second block answers to it."),
     ("特征图", "一张图片，以及第二个卷积块的每个卷积核在何处有响应。")),
    ("bn", "tsne", (), "tsne/tsne.jpg", 30,
     ("t-SNE", "The last hidden layer's features of the test images in two dimensions. Near "
      "neighbours are alike to the network; distances between groups mean little."),
     ("t-SNE", "测试图片在最后一个隐藏层的特征降到二维。相邻的点在网络看来相似；"
      "各簇之间的距离没有多少意义。")),
    ("stn", "stn", (), "stn/stn.jpg", 6,
     ("Spatial transformer", "Each image with the frame that is sampled, and what comes of it, "
      "which is what the convolutions get to see."),
     ("空间变换网络", "每张图片及其采样框，以及变换后的结果；卷积层看到的是后者。")),
)  # fmt: skip
AUGMENTED = PROJECT / "visualized" / "augmentation.jpg"  # where the assignment's unit test saves it
WORST = 5  # rows of the tables of mistakes
# What the student alone can say: title and what to write, in both languages.
CURVES = (
    ("What the curves show", "When does validation loss stop falling, in which run, and why?"),
    ("对曲线的观察", "哪一次训练的验证损失从何时起不再下降？为什么？"),
)
PICTURES = (
    (
        "What the pictures show",
        "Which filters find edges, which colours? Which classes lie near one another, and are "
        "they those confused above? What does the transformer do to its images?",
    ),
    (
        "对这些图的观察",
        "哪些卷积核检测边缘，哪些检测颜色？哪些类别挨得近，与上面的混淆是否一致？"
        "空间变换网络对图片做了什么？",
    ),
)

Kinds = dict[str, list[RunFiles]]  # the files of each kind of run, a seed each


def folder_of(root: Path, name: str, seed: int) -> Path:
    """Return the folder of a run."""
    return root / (name if seed == 0 else f"{name}_seed{seed}")


def steps(root: Path, epochs: int, seeds: int, data_root: Path | None) -> list[Step]:
    """Return what has to be run for the chapter, in order; `root` gets a folder a run, and `looks`.

    Without a data_root the signs are the built-in ones.
    """
    data = () if data_root is None else ("--data_root", str(data_root))
    needed: list[Step] = []
    for seed, name in product(range(seeds), RUNS):
        folder = folder_of(root, name, seed)
        of_seed = ("--seed", str(seed)) if seed else ()
        needed.append(Training(folder, (*RUNS[name], *data, *of_seed), epochs))
        test = ("test.py", "--ckpt_path", str(folder), "--epoch", "best", "--no_show")
        makes = (folder / "test.json", folder / "predictions.csv")
        needed.append(Making(test, makes, folder, 8, partial(was_tested, folder)))
    needed.append(Making(("unit_test.py", "data_loader"), (AUGMENTED,), None, 20))
    for name, view, flags, file, seconds, *_ in LOOKS:
        folder = folder_of(root, name, 0)
        look = ("visualize.py", "--type", view, "--ckpt_path", str(folder), "--epoch", "best")
        look += (*flags, "--save_dir", str(root / "looks"), "--no_show")
        needed.append(Making(look, (root / "looks" / file,), folder, seconds))
    return needed


def add_chapter(page: Page, root: Path, seeds: int, pictures: Path) -> None:
    """Add the chapter, made of what is there; curves are drawn here, into `pictures`."""
    page.heading(2, "Traffic signs", "交通标志识别")
    kinds: Kinds = {}
    for name in RUNS:
        folders = [folder_of(root, name, seed) for seed in range(seeds)]
        if all(map(was_tested, folders)):
            kinds[name] = [*map(runs.read, folders)]
    if missing := [f"`{name}`" for name in RUNS if name not in kinds]:
        page.paragraph(
            f"**Missing**: {', '.join(missing)}, not trained and tested yet. Nothing below is "
            "about them; `python report.py` goes on with them.",
            f"**缺少**：{'、'.join(missing)} 尚未训练并测试完，下文不涉及；"
            "`python report.py` 会接着做。",
        )
    if not kinds:
        return
    add_machine(page, kinds)
    add_data(page, kinds)
    add_results(page, kinds, pictures)
    add_parts(page, kinds)
    add_overfitting(page, kinds)
    add_mistakes(page, kinds)
    add_looks(page, root / "looks")
    add_pages(page, kinds, pictures.parent)
    page.heading(3, "The commands", "所用命令")
    page.code(session["command"] for kind in kinds.values() for files in kind
              for session in files.sessions)  # fmt: skip


def was_tested(folder: Path) -> bool:
    """True once the best epoch of a run was tested, and last of all, on the run's own data."""
    files = runs.read(folder)
    if not files or not files.predictions or not files.test or files.test.get("data_root"):
        return False
    return files.tested_epoch == best_epoch(files.history, "accuracy")


def add_machine(page: Page, kinds: Kinds) -> None:
    """Add on what machine, with what versions."""
    session = next(iter(kinds.values()))[0].sessions[-1]
    machine, versions = session["machine"], session["versions"]
    threads = f"{machine['threads']} {page.words('thread(s)', '个线程')}"
    rows = (
        (page.words("begun", "开始于"), session["started"]),
        (page.words("commit", "提交"), f"`{(session['commit'] or '–')[:12]}`"),
        (page.words("versions", "版本"), ", ".join(f"{name} {n}" for name, n in versions.items())),
        (page.words("machine", "机器"), f"{machine['device']}, {machine['precision']}, {threads}"),
    )
    page.table((("how it was made", "实验环境"), ""), rows)


def add_data(page: Page, kinds: Kinds) -> None:
    """Add the section on data and their augmentation."""
    first = next(iter(kinds.values()))[0]
    classes = len({label for label, _ in first.predictions})
    page.heading(3, "Data and augmentation", "数据与数据增广")
    page.paragraph(
        f"Images of {classes} classes, each 32x32 pixels with values in [-1, 1]. Training images "
        "alone are shuffled and, with `--augment`, varied.",
        f"共 {classes} 类图片，每张 32x32 像素，取值在 [-1, 1]。"
        "只有训练图片会打乱顺序，也只有训练图片在 `--augment` 时做增广。",
    )
    counts = first.trained.get("inputs", {})
    rows = ((mode, f"{count:,}") for mode, count in counts.items())
    page.table((("split", "划分"), ("images", "图片数")), rows)
    drawn = "Signs as drawn, and"
    en = (f"{drawn} each augmented three times", f"{drawn} augmented three times.")
    zh = ("原图与三次增广后的交通标志", "第一行是原图，下面每行是一次增广的结果。")
    page.figure(AUGMENTED, en, zh)
    file = PROJECT / "docs" / page.words("signs.md", "signs.zh.md")
    page.blocks += section(file, page.words("Augmentation", "数据增广"))


def section(file: Path, heading: str) -> list[Block]:
    """Return the blocks below one of a page's headings of level 2, down to the next heading."""
    blocks = markdown.read(read_text(file), file.parent)
    _, *below = dropwhile(lambda block: block != Heading(heading, 2), blocks)
    return list(takewhile(lambda block: not isinstance(block, Heading), below))


def add_results(page: Page, kinds: Kinds, pictures: Path) -> None:
    """Add the runs, their curves, and what they have reached."""
    page.heading(3, "The five runs", "五组实验")
    head = ("run", "实验"), ("flags", "参数"), ("epochs", "轮数"), ("parameters", "参数量"), \
           ("minutes", "分钟")  # fmt: skip
    page.table(head, (made(name, kind) for name, kind in kinds.items()))

    curves = pictures / "curves.jpg"
    histories = {name: kind[0].history for name, kind in kinds.items()}
    bests = {name: kind[0].tested_epoch for name, kind in kinds.items()}
    save_closed(draw_comparison(histories, bests=bests), curves)
    page.figure(
        curves,
        (
            "Loss and validation accuracy of the runs",
            "Loss (solid: training, dotted: validation) and validation accuracy by epoch. The axis "
            "of accuracy spreads what it lacks to 100 %.",
        ),
        (
            "各实验的损失与验证准确率",
            "损失（实线为训练，点线为验证）与验证准确率随轮次的变化。"
            "准确率的纵轴按与 100 % 的差距取对数。",
        ),
    )
    first, *others = next(iter(kinds.values()))
    count = len(first.predictions)
    page.paragraph(
        f"Tested is the epoch that validation calls best, on {count:,} images that are neither for "
        "training nor for validation.",
        f"测试的是验证集选出的最佳轮次；测试集有 {count:,} 张图片，既不用于训练也不用于验证。",
    )
    if others:
        page.paragraph("Figures are means over the seeds.", "表中为各随机种子的均值。")
        spread = "seeds, % from – to", "各种子最低 – 最高，%"
    else:
        page.paragraph(
            "The interval (Wilson's) is what chance allows with so many test images.",
            "区间为 Wilson 置信区间，即测试图片数目有限时偶然所允许的范围。",
        )
        spread = "95 % interval, %", "95 % 置信区间，%"
    head = ("run", "实验"), ("epoch", "轮次"), ("training, %", "训练，%"), \
           ("validation, %", "验证，%"), ("test, %", "测试，%"), spread  # fmt: skip
    page.table(head, ((f"`{name}`", *reached(kind)) for name, kind in kinds.items()))


def made(name: str, kind: Sequence[RunFiles]) -> tuple[str, ...]:
    """Return a row of how a kind of run was made: flags, epochs, parameters, minutes."""
    seconds = mean(sum(row["seconds"] for row in files.history) for files in kind)
    return (
        f"`{name}`",
        f"`{' '.join(RUNS[name])}`" if RUNS[name] else "–",
        f"{kind[0].history[-1]['epoch']:.0f}",
        f"{kind[0].trained.get('parameters', 0):,}",
        f"{seconds / 60:.1f}",
    )


def reached(kind: Sequence[RunFiles]) -> tuple[str, ...]:
    """Return a row of what a kind of run has reached: epoch, accuracies, interval or range."""
    rows = [files.at_epoch(files.tested_epoch) for files in kind]
    accuracies = [claims.accuracy(files.predictions) for files in kind]
    low, high = min(accuracies), max(accuracies)
    if len(kind) == 1:
        low, high = claims.wilson(accuracies[0], len(kind[0].predictions))
    return (
        ", ".join(str(files.tested_epoch) for files in kind),
        cell([row.get("accuracy") for row in rows]),
        cell([row.get("val_accuracy") for row in rows]),
        cell(accuracies),
        claims.from_to(low, high),
    )


def cell(shares: Sequence[float | None]) -> str:
    """Return a mean of shares in per cent; a dash where one is missing."""
    return "–" if None in shares else f"{100 * mean(shares):.2f}"


def add_parts(page: Page, kinds: Kinds) -> None:
    """Add what the runs say of batch norm and of the other parts."""
    page.heading(3, "What each part brings", "各部分的作用")
    read = {name: [files.predictions for files in kind] for name, kind in kinds.items()}
    page.bullets(
        claims.about_part(claims.compare(read[before], read[after]), page.words(*part), page.words)
        for before, after, part in PARTS
        if before in read and after in read
    )
    if len(next(iter(kinds.values()))) == 1:
        page.paragraph(
            "Each run was made with one seed: it is these networks that are compared. Whether "
            "other seeds would bring the same, `python report.py --seeds 3` tells.",
            "每组实验只用了一个随机种子，所比较的只是这几个网络。"
            "换种子是否仍然如此，可用 `python report.py --seeds 3` 检验。",
        )


def add_overfitting(page: Page, kinds: Kinds) -> None:
    """Add how much better the networks read what they have learned from."""
    page.heading(3, "Learned by heart, or understood?", "记住了，还是学会了？")
    page.paragraph(
        "Accuracy in the last epoch, on training images and on validation images. The former is "
        "counted while the network still learns, with dropout and augmentation where the run has "
        "them; the latter after the epoch, without:",
        "最后一轮在训练图片与验证图片上的准确率。前者在训练过程中统计，网络仍在变化，"
        "并带有该次训练的 dropout 与数据增广；后者在该轮结束后统计，不带这些：",
    )
    said = []
    for name, (files, *_) in kinds.items():
        last, counts = files.history[-1], files.trained.get("inputs", {})
        if {"accuracy", "val_accuracy"} <= last.keys() and {"train", "val"} <= counts.keys():
            training = last["accuracy"], counts["train"]
            validation = last["val_accuracy"], counts["val"]
            said.append(claims.about_overfitting(name, training, validation, page.words))
    page.bullets(said)
    page.blank(*CURVES)


def add_mistakes(page: Page, kinds: Kinds) -> None:
    """Add which classes the best run reads least well, and what it takes for what."""
    name, files = max(
        ((name, files) for name, kind in kinds.items() for files in kind),
        key=lambda entry: claims.accuracy(entry[1].predictions),
    )
    counts = Counter(label for label, _ in files.predictions)
    right = Counter(label for label, read in files.predictions if label == read)
    wrong = Counter((label, read) for label, read in files.predictions if label != read)
    worst = sorted(counts, key=lambda label: right[label] / counts[label])[:WORST]
    page.heading(3, "Which signs are misread", "哪些标志读错了")
    page.paragraph(
        f"The classes that `{name}`, which reads most test images, reads least well. Where "
        "intervals overlap, their order says nothing.",
        f"测试准确率最高的 `{name}` 召回率最低的几类。置信区间重叠时，先后次序没有意义。",
    )
    rows = []
    for label in worst:
        interval = claims.wilson(right[label] / counts[label], counts[label])
        share = f"{right[label]:,} / {counts[label]:,}"
        rows.append((f"`{label}`", share, claims.from_to(*interval, digits=1)))
    head = ("class", "类别"), ("read rightly", "读对"), ("95 % interval, %", "95 % 置信区间，%")
    page.table(head, rows)
    if wrong:
        head = ("class", "类别"), ("read as", "读成"), ("images", "图片数")
        mistakes = wrong.most_common(WORST)
        page.table(head, ((f"`{a}`", f"`{b}`", f"{count:,}") for (a, b), count in mistakes))
    rows = f"`{name}`. Rows: what a sign is; columns: what it was taken for."
    zh = (f"{name} 的混淆矩阵", f"`{name}`。行为真实类别，列为预测类别。")
    page.figure(files.folder / "confusion_matrix.jpg", (f"Confusion matrix of {name}", rows), zh)


def add_looks(page: Page, folder: Path) -> None:
    """Add the pictures from inside the networks."""
    page.heading(3, "Looking inside", "网络内部")
    for _, view, _, file, _, en, zh in LOOKS:
        page.heading(4, en[0], zh[0])
        page.figure(folder / file, en, zh, view)
    page.blank(*PICTURES)


def add_pages(page: Page, kinds: Kinds, folder: Path) -> None:
    """Add links, from the report's folder, to the pages that page.py has made of runs."""
    files = (files.folder / "page.html" for kind in kinds.values() for files in kind)
    links = [
        f"[{file.parent.name}]({quote(Path(os.path.relpath(file, folder)).as_posix())})"
        for file in files
        if file.is_file()
    ]
    if links:
        page.paragraph(
            f"Networks as pages that a browser opens, to try them: {', '.join(links)}.",
            f"可在浏览器中试用的网络页面：{'、'.join(links)}。",
        )
