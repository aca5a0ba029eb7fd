"""The tasks by name, what the scripts ask of each, and the records of their flags.

A task is a package of this folder. All have the same rooms:

| file | holds |
|---|---|
| `__init__.py` | its `Task`: flags, defaults, names of data sets, networks and views; no torch |
| `data.py` | its sources, to splits, to loaders |
| `networks.py` | `NETWORKS`: each built from one frozen config, by name |
| `objective.py` | what is trained on: the loss and the meter |
| `training.py` | `prepare`: from flags to what is trained on what |
| `results.py` | what test.py prints, draws and saves; what it says of one's own pictures |
| `views.py` | `view_NAME`: what visualize.py shows |
| `export.py` | `exported`: the networks that export.py writes; `shown`: what page.py does |

Who adds a task writes such a package, a suite in `tests/`, and a line in `TASKS`. A method of
`Task` imports the room that it is about and calls it: flags are read, and wrong ones answered,
before torch is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import flags
from lab.console import LabError, UsageError
from lab.flags import Parser, Record, flag, natural, positive_float, positive_int, read_flags
from lab.settings import TrainSettings

if TYPE_CHECKING:
    from types import ModuleType

    from torch import nn
    from torch.utils.data import DataLoader, Dataset

    from lab.objective import Meter, Objective
    from lab.pictures import Film, Picture
    from lab.run import Run
    from lab.runtime import Runtime
    from tasks.exporting import Exported
    from tasks.showing import Shown
    from tasks.trained import Trained

DEFAULT = "classification"
# Each with its package, which holds a `TASK`.
TASKS = {
    name: f"tasks.{name}"
    for name in ("classification", "detection", "segmentation", "video", "diffusion", "style")
}


# ---------------------------------------------------------------- flags


@dataclass(frozen=True)
class StartFlags:
    """How a network starts; of the flags of a task those that most of them share."""

    weights: Path | None = flag(
        None, Path, "start from a checkpoint, a run's folder or a state dict",
        metavar="PATH", group="network", excludes="start",
    )  # fmt: skip
    freeze: bool = flag(
        False, bool, "train the output layers alone, leave the body as it is", group="network"
    )


def pretrained(text: str) -> Any:
    """Declare `--pretrained`, of tasks whose networks others have published with weights."""
    return flag(False, bool, text, undone=False, group="network", excludes="start")


@dataclass(frozen=True)
class TrainFlags:
    """What train.py is asked for.

    Attributes:
        settings: how to train.
        own: the task's own flags.
    """

    task: str = flag(
        DEFAULT, TASKS, "what is learned; its own flags are listed by `--task NAME --help`"
    )
    ckpt_path: Path = flags.ckpt_path("folder of the run's checkpoints")
    device: str | None = flags.device()
    data_root: Path | None = flags.data_root(flags.DRAWN_DATA)
    no_show: bool = flags.no_show()
    resume: Path | None = flag(
        None, Path, "checkpoint, or folder of a run, to go on from; its own flags hold unless "
        "given anew", metavar="PATH",
    )  # fmt: skip
    overfit_batch: bool = flag(
        False, bool, "learn the first batch by heart instead, to see that the network can learn at "
        "all", undone=False,
    )  # fmt: skip
    find_lr: bool = flag(
        False, bool, "raise the rate step by step instead, draw the loss over it, and suggest one",
        undone=False,
    )  # fmt: skip
    also_validate: list[Path] | None = flag(
        None, Path, "folders whose test split is measured beside val, and decides nothing",
        nargs="+", metavar="FOLDER",
    )  # fmt: skip
    settings: TrainSettings = field(default_factory=TrainSettings)
    own: Any = None


@dataclass(frozen=True)
class RunFlags:
    """Which run a script looks at, and which epoch of it."""

    task: str | None = flag(
        None, TASKS, "take the run in its folder, checkpoints/TASK (default: the signs')"
    )
    ckpt_path: Path = flags.ckpt_path("folder of the run's checkpoints")
    epoch: int | str | None = flags.epoch()


@dataclass(frozen=True)
class TestFlags(RunFlags):
    """What test.py is asked for."""

    device: str | None = flags.device()
    data_root: Path | None = flags.data_root(flags.OWN_DATA)
    no_show: bool = flags.no_show()
    precision: str | None = flags.precision()
    batch_size: int = flag(256, positive_int, "images a step")
    save: bool = flag(
        False, bool, "write every image to CKPT_PATH/results, and a sheet", undone=False
    )
    image: list[str] | None = flag(
        None, str, "files, folders or http(s) addresses to look at instead of the test split; of "
        "video, clips and folders of frames", nargs="+", metavar="PICTURE",
    )  # fmt: skip
    film: bool = flag(
        False, bool, "detection, segmentation: folders of --image are films, frame by frame, as "
        "videos are anyway", undone=False,
    )  # fmt: skip
    submission: Path | None = flag(
        None, Path, "classification: write what --image shows as Kaggle's table: of CIFAR-10 the "
        "class, else the probability of each", metavar="FILE",
    )  # fmt: skip
    read: Path | None = flag(
        None, Path, "detection, diffusion: have this classifier of signs, or the best of its run, "
        "read what is found or painted", metavar="CHECKPOINT",
    )  # fmt: skip


PICTURE = ("image", "image_idx")  # flags that name what a view shows


@dataclass(frozen=True)
class ViewFlags(RunFlags):
    """What visualize.py is asked for; `type` names the view."""

    device: str | None = flags.device()
    data_root: Path | None = flags.data_root(flags.OWN_DATA)
    no_show: bool = flags.no_show()
    type: str = "filter"  # its flag names the views of all tasks: see visualize.py
    model: str | None = flag(
        None, str, "a published network instead of --ckpt_path", metavar="NAME"
    )
    weights: Path | None = flag(None, Path, "its state dict, instead of a download", metavar="FILE")
    prompt: str | None = flag(None, str, "of diffusion: what is to be painted", metavar="WORDS")
    image: str | None = flag(None, str, "picture to look at: a file or an address", metavar="PATH")
    image_idx: int | None = flag(None, int, "picture of the test split to look at")
    layer_idx: int | None = flag(
        None, int, "convolution layer, from 0 (default: 0; of cam, the last that counts)"
    )
    target: list[str] | None = flag(
        None, str, "classes to aim at, by index or by name", nargs="+", metavar="CLASS"
    )
    position: list[int] | None = flag(
        None, natural, "y x of attention, t y x in clips", nargs="+", metavar="K"
    )
    steps: int | None = flag(None, positive_int, "of gradient ascent or descent")
    lr: float | None = flag(None, positive_float, "size of a step")
    seed: int | None = flag(None, natural, "of noise and jitter (default 0)")
    save_dir: Path = flags.save_dir()


@dataclass(frozen=True)
class CompareFlags:
    """What compare.py is asked for; `runs` are the folders that its command line names."""

    runs: tuple[Path, ...] = ()
    data_root: Path | None = flag(None, Path, "test on it (default: what each run was trained on)")
    save_dir: Path = flags.save_dir()
    device: str | None = flags.device()
    precision: str | None = flags.precision()
    no_show: bool = flags.no_show()


@dataclass(frozen=True)
class ExportFlags(RunFlags):
    """What export.py is asked for."""

    format: str = flag("onnx", ("onnx", "torch"), "onnx, or torch: what torch.export.load reads")
    half: bool = flag(
        False, bool, "weights of 16 bits: half the file; computed with in 32", undone=False
    )
    image: list[str] | None = flag(
        None, str, "files, folders or http(s) addresses to check it on (default: scikit-learn's "
        "photographs, cut up)", nargs="+", metavar="PICTURE",
    )  # fmt: skip


@dataclass(frozen=True)
class PageFlags:
    """What page.py is asked for."""

    task: str | None = flag(
        None, TASKS, "take the run in its folder, checkpoints/TASK (default: the signs')"
    )
    ckpt_path: list[Path] | None = flag(
        None, Path, "folder of the run's checkpoints; of classifiers several, side by side "
        f"(default {flags.CKPT_PATH})", nargs="+", metavar="RUN",
    )  # fmt: skip
    epoch: int | str | None = flags.epoch()
    runtime: Path | None = flag(
        None, Path, "onnxruntime-web as `npm pack onnxruntime-web@1.30.0` writes it (default: "
        "fetched once)", metavar="FILE",
    )  # fmt: skip
    read: Path | None = flag(
        None, Path, "detection: have this classifier, or the best of its run, read what is found",
        metavar="CHECKPOINT",
    )  # fmt: skip
    image: list[str] | None = flag(
        None, str, "sample pictures: files, folders or http(s) addresses (default: of the test "
        "split)", nargs="+", metavar="PICTURE",
    )  # fmt: skip


# ---------------------------------------------------------------- tasks


@dataclass(frozen=True)
class Job:
    """What is to be trained on what.

    Attributes:
        loaders: by mode: train, with a `lab.batches.BatchSampler`; val and test where they exist.
        identity: what every checkpoint holds besides the state: configs, class names and so on.
        parameters: groups of the network's, as `lab.optimizers.make_optimizer` takes them.
        subject: what the inputs are, in words ("images of 26 classes from data").
        preview: draws into the run's folder what the data look like; None if nothing does.
        finish: (the trained network, the run's folder) writes there what is made of it in the end;
            None if nothing is.
    """

    objective: Objective
    network: nn.Module
    loaders: Mapping[str, DataLoader]
    identity: dict[str, Any]
    parameters: list[dict[str, Any]]
    subject: str
    preview: Callable[[Path], None] | None = None
    finish: Callable[[nn.Module, Path], None] | None = None


@dataclass(frozen=True)
class Compared:
    """What compare.py knows of a run.

    Attributes:
        facts: what its last checkpoint holds, without weights and the like.
        history: a row an epoch, as `engine.fit` returns it.
        ranks_by: the figure that runs of its task are compared by.
        best_epoch: by validation; None where no epoch was validated.
        tested: the figure of the best epoch on the test split; None where it could not be tested.
        parameters: number of the network's weights.
    """

    facts: Mapping[str, Any]
    history: list[dict[str, Any]]
    ranks_by: str
    best_epoch: int | None
    tested: float | None
    parameters: int


State = dict[str, Any]  # what a checkpoint holds
Stage = tuple[TrainFlags, State | None]  # flags, the checkpoint that it goes on from


class Task:
    """What the scripts know of a task, and the way to its rooms.

    Attributes:
        name: of `--task`, kept in checkpoints.
        Flags: record of its own flags of train.py.
        defaults: of `TrainSettings`, where the task's own differ.
        network: what a checkpoint that names no network holds.
        views: what visualize.py can show, by the names of `--type`, each with the flags beside
            that say what of it, and how.
        shown_unasked: of a view, flags that name what is shown without them.
        published: networks of others that it can show besides, by the names of `--model`.
        reads: whether test.py's `--read` has a use.
        measured: whether a test split says how good a network is.
        takes_val: whether val is tested on where there is no test split.
        films: whether test.py annotates films.
        submits: whether test.py's `--submission` has a use.
        takes_pictures: whether its page begins with pictures.
        beside: whether one of another folder can be measured while it trains.
    """

    name: str
    Flags: type
    defaults: Mapping[str, Any] = {}
    network: str | None = None
    views: Mapping[str, Collection[str]] = {}
    shown_unasked: Mapping[str, Mapping[str, Any]] = {}
    published: tuple[str, ...] = ()
    reads = False
    measured = True
    takes_val = True
    takes_pictures = True
    beside = True
    films = False
    submits = False

    def room(self, name: str) -> ModuleType:
        """Import and return one of the task's modules."""
        return import_module(f"{type(self).__module__}.{name}")

    def flags_of(self, state: State) -> dict[str, Any]:
        """Return the flags that build a checkpoint's network; a bare state dict does not say."""
        return {"network": state.get("network")}

    def stages(self, flags: TrainFlags, resumed: State | None) -> list[Stage]:
        """Return what is to be trained one after the other, each with a folder of its own."""
        return [(flags, resumed)]

    def prepare(
        self, flags: TrainFlags, runtime: Runtime, resumed: State | None, weights: State | None
    ) -> Job:
        """Read the data and build the network that flags ask for.

        Args:
            resumed: the checkpoint to go on from.
            weights: a checkpoint or a bare state dict (`checkpoint.load_any`) to start from.
        """
        return self.room("training").prepare(flags, runtime, resumed, weights)

    def find_rate(self, job: Job, flags: TrainFlags, runtime: Runtime) -> None:
        """Try rising rates on what is to be trained, and say which one to take."""
        from lab.range_test import find_rate

        find_rate(job, flags.settings, runtime, flags.ckpt_path)

    def publish_curves(self, run: Run, ranks_by: str) -> None:
        """Draw the curves of the epochs of a run that are done."""
        if run.writes and run.history:
            from lab.curves import draw_curves
            from lab.drawing import publish

            curves = draw_curves(run.history, ranks_by, run.best)
            publish(curves, run.folder / "loss_and_acc.jpg")

    def restore(self, state: State) -> tuple[Objective, nn.Module]:
        """Return the objective and the trained network of a loaded checkpoint, on the CPU."""
        from lab.registry import build
        from lab.weights import load_weights

        name = state.get("network", self.network)
        network = build(self.room("networks").NETWORKS, name, state["configs"])
        load_weights(network, state["model_state"])
        return self.room("objective").restore(state), network

    def test_loader(self, trained: Trained, data_root: Path | None, batch_size: int) -> DataLoader:
        """Return the split that a network is tested on.

        Args:
            data_root: of the data; None for the run's own.
        """
        return self.room("data").test_loader(trained, data_root, batch_size)

    def report(
        self, trained: Trained, flags: TestFlags, meter: Meter, dataset: Dataset
    ) -> dict[str, Any] | None:
        """Print, draw and save what a test has found.

        Args:
            meter: has seen all of `dataset`.

        Returns:
            What test.json is to hold besides the meter's figures.
        """
        return self.room("results").report(trained, flags, meter, dataset)

    def read_pictures(self, trained: Trained, flags: TestFlags) -> None:
        """Print and draw what the network makes of the pictures that `--image` names."""
        self.room("results").read_pictures(trained, flags)

    def packed(self, state: State, folder: Path) -> State:
        """Return what the checkpoint of a network holds that is passed on from a folder.

        Args:
            state: of its run, without what only a training needs.
            folder: takes files that are to lie beside it.
        """
        return state

    def exported(self, trained: Trained) -> list[Exported]:
        """Return the networks of a run as others are given them.

        Raises:
            LabError: it has one that cannot be exported.
        """
        return self.room("export").exported(trained)

    def shown(self, trained: Trained) -> Shown:
        """Return what the page of a run is made of.

        Raises:
            LabError: it has a network that cannot be exported.
        """
        return self.room("export").shown(trained)

    def look(self, flags: ViewFlags, trained: Trained | None) -> Iterable[Picture | Film]:
        """Return the pictures of the view that `--type` names.

        Args:
            trained: None for a published network.
        """
        return getattr(self.room("views"), f"view_{flags.type}")(flags, trained)

    def summarise(self, runs: Mapping[str, Compared]) -> list[str]:
        """Return the lines of a table of several runs; none where compare.py's own says all."""
        return []

    def worth_seeing(self, job: Job) -> list[list[str]]:
        """Return arguments of visualize.py worth trying on a run, by what was trained on what."""
        return [["--type", view] for view in self.views]

    def next_commands(self, flags: TrainFlags, job: Job, tested: str) -> Iterator[tuple[str, ...]]:
        """Yield the commands to try next on a run: scripts with their arguments.

        Args:
            tested: best, or last where the best epoch is not in the run's folder.
        """
        where = () if flags.ckpt_path == FLAGS.ckpt_path else ("--ckpt_path", str(flags.ckpt_path))
        epoch = () if flags.settings.epoch == 10 else ("--epoch", "last")
        if self.takes_val or "test" in job.loaders:
            yield "test.py", *where, "--epoch", tested, "--save"
        for view in self.worth_seeing(job):
            yield "visualize.py", *view, *where, *epoch


FLAGS = TrainFlags()


def folder_of(task: str) -> Path:
    """Return the folder of a task's runs where none is named: they do not train over each other."""
    return flags.CKPT_PATH if task == DEFAULT else flags.CKPT_PATH.with_name(task)


def read_run(
    parser: Parser, record: type[Record], task_of: Callable[[Record], str | None] | None = None
) -> Record:
    """Return what the command line says; the folder that is not named is that of the task's runs.

    Args:
        record: of `RunFlags`.
        task_of: says of the flags which task is meant; None for what `--task` names.
    """
    asked = read_flags(parser.parse_args(), record)
    task = asked.task if task_of is None else task_of(asked)
    parser.set_defaults(ckpt_path=folder_of(task or DEFAULT))
    return read_flags(parser.parse_args(), record)


def default_runs(asked: PageFlags) -> PageFlags:
    """Return flags with the folder of the task's runs where none is named."""
    return replace(asked, ckpt_path=asked.ckpt_path or [folder_of(asked.task or DEFAULT)])


def load(name: str) -> Task:
    """Return a task by name.

    Raises:
        UsageError: there is none.
    """
    if name not in TASKS:
        raise UsageError(f"unknown --task {name!r}; there are {', '.join(TASKS)}")
    return import_module(TASKS[name]).TASK


def task_of(state: State, path: Path) -> Task:
    """Return the task that a loaded checkpoint belongs to; the scaffold's classify.

    Raises:
        LabError: it belongs to none that is known.
    """
    name = state.get("task", DEFAULT)
    if name not in TASKS:
        raise LabError(f"{path} is of an unknown task {name!r}; there are {', '.join(TASKS)}")
    return load(name)


def promised(package: str, rooms: Mapping[str, Iterable[str]]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package, by which names of its modules can be imported from it.

    Args:
        rooms: the names that each module has to give.
    """
    places = {name: room for room, names in rooms.items() for name in names}

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{places[name]}"), name)

    return get
