"""A run's folder: its lineage when gone on with, what is set aside, how it says it was made."""

import csv
import json
import math
import platform
import re
import shutil
import subprocess
import tempfile
import time
import unittest
import zlib
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch

import tasks
from lab import checkpoint
from lab.console import LabError
from lab.curves import draw_curves
from lab.run import Run, as_csv, best_epoch, contenders
from lab.runtime import Runtime
from tests.support import PROJECT, ScriptCase, make_images, script_here, stopped_at

CPU = Runtime(torch.device("cpu"))


def setUpModule():
    """Use one thread: for tensors this small the others cost more than they bring."""
    unittest.addModuleCleanup(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(1)


class RunCase(ScriptCase):
    """Short runs of the real train.py on a small data set."""

    draws = False  # a picture takes longer than an epoch of these

    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.base = Path(holder.name)
        cls.data = make_images(cls.base / "data", {"train": 8, "val": 2, "test": 2})
        if not cls.draws:
            patch = mock.patch.object(tasks.Task, "publish_curves")
            patch.start()
            cls.addClassCleanup(patch.stop)

    def train(self, folder, *more):
        """Train into a folder; return what was said."""
        done = script_here(
            "train.py", "--data_root", self.data, "--batch_size", 8, "--ckpt_path", folder, *more
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def resume(self, path, *more):
        done = script_here("train.py", "--resume", path, *more)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def interrupt(self, folder, *more):
        """Train into a folder until Ctrl-C in the second step."""
        with stopped_at(1, torch.optim.Adam):
            done = script_here(
                "train.py", "--data_root", self.data, "--batch_size", 8, "--ckpt_path", folder,
                *more,
            )  # fmt: skip
        self.assertEqual(done.returncode, 130, done.stderr)
        return done.stdout

    def epochs(self, folder):
        return list(checkpoint.epochs(folder))

    def rows(self, folder):
        with (folder / "metrics.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def seeds(self, folder):
        """Return the seeds that the checkpoints in a folder were trained with: whose they are."""
        files = checkpoint.epochs(folder).items()
        return {epoch: checkpoint.load(path)["settings"]["seed"] for epoch, path in files}


class LineageTest(RunCase):
    def test_resumed_into_a_folder_that_holds_a_run(self):
        """That run is set aside first; what is there then is of one lineage."""
        a, b = self.base / "a", self.base / "b"
        self.train(a, "--epoch", 1, "--seed", 1)
        self.train(b, "--epoch", 3, "--seed", 2)
        said = self.resume(a, "--ckpt_path", b, "--epoch", 2)
        self.assertIn(f"{b} held an earlier run; it is now in {b / 'previous_1'}", said)
        self.assertEqual(self.seeds(b), {2: 1})
        self.assertEqual(self.seeds(b / "previous_1"), {1: 2, 2: 2, 3: 2})
        self.assertEqual(self.seeds(a), {1: 1})
        self.assertEqual([row["epoch"] for row in self.rows(b)], ["1", "2"])
        self.assertEqual([row["epoch"] for row in self.rows(b / "previous_1")], ["1", "2", "3"])
        self.resume(b, "--epoch", 3)
        self.assertEqual(self.seeds(b), {2: 1, 3: 1})

    def test_tested_where_the_best_epoch_is_elsewhere(self):
        """The best epoch is in the folder come from: what is tested is said to be the last."""
        a, b = self.base / "c", self.base / "d"
        self.train(a, "--epoch", 1)
        state = checkpoint.load(a / "ckpt_epoch_1.pth")
        state["history"][0] |= {"val_accuracy": 1.0, "val_loss": 0.0}
        checkpoint.save(a / "ckpt_epoch_1.pth", state | {"best_epoch": 1})
        said = self.resume(a, "--ckpt_path", b, "--epoch", 2)
        self.assertIn("of the last epoch, 2: ", said)

    def test_gone_back_behind_later_epochs(self):
        """They are set aside, and a later --resume of the folder goes on from the new ones.

        TensorBoard shows one curve, of the epochs that are left.
        """
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        folder = self.base / "back"
        self.train(folder, "--epoch", 4, "--seed", 1)
        old = {path.name: path.read_bytes() for path in checkpoint.epochs(folder).values()}
        time.sleep(1)  # TensorBoard reads files in the order of the seconds in their names
        said = self.resume(folder / "ckpt_epoch_2.pth", "--epoch", 3, "--seed", 2)
        place = folder / "previous_1"
        self.assertIn(f"what came after it is now in {place}", said)
        self.assertEqual(self.seeds(folder), {1: 1, 2: 1, 3: 2})
        self.assertEqual(sorted(path.name for path in place.iterdir()),
                         ["ckpt_epoch_3.pth", "ckpt_epoch_4.pth"])  # fmt: skip
        for path in place.iterdir():
            self.assertEqual(path.read_bytes(), old[path.name])
        history = checkpoint.load(folder / "ckpt_epoch_3.pth")["history"]
        events = EventAccumulator(str(folder)).Reload().Scalars("loss")
        self.assertEqual([event.step for event in events], [1, 2, 3])
        self.assertAlmostEqual(events[2].value, history[2]["loss"], places=5)
        self.resume(folder, "--epoch", 4)
        self.assertEqual(self.seeds(folder), {1: 1, 2: 1, 3: 2, 4: 2})
        third, fourth = (checkpoint.load(folder / f"ckpt_epoch_{n}.pth") for n in (3, 4))
        self.assertEqual(fourth["history"][:3], third["history"])
        self.assertFalse((folder / "previous_2").exists())

    def test_gone_on_from_an_epoch_before_an_interrupted_one(self):
        """The interrupted one is of the other lineage, and would be gone on from later."""
        folder = self.base / "interrupted"
        self.train(folder, "--epoch", 1, "--seed", 1)
        done = self.interrupt(folder, "--resume", folder, "--epoch", 3)
        self.assertIn(checkpoint.INTERRUPTED, done)
        self.resume(folder / "ckpt_epoch_1.pth", "--epoch", 2, "--seed", 2)
        self.assertEqual(
            [path.name for path in (folder / "previous_1").iterdir()], [checkpoint.INTERRUPTED]
        )
        self.assertEqual(self.seeds(folder), {1: 1, 2: 2})
        self.assertEqual(checkpoint.resume_point(folder), folder / "ckpt_epoch_2.pth")

    def test_interrupted_into_another_folder(self):
        """Gone on with elsewhere, the epoch is finished there, and is left where it was."""
        folder, other = self.base / "here", self.base / "there"
        self.interrupt(folder, "--epoch", 1)
        before = (folder / checkpoint.INTERRUPTED).read_bytes()
        self.resume(folder, "--ckpt_path", other)
        self.assertEqual(self.epochs(other), [1])
        self.assertEqual((folder / checkpoint.INTERRUPTED).read_bytes(), before)

    def test_a_folder_in_the_place_of_the_interrupted_epoch(self):
        """It is no checkpoint: the last epoch is gone on from, and the folder is out of the way."""
        folder = self.base / "folder"
        self.train(folder, "--epoch", 1)
        (folder / checkpoint.INTERRUPTED).mkdir()
        self.resume(folder, "--epoch", 2)
        self.assertEqual(self.epochs(folder), [1, 2])

    def test_what_is_or_may_become_the_best_is_kept(self):
        """Epoch 3 is best until its neighbour comes; then 1 is once more, and is still there."""
        folder = self.base / "kept"
        run, history = Run(folder, CPU), []
        for accuracy, best, left in (
            (0.9, 1, [1]), (0.7, 1, [1, 2]), (0.95, 3, [1, 3]), (0.1, 1, [1, 4]),
            (0.9, 1, [1, 5]), (0.9, 6, [1, 6]), (0.9, 6, [6, 7]),
        ):  # fmt: skip
            history.append({"epoch": len(history) + 1, "loss": 0.5, "val_accuracy": accuracy})
            self.assertEqual(best_epoch(history, "accuracy"), best)
            run.save_epoch({"epoch": len(history), "history": history}, 1, "accuracy")
            self.assertEqual(self.epochs(folder), left)
        run.close()

    def test_the_best_is_there_after_every_epoch(self):
        """Of many runs that rise and waver, whether each epoch is validated, at any schedule."""
        rng = np.random.default_rng(0)
        for run in range(300):
            history, there = [], set()
            for epoch in range(1, 31):
                row = {"epoch": epoch, "val_loss": float(rng.choice([0.1, 0.2]))}
                if epoch % (1 + run % 3) == 0:
                    row["val_accuracy"] = round(1 - 0.5 / epoch + rng.normal(0, 0.02), 2)
                history.append(row)
                there = there & contenders(history, "accuracy") | {epoch}
                for schedule in ("constant", "onecycle"):
                    self.assertIn(best_epoch(history, "accuracy", schedule), {None, *there})
            self.assertLessEqual(len(there), 4)


class RefusedTest(RunCase):
    """What is refused before its first step leaves every file where it was."""

    def files(self, folder):
        """Return what is in a folder, deep, with a number that its contents change."""
        return {p: zlib.crc32(p.read_bytes()) for p in folder.rglob("*") if p.is_file()}

    def test_nothing_is_moved(self):
        """Neither later epochs nor the run of another folder, whatever is refused, and when."""
        a, b = self.base / "a", self.base / "b"
        self.train(a, "--epoch", 3)
        self.train(b, "--epoch", 1, "--seed", 2)
        first, few = a / "ckpt_epoch_1.pth", self.base / "few"
        make_images(few, {"train": 1, "val": 1})
        shutil.rmtree(few / "train" / "red")
        state = checkpoint.load(first)
        lost = self.base / "lost" / "ckpt_epoch_1.pth"
        lost.parent.mkdir()
        torch.save({key: state[key] for key in state if key != "optimizer_state"}, lost)
        before = self.files(a) | self.files(b)
        for flags, code in (
            (("--resume", first, "--optim_type", "sgd"), 1),
            (("--resume", first, "--optim_type", "sgd", "--ckpt_path", b), 1),
            (("--resume", first, "--epoch", 2, "--bn", "--ckpt_path", b), 1),
            (("--resume", first, "--data_root", few, "--ckpt_path", b), 1),
            (("--resume", lost, "--ckpt_path", b), 1),
            (("--resume", a, "--ckpt_path", b), 1),
            (("--ckpt_path", b, "--data_root", few), 1),
        ):
            with self.subTest(flags):
                done = script_here("train.py", *flags)
                self.assert_refused(done, code)
                self.assertEqual(self.files(a) | self.files(b), before)
                self.assertEqual(list(b.glob("previous_*")) + list(a.glob("previous_*")), [])

    def test_an_earlier_run_in_stages(self):
        """The last stage's folder makes room when the first stage can be trained, not before."""
        folder = self.base / "stages"
        self.train(folder, "--epoch", 1)
        before = self.files(folder)
        done = script_here("train.py", "--task", "diffusion", "--ckpt_path", folder,
                           "--data_root", self.data)  # fmt: skip
        self.assert_refused(done, 1)
        self.assertEqual(self.files(folder), before)


class EndTest(RunCase):
    """A run that was killed after its last epoch is finished by --resume, and then is done."""

    draws = True

    def test_what_is_missing_is_made(self):
        folder = self.base / "run"
        flags = ("--data_root", self.data, "--batch_size", 8, "--ckpt_path", folder, "--epoch", 2)
        for name in ("tasks.Task.publish_curves", "tasks.training.test_epoch"):
            with mock.patch(name, side_effect=KeyboardInterrupt):
                self.assertEqual(script_here("train.py", *flags).returncode, 130)
            weights = (folder / "ckpt_epoch_2.pth").read_bytes()
            (folder / "loss_and_acc.jpg").unlink(missing_ok=True)
            said = self.resume(folder)
            self.assertIn(f"All 2 epochs of {folder} are done; what follows them is made", said)
            self.assertRegex(said, r"Test accuracy of the best epoch, \d: ")
            self.assertIn("Next, try:", said)
            self.assertTrue((folder / "loss_and_acc.jpg").is_file())
            self.assertEqual((folder / "ckpt_epoch_2.pth").read_bytes(), weights)
            for more in ((), ("--epoch", 1), ("--ckpt_path", self.base / "other")):
                done = script_here("train.py", "--resume", folder, *more)
                self.assert_refused(done, 1, "has done 2 epochs already")

    def test_of_an_average(self):
        """What is tested is the average, as it was at the end of the run undisturbed."""
        folder = self.base / "averaged"
        tested = r"Test accuracy of the best epoch, \d: .*"
        said = self.train(folder, "--epoch", 1, "--ema", 0.5)
        path = folder / "run.json"
        path.write_text(path.read_text().replace('"ended": "', '"ended": "" , "was": "'))
        again = self.resume(folder)
        self.assertEqual(re.findall(tested, again), re.findall(tested, said))

    def test_what_is_made_of_the_network(self):
        """Where nothing is tested in between: of the average, not of the weights beside it."""
        folder, task = self.base / "made", tasks.load("classification")
        prepare = task.prepare

        def prepare_untested(*arguments):
            job = prepare(*arguments)
            loaders = {mode: job.loaders[mode] for mode in ("train", "val")}
            return replace(job, loaders=loaders, finish=lambda network, folder: torch.save(
                network.state_dict(), folder / "made.pth"
            ))  # fmt: skip

        with mock.patch.object(type(task), "prepare", staticmethod(prepare_untested)):
            with mock.patch("tasks.training.which_tested", side_effect=KeyboardInterrupt):
                done = script_here("train.py", "--data_root", self.data, "--batch_size", 8,
                                   "--ckpt_path", folder, "--epoch", 1, "--ema", 0.5)  # fmt: skip
            self.assertEqual(done.returncode, 130, done.stderr)
            self.resume(folder)
        average = checkpoint.load(folder / "ckpt_epoch_1.pth")["model_state"]
        for name, value in torch.load(folder / "made.pth", weights_only=True).items():
            self.assertTrue(torch.equal(value, average[name]), name)

    def test_longer_and_killed_again(self):
        """That it had ended once does not count any more."""
        folder = self.base / "longer"
        self.train(folder, "--epoch", 1)
        with mock.patch("tasks.training.test_epoch", side_effect=KeyboardInterrupt):
            done = script_here("train.py", "--resume", folder, "--epoch", 2)
        self.assertEqual(done.returncode, 130)
        self.assertIn("All 2 epochs", self.resume(folder))


class ChangedDataTest(RunCase):
    """Data that are others when a run goes on are named; a begun epoch of them begins anew."""

    def change(self, name, how, *flags, knows=True):
        """Interrupt a run in its second epoch, change its data, and go on; return what is said."""
        folder, data = self.base / name, self.base / f"{name}_data"
        shutil.copytree(self.data, data)
        with stopped_at(4, torch.optim.Adam):  # within the second epoch, of three steps each
            done = script_here("train.py", "--data_root", data, "--batch_size", 8, "--epoch", 2,
                               "--ckpt_path", folder)  # fmt: skip
        self.assertEqual(done.returncode, 130, done.stderr)
        state = checkpoint.load(folder / checkpoint.INTERRUPTED)
        self.assertGreater(state["epoch_state"]["images"], 0)
        if not knows:  # as of earlier versions
            del state["data"]
            checkpoint.save(folder / checkpoint.INTERRUPTED, state)
        how(data / "train" / "red")
        said = self.resume(folder, *flags)
        self.assertEqual(self.epochs(folder), [1, 2])
        return said

    def test_unchanged(self):
        said = self.change("same", lambda folder: None)
        self.assertNotIn("changed", said)
        self.assertNotIn("anew", said)

    def test_moved(self):
        """The same data in another place are the same."""
        place = self.base / "place"
        shutil.copytree(self.data, place)
        said = self.change("moved", lambda folder: None, "--data_root", place)
        self.assertNotIn("changed", said)

    def test_fewer(self):
        """Fewer than were done already: no traceback, and the epoch is trained on what is there."""

        def remove(folder):
            for split in (folder, folder.parent / "blue", folder.parent / "green"):
                for path in sorted(split.iterdir())[3:]:
                    path.unlink()

        said = self.change("fewer", remove)
        self.assertRegex(said, r"The train data have changed since .*: 24 then, 9 now")
        self.assertRegex(said, r"Epoch 2, of which \d+ were done, begins anew")
        said = self.change("fewer than an earlier version knew", remove, knows=False)
        self.assertNotIn("changed", said)
        self.assertRegex(said, r"Epoch 2, of which \d+ were done, begins anew")

    def test_as_many(self):
        said = self.change("others", lambda folder: (folder / "000.png").rename(folder / "9.png"))
        self.assertIn("24 as then, but others or in another order", said)
        self.assertIn("begins anew", said)

    def test_between_epochs(self):
        """Said, and no more."""
        folder, data = self.base / "between", self.base / "between_data"
        shutil.copytree(self.data, data)
        self.train(folder, "--data_root", data, "--epoch", 1)
        (data / "val" / "red" / "000.png").unlink()
        said = self.resume(folder, "--epoch", 2)
        self.assertRegex(said, r"The val data have changed since .*: 6 then, 5 now")
        self.assertNotIn("anew", said)


class SchedulesTest(RunCase):
    def rate(self, folder):
        return float(self.rows(folder)[-1]["learning_rate"])

    def test_the_rate_is_that_of_an_epochs_last_step(self):
        """Half a cosine over 6 steps: of the third and the last, counted from 0."""
        folder = self.base / "cosine"
        self.train(folder, "--epoch", 2, "--schedule", "cosine", "--lr", 1e-2)
        expected = [1e-2 * (1 + math.cos(math.pi * step / 6)) / 2 for step in (2, 5)]
        for row, rate in zip(self.rows(folder), expected, strict=True):
            self.assertAlmostEqual(float(row["learning_rate"]), rate, places=8)

    def test_a_new_rate_and_a_new_schedule_take_effect(self):
        """A resumed run's rate is that of a run which always had its schedule and peak."""
        for before, after in (
            (("onecycle", 1e-3), ("onecycle", 4e-3)),
            (("constant", 1e-3), ("onecycle", 1e-3)),
            (("constant", 1e-3), ("cosine", 2e-3)),
            (("onecycle", 1e-3), ("step", 1e-3)),
            (("step", 1e-3), ("constant", 5e-4)),
        ):
            with self.subTest(before=before, after=after):
                folder = self.base / f"{before[0]}_{after[0]}"
                straight = self.base / f"straight_{after[0]}"
                self.train(folder, "--epoch", 1, "--schedule", before[0], "--lr", before[1])
                self.resume(folder, "--epoch", 3, "--schedule", after[0], "--lr", after[1])
                self.train(straight, "--epoch", 3, "--schedule", after[0], "--lr", after[1])
                for row, expected in zip(self.rows(folder)[1:], self.rows(straight)[1:],
                                         strict=True):  # fmt: skip
                    self.assertEqual(row["learning_rate"], expected["learning_rate"])
                settings = checkpoint.load(folder / "ckpt_epoch_3.pth")["settings"]
                self.assertEqual((settings["schedule"], settings["lr"]), after)

    def test_augmentation_can_be_left_out(self):
        folder = self.base / "augmented"
        self.train(folder, "--epoch", 1, "--augment")
        self.resume(folder, "--epoch", 2)
        self.assertTrue(checkpoint.load(folder / "ckpt_epoch_2.pth")["settings"]["augment"])
        self.resume(folder, "--epoch", 3, "--no-augment")
        self.assertFalse(checkpoint.load(folder / "ckpt_epoch_3.pth")["settings"]["augment"])


class DivergenceTest(RunCase):
    def diverge(self, *arguments):
        done = script_here("train.py", *arguments)
        self.assert_refused(done, 1, "no longer finite", "--lr")
        return done.stderr

    def test_from_the_start(self):
        """One step an epoch, validated or not: nothing is saved, and there is no way but anew."""
        for more in ((), ("--val_interval", 9), ("--bn",), ("--ema", 0.5)):
            with self.subTest(more):
                folder = self.base / f"anew{'_'.join(map(str, more))}"
                error = self.diverge(
                    "--data_root", self.data, "--ckpt_path", folder, "--lr", "1e30",
                    "--batch_size", 24, "--epoch", 3, *more,
                )  # fmt: skip
                self.assertIn("start anew with a lower --lr", error)
                self.assertEqual(self.epochs(folder), [])

    def test_later(self):
        """What is named can be gone on from; the good epochs are as they were, and best."""
        folder = self.base / "later"
        self.train(folder, "--epoch", 2)
        good = {path: path.read_bytes() for path in checkpoint.epochs(folder).values()}
        flags = ("--lr", "1e30", "--batch_size", 24, "--epoch", 4)
        for more in ((), ("--val_interval", 9)):
            error = self.diverge("--resume", folder, *flags, *more)
            self.assertIn(f"lower --lr, then --resume {folder / 'ckpt_epoch_2.pth'}", error)
            self.assertEqual({path: path.read_bytes() for path in good}, good)
            self.assertEqual(self.epochs(folder), [1, 2])
        self.resume(folder / "ckpt_epoch_2.pth", "--epoch", 3)
        self.assertEqual(self.epochs(folder), [1, 2, 3])

    def test_a_checkpoint_that_does_not_work_is_not_named(self):
        """Weights that an earlier version saved, finite but lost, are passed over, damaged too."""
        folder = self.base / "lost"
        self.train(folder, "--epoch", 3)
        state = checkpoint.load(folder / "ckpt_epoch_2.pth")
        for value in state["model_state"].values():
            value.mul_(1e30)
        checkpoint.save(folder / "ckpt_epoch_2.pth", state)
        (folder / "ckpt_epoch_3.pth").write_bytes(b"damaged")
        error = self.diverge("--resume", folder / "ckpt_epoch_2.pth", "--epoch", 4)
        self.assertIn(f"--resume {folder / 'ckpt_epoch_1.pth'}", error)

    def test_a_loss_of_validation_that_is_lost(self):
        """Weights and training loss may be finite where the validation loss is not."""
        folder = self.base / "validation"
        loss = mock.patch(
            "tasks.classification.objective.ClassificationMeter.compute",
            lambda meter, runtime: {"loss": math.nan, "accuracy": 1.0},
        )
        with loss:
            error = self.diverge("--data_root", self.data, "--ckpt_path", folder, "--lr", 1e-3)
        self.assertIn("the validation loss is no longer finite after epoch 1", error)
        self.assertEqual(self.epochs(folder), [])


class CurvesTest(RunCase):
    """`loss_and_acc.jpg` shows all epochs that are done, however the training has ended."""

    draws = True

    def drawn(self, folder, code, *flags, stop=None):
        """Run train.py, with Ctrl-C in a step; return the epochs that its one picture shows."""
        picture = folder / "loss_and_acc.jpg"
        picture.unlink(missing_ok=True)
        stopped = nullcontext() if stop is None else stopped_at(stop, torch.optim.Adam)
        with stopped, mock.patch("lab.curves.draw_curves", wraps=draw_curves) as draw:
            done = script_here("train.py", *flags)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertLessEqual(draw.call_count, 1)
        self.assertEqual(picture.is_file(), draw.called)
        self.assertEqual(done.stdout.count(f"Saved {picture}"), draw.call_count)
        return [row["epoch"] for row in draw.call_args.args[0]] if draw.called else []

    def test_all_epochs_that_are_done(self):
        """Three steps make an epoch. What an earlier process has done is shown as well."""
        folder = self.base / "stopped"
        flags = ("--data_root", self.data, "--batch_size", 8, "--ckpt_path", folder, "--epoch", 4)
        resume = ("--resume", folder)
        self.assertEqual(self.drawn(folder, 130, *flags, stop=1), [])
        self.assertFalse((folder / "loss_and_acc.jpg").exists())
        self.assertEqual(self.drawn(folder, 130, *flags, stop=3), [1])  # within the second
        self.assertEqual([row["epoch"] for row in self.rows(folder)], ["1"])
        self.assertEqual(self.drawn(folder, 130, *resume, stop=0), [1])
        self.assertEqual(self.drawn(folder, 130, *resume, stop=0), [1, 2])  # after its last step
        self.assertEqual(self.drawn(folder, 1, *resume, "--lr", 1e30), [1, 2])
        self.assertEqual(self.drawn(folder, 0, *resume), [1, 2, 3, 4])

    def test_gone_back(self):
        """Epochs that the run went back behind are not shown, stopped before any new one."""
        folder = self.base / "back"
        self.train(folder, "--epoch", 3)
        back = ("--resume", folder / "ckpt_epoch_1.pth")
        self.assertEqual(self.drawn(folder, 130, *back, stop=0), [1])

    def test_interrupted_in_the_test(self):
        """All is trained by then, and drawn."""
        folder = self.base / "tested"
        flags = ("--data_root", self.data, "--batch_size", 8, "--ckpt_path", folder, "--epoch", 1)
        with mock.patch("tasks.training.test_epoch", side_effect=KeyboardInterrupt):
            self.assertEqual(self.drawn(folder, 130, *flags), [1])


class SettingAsideTest(RunCase):
    draws = True

    def test_all_that_the_scripts_wrote(self):
        """Curves, events, pictures and results of an earlier run go with it; foreign files stay."""
        folder = self.base / "digits"
        flags = ("--dataset", "digits", "--ckpt_path", folder, "--batch_size", 400)
        self.assertEqual(script_here("train.py", *flags, "--epoch", 1).returncode, 0)
        tested = script_here("test.py", "--ckpt_path", folder, "--epoch", "last", "--save")
        self.assertEqual(tested.returncode, 0, tested.stderr)
        looked = script_here("test.py", "--ckpt_path", folder, "--epoch", "last", "--image",
                             folder / "vis.png")  # fmt: skip
        self.assertEqual(looked.returncode, 0, looked.stderr)
        written = {path.name for path in folder.iterdir()}
        self.assertLessEqual(
            {"ckpt_epoch_1.pth", "metrics.csv", "run.json", "log.txt", "loss_and_acc.jpg",
             "vis.png", "results", "confusion_matrix.jpg", "images_vis.jpg"}, written,
        )  # fmt: skip
        count = len(list((folder / "results").iterdir()))
        (folder / "notes.txt").write_text("mine")
        again = script_here("train.py", *flags, "--epoch", 1, "--seed", 1)
        self.assertIn(f"it is now in {folder / 'previous_1'}", again.stdout, again.stderr)
        self.assertEqual({path.name for path in (folder / "previous_1").iterdir()}, written)
        self.assertEqual(len(list((folder / "previous_1" / "results").iterdir())), count)
        left = {path.name.split(".1")[0] for path in folder.iterdir()}
        self.assertEqual(
            left, {"ckpt_epoch_1.pth", "metrics.csv", "run.json", "log.txt", "loss_and_acc.jpg",
                   "vis.png", "events.out.tfevents", "previous_1", "notes.txt"},
        )  # fmt: skip

    def files(self, folder, mark):
        """Write the files of a run, told apart by `mark`; return their contents by name."""
        names = ("ckpt_epoch_1.pth", "ckpt_interrupted.pth", "metrics.csv", "events.out.tfevents.1")
        for name in names:
            (folder / name).write_bytes(mark + name.encode())
        return {name: mark + name.encode() for name in names}

    def test_twice(self):
        """previous_1 and previous_2, each with its files."""
        folder = self.base / "twice"
        run, kept = Run(folder, CPU), []
        with mock.patch("lab.run.say"):
            for mark in (b"first", b"second"):
                kept.append(self.files(folder, mark))
                run.begin(CPU, 0)
                (folder / "run.json").unlink()
        for number, files in enumerate(kept, 1):
            place = folder / f"previous_{number}"
            self.assertEqual({path.name: path.read_bytes() for path in place.iterdir()}, files)
        left = {path.name for path in folder.iterdir()} - {"log.txt"}
        self.assertEqual(left, {"previous_1", "previous_2"})

    def test_interrupted_in_its_first_epoch(self):
        """Such a run has no whole epoch, yet is a run."""
        folder = self.base / "first"
        self.interrupt(folder, "--epoch", 1, "--seed", 1)
        self.train(folder, "--epoch", 1, "--seed", 2)
        self.assertTrue((folder / "previous_1" / checkpoint.INTERRUPTED).is_file())

    def test_no_earlier_run(self):
        """Pictures without a checkpoint are some other thing's: nothing is moved."""
        folder = self.base / "pictures"
        folder.mkdir()
        (folder / "holiday.jpg").write_bytes(b"mine")
        self.train(folder, "--epoch", 1)
        self.assertFalse((folder / "previous_1").exists())
        self.assertEqual((folder / "holiday.jpg").read_bytes(), b"mine")

    def test_the_other_processes_write_nothing(self):
        folder = self.base / "other"
        run = Run(folder, Runtime(torch.device("cpu"), rank=1, world_size=2))
        run.begin(CPU, 0)
        run.save_interrupted({})
        self.assertFalse(folder.exists())


class RecordTest(RunCase):
    def test_how_it_was_made(self):
        """Command, versions, commit, seed and machine; a session each time it is gone on with."""
        folder = self.base / "made here"
        self.train(folder, "--epoch", 1, "--seed", 7, "--precision", "fp32")
        self.resume(folder, "--epoch", 2)
        first, second = json.loads((folder / "run.json").read_text())
        self.assertEqual(
            first["command"],
            f"python train.py --data_root {self.data} --batch_size 8 --ckpt_path '{folder}' "
            "--epoch 1 --seed 7 --precision fp32",
        )
        self.assertEqual(first["resumed"], None)
        self.assertEqual(second["resumed"], str(folder / "ckpt_epoch_1.pth"))
        for session in (first, second):
            self.assertEqual(session["seed"], 7)
            self.assertEqual(session["versions"]["torch"], torch.__version__)
            self.assertEqual(session["versions"]["python"], platform.python_version())
            self.assertEqual(session["machine"]["system"], platform.platform())
            self.assertEqual(session["machine"]["precision"], "fp32")
            self.assertEqual(session["machine"]["processes"], 1)
        head = subprocess.run(
            ["git", "-C", str(PROJECT), "rev-parse", "HEAD"], capture_output=True, text=True
        )
        if head.returncode == 0:  # not in an archive of the files alone
            self.assertEqual(first["commit"].rstrip("+"), head.stdout.strip())

    def test_what_was_said(self):
        """The log has what was printed, of all sessions and errors, and of this run alone."""
        folder, other = self.base / "said", self.base / "said elsewhere"
        data = self.base / "with notes"
        shutil.copytree(self.data, data)
        (data / "train" / "red" / "notes.txt").write_text("mine")
        said = self.train(folder, "--epoch", 1, "--data_root", data)
        self.assertIn("left out 1 of 25 files: red/notes.txt", said)
        said += self.resume(folder, "--epoch", 2)
        failed = script_here("train.py", "--resume", folder, "--epoch", 3, "--lr", 1e30,
                             "--batch_size", 24)  # fmt: skip
        self.assertEqual(failed.returncode, 1)
        script_here("test.py", "--ckpt_path", folder, "--epoch", 2)
        self.train(other, "--epoch", 1)
        log = (folder / "log.txt").read_text()
        self.assertEqual(log, said + failed.stdout + failed.stderr)
        self.assertRegex(log, r"Epoch  1/1: loss(.|\n)*Epoch  2/2: loss(.|\n)*error: the loss")

    def test_a_record_that_cannot_be_read(self):
        """It is written anew, and said so."""
        folder = self.base / "spoilt"
        self.train(folder, "--epoch", 1)
        for epoch, content in ((2, b"{"), (3, b"\xff\xfe"), (4, b"7")):
            (folder / "run.json").write_bytes(content)
            said = self.resume(folder, "--epoch", epoch)
            self.assertIn(f"{folder / 'run.json'} cannot be read and is written anew", said)
            self.assertEqual(len(json.loads((folder / "run.json").read_text())), 1)

    def test_metrics_are_a_table(self):
        """A column for each figure that any epoch has; a figure that is missing is empty."""
        history = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": None, "val_loss": 0.25}]
        self.assertEqual(as_csv(history), "epoch,loss,val_loss\n1,0.5,\n2,,0.25\n")

    def test_commands_can_be_pasted(self):
        """Paths with spaces are quoted in what is printed; the shell reads them as they are."""
        folder = self.base / "two words"
        said = self.train(folder, "--epoch", 1)
        commands = re.findall(r"^  python (.*)$", said, re.MULTILINE)
        self.assertGreater(len(commands), 2)
        for command in commands:
            words = subprocess.run(
                f"printf '%s\\n' {command}", shell=True, capture_output=True, text=True
            ).stdout.splitlines()
            self.assertEqual(words[words.index("--ckpt_path") + 1], str(folder))
            self.assertTrue((PROJECT / words[0]).is_file())
        done = script_here("test.py", "--ckpt_path", self.base / "no such")
        self.assertIn(f"python train.py --ckpt_path '{self.base / 'no such'}'", done.stderr)

    def test_refused_flags_leave_no_folder(self):
        folder = self.base / "never"
        done = script_here(
            "train.py", "--data_root", self.data, "--ckpt_path", folder, "--network", "mnist_cnn",
            "--stn",
        )  # fmt: skip
        self.assert_refused(done, 2, "--stn")
        self.assertFalse(folder.exists())

    def test_a_folder_that_cannot_be_written(self):
        blocked = self.base / "a_file"
        blocked.write_text("in the way")
        with self.assertRaisesRegex(LabError, f"cannot write to --ckpt_path {blocked}"):
            Run(blocked / "run", CPU)
        shutil.rmtree(self.base / "made", ignore_errors=True)
        folder = self.base / "made" / "deep"
        Run(folder, CPU)
        self.assertEqual(list(folder.iterdir()), [])
