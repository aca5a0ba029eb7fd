"""One anatomy for every task; imports that run downward; rooms and sizes, read from the code."""

import ast
import shutil
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn

import tasks
from course import ASSIGNMENTS
from lab import checkpoint, imagenet
from lab.registry import Design, build, new_config
from lab.runtime import Runtime, place, to_device
from lab.settings import OPTIMIZERS, SCHEDULES, TrainSettings
from networks import NETWORKS as OWN
from tasks.detection import torchvision_detectors
from tasks.starting import outputs_of
from tasks.trained import load_trained
from tests.support import PROJECT
from tests.test_networks import scramble

# Beside `__init__`.
ROOMS = ("data", "networks", "objective", "training", "results", "views", "export")
UNMEASURED = ("style",)  # tasks whose objective has no meter: nothing to test or to report

# Imports run downward: a module may import from the lines below its own, and from its own package.
FLOORS = (
    ("root",),  # the scripts, and what `python datasets.py` does
    ("reporting", "speed", "course"),
    ("tasks",),
    ("looking", "published"),
    ("networks", "datasets"),
    ("world",),
    ("lab",),
)
# What a task takes from another: a clip is labelled, and reported, as an image is.
SHARED = {
    ("tasks.video.objective", "tasks.classification.objective"),
    ("tasks.video.results", "tasks.classification.results"),
}
# Functions besides the hooks of tasks and scripts' `main` that import, and why.
IMPORTING = {
    ("datasets.py", "read_digits"): "a second of scikit-learn, for one data set of five",
    ("lab/imagenet.py", "models"): "a second of torchvision's networks, for who asks for one",
    ("lab/downloads.py", "torchvision_set"): "a second of torchvision, for whoever downloads",
    ("course/sandbox.py", "load_probes"): "of the assignment that is graded",
    ("course/sandbox.py", "run_job"): "a submission, within its bounds",
    ("published/commands.py", "main"): "of the script datasets.py",
    ("tasks/exporting.py", "read_onnx"): "a package that nothing else needs",
    ("tasks/showing.py", "onnx_package"): "a package that nothing else needs",
    ("speed/turns.py", "measure"): "of the sections that benchmark.py is asked for",
    ("tasks/__init__.py", "load"): "of one task, not of all",
    ("tasks/__init__.py", "promised"): "names of a package that are loaded when they are used",
}
# What a student gets imports what lies beside it, whatever the project has under that name.
HANDED_OUT = {
    f"course/{one.name}/{file}"
    for one in ASSIGNMENTS.values()
    for file in (*one.blanked, *one.whole)
}
# What lies at the top beside scripts and modules; the first are rooms.
TOP = {
    "course", "docs", "lab", "looking", "page", "pretrained", "published", "reporting", "speed",
    "tasks", "tests", "world", "checkpoints", "data", "visualized",
    ".ci", ".gitignore", "README.md", "README.zh.md", "lab.ipynb", "pyproject.toml",
    "requirements.txt",
}  # fmt: skip
LARGEST = 1_000_000  # bytes of a file in git, but of networks that come with the project
CPU = Runtime(torch.device("cpu"))
LONGEST = 60  # lines of a function
LONGEST_FILES = {"datasets.py": 300, "networks.py": 450}


