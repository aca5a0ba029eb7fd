"""report.py: what it runs, what it reads, and that it says no more than the numbers carry."""

import contextlib
import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image
from scipy.stats import binomtest

import reporting
from reporting import claims, document, html, latex, markdown, other_tasks, runs, signs, work
from reporting.blocks import Blank, Bullets, Code, Figure, Heading, Paragraph, Table
from tests.support import PROJECT, ScriptCase, environment, make_images, script_here

CLASSES = ("give_way", "no_entry", "stop")
IMAGES = 600  # of a made-up test split


def make_run(folder, accuracy, epochs=10, task="classification", flags=(), gap=0.0, seed=0, **more):
    """Write the files of a tested run, as train.py and test.py do, that reads `accuracy` of them.

    Which images it misreads is random, as between networks.
    """
    folder.mkdir(parents=True)
    rows = [
        {"epoch": epoch, "loss": 1 / epoch, "accuracy": accuracy + gap, "val_loss": 1.1 / epoch,
         "val_accuracy": accuracy, "learning_rate": 1e-3, "images_per_second": 900.0,
         "seconds": 12.0}
        for epoch in range(1, epochs + 1)
    ]  # fmt: skip
    write_table(folder / "metrics.csv", rows)
    trained = {
        "task": task, "network": "classifier", "dataset": "signs", "ranks_by": "accuracy",
        "parameters": 843_290, "inputs": {"train": 10_400, "val": 1_300, "test": IMAGES},
    } | more  # fmt: skip
    words = ["python", "train.py", "--ckpt_path", str(folder), *flags, "--epoch", str(epochs)]
    session = {
        "started": "2025-01-01 12:00:00 +0000", "command": " ".join([*words, "--no_show"]),
        "resumed": None, "seed": seed, "commit": None, "trained": trained,
        "versions": {"python": "3.11", "torch": "2.11"},
        "machine": {"device": "cpu", "precision": "fp32", "threads": 2},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps([session]))
    (folder / f"ckpt_epoch_{epochs}.pth").write_bytes(b"")
    labels = np.arange(IMAGES) % len(CLASSES)
    right = np.random.default_rng(hash((accuracy, seed)) % 2**32).permutation(IMAGES)
    read = np.where(right < round(accuracy * IMAGES), labels, (labels + 1) % len(CLASSES))
    table = [{"input": image, "label": CLASSES[label], "prediction": CLASSES[other]}
             for image, (label, other) in enumerate(zip(labels, read, strict=True))]  # fmt: skip
    write_table(folder / "predictions.csv", table)
    figures = {"loss": 0.2, trained["ranks_by"]: float((labels == read).mean())}
    found = {"task": task, "checkpoint": f"ckpt_epoch_{epochs}.pth", "inputs": IMAGES,
             "figures": figures}  # fmt: skip
    (folder / "test.json").write_text(json.dumps(found))
    Image.new("RGB", (40, 30), "white").save(folder / "confusion_matrix.jpg")
    return folder


