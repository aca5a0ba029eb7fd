"""The page's parts: its scripts by node, its runtime, what is packed in it, its gradients."""

import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from datasets import DIGITS
from lab import web_runtime
from lab.console import LabError
from networks import warp
from tasks import showing
from tasks.classification.results import CIFAR10
from tasks.diffusion.networks import make_scheduler
from tasks.diffusion.words import encode_prompts, make_tokenizer, tokenizer_state
from tasks.gradients import sample
from tasks.segmentation.labels import CAMVID_CLASSES, VOC_CLASSES
from tasks.trained import load_trained
from tests.support import PROJECT, ScriptCase
from tests.test_export import save_run
from world.clips import KINDS
from world.faces import FACES
from world.signs import CLASSES as SIGNS
from world.street import OBJECTS

PAGES = sorted(path.stem for path in (PROJECT / "page").glob("*.mjs"))


def setUpModule():
    unittest.addModuleCleanup(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(1)


class ScriptTest(unittest.TestCase):
    @unittest.skipUnless(shutil.which("node"), "no node here")
    def test_numbers(self):
        """What is arithmetic, by node's own tests."""
        done = subprocess.run(
            ["node", "--test", *(PROJECT / "tests/page").glob("*.mjs")],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stdout[-3000:])
        self.assertRegex(done.stdout, r"# pass [1-9]")

    @unittest.skipUnless(shutil.which("node"), "no node here")
    def test_joined(self):
        """Each task's script is whole: modules before who needs them, none of them twice."""
        with tempfile.TemporaryDirectory() as folder:
            for name in PAGES:
                text = showing.joined(name)
                self.assertNotRegex(text, r"(?m)^(import|export)\b")
                made = re.findall(r"(?m)^modules\.(\w+) = ", text)
                self.assertEqual((made[-1], len(made)), (name, len(set(made))))
                for used in re.finditer(r"(?m)^const \{.*\} = modules\.(\w+);$", text):
                    self.assertLess(text.index(f"modules.{used[1]} = "), used.start())
                file = Path(folder) / f"{name}.mjs"
                file.write_text(text, encoding="utf-8")
                done = subprocess.run(["node", "--check", file], capture_output=True, text=True)
                self.assertEqual(done.returncode, 0, done.stderr)

    @unittest.skipUnless(shutil.which("node"), "no node here")
    def test_sampler(self):
        """Tokens are CLIP's tokenizer's, and a course from given predictions is DDIM's."""
        tokenizer = make_tokenizer(["a stop sign at night, in 30 nights", "it's/no entry"])
        texts = [
            "A night sign, stop!",
            "",
            "At  Nights 30 3",
            "it's no-entry",
            "zebra 中 é",
            "a " * 50,
        ]
        known = tokenizer_state(tokenizer) | {"start": 0, "end": 1}
        torch.manual_seed(0)
        courses = []
        for kind, steps in (("epsilon", 7), ("v_prediction", 25), ("v_prediction", 3),
                            ("epsilon", 16)):  # fmt: skip
            scheduler = make_scheduler(kind)
            scheduler.set_timesteps(steps)
            latents, predictions = torch.randn(6), torch.randn(steps, 6)
            course = {"prediction": kind, "alphas": scheduler.alphas_cumprod.tolist()}
            course |= {"latents": latents.tolist(), "predictions": predictions.tolist()}
            course["times"] = scheduler.timesteps.tolist()
            for time, prediction in zip(scheduler.timesteps, predictions, strict=True):
                latents = scheduler.step(prediction, time, latents).prev_sample
            courses.append(course | {"expected": latents.tolist()})
        script = """
            import * as sampler from "./page/sampler.mjs";
            const { known, texts, courses } = JSON.parse(await new Response(process.stdin).text());
            const ids = texts.map((text) => sampler.tokens(text, known, 32));
            const ends = courses.map(({ latents, predictions, times, ...scheduler }) => {
              const own = sampler.timesteps(times.length);
              own.forEach((time, k) => {
                const now = sampler.step(latents, predictions[k], time, own.length, scheduler);
                latents = now.latents;
              });
              return { times: own, latents: Array.from(latents) };
            });
            console.log(JSON.stringify({ ids, ends }));
        """
        given = json.dumps({"known": known, "texts": texts, "courses": courses})
        done = subprocess.run(
            ["node", "--input-type=module", "-e", script],
            input=given, capture_output=True, text=True, cwd=PROJECT, timeout=60,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        answers = json.loads(done.stdout)
        self.assertEqual(answers["ids"], encode_prompts(tokenizer, texts).tolist())
        for own, course in zip(answers["ends"], courses, strict=True):
            self.assertEqual(own["times"], course["times"])
            far = np.abs(np.subtract(own["latents"], course["expected"])).max()
            self.assertLess(far, 1e-4 * np.abs(course["expected"]).max())

    @unittest.skipUnless(shutil.which("node"), "no node here")
    def test_names(self):
        """Each class of our own data has a Chinese name of its own; a list of others' has none."""
        ours = [FACES, (*FACES, *OBJECTS), CAMVID_CLASSES, CIFAR10, VOC_CLASSES]
        ours += [SIGNS, *(kind.classes for kind in KINDS.values())]
        others = [DIGITS, ("stop", "go"), ("03_cat", "my_cat"), ("toString",)]
        script = """
            import { inBoth } from "./page/names.mjs";
            const lists = JSON.parse(await new Response(process.stdin).text());
            console.log(JSON.stringify(lists.map(inBoth)));
        """
        done = subprocess.run(
            ["node", "--input-type=module", "-e", script],
            input=json.dumps([*map(list, ours + others)]), capture_output=True, text=True,
            encoding="utf-8", cwd=PROJECT, timeout=60,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        answers = json.loads(done.stdout)
        for names, own in zip(ours, answers[: len(ours)], strict=True):
            plain = [re.sub(r"^\d+_", "", name).replace("_", " ") for name in names]
            self.assertEqual([english for english, _ in own], plain)
            self.assertEqual(len({chinese for _, chinese in own}), len(names), own)
            for _, chinese in own:
                self.assertRegex(chinese, "^[\u4e00-\u9fff]+( [0-9]+)?$")
        self.assertEqual(answers[0][13], ["give way", "减速让行"])
        for names, own in zip(others, answers[len(ours) :], strict=True):
            plain = [re.sub(r"^\d+_", "", name).replace("_", " ") for name in names]
            self.assertEqual(own, [[name, name] for name in plain])

    def test_words(self):
        """In both languages, with the same names to fill in; each that is used, and no others."""
        text = (PROJECT / "page/words.mjs").read_text("utf-8")
        table = re.findall(r'(\w+): \["((?:[^"\\]|\\.)*)",\s*"((?:[^"\\]|\\.)*)"\]', text)
        self.assertGreater(len(table), 40)
        code = "".join(
            path.read_text("utf-8") for path in (PROJECT / "page").glob("*.mjs")
            if path.name != "words.mjs"
        )  # fmt: skip
        for key, english, chinese in table:
            self.assertTrue(english and chinese, key)
            fields = [sorted(re.findall(r"\{(\w+)\}", own)) for own in (english, chinese)]
            self.assertEqual(*fields, key)
            self.assertTrue(re.search(rf"\b{key}\b", code), f"{key} is said nowhere")
        self.assertEqual(len(table), text.count(': ["'))


class RuntimeTest(ScriptCase):
    SCRIPT = (
        "var a=1,b=2;const w=import.meta.url;export{a as Tensor,b as env};\n//# sourceMappingURL=x"
    )

    def archive(self, folder: Path) -> Path:
        path = folder / "runtime.tgz"
        with tarfile.open(path, "w:gz") as archive:
            for name, body in (
                (web_runtime.SCRIPT, self.SCRIPT.encode()),
                (web_runtime.WASM, b"w"),
            ):
                entry = tarfile.TarInfo(name)
                entry.size = len(body)
                archive.addfile(entry, io.BytesIO(body))
        return path

    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.enterContext(mock.patch.object(web_runtime, "FOLDER", self.folder / "cache"))

    def test_kept(self):
        """Fetched once, then taken from where it is kept; a damaged one is fetched again."""
        body = self.archive(self.folder).read_bytes()
        digest = hashlib.sha256(body).hexdigest()
        with (
            mock.patch.object(web_runtime, "SHA256", digest),
            mock.patch.object(web_runtime, "fetch", return_value=body) as fetch,
        ):
            for count in (1, 1):
                runtime = web_runtime.find_runtime(None)
                self.assertEqual((runtime.wasm, fetch.call_count), (b"w", count))
            (self.folder / "cache" / web_runtime.NAME).write_bytes(body[:-1])
            web_runtime.find_runtime(None)
            self.assertEqual(fetch.call_count, 2)
        self.assertIn("const ort = {Tensor: a, env: b};", runtime.script)
        self.assertNotRegex(runtime.script, r"export|import\.meta|sourceMapping")

    def test_another_file(self):
        """Of the same name, or none: one line says both ways to get it."""
        path = self.archive(self.folder)
        for given in (path, self.folder / "none.tgz"):
            with self.assertRaises(LabError) as caught:
                web_runtime.find_runtime(given)
            self.assertIn(given.name, str(caught.exception))
        nowhere = mock.patch.object(web_runtime, "ADDRESS", "http://127.0.0.1:9/none")
        with nowhere, self.assertRaises(LabError) as caught:
            web_runtime.find_runtime(None)
        for word in ("npm pack onnxruntime-web@", "--runtime", "with a connection"):
            self.assertIn(word, str(caught.exception))


class GradientTest(unittest.TestCase):
    def test_sample(self):
        """As the transformer's own sampler, and its gradient, within the image and beyond."""
        torch.manual_seed(0)
        images = torch.randn(3, 2, 9, 12, requires_grad=True)
        theta = torch.eye(2, 3) + 0.4 * torch.randn(3, 2, 3)
        own, other = sample(images, theta), warp(images, theta)
        torch.testing.assert_close(own, other, atol=2e-5, rtol=1e-4)
        weights = torch.randn_like(own)
        gradients = [torch.autograd.grad((x * weights).sum(), images)[0] for x in (own, other)]
        torch.testing.assert_close(*gradients, atol=2e-5, rtol=1e-4)

    def test_slope(self):
        """The graph's gradient is autograd's, of each class, with pooling and a transformer."""
        with tempfile.TemporaryDirectory() as folder:
            run = save_run(Path(folder), "classification", "classifier")
            trained = load_trained(run / "ckpt_epoch_1.pth", "cpu", "fp32")
            graphs = {one.name: one for one in trained.task.shown(trained).beside}
        images = torch.randn(1, 3, 32, 32, requires_grad=True)
        logits = trained.network(images)
        for label in range(4):
            own, gradient = graphs["slope"].network(images.detach(), torch.tensor([label]))
            (expected,) = torch.autograd.grad(logits[0, label], images, retain_graph=True)
            torch.testing.assert_close(own, logits, atol=1e-4, rtol=1e-4)
            self.assertLess(float((gradient - expected).abs().max() / expected.abs().max()), 1e-4)


class PackTest(unittest.TestCase):
    def test_rounded(self):
        """To 16 bits of a fraction, never to infinity; what is no float32 stays as it is."""
        torch.manual_seed(0)
        values = torch.randn(1000).numpy()
        near = showing.rounded(values)
        self.assertFalse((near.view(np.uint32) & 0xFF).any())
        self.assertLessEqual(float(np.abs(near / values - 1).max()), 2**-16)
        self.assertAlmostEqual(float((near / values - 1).mean()), 0, delta=1e-6)
        odd = np.array([np.finfo(np.float32).max, -np.finfo(np.float32).max, np.inf, 0, 65535, 0.1])
        odd = odd.astype(np.float32)
        np.testing.assert_array_equal(showing.rounded(odd)[:-1], odd[:-1])
        for kept in (np.arange(300), np.array([0.1, 9], np.float16), np.full(9, 0.1)):
            np.testing.assert_array_equal(showing.rounded(kept), kept)

    def test_planes(self):
        """Each array once, and small: two bytes and a half of a weight, base64 left aside."""
        torch.manual_seed(0)
        pack, weights = showing.Pack(), 0.05 * torch.randn(300, 100).numpy()
        places = [pack.array(weights), pack.array(np.arange(5)), pack.array(weights)]
        self.assertEqual(places[0], places[2])
        planes = np.frombuffer(pack.planes(), np.uint8).reshape(4, -1)
        for place, expected in zip(places, (weights, np.arange(5)), strict=False):
            own = np.ascontiguousarray(planes.T).view(np.float32).ravel()[place["offset"] // 4 :]
            own = own[: expected.size].reshape(expected.shape)
            np.testing.assert_allclose(own, expected, rtol=2**-16)
        self.assertLess(len(showing.as_text(pack.planes())) * 3 / 4, 2.5 * weights.size)


if __name__ == "__main__":
    unittest.main()