def setUpModule():
    """Use one thread: for tensors this small the others cost more than they bring."""
    unittest.addModuleCleanup(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(1)


# ---------------------------------------------------------------- the code


class Module(NamedTuple):
    name: str  # as it is imported
    path: str  # from the project's folder
    tree: ast.Module
    lines: int

    @property
    def floor(self) -> str:
        """The room that the module is in."""
        first = self.name.partition(".")[0]
        return first if "/" in self.path or first in OWN_FLOOR else "root"


class Import(NamedTuple):
    name: str  # of a module
    line: int


OWN_FLOOR = ("networks", "datasets")
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def modules() -> dict[str, Module]:
    """Return the project's modules by name, tests apart."""
    packages = [
        path.parent for path in PROJECT.glob("*/__init__.py") if path.parent.name != "tests"
    ]
    paths = [*PROJECT.glob("*.py"), *(path for folder in packages for path in folder.rglob("*.py"))]
    found = {}
    for path in sorted(paths):
        place, text = path.relative_to(PROJECT), path.read_text(encoding="utf-8")
        name = ".".join(place.with_suffix("").parts).removesuffix(".__init__")
        found[name] = Module(name, place.as_posix(), ast.parse(text), text.count("\n"))
    return found


def is_guard(node: ast.AST, *words: str) -> bool:
    """True of an `if` about types alone, or about being run as a script."""
    return isinstance(node, ast.If) and any(word in ast.unparse(node.test) for word in words)


def imports_of(nodes: list[ast.AST], *passed_over: str) -> Iterator[Import]:
    """Yield what nodes import, functions and guards that hold one of some words apart."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield Import(whole if whole in modules() else node.module, node.lineno)
        elif not isinstance(node, FUNCTIONS | ast.Lambda) and not is_guard(node, *passed_over):
            yield from imports_of(list(ast.iter_child_nodes(node)), *passed_over)


def functions_of(
    node: ast.AST, within: tuple[ast.AST, ...] = ()
) -> Iterator[tuple[ast.FunctionDef, tuple[ast.AST, ...]]]:
    """Yield all functions, methods and inner ones too, each with what it stands in."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, FUNCTIONS):
            yield child, within
        inner = (*within, child) if isinstance(child, FUNCTIONS | ast.ClassDef) else within
        yield from functions_of(child, inner)


def is_import(node: ast.AST) -> bool:
    """True of an import, in whatever way."""
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        return called.rpartition(".")[2] in ("import_module", "__import__")
    return isinstance(node, ast.Import | ast.ImportFrom)


def may_import(module: Module, outer: ast.AST, method: ast.AST | None) -> bool:
    """True of the hooks of tasks, of scripts' `main` and of what `IMPORTING` lists.

    Args:
        outer: class or function at the module's level.
        method: of the class.
    """
    if isinstance(outer, ast.ClassDef):
        bases = {ast.unparse(base) for base in outer.bases}
        in_a_task = module.path.startswith("tasks/") and module.path.endswith("/__init__.py")
        return method is not None and in_a_task and (outer.name == "Task" or "Task" in bases)
    if module.floor == "root" and outer.name == "main":
        return True
    return (module.path, outer.name) in IMPORTING


class ImportTest(unittest.TestCase):
    def test_none_inside_functions(self):
        """Outside the hooks, whose whole sense that is; each exception has its reason."""
        used, wrong = set(), []
        for module in modules().values():
            for function, within in functions_of(module.tree):
                outer, *inner = (*within, function)
                for node in ast.walk(function):
                    if is_import(node):
                        used.add((module.path, outer.name))
                        if not may_import(module, outer, inner[0] if inner else None):
                            wrong.append(f"{module.path}:{node.lineno} in {function.name}")
        self.assertEqual(sorted(set(wrong)), [])
        self.assertEqual(IMPORTING.keys() - used, set(), "exceptions that nothing needs")

    def test_they_run_downward(self):
        order = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
        wrong = []
        for module in modules().values():
            self.assertIn(module.floor, order, f"{module.path} is in no known room")
            if module.path in HANDED_OUT:
                continue
            for name, line in imports_of(module.tree.body, "__name__"):
                other = modules().get(name)
                if other is None or other.floor == module.floor:
                    continue
                if order[other.floor] <= order[module.floor]:
                    wrong.append(f"{module.path}:{line} imports {name}")
        self.assertEqual(wrong, [])

    def test_lab_stands_on_nothing(self):
        """Whatever lab imports of the project is lab's."""
        own = {path.stem for path in PROJECT.glob("*.py")}
        own |= {path.parent.name for path in PROJECT.glob("*/__init__.py")}
        for module in modules().values():
            if module.floor == "lab":
                found = {name.partition(".")[0] for name, _ in imports_of(module.tree.body)}
                self.assertLessEqual(found & own, {"lab"}, module.path)

    def test_no_circle(self):
        """Among modules as they are loaded, whatever types they name."""
        graph = {
            module.name: [
                name for name, _ in imports_of(module.tree.body, "TYPE_CHECKING", "__name__")
                if name in modules() and name != module.name
            ]
            for module in modules().values()
        }  # fmt: skip
        done: set[str] = set()

        def visit(name: str, path: tuple[str, ...]) -> None:
            self.assertNotIn(name, path, " > ".join((*path, name)))
            if name not in done:
                for other in graph[name]:
                    visit(other, (*path, name))
                done.add(name)

        for name in graph:
            visit(name, ())

    def test_tasks_do_not_know_each_other(self):
        shared = {
            (module.name, name)
            for module in modules().values()
            for name, _ in imports_of(module.tree.body)
            for own, other in [(module.name.split("."), name.split("."))]
            if len(own) > 1 and own[0] == "tasks" and own[1] in tasks.TASKS
            and len(other) > 1 and other[0] == "tasks" and other[1] in tasks.TASKS
            and own[1] != other[1]
        }  # fmt: skip
        self.assertEqual(shared, SHARED)


class SizeTest(unittest.TestCase):
    def test_functions(self):
        long = [
            f"{module.path}:{function.lineno} {function.name}: {count} lines"
            for module in modules().values()
            for function, _ in functions_of(module.tree)
            if (count := function.end_lineno - function.lineno + 1) > LONGEST
        ]
        self.assertEqual(long, [])

    def test_files(self):
        """What a student reads beside the assignment."""
        for path, most in LONGEST_FILES.items():
            (lines,) = [module.lines for module in modules().values() if module.path == path]
            self.assertLessEqual(lines, most, path)

    def test_what_is_in_git(self):
        """Nothing that a run or a test left behind."""
        if not ((PROJECT / ".git").exists() and shutil.which("git")):
            self.skipTest("needs git, and a clone")
        words = ["git", "ls-files", "-z"]
        listed = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True)
        if listed.returncode:
            self.skipTest(listed.stderr)
        paths = [PROJECT / name for name in listed.stdout.split("\0") if name]
        tops = {path.relative_to(PROJECT).parts[0] for path in paths}
        self.assertEqual({top for top in tops - TOP if not top.endswith(".py")}, set())
        shipped = PROJECT / "pretrained"
        own = [path for path in paths if path.is_file() and shipped not in path.parents]
        self.assertEqual([path for path in own if path.stat().st_size > LARGEST], [])

    def test_annotations_are_not_quoted(self):
        quoted = []
        for module in modules().values():
            for node in ast.walk(module.tree):
                if isinstance(node, FUNCTIONS):
                    every = node.args
                    arguments = [*every.posonlyargs, *every.args, *every.kwonlyargs]
                    arguments += [one for one in (every.vararg, every.kwarg) if one is not None]
                    annotations = [node.returns, *(one.annotation for one in arguments)]
                else:
                    annotations = [node.annotation] if isinstance(node, ast.AnnAssign) else []
                for annotation in filter(None, annotations):
                    quoted += [
                        f"{module.path}:{part.lineno} {part.value!r}"
                        for part in ast.walk(annotation)
                        if isinstance(part, ast.Constant) and isinstance(part.value, str)
                        and "Literal" not in ast.unparse(annotation)
                    ]  # fmt: skip
        self.assertEqual(quoted, [])


