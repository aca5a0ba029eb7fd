"""Networks that come with the project: what is there keeps its word; how one is made and read."""

import contextlib
import re
import shutil
import socket
import tempfile
import unittest
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

import tasks
from lab import checkpoint, engine
from lab.console import LabError
from lab.folders import PRETRAINED
from tasks import shipping
from tasks.diffusion import painting
from tasks.diffusion.networks import packed
from tasks.diffusion.words import make_tokenizer, tokenizer_state
from tasks.shipped import SHIPPED, Shipped, shipped_with
from tasks.trained import load_trained
from tests.support import ScriptCase, script_here
from tests.tiny_diffusion import SENTENCES, tiny
from world import missing, signs

MOST_BYTES = 25_000_000  # of all of them
OFF = 0.002  # that the figure which ranks may differ by on another machine
OFF_RARE = 0.05  # likewise one of few inputs
FEW = {"train": 4, "val": 2, "test": 2}  # signs of each class


def setUpModule():
    """Use one thread: for tensors this small the others cost more than they bring."""
    unittest.addModuleCleanup(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(1)


def without_a_network() -> contextlib.AbstractContextManager:
    """Return a context in which whoever connects fails."""
    return mock.patch.object(socket.socket, "connect", side_effect=OSError("no network"))


def texts_of(value: Any) -> Iterator[str]:
    """Yield all that a checkpoint says in words."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for own in value:
            yield from texts_of(own)


def contents(folder: Path) -> dict[Path, bytes]:
    """Return what lies in a folder."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class ShippedTest(unittest.TestCase):
    """What is there: each loads, its card says what its file does, and its figures are right."""

    def check(self, name: str) -> None:
        folder, shipped = PRETRAINED / name, SHIPPED[name]
        if not checkpoint.epochs(folder):
            self.skipTest(f"not made yet: python pretrain.py {name}")
        self.enterContext(without_a_network())
        root = Path(self.enterContext(tempfile.TemporaryDirectory()))
        path = checkpoint.find(folder, "best")
        self.assertEqual(path, checkpoint.find(folder, "last"))
        trained = load_trained(path, "cpu", "fp32")
        self.assertEqual(trained.task.name, shipped.task)
        self.assertEqual((folder / "README.md").read_text("utf-8"), shipping.card(folder))
        self.assertFalse([text for text in texts_of(trained.state) if re.match(r"[/~]\w", text)])
        self.assertNotIn("optimizer_state", trained.state)
        shipping.draw_test(shipped, trained.state, shipped.few, root)
        loader = trained.task.test_loader(trained, root, 64)
        figures = engine.evaluate(
            trained.network, trained.objective.meter(), loader, trained.runtime, ""
        )
        known = [one for one in trained.state["shipped"]["tests"] if "drawn" in one["of"]
                 or "first" in one["of"]][-1]  # fmt: skip
        self.assertEqual(len(loader.dataset), known["inputs"])
        ranks_by = trained.objective.ranks_by
        for key, value in known["figures"].items():
            off = OFF if key == ranks_by else OFF_RARE
            self.assertAlmostEqual(figures[key], value, delta=off, msg=key)

    def test_there_is_room(self):
        size = sum(map(len, contents(PRETRAINED).values())) if PRETRAINED.is_dir() else 0
        self.assertLessEqual(size, MOST_BYTES)

    def test_the_table(self):
        """Commands that train.py takes; tasks, data and readers that there are."""
        kinds = missing.DRAWN.keys() | missing.clips.KINDS.keys()
        for name, shipped in SHIPPED.items():
            wanted = wanted_of(shipped)
            self.assertEqual(wanted.task, shipped.task, name)
            self.assertEqual(getattr(wanted.own, "dataset", "captions"), shipped.draws)
            self.assertIn(shipped.draws, kinds)
            self.assertIn(shipped.reader, (None, *SHIPPED))
            self.assertTrue(shipped.cannot)


for _name in SHIPPED:
    _test = partialmethod(ShippedTest.check, _name)
    setattr(ShippedTest, f"test_{_name.replace('/', '_')}", _test)


def wanted_of(shipped: Shipped) -> tasks.TrainFlags:
    """Return the flags of a network's command."""
    import train

    return train.read(tasks.load(shipped.task), words=shipped.words)


class MakeTest(ScriptCase):
    """From a run to a folder that every script reads, and none writes into."""

    @classmethod
    def setUpClass(cls):
        cls.base = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.enterClassContext(contextlib.chdir(cls.base))
        few = replace(signs.draw_dataset, splits=FEW)
        drawn = replace(missing.DRAWN["signs"], draw=few)
        table = {"signs": replace(SHIPPED["signs"], train="--bn --epoch 2 --lr 3e-3", few=1)}
        cls.enterClassContext(mock.patch.dict(missing.DRAWN, signs=drawn))
        cls.enterClassContext(mock.patch.dict(SHIPPED, table))
        few(cls.base / "data", workers=1)
        cls.trained = cls.base / "run"
        done = script_here("train.py", "--bn", "--epoch", 2, "--lr", "3e-3", "--data_root", "data",
                           "--ckpt_path", cls.trained, "--no_show")  # fmt: skip
        assert done.returncode == 0, done.stderr
        cls.folder = cls.base / "given/signs"
        cls.done = script_here("pretrain.py", "signs", "--run", cls.trained, "--out", cls.folder,
                               "--also", "data")  # fmt: skip
        assert cls.done.returncode == 0, cls.done.stderr
        cls.before = contents(cls.folder)

    def setUp(self):
        self.path = checkpoint.find(self.folder, "best")
        self.state = checkpoint.load(self.path)

    def test_what_is_kept(self):
        """Weights in 16 bits but for those of a channel; all that reading takes, nothing more."""
        names = {path.name for path in self.before}
        self.assertEqual(names, {self.path.name, "README.md", "mistakes.jpg"})
        run = checkpoint.load(checkpoint.best_or_last(self.trained))
        self.assertLess(self.path.stat().st_size, 2 * 845_000)
        for name, value in run["model_state"].items():
            own = self.state["model_state"][name]
            half = torch.float16 if value.dim() > 1 else value.dtype
            self.assertEqual(own.dtype, half)
            self.assertTrue(torch.equal(own, value.to(half)), name)
        gone = {"optimizer_state", "data_root"}
        self.assertEqual(run.keys() - self.state.keys(), gone)
        self.assertEqual(self.state["best_epoch"], run["epoch"])
        network = load_trained(self.path, "cpu").network
        self.assertEqual({weight.dtype for weight in network.parameters()}, {torch.float32})

    def test_the_card(self):
        """All of it is in the checkpoint; figures of each test, in its own column."""
        card = (self.folder / "README.md").read_text("utf-8")
        self.assertEqual(card, shipping.card(self.folder))
        tests = self.state["shipped"]["tests"]
        self.assertEqual([one["inputs"] for one in tests], [52, 26, 52])
        shown = " | ".join(f"{one['figures']['accuracy']:.2%}" for one in tests)
        self.assertIn(f"| accuracy | {shown} |", card)
        self.assertIn(
            "| the 52 of the drawn test split | the first 26 of them | 52 of data |", card
        )
        self.assertIn("`python train.py --bn --epoch 2 --lr 3e-3`, seed 0", card)
        self.assertIn("00_speed_limit_20, 01_", card)
        self.assertNotIn(str(self.base), card)
        self.assertFalse([text for text in texts_of(self.state) if text.startswith("/")])
        with Image.open(self.folder / "mistakes.jpg") as image:
            self.assertLessEqual(image.width, shipping.WIDTH)

    def test_its_figures(self):
        """test.py gives them; what the first of the split gives is of the first of it."""
        done = script_here("test.py", "--ckpt_path", self.folder, "--data_root", "data",
                           "--precision", "fp32", "--no_show")  # fmt: skip
        share = self.state["shipped"]["tests"][0]["figures"]["accuracy"]
        self.assertIn(f"accuracy on the test set: {share:.2%} (", done.stdout)

    def test_every_script_reads_it(self):
        """As it does a run's folder; what they make lies elsewhere, and is said to."""
        of, elsewhere = ("--ckpt_path", self.folder), Path("visualized/pretrained/signs")
        picture = next((self.base / "data/test").rglob("*.jpg"))
        test = ("test.py", *of, "--data_root", "data", "--no_show")
        fine_tune = ("train.py", "--weights", self.folder, "--dataset", "folder", "--data_root",
                     "data", "--epoch", 1, "--ckpt_path", "mine", "--no_show")  # fmt: skip
        for words, made in (
            (test, elsewhere / "test.json"),
            ((*test, "--epoch", "best", "--save"), elsewhere / "results/mistakes.jpg"),
            (("test.py", *of, "--image", picture, "--no_show"), elsewhere / "images.jpg"),
            (("visualize.py", "--type", "filter", *of), Path("visualized/filter")),
            (("compare.py", self.trained, self.folder, "--data_root", "data", "--no_show"),
             Path("visualized/compare.jpg")),
            (("export.py", *of, "--format", "torch"), elsewhere / "export/classifier.pt2"),
            (fine_tune, Path("mine/ckpt_epoch_1.pth")),
        ):  # fmt: skip
            with self.subTest(words):
                shutil.rmtree(made, ignore_errors=True)
                done = script_here(*words)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(contents(self.folder), self.before)
                if words[0] == "test.py":
                    self.assertIn(f"What comes of it is written to {elsewhere}", done.stdout)
                if made.suffix == ".jpg" and "images" in made.name:
                    made = next(elsewhere.glob("images_*.jpg"))
                self.assertTrue(made.exists(), made)

    def test_what_it_does_not(self):
        """It does not go on, and nothing trains in its folder."""
        resume = script_here("train.py", "--resume", self.folder)
        self.assert_refused(resume, 2, "without its optimizer", f"--weights {self.folder}")
        for place in ("signs", "of_mine/signs"):
            done = script_here("train.py", "--ckpt_path", PRETRAINED / place)
            self.assert_refused(done, 2, "stay as they are", "--ckpt_path checkpoints/signs")
        again = script_here("pretrain.py", "signs", "--run", self.folder, "--out", "again")
        self.assert_refused(again, 2, "is no run")

    def test_another_command(self):
        """A run that the network's command has not made, or that does not say how it was made."""
        words = ("pretrain.py", "signs", "--run", self.trained, "--out", "other")
        for train, said in (
            ("--bn --epoch 2", "lr 0.003"), ("--epoch 2 --lr 3e-3", "bn True"),
            ("--bn --epoch 3 --lr 3e-3", "epoch 2"),
        ):  # fmt: skip
            table = {"signs": replace(SHIPPED["signs"], train=train)}
            with mock.patch.dict(SHIPPED, table):
                self.assert_refused(script_here(*words), 2, f"trained with {said}", train)
        nameless = Path(shutil.copytree(self.trained, "nameless"))
        (nameless / "run.json").unlink()
        done = script_here("pretrain.py", "signs", "--run", nameless, "--out", "other")
        self.assert_refused(done, 1, "run.json")
        self.assertFalse(Path("other").exists())

    def test_a_folder_of_something_else(self):
        """It stays as it is; one of an earlier network is replaced."""
        theirs = Path("theirs")
        theirs.mkdir()
        (theirs / "thesis.txt").write_text("years of work")
        words = ("pretrain.py", "signs", "--run", self.trained, "--out", theirs)
        self.assert_refused(script_here(*words), 2, "--out theirs", "name a new folder")
        self.assertEqual(contents(theirs), {theirs / "thesis.txt": b"years of work"})
        shutil.rmtree(theirs)
        shutil.copytree(self.folder, theirs)
        self.assertEqual(script_here(*words).returncode, 0)

    def test_as_many_bits_as_it_takes(self):
        """Weights that 16 bits would change a figure of stay in 32."""
        with mock.patch.object(shipping, "MOST_MOVED", -1):
            done = script_here("pretrain.py", "signs", "--run", self.trained, "--out", "whole")
        self.assertEqual(done.returncode, 0, done.stderr)
        state = checkpoint.load(checkpoint.find(Path("whole"), "best"))
        kinds = {value.dtype for value in state["model_state"].values()}
        self.assertEqual(kinds, {torch.float32, torch.int64})
        self.assertIn("The weights are in 32 bits", Path("whole/README.md").read_text("utf-8"))

    def test_it_is_offered(self):
        """Whoever has no run of a task gets its name; one of his own comes first."""
        with mock.patch("tasks.shipped.PRETRAINED", self.folder.parent):
            self.assertEqual(shipped_with(None), [self.folder.relative_to(Path.cwd())])
            self.assertEqual(shipped_with("video"), [])
            for words in (
                ("test.py",), ("test.py", "--ckpt_path", "none/there"),
                ("export.py", "--format", "torch"), ("visualize.py", "--type", "saliency"),
                ("train.py", "--weights", "none/there"),
            ):  # fmt: skip
                done = script_here(*words)
                self.assert_refused(done, 1, "given/signs comes with the project (--")
            done = script_here("test.py", "--ckpt_path", "given/none")  # which it lies beside
            self.assert_refused(done, 1, "given/signs comes with the project (--")
            done = script_here("test.py", "--task", "video")
            self.assertNotIn("comes with", done.stderr)
            done = script_here("test.py", "--ckpt_path", "none")
            self.assert_refused(done, 1, " holds one of classification (--ckpt_path ")


class BitsTest(unittest.TestCase):
    def test_as_few_as_will_do(self):
        """16 where no figure changes by more than 0.1 points, else 32; and the figures of those."""
        state = {"model_state": {"weight": torch.full((1, 1), 1 / 3)}, "shipped": {"name": "signs"}}
        with tempfile.TemporaryDirectory() as base:
            for moved, bits in ((0.0009, 16), (0.0011, 32)):
                answers = [{"inputs": 9, "figures": {"accuracy": 0.9 + k}} for k in (0, moved)]
                with (
                    mock.patch.object(shipping, "written_to", lambda name: Path(base)),
                    mock.patch.object(shipping, "draw_test", return_value=1),
                    mock.patch.object(shipping, "measure", side_effect=answers),
                ):
                    chosen, _ = shipping.tested(SHIPPED["signs"], state, Path(base), [])
                self.assertEqual(chosen["shipped"]["bits"], bits)
                kept = {16: torch.float16, 32: torch.float32}[bits]
                self.assertEqual(chosen["model_state"]["weight"].dtype, kept)
                figures = chosen["shipped"]["tests"][0]["figures"]
                self.assertEqual(figures, answers[bits == 16]["figures"])


class PipelineTest(unittest.TestCase):
    """Of diffusion the weights lie in the files of a pipeline."""

    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        tokenizer = make_tokenizer(SENTENCES)
        self.network = tiny(len(tokenizer))
        self.state = {
            "task": "diffusion", "network": "latent_diffusion", "words": ["a", "sign"], "epoch": 1,
            "configs": shipping.asdict(self.network.config),
            "tokenizer": tokenizer_state(tokenizer), "best_epoch": 1,
            "model_state": shipping.in_half(self.network.state_dict()),
        }  # fmt: skip
        self.path = self.folder / "shipped/ckpt_epoch_1.pth"
        self.path.parent.mkdir()
        checkpoint.save(self.path, packed(self.state, self.path.parent), small=True)

    def test_once(self):
        """The checkpoint has none of its own, and loads the same."""
        self.assertLess(self.path.stat().st_size, 10_000)
        loaded = checkpoint.load(self.path)["model_state"]
        self.assertEqual(loaded.keys(), self.state["model_state"].keys())
        for name, value in self.state["model_state"].items():
            self.assertEqual(loaded[name].dtype, torch.float16)
            self.assertTrue(torch.equal(loaded[name], value.half()), name)
        trained = load_trained(self.path, "cpu", "fp32")
        self.assertEqual({w.dtype for w in trained.network.parameters()}, {torch.float32})

    def test_the_library_loads_it(self):
        """In 32 bits unless told otherwise, all parts alike."""
        with without_a_network():
            pipeline = StableDiffusionPipeline.from_pretrained(self.path.parent)
        parts = pipeline.unet, pipeline.vae, pipeline.text_encoder
        self.assertEqual({part.dtype for part in parts}, {torch.float32})
        weight = "conv_in.weight"
        expected = self.network.unet.state_dict()[weight].half().float()
        self.assertTrue(torch.equal(pipeline.unet.state_dict()[weight], expected))

    def test_files_that_are_not_there(self):
        """Damaged, gone, or elsewhere: in one line."""
        state = torch.load(self.path, weights_only=True)
        unet = self.path.parent / state["weights_files"]["unet."]
        unet.write_bytes(unet.read_bytes()[:100])
        with self.assertRaisesRegex(LabError, "is not whole: unet/.* cannot be read"):
            checkpoint.load(self.path)
        shutil.copy(unet, self.folder / "outside.safetensors")
        for place in ("../outside.safetensors", str(self.folder / "outside.safetensors")):
            state["weights_files"]["unet."] = place
            checkpoint.save(self.path, state)
            with self.assertRaisesRegex(LabError, "does not lie beside it"):
                checkpoint.load(self.path)

    def test_who_paints(self):
        """Our own run where there is one; what comes with the project; whoever is named."""
        self.enterContext(contextlib.chdir(self.folder))
        given = self.folder / "given/diffusion"
        self.enterContext(mock.patch("tasks.shipped.PRETRAINED", given.parent))
        self.assertEqual(painting.own_model(), "checkpoints/diffusion")
        shutil.copytree(self.path.parent, given)
        words = ("--prompt", "a sign", "--steps", 1, "--num_images", 1, "--no_show")
        done = script_here("diffuse.py", *words)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("No run in checkpoints/diffusion: given/diffusion, which comes", done.stdout)
        self.assertTrue(Path("visualized/diffuse/a_sign_steps_1/seed_0.png").is_file())
        shutil.copytree(self.path.parent, "checkpoints/diffusion")
        self.assertEqual(painting.own_model(), "checkpoints/diffusion")
        done = script_here("diffuse.py", *words, "--model", "checkpoints/none")
        self.assertEqual(done.returncode, 1)
        self.assertIn("given/diffusion comes with the project (--model", done.stderr)


class SmallTest(unittest.TestCase):
    def test_the_same(self):
        """Compressed without a loss, and read as any other."""
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        state = {"model_state": {"w": torch.zeros(1000).half()}, "configs": {"a": 1}}
        for name, small in (("large.pth", False), ("small.pth", True)):
            checkpoint.save(folder / name, state, small=small)
            loaded = checkpoint.load(folder / name)
            self.assertTrue(torch.equal(loaded["model_state"]["w"], state["model_state"]["w"]))
            self.assertEqual(loaded["configs"], {"a": 1})
        large, small = ((folder / name).stat().st_size for name in ("large.pth", "small.pth"))
        self.assertLess(small, large / 2)
        self.assertIsNone(zipfile.ZipFile(folder / "small.pth").testzip())


if __name__ == "__main__":
    unittest.main()
