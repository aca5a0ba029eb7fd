"""export.py: what comes before and after a network is in the file, and answers as PyTorch does."""

import json
import tempfile
import unittest
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.ops import nms

from lab import checkpoint
from lab.console import LabError
from lab.images import Preprocess, as_input
from lab.registry import build
from lab.run import Run
from lab.runtime import Runtime
from tasks import exporting
from tasks.detection.detector import LEAST_SCORE
from tasks.detection.export import suppress
from tasks.segmentation.results import label_picture
from tasks.trained import load_trained
from tests.support import ScriptCase, script, script_here
from tests.test_anatomy import CLASSES, config_of, designs_of
from tests.test_networks import scramble

ONNX = exporting.FORMATS["onnx"]
RUNS_ONNX = all(find_spec(name) is not None for name in ONNX)


def setUpModule():
    unittest.addModuleCleanup(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(1)


def photographs(count: int, height: int, width: int) -> torch.Tensor:
    """Return cuts of real photographs, uint8 (N, H, W, 3)."""
    with mock.patch.object(exporting, "CUTS", ((count, height, width),)):
        (pictures,) = exporting.trial_pictures(None)
    return pictures


def save_run(folder: Path, task: str, name: str, **more: object) -> Path:
    """Write a run's checkpoint of a network that nothing was taught."""
    torch.manual_seed(0)
    designs = designs_of(task)
    config = config_of(designs, name)
    network = scramble(build(designs, name, asdict(config))).eval()
    with torch.no_grad():  # something to be found
        if name == "center_net":
            network.head[1].bias.zero_()
        elif name == "tiny_ssd":
            network.cls_0.bias.zero_()
    folder.mkdir(parents=True, exist_ok=True)
    state = {"task": task, "network": name, "configs": asdict(config), "epoch": 1}
    state |= {"model_state": network.state_dict(), "class_names": list(CLASSES)}
    state |= {"history": [{"epoch": 1, "loss": 2.0, "val_accuracy": 0.25}]}
    checkpoint.save(folder / "ckpt_epoch_1.pth", state | more)
    return folder


class RunCase(ScriptCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def modules(self, task: str, name: str, **more: object):
        """Return a trained network, and what it is exported as."""
        path = save_run(self.folder / name, task, name, **more) / "ckpt_epoch_1.pth"
        trained = load_trained(path, "cpu", "fp32")
        return trained, trained.task.exported(trained)


class AnswerTest(RunCase):
    """What is exported says of pictures what `test.py --image` says."""

    def test_pictures_are_made_input_as_pillow_does(self):
        """Squashed or cut, of colour or grey: to half a level of 255, and what rounding adds."""
        pictures = photographs(3, 90, 131)
        for preprocess in (
            Preprocess((32, 32)),
            Preprocess((28, 28), (0.1307,), (0.3081,)),
            Preprocess((64, 64), resize=72),
            Preprocess((48, 48), resize=60),
            Preprocess((120, 140)),
        ):
            with self.subTest(preprocess):
                fitted = [preprocess.fit(Image.fromarray(own.numpy())) for own in pictures]
                expected = preprocess.normalize(torch.from_numpy(np.stack(fitted)))
                own = exporting.as_images(pictures, preprocess)
                self.assertEqual(own.shape, expected.shape)
                level = 1 / 255 / min(preprocess.std)
                self.assertLess(float((own - expected).abs().max()), 1.6 * level)
                self.assertLess(float((own - expected).abs().mean()), 0.6 * level)

    def test_classifier(self):
        trained, (own,) = self.modules("classification", "classifier")
        pictures = photographs(5, 32, 32)
        expected = trained.network(Preprocess().normalize(pictures)).softmax(1)
        torch.testing.assert_close(own.network(pictures), expected)

    def test_detectors(self):
        """All pictures at once find what `detect` finds in each."""
        pictures = photographs(3, 100, 150)
        for name in ("center_net", "tiny_ssd"):
            with self.subTest(name), torch.inference_mode():
                trained, (own,) = self.modules("detection", name)
                boxes, scores, labels = own.network(pictures)
                found = 0
                for k, picture in enumerate(pictures):
                    (expected,) = trained.network.detect(as_input(picture.numpy()))
                    count = int((scores[k] > 0).sum())
                    found += count
                    self.assertEqual(count, len(expected["scores"]))
                    torch.testing.assert_close(scores[k, :count], expected["scores"])
                    self.assertTrue(torch.equal(labels[k, :count], expected["labels"]))
                    torch.testing.assert_close(boxes[k, :count], expected["boxes"])
                    self.assertTrue(
                        (boxes[k, count:] == 0).all() and (labels[k, count:] == 0).all()
                    )
                self.assertGreater(found, 3)
                self.assertGreaterEqual(float(scores[scores > 0].min()), LEAST_SCORE)

    def test_suppression_knows_no_other_picture(self):
        torch.manual_seed(0)
        corners = 40 * torch.rand(4, 30, 2)
        boxes, scores = torch.cat((corners, corners + 20), 2), torch.rand(4, 30)
        for own, k in zip(suppress(boxes, scores), range(4), strict=True):
            kept = torch.zeros(30, dtype=torch.bool)
            kept[nms(boxes[k], scores[k], 0.5)] = True
            self.assertTrue(torch.equal(own, kept))
            self.assertLess(int(kept.sum()), 30)

    def test_label_maps(self):
        trained, (own,) = self.modules("segmentation", "res_unet")
        pictures = photographs(2, 75, 101)
        with torch.inference_mode():
            labels, shares = own.network(pictures)
        for k, picture in enumerate(pictures):
            expected = label_picture(trained, picture.numpy())
            self.assertGreater((labels[k].numpy() == expected).mean(), 0.999)
        self.assertEqual((labels.dtype, labels.shape), (torch.uint8, (2, 75, 101)))
        self.assertTrue(((shares >= 1 / len(CLASSES) - 1e-6) & (shares <= 1)).all())

    def test_clips(self):
        trained, (own,) = self.modules("video", "cnn3d")
        (clips,) = own.trial(photographs(2, 32, 32))
        expected = trained.network(clips.permute(0, 4, 1, 2, 3) / 127.5 - 1).softmax(1)
        torch.testing.assert_close(own.network(clips), expected)
        self.assertFalse(torch.equal(clips[:, 0], clips[:, 1]))  # they move

    def test_painted(self):
        trained, (own,) = self.modules("style", "transform")
        picture = photographs(1, 40, 52)
        painted = own.network(picture)
        with torch.inference_mode():
            expected = (trained.network(as_input(picture[0].numpy())) + 1) * 127.5
        self.assertEqual(painted.shape, picture.shape)
        difference = painted.permute(0, 3, 1, 2).float() - expected
        self.assertLessEqual(float(difference.abs().max()), 0.51)

    def test_diffusion(self):
        """Text encoder and UNet one after the other predict what the network does."""
        trained, every = self.modules("diffusion", "latent_diffusion")
        parts = {one.name: one for one in every}
        self.assertEqual(list(parts), ["text_encoder", "unet", "encoder", "decoder"])
        pictures = photographs(2, 64, 64)
        with torch.inference_mode():
            (ids,) = parts["text_encoder"].trial(pictures)
            latents, times, states = parts["unet"].trial(pictures)
            self.assertTrue(torch.equal(parts["text_encoder"].network(ids), states))
            expected = trained.network(latents, times, ids)
            torch.testing.assert_close(parts["unet"].network(latents, times, states), expected)
            decoded = parts["decoder"].network(parts["encoder"].network(pictures))
        self.assertEqual((decoded.dtype, decoded.shape), (torch.uint8, pictures.shape))

    def test_torchvisions_detectors_are_refused(self):
        with self.assertRaisesRegex(LabError, "ssdlite320.* is torchvision's"):
            self.modules("detection", "ssdlite320_mobilenet_v3_large")


class FileTest(RunCase):
    def test_torch(self):
        """From the script to a file that torch.export.load runs, on other sizes and counts."""
        run = save_run(self.folder, "classification", "classifier")
        done = script("export.py", "--ckpt_path", run, "--format", "torch", "--epoch", "last")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, r"Checked on 20 pictures: .* PyTorch \d\.\de[+-]\d\d\n")
        known = {"metadata.json": ""}
        network = torch.export.load(run / "export/classifier.pt2", extra_files=known).module()
        known = json.loads(known["metadata.json"])
        self.assertEqual(json.loads(known["classes"]), list(CLASSES))
        self.assertEqual(json.loads(known["figures"]), {"val_accuracy": 0.25})
        self.assertEqual(json.loads(known["task"]), "classification")
        trained = load_trained(run / "ckpt_epoch_1.pth", "cpu", "fp32")
        (own,) = trained.task.exported(trained)
        for shape in ((1, 200, 300), (7, 40, 33)):
            pictures = photographs(*shape)
            torch.testing.assert_close(network(pictures), own.network(pictures))

    @unittest.skipUnless(RUNS_ONNX, f"needs {', '.join(ONNX)}")
    def test_onnx(self):
        """A file that onnxruntime runs, which says what it is; with --half, of half the size."""
        import onnxruntime

        run = save_run(self.folder, "classification", "classifier")
        done = script_here("export.py", "--ckpt_path", run)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        path = run / "export/classifier.onnx"
        session = onnxruntime.InferenceSession(path)
        known = session.get_modelmeta().custom_metadata_map
        self.assertEqual(json.loads(known["classes"]), list(CLASSES))
        trained = load_trained(run / "ckpt_epoch_1.pth", "cpu", "fp32")
        (own,) = trained.task.exported(trained)
        pictures = photographs(6, 41, 59)
        (probabilities,) = session.run(None, {"pictures": pictures.numpy()})
        np.testing.assert_allclose(probabilities, own.network(pictures).detach(), atol=1e-5)
        whole = path.stat().st_size
        done = script_here("export.py", "--ckpt_path", run, "--half")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertLess(path.stat().st_size, 0.6 * whole)

    @unittest.skipUnless(RUNS_ONNX, f"needs {', '.join(ONNX)}")
    def test_onnx_detector(self):
        run = save_run(self.folder, "detection", "center_net")
        done = script_here("export.py", "--ckpt_path", run)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("boxes, scores, labels", done.stdout)

    def test_half(self):
        """Weights of 16 bits, rounded to nearest; nothing else is kept."""
        network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        half = exporting.HalfWeights(network)
        kept = half.state_dict().values()
        self.assertEqual({value.dtype for value in kept}, {torch.float16})
        self.assertEqual(sum(value.numel() for value in kept), 3 * 4 + 4 + 4 * 2 + 2)
        x = torch.randn(5, 3)
        rounded = network.half().float()(x)
        self.assertTrue(torch.equal(half(x), rounded))

    def test_what_is_missing(self):
        """Named in one line, before anything is read."""
        with mock.patch.object(exporting, "find_spec", lambda name: None):
            done = script_here("export.py", "--ckpt_path", self.folder / "none")
        self.assert_refused(done, 1, "pip install onnx onnxscript onnxruntime", "--format torch")

    def test_a_run_of_another_kind(self):
        """The run that there is is named, as by the other scripts; nothing is written."""
        run = save_run(self.folder, "classification", "classifier")
        there = "train one: python train.py --task video"
        for flags, code, words in (
            (("--task", "video", "--ckpt_path", run), 2, f"{run.name}/ckpt_epoch_1.pth is of"),
            (("--task", "video", "--ckpt_path", run), 2, there),
            (("--ckpt_path", run.with_name("none")), 1, "no checkpoints in"),
            (("--task", "style"), 1, "no checkpoints in checkpoints/style"),
        ):
            done = script_here("export.py", *flags, "--format", "torch")
            self.assert_refused(done, code, words)
        self.assertFalse((run / "export").exists())

    def test_wrong_answers_are_not_kept(self):
        """Neither under its name nor another; what was there before stays."""
        run = save_run(self.folder, "classification", "classifier")
        (run / "export").mkdir()
        (run / "export/classifier.pt2").write_text("earlier")
        wrong = {"torch": lambda path: lambda p: [np.full((len(p), len(CLASSES)), 0.2)]}
        with mock.patch.dict(exporting.READERS, wrong):
            done = script_here("export.py", "--ckpt_path", run, "--format", "torch")
        self.assert_refused(done, 1, "probabilities", "differ from PyTorch's")
        self.assertEqual([path.name for path in (run / "export").iterdir()], ["classifier.pt2"])
        self.assertEqual((run / "export/classifier.pt2").read_text(), "earlier")

    def test_a_box_instead_of_another(self):
        """Where one box of many is another, what both happen to share is no difference."""
        boxes = 100 * torch.rand(1, 60, 4, generator=torch.Generator().manual_seed(0))
        scores = torch.linspace(1, 0.1, 60).view(1, -1)
        own = nn.Module()
        own.forward = lambda pictures: (boxes, scores)
        exported = exporting.Exported("d", own, {}, ("boxes", "scores"), in_order=False)
        others = boxes.clone()
        others[0, 7] += torch.tensor([0.5, 0.05, 0, 0])  # a tie, of which rounding chose the other
        others[0, 9] += 1e-4
        answers = [others.numpy(), scores.numpy()]
        difference = exporting.check(exported, lambda *inputs: answers, own, [torch.zeros(1)])
        self.assertAlmostEqual(difference, 1e-4 / float(boxes.amax((0, 1)).min()), places=7)

    def test_a_later_run_sets_it_aside(self):
        run = save_run(self.folder, "classification", "classifier")
        (run / "export").mkdir()
        Run(run, Runtime(torch.device("cpu"))).set_aside_all()
        self.assertTrue((run / "previous_1/export").is_dir())


if __name__ == "__main__":
    unittest.main()