# ---------------------------------------------------------------- the tasks


class TaskTest(unittest.TestCase):
    """Who knows one task knows all."""

    def test_rooms(self):
        """The same files, each of which can be loaded; what the hooks call is in them."""
        called = {
            "objective": ["restore"],
            "training": ["prepare"],
            "results": ["read_pictures", "report"],
            "data": ["test_loader"],
            "export": ["exported", "shown"],
        }
        for name, package in tasks.TASKS.items():
            task = tasks.load(name)
            self.assertEqual((task.name, package), (name, f"tasks.{name}"))
            self.assertIsInstance(task, tasks.Task)
            for room in ROOMS:
                self.assertTrue((PROJECT / "tasks" / name / f"{room}.py").is_file(), room)
                functions = called.get(room, [])
                if name in UNMEASURED:
                    functions = [one for one in functions if one not in ("report", "test_loader")]
                for function in functions:
                    self.assertTrue(
                        callable(getattr(task.room(room), function, None)), (name, room)
                    )

    def test_a_package_more_would_be_seen(self):
        """Every package of the folder is a task that the scripts know."""
        found = {path.parent.name for path in (PROJECT / "tasks").glob("*/__init__.py")}
        self.assertEqual(found, set(tasks.TASKS))

    def test_views(self):
        """Those that are offered are those that there are."""
        for name in tasks.TASKS:
            task = tasks.load(name)
            made = {one.removeprefix("view_") for one in vars(task.room("views")) if "view_" in one}
            self.assertEqual(made, set(task.views), name)
            self.assertEqual(len(task.views), len(set(task.views)))
            self.assertLessEqual(task.shown_unasked.keys(), set(task.views))

    def test_flags(self):
        """Frozen records, whose names no other flag of train.py has."""
        shared = {
            one.name for record in (tasks.TrainFlags, TrainSettings) for one in fields(record)
        }
        for name in tasks.TASKS:
            task = tasks.load(name)
            self.assertTrue(is_dataclass(task.Flags), name)
            own = task.Flags()
            with self.assertRaises(AttributeError):
                setattr(own, fields(own)[0].name, None)
            self.assertEqual({one.name for one in fields(own)} & shared, set(), name)
            settings = replace(TrainSettings(), **task.defaults)
            self.assertIn(settings.optim_type, OPTIMIZERS)
            self.assertIn(settings.schedule, SCHEDULES)

    def test_names_that_help_lists(self):
        """Of data sets and networks: those that the registries have."""
        for name in tasks.TASKS:
            task, package = tasks.load(name), sys.modules[f"tasks.{name}"]
            designs = task.room("networks").NETWORKS
            for design in designs.values():
                self.assertIsInstance(design, Design)
                self.assertTrue(is_dataclass(design.config), design)
                names = {one.name for one in fields(design.config)}
                self.assertLessEqual(design.fixed.keys(), names)
            if task.network is not None:
                self.assertIn(task.network, designs)
            sources = getattr(task.room("data"), "SOURCES", None)
            if sources is not None and hasattr(package, "DATASETS"):
                self.assertEqual(list(package.DATASETS), list(sources), name)
        self.assertLessEqual(set(tasks.load("classification").room("networks").OWN), set(OWN))

    def test_what_there_is_not(self):
        """A promised name is loaded, another is none; so is a room."""
        for name in tasks.TASKS:
            package = sys.modules[tasks.load(name).__module__]
            with self.assertRaisesRegex(AttributeError, "has no attribute 'dreams'"):
                package.dreams  # noqa: B018
            with self.assertRaises(ModuleNotFoundError):
                package.TASK.room("dreams")
        with self.assertRaisesRegex(tasks.UsageError, "unknown --task 'dreams'; there are class"):
            tasks.load("dreams")