def write_table(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


class ReportCase(ScriptCase):
    """A folder of runs and pictures that are as good as made."""

    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.root = Path(holder.name)
        self.runs, self.out = self.root / "checkpoints" / "report", self.root / "out"
        self.augmented = self.root / "augmentation.jpg"
        Image.new("RGB", (60, 40), "grey").save(self.augmented)
        patch = mock.patch.object(signs, "AUGMENTED", self.augmented)
        patch.start()
        self.addCleanup(patch.stop)

    def make_five(self, gap=0.0, **accuracies):
        """Make the assignment's five runs, and the pictures from inside them."""
        for name, flags in signs.RUNS.items():
            make_run(self.runs / name, accuracies.get(name, 0.9), flags=flags, gap=gap)
        for _, _, _, file, *_ in signs.LOOKS:
            path = self.runs / "looks" / file
            path.parent.mkdir(parents=True)
            Image.new("RGB", (2000, 50), "blue").save(path)

    def report(self, *flags):
        """Make the report of signs; return report.md and what was said."""
        done = script_here("report.py", "--ckpt_path", self.runs, "--save_dir", self.out, *flags)
        self.assertEqual(done.returncode, 0, done.stderr)
        return (self.out / "report.md").read_text(), done.stdout

    def parts(self, text):
        """Return the sentences on what each part brings."""
        found = re.search(r"(?:What each part brings|各部分的作用)\n\n(.*?)\n\n", text, re.S)
        return found[1].split("\n")


class ClaimTest(ReportCase):
    """Sentences are chosen by the numbers."""

    WORDS = {
        "en": ("Batch norm helps", "Batch norm hurts", "Batch norm: no difference can be told"),
        "zh": ("批归一化有帮助", "批归一化有害", "批归一化：看不出差别"),
    }

    def test_three_histories_three_sentences(self):
        """Batch norm that helps, hurts, or does what chance may do; in both languages."""
        for number, bn in enumerate((0.95, 0.85, 0.91)):
            self.make_five(default=0.9, bn=bn)
            for language, words in self.WORDS.items():
                with self.subTest(bn=bn, language=language):
                    text, _ = self.report("--only", "signs", "--lang", language)
                    sentence = self.parts(text)[0]
                    for other, said in enumerate(words):
                        self.assertEqual(said in sentence, other == number, sentence)
                    self.assertIn("90.00 %", sentence)
                    self.assertIn(f"{100 * bn:.2f} %", sentence)
            shutil.rmtree(self.runs)

    def test_each_part_against_its_own_base(self):
        """Augmentation and the transformer stand on batch norm, dropout does not."""
        self.make_five(default=0.8, bn=0.9, dropout=0.9, bn_aug=0.8, stn=0.97)
        said = self.parts(self.report("--only", "signs")[0])
        outcomes = [re.search(r"helps|hurts|no difference", line)[0] for line in said]
        self.assertEqual(outcomes, ["helps", "helps", "hurts", "helps"])

    def test_seeds(self):
        """With seeds, the spread of their differences decides, not the size of the test split."""
        for bn, outcome in (((0.95, 0.955, 0.945), "helps"), ((0.98, 0.85, 0.95), "no difference")):
            for name, flags in signs.RUNS.items():
                for seed in range(3):
                    accuracy = bn[seed] if name == "bn" else 0.9
                    flagged = (*flags, *(("--seed", str(seed)) if seed else ()))
                    folder = signs.folder_of(self.runs, name, seed)
                    make_run(folder, accuracy, flags=flagged, seed=seed)
            with mock.patch.object(work, "run_script", lambda arguments: 0):
                text, _ = self.report("--only", "signs", "--seeds", "3")
            self.assertIn(outcome, self.parts(text)[0])
            self.assertIn("Over 3 seeds", text)
            self.assertNotIn("--seeds 3", text)
            shutil.rmtree(self.runs)

    def test_overfitting(self):
        """A gap between training and validation is named only where it is one."""
        for gap, said in ((0.08, "overfits"), (0.0, "alike"), (-0.2, "validation images better")):
            make_run(self.runs / "default", 0.9, gap=gap)
            with mock.patch.object(work, "run_script", lambda arguments: 0):
                text, _ = self.report("--only", "signs")
            self.assertIn(said, re.search(r"- `default` .*", text)[0])
            shutil.rmtree(self.runs)

    def test_statistics(self):
        """Published values: Wilson's and Newcombe's intervals, McNemar's and Student's tests."""
        # Newcombe 1998 (Statistics in Medicine 17, 857 and 873): 81 of 263; 56 of 70, 48 of 80.
        self.assert_near(claims.wilson(81 / 263, 263), (0.2553, 0.3662))
        self.assert_near(claims.difference(48 / 80, 80, 56 / 70, 70), (0.0524, 0.3339))
        self.assertAlmostEqual(claims.mcnemar(8, 2), 0.109375)
        self.assertEqual(claims.mcnemar(0, 0), 1)
        low, high = claims.seeds_interval([1.0, 2.0, 3.0])
        self.assert_near((low, high), (2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5), places=3)

    def assert_near(self, found, expected, places=4):
        for one, other in zip(found, expected, strict=True):
            self.assertAlmostEqual(one, other, places=places)

    def test_other_images(self):
        """Networks tested on other images are compared by intervals, not image by image."""
        first = [("stop", "stop")] * 90 + [("stop", "give_way")] * 10
        other = [("no_entry", "no_entry")] * 100
        verdict = claims.compare([first], [other])
        self.assertEqual((verdict.evidence, verdict.outcome), ("newcombe", 1))
        self.assertEqual(claims.compare([first], [first]).evidence, "mcnemar")


class NumbersTest(ReportCase):
    def test_those_of_the_files(self):
        """The tables' numbers are computed here anew from the files."""
        self.make_five(gap=0.01, default=0.9, bn=0.95, dropout=0.915, bn_aug=0.97, stn=0.985)
        text, _ = self.report("--only", "signs")
        tables = [block for block in markdown.read(text) if isinstance(block, Table)]
        made = next(table for table in tables if "flags" in table.head)
        reached = next(table for table in tables if "test, %" in table.head)
        for name, *cells in made.rows:
            files = runs.read(self.runs / name.strip("`"))
            self.assertEqual(cells[1:], ["10", "843,290", "2.0"])
            self.assertEqual(cells[0].strip("`–").split(), list(signs.RUNS[files.folder.name]))
        for name, epoch, training, validation, test, interval in reached.rows:
            with (self.runs / name.strip("`") / "predictions.csv").open() as file:
                right = [row["label"] == row["prediction"] for row in csv.DictReader(file)]
            with (self.runs / name.strip("`") / "metrics.csv").open() as file:
                last = list(csv.DictReader(file))[-1]
            self.assertEqual(epoch, "10")
            self.assertEqual(training, f"{100 * float(last['accuracy']):.2f}")
            self.assertEqual(validation, f"{100 * float(last['val_accuracy']):.2f}")
            self.assertEqual(test, f"{100 * sum(right) / len(right):.2f}")
            exact = binomtest(sum(right), len(right)).proportion_ci(method="wilson")
            self.assertEqual(interval, f"{100 * exact.low:.2f} – {100 * exact.high:.2f}")
        for count in ("10,400", "1,300", "600"):
            self.assertIn(f"| {count} |", text)
        worst = next(table for table in tables if "read rightly" in table.head)
        self.assertEqual(sum(int(row[1].split(" / ")[0]) for row in worst.rows), 591)

    def test_all_languages_and_formats_have_the_same_numbers(self):
        """Of one set of runs."""
        self.make_five(default=0.9, bn=0.95)
        found = []
        for language in ("en", "zh"):
            self.report("--only", "signs", "--lang", language)
            text = (self.out / "report.md").read_text()
            words = re.sub(r"`[^`]*`|!\[.*", "", text.split("---", 1)[1])
            found.append(sorted(re.findall(r"\d+\.\d\d", words)))
            for number in set(found[-1]):
                self.assertIn(number, (self.out / "report.html").read_text())
                self.assertIn(number, (self.out / "report.tex").read_text())
        self.assertEqual(*found)
        self.assertGreater(len(found[0]), 40)


class MissingTest(ReportCase):
    def test_a_chapter_without_runs(self):
        """It is named, with the commands it begins with, and nothing stands in its place."""
        text, _ = self.report("--only", "detection")
        self.assertIn("**This chapter is missing**", text)
        self.assertIn("python train.py --task detection", text)
        self.assertNotIn("| run |", text)

    def test_a_task_with_runs(self):
        """A table of tested runs, in the order of their measure; untested ones are named."""
        about = {"task": "detection", "ranks_by": "ap", "network": "tiny_ssd"}
        for name, accuracy in (("weak", 0.3), ("strong", 0.6), ("raw", 0.5)):
            make_run(self.runs.parent / name, accuracy, **about)
            (self.runs.parent / name / "predictions.csv").unlink()
            rows = runs.read(self.runs.parent / name).history
            write_table(self.runs.parent / name / "metrics.csv",
                        [row | {"val_ap": accuracy} for row in rows])  # fmt: skip
        (self.runs.parent / "raw" / "test.json").unlink()
        shutil.copytree(self.runs.parent / "weak", self.runs.parent / "strong" / "previous_1")
        shutil.copytree(self.runs.parent / "weak", self.runs.parent / "strong" / "stage")
        text, _ = self.report("--only", "detection")
        table = next(block for block in markdown.read(text) if isinstance(block, Table))
        self.assertEqual([row[0] for row in table.rows], ["`strong`", "`strong/stage`", "`weak`"])
        self.assertEqual([row[5] for row in table.rows], ["60.00%", "30.00%", "30.00%"])
        self.assertIn(f"test.py --ckpt_path {self.runs.parent / 'raw'}", text)
        self.assertTrue((self.out / "pictures" / "detection_ap.jpg").is_file())

    def test_tracks_used_both_ways_count_once(self):
        """An interval is that of so many tracks, not of twice as many clips."""
        folder = make_run(self.runs.parent / "ways", 0.9, task="video")
        for more, expected in ({}, IMAGES), ({"independent": IMAGES // 2}, IMAGES // 2):
            test = json.loads((folder / "test.json").read_text()) | more
            (folder / "test.json").write_text(json.dumps(test))
            text, _ = self.report("--only", "video")
            table = next(block for block in markdown.read(text) if isinstance(block, Table))
            interval = claims.from_to(*claims.wilson(0.9, expected))
            self.assertEqual(table.rows[0][5:7], ("90.00%", f"{interval} %"))

    def test_a_task_that_ranks_nothing(self):
        """Its runs stand in the order of their names."""
        for name in ("b", "a"):
            make_run(self.runs.parent / name, 0.9, task="detection", ranks_by="")
            (self.runs.parent / name / "test.json").write_text(json.dumps(
                {"checkpoint": "ckpt_epoch_10.pth", "inputs": 9, "figures": {"distance": 3.5}}
            ))  # fmt: skip
        text, _ = self.report("--only", "detection")
        table = next(block for block in markdown.read(text) if isinstance(block, Table))
        self.assertEqual([(row[0], row[5]) for row in table.rows], [("`a`", "3.5"), ("`b`", "3.5")])

    def test_chapters(self):
        """The assignment's, one of each other task that a test says something of, the answers."""
        others = ("detection", "segmentation", "video", "diffusion")
        self.assertEqual(reporting.CHAPTERS, ("signs", *others, "answers"))
        self.assertEqual(set(others), set(other_tasks.TITLES))

    def test_runs_that_failed(self):
        """What could not be made is named, the rest is written, and the script ends with 1."""
        self.make_five()
        shutil.rmtree(self.runs / "stn")
        (self.runs / "looks" / "tsne" / "tsne.jpg").unlink()
        with mock.patch.object(work, "run_script", lambda arguments: 1):
            done = script_here("report.py", "--ckpt_path", self.runs, "--save_dir", self.out,
                               "--only", "signs")  # fmt: skip
        self.assert_refused(done, 1, "train.py")
        text = (self.out / "report.md").read_text()
        self.assertIn("**Missing**: `stn`", text)
        self.assertIn("**Missing**: t-SNE.", text)
        self.assertEqual(len(self.parts(text)), 3)

    def test_a_test_that_was_stopped(self):
        """It leaves predictions, but no figures: the run is missing."""
        self.make_five()
        (self.runs / "stn" / "test.json").unlink()
        with mock.patch.object(work, "run_script", lambda arguments: 1):
            done = script_here("report.py", "--ckpt_path", self.runs, "--save_dir", self.out,
                               "--only", "signs")  # fmt: skip
        self.assert_refused(done, 1, "test.py")
        self.assertIn("**Missing**: `stn`", (self.out / "report.md").read_text())

    def test_nothing_at_all(self):
        with mock.patch.object(work, "run_script", lambda arguments: 1):
            done = script_here("report.py", "--ckpt_path", self.runs, "--save_dir", self.out)
        self.assert_refused(done, 1)
        self.assertIn("**Missing**: `default`, `bn`", (self.out / "report.md").read_text())

    def test_bad_input(self):
        taken = self.root / "file"
        taken.write_text("")
        for flags, code, word in (
            (("--only", "poetry"), 2, "poetry"), (("--lang", "fr"), 2, "fr"),
            (("--seeds", "0"), 2, "at least 1"),
            (("--only", "answers", "--save_dir", taken), 1, "cannot write"),
        ):  # fmt: skip
            self.assert_refused(script_here("report.py", *flags), code, word)
        self.make_five()
        (self.runs / "bn" / "metrics.csv").write_text("epoch,loss\n1,what\n")
        done = script_here("report.py", "--ckpt_path", self.runs, "--save_dir", self.out)
        self.assert_refused(done, 1, "bn", "cannot be read")


class WorkTest(ReportCase):
    """What is run, and what is not run again."""

    def commands(self, epochs=10, seeds=1, data_root=None):
        """Return what would be run, without the flags that all have."""
        steps = signs.steps(self.runs, epochs, seeds, data_root)
        return [step.command() for step in steps if step.command()]

    def test_from_nothing(self):
        """Five trainings, their tests, four looks; as the assignment has them."""
        found = self.commands()
        names = [arguments[0] for arguments in found]
        self.assertEqual(Counter(names), {"train.py": 5, "test.py": 5, "visualize.py": 4})
        trained = [arguments[3:-3] for arguments in found if arguments[0] == "train.py"]
        self.assertEqual(trained, list(signs.RUNS.values()))
        self.assertEqual(len(self.commands(seeds=3)), 3 * 10 + 4)

    def test_done_is_done(self):
        self.make_five()
        self.assertEqual(self.commands(), [])
        self.assertEqual(self.commands(epochs=2), [])
        _, said = self.report("--only", "signs")
        self.assertNotIn("train.py", said)

    def test_goes_on(self):
        """A shorter run is made longer, an interrupted one gone on with; both tested again."""
        self.make_five()
        found = self.commands(epochs=12)
        self.assertEqual([arguments[1] for arguments in found], ["--resume"] * 5)
        shutil.rmtree(self.runs / "bn")
        make_run(self.runs / "bn", 0.9, epochs=3, flags=("--bn",))
        (self.runs / "bn" / "metrics.csv").unlink()
        for file in self.runs.glob("bn/ckpt_epoch_*"):
            file.rename(self.runs / "bn" / "ckpt_interrupted.pth")
        first, *others = self.commands()
        self.assertEqual([arguments[0] for arguments in others], ["test.py"])
        self.assertEqual(first[:3], ("train.py", "--resume", str(self.runs / "bn")))

    def test_newer_weights_are_tested_again(self):
        self.make_five()
        later = time.time() + 10
        os.utime(self.runs / "stn" / "ckpt_epoch_10.pth", (later, later))
        found = self.commands()
        self.assertEqual([arguments[0] for arguments in found], ["test.py", "visualize.py"])

    def test_tested_in_another_way(self):
        """A test by hand, on other data or of another epoch, is not taken for the report's."""
        self.make_five()
        path = self.runs / "bn" / "test.json"
        found = json.loads(path.read_text())
        for other in ({"data_root": "elsewhere"}, {"checkpoint": "ckpt_epoch_9.pth"}):
            path.write_text(json.dumps(found | other))
            ((name, *_),) = self.commands()
            self.assertEqual(name, "test.py")

    def test_another_run_in_the_folder(self):
        """Runs on other data, or with other flags, are no part of this report."""
        self.make_five()
        found = self.commands(data_root=Path("elsewhere"))
        self.assertEqual([arguments[:2] for arguments in found], [("train.py", "--ckpt_path")] * 5)
        shutil.rmtree(self.runs / "bn")
        make_run(self.runs / "bn", 0.9, flags=("--stn",))
        again, *_ = self.commands()
        self.assertEqual(again[3], "--bn")

    def test_time_left(self):
        """The steps are counted, and the time left comes down."""
        said = io.StringIO()
        with mock.patch.object(work, "run_script", lambda _: 0), contextlib.redirect_stdout(said):
            work.run_steps(signs.steps(self.runs, 10, 1, None))
        lines = re.findall(r"\[(\d+)/15\] .*\(about (\d+) (min|s) left\)", said.getvalue())
        seconds = [int(time) * (60 if unit == "min" else 1) for _, time, unit in lines]
        self.assertEqual(len(lines), 14)
        self.assertEqual(seconds, sorted(seconds, reverse=True))
        self.assertGreater(seconds[0], 600)

    def test_the_real_scripts(self):
        """Trained, tested and looked into, on a data set of nothing; then nothing is left to do."""
        data = make_images(self.root / "set", {"train": 12, "val": 4, "test": 20})

        def run_here(arguments):
            done = script_here(*arguments)
            self.assertEqual(done.returncode, 0, f"{arguments}\n{done.stderr}")
            return 0

        flags = ("--data_root", data, "--epoch", 1, "--only", "signs")
        with mock.patch.object(work, "run_script", run_here):
            text, _ = self.report(*flags)
        self.assertNotIn("Missing", text)
        for name in signs.RUNS:
            files = runs.read(self.runs / name)
            self.assertEqual(files.trained["inputs"], {"train": 36, "val": 12, "test": 60})
            self.assertEqual((len(files.predictions), files.test["inputs"]), (60, 60))
            self.assertIn(f"{100 * claims.accuracy(files.predictions):.2f}", text)
            self.assertAlmostEqual(
                claims.accuracy(files.predictions), files.test["figures"]["accuracy"]
            )
        with mock.patch.object(work, "run_script", lambda _: self.fail("done again")):
            again, _ = self.report(*flags)
        self.assertEqual(text, again)

    def test_stopped_and_gone_on(self):
        """Ctrl-C and kill: the training saves, the report ends with 130, the next one goes on."""
        data = make_images(self.root / "set", {"train": 400, "val": 4, "test": 4})
        for number, epoch in ((signal.SIGINT, "Epoch  1/"), (signal.SIGTERM, "Epoch  3/")):
            process = subprocess.Popen(
                [sys.executable, PROJECT / "report.py", "--ckpt_path", self.runs, "--data_root",
                 data, "--save_dir", self.out, "--epoch", "500", "--only", "signs"],
                cwd=self.root, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                # A background job, as these tests may be, and all that it starts ignore Ctrl-C.
                text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )  # fmt: skip
            for line in process.stdout:
                if epoch in line:
                    process.send_signal(number)
                    break
            rest, errors = process.communicate(timeout=120)
            self.assertEqual(process.returncode, 130, rest + errors)
            self.assertIn("--resume", rest)
            step = signs.steps(self.runs, 500, 1, data)[0]
            self.assertEqual(step.command()[:2], ("train.py", "--resume"))
            self.assertGreaterEqual(step.finished(), int(epoch[5:-1]))


class PageParser(HTMLParser):
    """Checks that elements are closed in their order, and collects what a page asks for."""

    VOID = {"meta", "img", "br", "link"}

    def __init__(self, test):
        super().__init__()
        self.test, self.open = test, []
        self.ids, self.targets, self.images, self.tags = [], [], [], Counter()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags[tag] += 1
        if tag not in self.VOID:
            self.open.append(tag)
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag == "img":
            self.images.append(attributes)
        for name in ("href", "src", "srcset", "action", "data"):
            if name in attributes:
                self.targets.append(attributes[name])

    def handle_endtag(self, tag):
        self.test.assertEqual(self.open.pop(), tag)


class HtmlTest(ReportCase):
    def page(self, *flags):
        self.make_five(default=0.9, bn=0.95)
        self.report("--only", "signs", "answers", *flags)
        text = (self.out / "report.html").read_text()
        parser = PageParser(self)
        parser.feed(text)
        self.assertEqual(parser.open, [])
        return text, parser

    def test_one_file_that_asks_for_nothing(self):
        """Pictures are inside, with texts; links lead within the page or are for the reader."""
        for language, code in (("en", "en"), ("zh", "zh-Hans")):
            text, parser = self.page("--lang", language)
            self.assertIn(f'<html lang="{code}">', text)
            self.assertEqual(len(parser.images), 7)
            for image in parser.images:
                self.assertTrue(image["src"].startswith("data:image/jpeg;base64,"))
                self.assertTrue(image["alt"])
            for target in parser.targets:
                if target.startswith("#"):
                    self.assertIn(target[1:], parser.ids)
                else:
                    self.assertTrue(target.startswith(("data:image/", "http")), target[:60])
            self.assertEqual(len(parser.ids), len(set(parser.ids)))
            for word in ("<script", "<link", "@import", "url("):
                self.assertNotIn(word, text)
            shutil.rmtree(self.runs)

    def test_pages_of_networks(self):
        """A page that page.py has made of a run is linked to, from the report's folder."""
        text, _ = self.page()
        self.assertNotIn("page.html", text)
        (self.runs / "bn" / "page.html").write_text("a page")
        self.report("--only", "signs", "answers")
        for name in ("report.html", "report.md", "report.tex"):
            text = (self.out / name).read_text()
            (target,) = re.findall(r"[(\"{]([^(\"{]*bn/page\.html)", text)
            self.assertEqual((self.out / target).read_text(), "a page", name)

    def test_fits_any_width(self):
        """What cannot shrink scrolls by itself: tables and code; pictures shrink."""
        text, parser = self.page()
        self.assertIn("width=device-width", text)
        self.assertEqual(parser.tags["table"], text.count('<div class="wide" tabindex="0"><table>'))
        for rule in (r"img {[^}]*max-width: 100%", r"\.wide {[^}]*overflow-x: auto",
                     r"pre {[^}]*overflow-x: auto", r"@media print"):  # fmt: skip
            self.assertRegex(html.STYLE, rule)

    def test_contrast(self):
        """Every colour of text stands off from every background that it may lie on: 4.5 to 1."""

        def luminance(colour):
            digits = colour if len(colour) == 6 else "".join(2 * digit for digit in colour)
            parts = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
            linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
            return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

        backgrounds = set(re.findall(r"background: #(\w+)", html.STYLE))
        colours = set(re.findall(r"(?<![-\w])color: #(\w+)", html.STYLE))
        self.assertEqual((len(backgrounds), len(colours)), (2, 3))
        for colour in colours:
            for background in backgrounds:
                ratio = (luminance(background) + 0.05) / (luminance(colour) + 0.05)
                self.assertGreater(ratio, 4.5, (colour, background))

    @unittest.skipUnless(shutil.which("chromium"), "no Chromium here")
    def test_in_a_browser(self):
        """At 1280 and 390 pixels nothing is wider than the page, no name in a table is torn apart,
        and nothing is asked for."""
        text, _ = self.page()
        probe = (
            "<script>addEventListener('load', () => { const page = document.documentElement;"
            "document.title = [page.scrollWidth <= page.clientWidth, [...document.images].every("
            "image => image.complete && image.naturalWidth), "
            "[...document.querySelectorAll('td code')].every(name => "
            "/[ -]/.test(name.textContent) || name.getClientRects().length == 1), "
            "performance.getEntriesByType('resource').filter(entry => "
            "!entry.name.startsWith('data:')).length].join(' '); })</script></body>"
        )
        (self.out / "probe.html").write_text(text.replace("</body>", probe))
        # A frame is as wide as it is told, where a window has a least width of its own.
        frames = "".join(
            f'<iframe src="probe.html" style="width:{width}px;height:800px;border:0"></iframe>'
            for width in (1280, 390)
        )
        file = self.out / "frames.html"
        file.write_text(
            f"{frames}<script>addEventListener('load', () => setTimeout(() => document.title = "
            "[...document.querySelectorAll('iframe')].map(frame => "
            "frame.contentDocument.title).join(', '), 300))</script>"
        )
        done = subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
             "--allow-file-access-from-files", "--virtual-time-budget=5000",
             f"--user-data-dir={self.root / 'profile'}", file.as_uri()],
            capture_output=True, text=True, timeout=200,
        )  # fmt: skip
        title = re.search(r"<title>(.*?)</title>", done.stdout)
        self.assertIsNotNone(title, done.stdout[:500] + done.stderr[-500:])
        self.assertEqual(title[1], "true true true 0, true true true 0")


class BlockTest(unittest.TestCase):
    BLOCKS = [
        Heading("A & B", 2), Paragraph("Of `x_1` **5 %** [here](https://example.org/a_b#c) <b>."),
        Bullets(((Paragraph("one"),), (Paragraph("two"),))),
        Code("python a.py --flag\n\n    b = a | c"),
        Table(("name", "%"), (("`a|b`", "1.5"), ("c", "–"))),
    ]  # fmt: skip

    def test_markdown_reads_what_it_writes(self):
        self.assertEqual(markdown.read(markdown.to_markdown(self.BLOCKS)), self.BLOCKS)

    def test_markdown_of_the_pages(self):
        """Every page in docs/ is read whole: written again and read again, it is the same."""
        for page in (PROJECT / "docs").glob("*.md"):
            blocks = markdown.read(page.read_text(encoding="utf-8"), page.parent)
            figures = [block for block in blocks if isinstance(block, Figure)]
            self.assertTrue(all(figure.source.is_file() for figure in figures))
            rest = [block for block in blocks if not isinstance(block, Figure)]
            self.assertEqual(markdown.read(markdown.to_markdown(rest)), rest, page.name)

    def test_fences(self):
        """Code between fences is code, whatever is in it; a fence that nothing closes is text."""
        page = "Before\n```python\n# no heading\n\n- no list\n    x = 1\n```\nAfter\n"
        code = Code("# no heading\n\n- no list\n    x = 1")
        expected = [Paragraph("Before"), code, Paragraph("After")]
        self.assertEqual(markdown.read(page), expected)
        self.assertEqual(markdown.read(markdown.to_markdown(expected)), expected)
        self.assertIn("<code># no heading", html.to_html([Heading("T", 1), code], Path(), "en"))
        self.assertEqual(markdown.read("```\nx = 1\n"), [Paragraph("``` x = 1")])
        for opened, closed in (("~~~", "~~~~"), ("````md", "````"), ("  ```", "```")):
            page = f"{opened}\n```\n# a\n{closed}\n" if "`" * 3 not in opened[:5] else (
                f"{opened}\n# a\n{closed}\n")  # fmt: skip
            (block,) = markdown.read(page)
            self.assertEqual(block.text.splitlines()[-1], "# a")

    def test_lists(self):
        """With numbers, in one another, with code in them, and with lines that are not indented."""
        text = (
            "- one\n  two\nthree\n- four\n    - five\n\n      ```\n      # six\n      ```\n"
            "3. seven\n\n   eight\n4) nine\n\n* ten\n\n    code\n"
        )
        lists = markdown.read(text)
        one, two = Paragraph("one two three"), Paragraph("four")
        five = Bullets(((Paragraph("five"), Code("# six")),))
        self.assertEqual(lists[0], Bullets(((one,), (two, five))))
        seven = (Paragraph("seven"), Paragraph("eight"))
        self.assertEqual(lists[1], Bullets((seven, (Paragraph("nine"),)), 3))
        self.assertEqual(lists[2:], [Bullets(((Paragraph("ten"),),)), Code("code")])
        self.assertEqual(markdown.read(markdown.to_markdown(lists[1:])), lists[1:])
        page = html.to_html([Heading("T", 1), *lists], Path(), "en")
        self.assertIn("<ul><li>one two three</li><li>four\n<ul><li>five\n<pre", page)
        self.assertIn('<ol start="3"><li>seven\n<p>eight</p></li><li>nine</li></ol>', page)
        text = latex.to_latex([Heading("T", 1), *lists], "en")
        self.assertIn("\\item[3.] seven\n\neight\n  \\item[4.] nine", text)

    def test_latex_of_lists_in_lists(self):
        """LaTeX has four of them in one another: what is deeper has no mark."""
        text = "".join("  " * depth + f"- word{depth}\n" for depth in range(6))
        text = latex.to_latex([Heading("T", 1), *markdown.read(text)], "en")
        self.assertEqual(text.count(r"\begin{itemize}"), 4)
        self.assertEqual(text.count("word"), 6)

    def test_tables_as_others_write_them(self):
        """Rows of other lengths, no mark at the end; a line with marks alone is text."""
        (table,) = markdown.read("| a | b\n|---|:-:\n| c \\| d\n| e | f | g |\n")
        self.assertEqual(table.head, ("a", "b", ""))
        self.assertEqual(table.rows, (("c | d", "", ""), ("e", "f", "g")))
        self.assertEqual(markdown.read("| a |\n"), [Paragraph("| a |")])

    def test_html_escapes(self):
        title = Heading("T", 1)
        text = html.to_html([title, *self.BLOCKS], Path(), "en")
        self.assertIn("A &amp; B", text)
        self.assertIn("<code>x_1</code> <strong>5 %</strong>", text)
        self.assertIn('<a href="https://example.org/a_b#c">here</a> &lt;b&gt;.', text)
        self.assertIn('<td class="number">–</td>', text)
        link = Paragraph('[x](https://example.org/?a=1&b="<c>")')
        text = html.to_html([title, link], Path(), "en")
        address = "https://example.org/?a=1&amp;b=&quot;&lt;c&gt;&quot;"
        self.assertIn(f'<a href="{address}">x</a>', text)

    def test_latex_of_links(self):
        """What TeX would read as its own is escaped, or as addresses write it."""
        link = Paragraph("[x](https://e.org/a%20b?c={d}&e=\\f^g#h中)")
        text = latex.to_latex([Heading("T", 1), link], "en")
        address = r"https://e.org/a\%20b?c=\%7Bd\%7D\&e=\%5Cf\%5Eg\#h\%E4\%B8\%AD"
        self.assertIn(rf"\href{{{address}}}{{x}}", text)

    def test_latex_of_chinese_words(self):
        """In an English report they ask for ctex; Greek letters and signs of mathematics do not."""
        for words, needs in (("λ ≈ 0.1 naïve “é” — Ω"[:-1], False), ("学习率", True), ("ж", True)):
            text = latex.to_latex([Heading("T", 1), Paragraph(words)], "en")
            self.assertEqual("ctex" in text, needs, words)
            self.assertEqual("inputenc" in text, not needs)
        self.assertIn(r"\usepackage[scheme=plain]{ctex}", text)
        self.assertEqual(latex.unknown_letters("naïve 学习，率 ж😀ж"), "ж😀")

    def test_latex_options(self):
        """A bracket after an item or a row is no option of it; what is no text is left out."""
        page = "- [ ] todo\n\n| a | b |\n|---|---|\n| [x] | y\x00\x0c |\n"
        text = latex.to_latex([Heading("T", 1), *markdown.read(page)], "en")
        self.assertIn(r"\item {[} ] todo", text)
        self.assertIn(r"{[}x] & y \\", text)

    def test_latex_escapes(self):
        text = latex.to_latex([Heading("T", 1), *self.BLOCKS], "en")
        self.assertIn(r"\section{A \& B}", text)
        self.assertIn(r"\texttt{x\_\allowbreak{}1} \textbf{5 \%}", text)
        self.assertIn(r"\href{https://example.org/a_b\#c}{here} \textless{}b", text)
        self.assertIn(r"\begin{tabular}{lr}", text)

    def test_latex_of_long_tables(self):
        """They go over several pages; long names may break at slashes and colons."""
        for count, kind in ((20, "tabular"), (21, "longtable")):
            table = Table(("a", "b"), tuple(("1 ④", "`a/b.py:c`") for _ in range(count)))
            text = latex.to_latex([Heading("T", 1), table], "en")
            self.assertEqual(text.count(rf"\begin{{{kind}}}"), 1)
            self.assertEqual(text.count(r"1 \textcircled{4} & \texttt{a/\allowbreak{}b.py:"), count)

    def test_numeric_columns(self):
        table = Table(("a", "b", "c"), (("1 / 2", "x", ""), ("–", "1", "")))
        self.assertEqual(table.numeric(), [True, False, False])
        sentences = Table(("", ""), (("200 (10 epochs)", "1, -1: divides by what is not there."),))
        self.assertEqual(sentences.numeric(), [True, False])

    def test_widths_and_heads(self):
        """Columns of short words leave their room to sentences; a head without words is none."""
        answers = Table(("", "", ""), (("(A)", "**wrong**", "A sentence that goes on. " * 8),))
        text = latex.to_latex([Heading("T", 1), answers], "en")
        self.assertIn("{llL}\n\\toprule\n(A) & \\textbf{wrong} & A sentence", text)
        self.assertNotIn("<th", html.to_html([Heading("T", 1), answers], Path(), "en"))
        chinese = Table(("",) * 3, (("甲", "一二三四五六七八九十", "x"),))  # as wide as 20 letters
        self.assertIn("{lLl}", latex.to_latex([Heading("T", 1), chinese], "en"))
        words = Table(("word",) * 9, (("a word",) * 9,))
        self.assertIn(f"{{{9 * 'L'}}}", latex.to_latex([Heading("T", 1), words], "en"))

    def test_latex_of_code(self):
        """TeX skips blanks after a control space, widens those after a full stop, curls quotes."""
        text = latex.to_latex([Heading("T", 1), Code("   1.  2\n\nx-'")], "en")
        lines = [r"\ \ \ 1.\ \ 2", r"\ ", r"x-{}\textquotesingle{}"]
        self.assertEqual(re.findall(r"\\hangindent=2em\\texttt{(.*)}\\par", text), lines)


class LatexTest(ReportCase):
    def write(self, language):
        self.make_five(default=0.9, bn=0.95)
        self.report("--lang", language, "--only", "signs", "answers")
        return (self.out / "report.tex").read_text(encoding="utf-8")

    def test_pdflatex_knows_every_character(self):
        """In English there is none but ASCII; in Chinese, ctex sets what it is made for."""
        text = self.write("en")
        self.assertTrue(text.isascii(), sorted({c for c in text if not c.isascii()}))
        shutil.rmtree(self.runs)
        text = self.write("zh")
        self.assertIn("ctexart", text)
        odd = {c for c in text if not c.isascii() and not "\u3000" <= c <= "\u9fff"
               and not "\uff00" <= c <= "\uffef"} - set("“”")  # fmt: skip
        self.assertFalse(odd)

    def test_balanced(self):
        """Every environment and every brace is closed."""
        text = self.write("en")
        stack = []
        for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
            if kind == "begin":
                stack.append(name)
            else:
                self.assertEqual(stack.pop(), name)
        self.assertEqual(stack, [])
        bare = re.sub(r"\\[{}\\]", "", text)
        self.assertEqual(bare.count("{"), bare.count("}"))

    def compile(self, language, *programs):
        """Let the first of several programs that is here make a PDF, in which all has its room."""
        program = next(filter(shutil.which, programs), None)
        if program is None:
            self.skipTest("no LaTeX here")
        self.write(language)
        flags = () if program == "tectonic" else ("-interaction=nonstopmode", "-halt-on-error")
        command = (program, *flags, "report.tex")
        done = subprocess.run(command, cwd=self.out, capture_output=True, timeout=200)
        said = done.stdout.decode(errors="replace")
        self.assertEqual(done.returncode, 0, said[-1500:])
        self.assertTrue((self.out / "report.pdf").is_file())
        over = map(float, re.findall(r"Overfull \\hbox \(([\d.]+)pt", said))
        self.assertLess(max(over, default=0), 5)

    def test_compiles(self):
        self.compile("en", "pdflatex", "tectonic")

    def test_compiles_in_chinese(self):
        self.compile("zh", "xelatex", "tectonic")


class NotesTest(ReportCase):
    def test_words_are_kept(self):
        """Blanks have a heading each in the notes; what a student writes there is in the report."""
        self.make_five()
        text, _ = self.report("--only", "signs")
        notes = self.out / "notes.md"
        self.assertIn("## Problems met\n", notes.read_text())
        self.assertIn("### Problems met\n\n*What went wrong", text)
        written = notes.read_text().replace("## Problems met\n", "## Problems met\n\nThe *sun*.\n")
        notes.write_text(written)
        text, _ = self.report("--only", "signs")
        self.assertIn("### Problems met\n\nThe *sun*.", text)
        self.assertEqual(notes.read_text(), written)

    def test_notes_from_windows(self):
        """A byte order mark is no letter of the first heading, and no answer is lost."""
        path = self.root / "notes.md"
        path.write_bytes("\ufeff## A\r\n\r\nMine.\r\n".encode())
        filled = document.with_notes([Blank("A", "?")], path)
        self.assertEqual(filled[0], Heading("A", 3))
        self.assertEqual(len(filled), 2)

    NOTES = (
        "Before all. w00\n\n# My course\n\nw01 text\n\n## problems met:\n\nw02 学习率 λ\n\n"
        "### What happened\n\nw03\n\n```python\n# w04 no heading\n## Use of language models\n"
        "x = [w05]\n```\n\n1. w06\n2. w07\n   - w08\n\n     w09\n\n> w10\n\n| w11 | w12\n|---|---|"
        "\n| w13 | w14 | w15 |\n\n## Thanks\n\nw16 [w17](https://e.org/w18)\n\n#### To all\n\nw19\n"
        "\n## Problems met\n\nw20\n\n![w21](own.png)\n\n![w22](gone.png)\n\n- ![w23](own.png)\n"
        "\n## Comments on the assignment ##\n\n- [ ] w24\nw25\n* w26 <b>\n~~~\n# w27"
    )  # fmt: skip

    def test_nothing_is_lost(self):
        """Under whatever heading it stands, in code, in lists; what has no place is named."""
        self.out.mkdir()
        notes = self.out / "notes.md"
        Image.new("RGB", (4000, 30), "red").save(self.out / "own.png")
        for mark, end in (("", "\n"), ("\ufeff", "\r\n")):
            written = (mark + self.NOTES.replace("\n", end)).encode()
            notes.write_bytes(written)
            done = script_here("report.py", "--only", "detection", "--save_dir", self.out)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertTrue(notes.read_bytes().startswith(written))
            texts = [
                (self.out / f"report.{kind}").read_text("utf-8") for kind in ("md", "html", "tex")
            ]
            for text in texts:
                for number in range(28):
                    self.assertIn(f"w{number:02}", text)
            text = texts[0]
            places = [text.index(f"w{number:02}") for number in (2, 3, 4, 5, 20, 24, 26)]
            following = text.index("### What I would try next"), text.index("w24")
            self.assertTrue(places[0] < places[4] < following[0] < following[1] < places[6])
            self.assertLess(places[-1], text.index("w00"))
            self.assertLess(text.index("w01"), text.index("w16"))
            self.assertLess(text.index("w16"), text.index("### w27"))
            for words in ("before any heading", 'under "My course"', 'under "Thanks"'):
                self.assertIn(f"{notes}: what stands {words}", done.stdout)
            self.assertIn("gone.png is no picture", done.stdout)
        self.assertIn("```python\n# w04 no heading\n## Use of language models\n", text)
        self.assertIn("1. w06\n2. w07\n   - w08\n", text)
        html_text, tex = texts[1:]
        self.assertIn('<pre tabindex="0"><code># w04 no heading\n## Use of', html_text)
        self.assertIn('<ol start="1"><li>w06</li><li>w07\n<ul><li>w08\n<p>w09</p></li>', html_text)
        self.assertEqual(html_text.count('alt="w2'), 2)
        self.assertIn("学习率", tex)
        self.assertIn("[scheme=plain]{ctex}", tex)

    def test_a_byte_order_mark(self):
        """As editors on Windows write it: the first heading is one all the same."""
        path = self.root / "notes.md"
        path.write_text("\ufeff## A\n\nMine.\n", encoding="utf-8")
        blocks = document.with_notes([Blank("A", "?")], path)
        self.assertEqual(blocks[0], Heading("A", 3))
        self.assertEqual(blocks[1].blocks, (Paragraph("Mine."),))
        self.assertEqual(path.read_text("utf-8"), "\ufeff## A\n\nMine.\n")

    def test_pictures_are_as_small_as_a_page(self):
        self.test_nothing_is_lost()
        pictures = sorted((self.out / "pictures").glob("notes_*_own.jpg"))
        self.assertEqual(len(pictures), 2)
        for path in pictures:
            with Image.open(path) as picture:
                self.assertEqual(picture.size, (1600, 12))

    def test_a_report_again_is_the_same(self):
        """And what is added to the notes is added once."""
        self.test_nothing_is_lost()
        self.report("--only", "detection")
        before = [(self.out / name).read_bytes() for name in ("notes.md", "report.md")]
        self.report("--only", "detection")
        after = [(self.out / name).read_bytes() for name in ("notes.md", "report.md")]
        self.assertEqual(before, after)

    def test_notes_that_cannot_be_read(self):
        """In another encoding, or of the report in another language: a line says so."""
        self.out.mkdir()
        notes = self.out / "notes.md"
        for words in ("## 遇到的问题\n\n很多".encode("gb18030"), "## A".encode("utf-16")):
            notes.write_bytes(words)
            done = script_here("report.py", "--only", "detection", "--save_dir", self.out)
            self.assert_refused(done, 1, notes, "save it as UTF-8")
            self.assertEqual(notes.read_bytes(), words)
        notes.write_text("## Problems met\n\nMine.\n")
        _, said = self.report("--only", "detection", "--lang", "zh")
        self.assertIn(f"{notes} is of the report in another language", said)
        _, said = self.report("--only", "detection", "--lang", "zh")
        self.assertNotIn("another language", said)

    def test_new_blanks_are_added(self):
        path = self.root / "notes.md"
        path.write_text("## A\n\nMine.\n")
        document.with_notes([Blank("A", "?"), Blank("B", "?")], path)
        self.assertEqual(path.read_text(), "## A\n\nMine.\n\n## B\n\n")


class CopyTest(unittest.TestCase):
    def test_pictures_are_no_larger_than_a_page_shows(self):
        """A sheet of 20 MB stays out of the report; what is small is copied as large as it is."""
        with tempfile.TemporaryDirectory() as base:
            source, target = Path(base) / "a.png", Path(base) / "a.jpg"
            for size, expected in (
                ((4000, 1000), (1600, 400)),
                ((1000, 8000), (400, 3200)),
                ((900, 700), (900, 700)),
            ):
                Image.new("RGB", size, "red").save(source)
                document.copy(source, target)
                with Image.open(target) as copied:
                    self.assertEqual(copied.size, expected)


if __name__ == "__main__":
    unittest.main()