# ---------------------------------------------------------------- the networks

CLASSES = ("a", "b", "c", "d")
KNOWN = {
    "in_channels": 3, "use_batch_norm": True, "use_stn": True, "use_non_local": True,
    "frames": 8, "width": 8, "tokens": 50, "autoencoder": {},
}  # fmt: skip
# Of torchvision's, one of each task: they are many and large.
SMALLEST = ("squeezenet1_1", "ssdlite320_mobilenet_v3_large")
PUBLISHED = {*imagenet.PUBLISHED, *torchvision_detectors.PUBLISHED} - set(SMALLEST)


def designs_of(task: str) -> dict[str, Design]:
    return tasks.load(task).room("networks").NETWORKS


def config_of(designs: dict[str, Design], name: str, num_classes: int = len(CLASSES)) -> Any:
    return new_config(designs, name, num_classes=num_classes, **KNOWN)


def inputs_of(task: str, name: str, config: Any) -> tuple[Any, ...]:
    """Return what a network is called with."""
    if name == "latent_diffusion":
        latents = torch.randn(2, config.autoencoder.latent_channels, 8, 8)
        return latents, torch.tensor([3, 500]), torch.randint(0, config.tokens, (2, 8))
    if task == "video":
        return (torch.randn(2, 3, config.frames, 32, 32),)
    if task == "classification":
        side = getattr(config, "image_size", 64)
        return (torch.randn(2, getattr(config, "in_channels", 3), side, side),)
    return (torch.randn(2, 3, 128, 128).clamp(-1, 1),)


def tensors_of(output: Any) -> list[Tensor]:
    """Return the tensors in a nest of sequences and dicts, in order."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, dict):
        output = list(output.values())
    return [tensor for part in output for tensor in tensors_of(part)]


class NetworkTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def each(self) -> Iterator[tuple[str, str, dict[str, Design]]]:
        for task in tasks.TASKS:
            designs = designs_of(task)
            yield from ((task, name, designs) for name in designs if name not in PUBLISHED)

    def test_round_trip(self):
        """From a checkpoint alone: the same network, bit for bit what it puts out."""
        for task, name, designs in self.each():
            with self.subTest(task=task, network=name), torch.inference_mode():
                config = config_of(designs, name)
                network = place(scramble(build(designs, name, asdict(config))).eval(), CPU)
                self.assertEqual(getattr(network, "config", config), config)
                inputs = to_device(inputs_of(task, name, config), CPU)
                expected = tensors_of(network(*inputs))
                self.assertGreater(max(float(one.float().std()) for one in expected), 0)
                state = {"task": task, "network": name, "configs": asdict(config)}
                state |= {"model_state": network.state_dict(), "class_names": list(CLASSES)}
                path = self.folder / f"{name}.pth"
                checkpoint.save(path, state)
                trained = load_trained(path, "cpu", "fp32")
                self.assertEqual((trained.task.name, trained.path), (task, path))
                self.assertFalse(trained.network.training)
                for one, other in zip(tensors_of(trained.network(*inputs)), expected, strict=True):
                    self.assertTrue(torch.equal(one, other))
                path.unlink()

    def test_outputs(self):
        """Those layers tell classes apart that more classes make larger, and no others."""
        for task in ("classification", "detection", "segmentation", "video"):
            designs = designs_of(task)
            for name in designs.keys() - imagenet.PUBLISHED.keys():
                with self.subTest(task=task, network=name), torch.device("meta"):
                    fewer, more = (
                        build(designs, name, asdict(config_of(designs, name, count)))
                        for count in (4, 5)
                    )
                    shapes = {key: value.shape for key, value in more.state_dict().items()}
                    own = fewer.state_dict().items()
                    larger = [key for key, value in own if value.shape != shapes[key]]
                    outputs = outputs_of(fewer)
                    self.assertGreater(len(outputs), 0)
                    for key in larger:
                        self.assertTrue(key.startswith(tuple(f"{one}." for one in outputs)), key)
                    for one in outputs:
                        self.assertTrue(any(key.startswith(f"{one}.") for key in larger), one)

    def test_a_network_of_ones_own(self):
        """A class, a config and a line: of a name that fixes an argument, that one holds."""
        designs = designs_of("segmentation")
        fixed = {name: design for name, design in designs.items() if design.fixed}
        self.assertGreater(len(fixed), 1)
        for name, design in fixed.items():
            config = config_of(designs, name)
            self.assertLessEqual(design.fixed.items(), asdict(config).items())
        toy = {
            "toy": Design(OWN["mnist_cnn"].config, lambda config: nn.Linear(config.num_classes, 2))
        }
        known = tasks.load("classification").room("networks").NETWORKS
        with mock.patch.dict(known, toy):
            config = new_config(known, "toy", num_classes=7, frames=3)
            self.assertEqual(build(known, "toy", asdict(config)).in_features, 7)


if __name__ == "__main__":
    unittest.main()
