"""page.py: one file that a browser opens from disk, whose answers are PyTorch's.

Its parts are in the suite `page_parts`. What needs a browser needs onnxruntime-web as well: kept in
`data/.cache`, or as the file that LAB_WEB_RUNTIME names; else it is skipped.
"""

import base64
import io
import json
import os
import tempfile
import unittest
from itertools import product
from pathlib import Path
from unittest import mock

import av
import numpy as np
import torch
from PIL import Image

from lab import web_runtime
from lab.images import cut_out
from tasks import showing
from tasks.diffusion import export as diffusion_export
from tasks.diffusion.networks import make_pipeline
from tasks.diffusion.painting import prepared
from tasks.diffusion.words import encode_prompts, make_tokenizer, tokenizer_state
from tasks.exporting import as_images
from tasks.trained import load_trained, preprocess_of_run
from tests.browser import HAS_BROWSER, Browser
from tests.support import PROJECT, ScriptCase, script_here
from tests.test_anatomy import KNOWN
from tests.test_export import RUNS_ONNX, photographs, save_run

KEPT = Path(os.environ.get("LAB_WEB_RUNTIME") or web_runtime.FOLDER / web_runtime.NAME)
WHOLE = RUNS_ONNX and HAS_BROWSER and KEPT.is_file()


def setUpModule():
    unittest.addModuleCleanup(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(1)


def film_frames(count: int) -> np.ndarray:
    """Return frames, uint8 (count, 64, 96, 3), each much lighter or darker than those beside it."""
    y, x = np.mgrid[:64, :96]
    ramp = np.stack((x, y, 96 - x), 2) / 4 + 10
    return (ramp + 3 * (37 * np.arange(count) % 60)[:, None, None, None]).astype(np.uint8)


def save_film(path: Path, codec: str, frames: np.ndarray) -> None:
    """Write frames, 30 a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())


class WrittenCase(ScriptCase):
    """A page, written by the script; `open` is a browser with it."""

    task, network, more, flags, reads = "classification", "classifier", {}, (), False

    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.pictures = []
        for k, (height, width) in enumerate(((120, 160), (203, 131))):
            cls.pictures.append(cls.folder / f"picture_{k}.png")
            Image.fromarray(photographs(1, height, width)[0].numpy()).save(cls.pictures[-1])
        cls.run_folder = save_run(cls.folder / "run", cls.task, cls.network, **cls.more)
        cls.trained = load_trained(cls.run_folder / "ckpt_epoch_1.pth", "cpu", "fp32")
        if cls.reads:
            own = {"class_names": cls.trained.classes}
            reader = save_run(cls.folder / "reader", "classification", "classifier", **own)
            cls.flags = ("--read", reader)
        done = script_here(
            "page.py", *cls.command(), "--runtime", KEPT, *cls.flags,
            *(["--image", *cls.pictures] if cls.trained.task.takes_pictures else []),
        )  # fmt: skip
        if done.returncode:
            raise AssertionError(done.stderr)
        cls.file = cls.run_folder / "page.html"
        cls.browser = cls.enterClassContext(Browser())
        cls.browser.size(1280)
        cls.browser.open(cls.file.as_uri())
        cls.browser.wait("globalThis.page?.count")

    @classmethod
    def command(cls) -> list[object]:
        return ["--ckpt_path", cls.run_folder]

    def answers(self, path: Path, *names: str) -> list[object]:
        """Return what the page leaves in `page` for a picture that is uploaded."""
        count = self.browser.ask("page.count")
        self.browser.give("#file", path)
        self.settled(count)
        return [self.browser.ask(f"page.{name}") for name in names]

    def settled(self, count: int) -> None:
        """Wait until the page has answered once more, and answers no more."""
        self.browser.wait(f"page.count > {count}")
        while (now := self.browser.ask("page.count")) != count:
            count = now
            self.browser.ask("new Promise(resolve => setTimeout(resolve, 300))")

    def drawn(self, selector: str) -> np.ndarray:
        """Return what is on a canvas, uint8 (H, W, 3)."""
        found = self.browser.ask(f"""(own => [own.height, own.width, Array.from(own.getContext("2d")
            .getImageData(0, 0, own.width, own.height).data)])
            (document.querySelector({json.dumps(selector)}))""")
        return np.reshape(np.uint8(found[2]), (*found[:2], 4))[..., :3]

    def click(self, selector: str) -> None:
        self.browser.ask(f"document.querySelector({json.dumps(selector)}).click()")

    def assert_quiet(self) -> None:
        """Nothing went wrong, and nothing but the file itself was asked for."""
        self.assertEqual(self.browser.faults, [])
        outside = [own for own in self.browser.requests if not own.startswith(("data:", "blob:"))]
        self.assertEqual(outside, [self.file.as_uri()])
        self.assertEqual(self.browser.ask("document.querySelector('.fault')?.textContent"), None)

    def assert_fits(self) -> None:
        """Nothing is wider than the window, and each control has a name, in both languages."""
        nameless = """[...document.querySelectorAll("button, input, select, [role=img]")].filter(
            own => own.checkVisibility() && !(own.getAttribute("aria-label")
            || own.textContent.trim() || own.labels?.[0]?.textContent.trim()))
            .map(own => own.outerHTML)"""
        for width in (390, 1280):
            self.browser.size(width)
            columns = "getComputedStyle(document.querySelector('main > div')).gridTemplateColumns"
            self.assertEqual(len(self.browser.ask(columns).split()), 1 + (width > 900))
            for _ in range(2):
                self.click("#language")
                known = self.browser.ask("[document.documentElement.lang, language.innerText]")
                self.assertIn(known, (["en", "中文"], ["zh-Hans", "English"]))
                self.assertEqual(self.browser.ask(nameless), [])
                spoken = "[...document.querySelectorAll('.slider')].map(own => own.innerText)"
                for line in self.browser.ask(spoken):
                    self.assertRegex(line, r"(?i)[a-z]{4}|[\u4e00-\u9fff]{2}")
                wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
                self.assertEqual(self.browser.ask(wide), 0, width)
                left = "document.body.innerText.match(/\\{\\w+\\}|undefined|NaN|\\[object/)?.[0]"
                self.assertEqual(self.browser.ask(left), None)


@unittest.skipUnless(WHOLE, "needs Chromium, onnx and onnxruntime-web")
class ClassifierTest(WrittenCase):
    def test_answers(self):
        """Logits and gradient are PyTorch's, of pictures that are uploaded."""
        for path in self.pictures:
            (logits,), gradient, label = self.answers(path, "logits", "gradient", "label")
            images = preprocess_of_run(self.trained.state).read([path]).requires_grad_()
            expected = self.trained.network(images)
            scale = float(expected.detach().abs().max())
            # The input is not rounded to levels, as a file's is.
            np.testing.assert_allclose(logits, expected[0].detach(), atol=0.02 * scale)
            self.assertEqual(int(np.argmax(logits)), int(expected.argmax()))

            picture = torch.from_numpy(np.array(Image.open(path).convert("RGB")))[None]
            images = as_images(picture, preprocess_of_run(self.trained.state)).requires_grad_()
            expected = self.trained.network(images)
            np.testing.assert_allclose(logits, expected[0].detach(), atol=1e-3 * scale)
            (slope,) = torch.autograd.grad(expected[0, label], images)
            far = np.abs(np.reshape(gradient, slope.shape) - slope.numpy()).max()
            self.assertLess(far, 1e-3 * float(slope.abs().max()))
        self.assert_quiet()

    def test_controls(self):
        """Each is used once: layer, map, class, sliders, fooling, theme, samples, drawing."""
        ask = self.browser.ask
        self.answers(self.pictures[0])
        ask("(layer.selectedIndex = 3, layer.dispatchEvent(new Event('change')))")
        self.assertEqual(ask("document.querySelectorAll('.maps button').length"), 128)
        self.click(".maps button:nth-child(7)")
        self.assertEqual(
            ask("document.querySelector('.maps [aria-pressed=true]').ariaLabel.match(/\\d+/)[0]"),
            "6",
        )
        self.assertTrue(
            ask("[...document.querySelectorAll('#one-map canvas')].every(c => c.width > 2)")
        )
        count = ask("page.count")
        self.click(".bars li:nth-child(2) button")
        self.settled(count)
        second = ask("Number(document.querySelector('.bars li:nth-child(2) button').dataset.class)")
        self.assertEqual(ask("page.label"), second)
        name = self.trained.classes[second]
        self.assertIn(f"score of “{name}”", ask("document.body.innerText"))
        before, count = ask("page.logits[0]"), ask("page.count")
        ask("""document.querySelectorAll('.slider input').forEach((own, k) => {
            own.value = [30, 0.1, -0.1, 0.8][k]; own.dispatchEvent(new Event('input')); })""")
        self.settled(count)
        self.assertGreater(float(np.abs(np.subtract(before, ask("page.logits[0]"))).max()), 1e-3)
        self.click("#step")
        self.browser.wait("!!document.querySelector('[data-fooled]')")
        self.click("#go")
        self.browser.wait("!!document.querySelector('[data-fooled=true]')")
        figure = ".card:has({}) .side figure:nth-child({}) canvas"
        places = ("[data-words*=saliency_note]", 1), ("#go", 1), ("#go", 2)
        seen, *fooled = (self.drawn(figure.format(*own)) for own in places)
        far = fooled[0].astype(int) - seen
        self.assertLessEqual(int(np.abs(far).max()), 26)  # a tenth of 255, rounded
        shown = (fooled[1].astype(int) - 127.5) / 5
        np.testing.assert_allclose(far[np.abs(far) < 25], shown[np.abs(far) < 25], atol=2)
        self.assertGreater(int(np.abs(far).max()), 0)
        for selector in ("#reset", "#theme", "#draw", ".samples button:nth-child(2)"):
            count = ask("page.count")
            self.click(selector)
            if selector != "#theme":
                self.settled(count)
        self.assertEqual(ask("document.documentElement.dataset.theme"), "dark")
        self.assert_quiet()

    def test_fooling_again(self):
        """A step that is under way when all begins anew is none."""
        ask = self.browser.ask
        self.answers(self.pictures[0])
        first = ask("Number(document.querySelector('.bars button').dataset.class)")
        ask(f"target.value = {(first + 1) % 4}")
        for _ in range(2):
            ask("(step.click(), document.querySelector('#go ~ button').click())")
            ask("new Promise(resolve => setTimeout(resolve, 400))")
            said = "document.querySelector('.row + [role=status]').textContent"
            self.assertEqual(ask(said), "")
        self.assert_quiet()

    def test_failed_once(self):
        """What is asked for while something fails is done all the same."""
        count = self.browser.ask("page.count")
        self.browser.ask("""(post => {
            Worker.prototype.postMessage = function (message) {
                Worker.prototype.postMessage = post;
                return post.call(this, { ...message, name: "none" });
            };
            [10, 20].forEach(value => {
                turn.value = value;
                turn.dispatchEvent(new Event("input")); }); })(Worker.prototype.postMessage)""")
        self.settled(count)
        self.click("#reset")
        self.answers(self.pictures[0])
        self.assert_quiet()

    def test_inside(self):
        """A map's kernel and what it says at most, and the transformer's frame, are PyTorch's."""
        ask, path = self.browser.ask, self.pictures[0]
        self.answers(path)
        ask("(layer.selectedIndex = 0, layer.dispatchEvent(new Event('change')))")
        shown = self.trained.task.shown(self.trained)
        kernels = shown.arrays["kernel_0"]
        pixels = torch.from_numpy(np.array(Image.open(path)))[None]
        with torch.inference_mode():
            answers = shown.graphs[0].network(pixels)
        answers = dict(zip(shown.graphs[0].outputs, answers, strict=True))
        for k in (2, 5):
            self.click(f".maps button:nth-child({k + 1})")
            expected = (kernels[k] / np.abs(kernels[k]).max() + 1) / 2 * 255
            own = self.drawn("#one-map figure:nth-child(2) canvas")
            np.testing.assert_allclose(own, expected.transpose(1, 2, 0), atol=1)
            said = ask("document.querySelector('#one-map figcaption').textContent")
            most = float(answers["layer_0"][0, k].max())
            self.assertAlmostEqual(float(said.rpartition(" ")[2]), most, delta=0.011)
        drawing = self.drawn(".card:has([data-words*=transformer_note]) canvas").astype(int)
        (a, b, x), (c, d, y) = answers["theta"].view(2, 3).tolist()
        side = drawing.shape[0] / 1.4  # a fifth of margin on each side
        columns = [
            0.2 * side + side * (x + s * a + t * b + 1) / 2 for s in (-1, 1) for t in (-1, 1)
        ]
        rows = [0.2 * side + side * (y + s * c + t * d + 1) / 2 for s in (-1, 1) for t in (-1, 1)]
        marked = np.argwhere(np.abs(drawing - [255, 0, 255]).max(2) < 9)
        for own, expected in zip(marked.T, (rows, columns), strict=True):
            low, high = np.clip([min(expected), max(expected)], 0, drawing.shape[0] - 1)
            np.testing.assert_allclose([own.min(), own.max()], [low, high], atol=14)

    def test_turned(self):
        """Clockwise, to the right and down; what is clear in a picture is white."""
        pixels = np.zeros((60, 60, 4), np.uint8)
        pixels[..., 3] = 255
        pixels[:, :30, 0] = 255  # red on the left
        pixels[:30, 30:, 3] = 0  # clear at the upper right
        path = self.folder / "halves.png"
        Image.fromarray(pixels).save(path)
        self.answers(path)
        red, white, black, grey = [255, 0, 0], [255] * 3, [0] * 3, [128] * 3

        def corners() -> list[list[int]]:
            whole = self.drawn("#picture")
            return [whole[y, x].tolist() for y in (5, 54) for x in (5, 54)]

        self.assertEqual(corners(), [red, white, red, black])
        for name, value, expected in (("turn", 90, [red, red, black, white]),
                                      ("shift_x", 0.25, [grey, white, grey, black]),
                                      ("shift_y", 0.25, [grey, grey, red, black]),
                                      ("scale", 0.5, [grey] * 4)):  # fmt: skip
            self.click("#reset")
            ask = f"({name}.value = {value}, {name}.dispatchEvent(new Event('input')))"
            count = self.browser.ask("page.count")
            self.browser.ask(ask)
            self.settled(count)
            self.assertEqual(corners(), expected, name)
        self.click("#reset")
        self.answers(self.pictures[0])

    def test_camera(self):
        """A stream of pictures until it is stopped."""
        count = self.browser.ask("page.count")
        self.click("#camera")
        self.browser.wait(f"page.count > {count + 3}")
        self.click("#camera")
        self.answers(self.pictures[0])
        self.assert_quiet()

    def test_a_camera_asked_for_twice(self):
        """None stays on: neither the first of two, nor one that a picture has come before."""
        ask = self.browser.ask
        ask("""(devices => { const own = devices.getUserMedia.bind(devices);
            globalThis.streams = [];
            devices.getUserMedia = async (how) => {
                const stream = await own(how);
                streams.push(stream);
                return stream;
            }; })(navigator.mediaDevices)""")
        on = "streams.filter(own => own.getTracks()[0].readyState === 'live').length"
        ask("(camera.click(), camera.click())")
        self.browser.wait("streams.length === 2 && camera.textContent.includes('Stop')")
        self.assertEqual(ask(on), 1)
        self.click("#camera")
        self.assertEqual((ask(on), ask("camera.textContent")), (0, "Camera"))
        ask("(camera.click(), document.querySelector('.samples button').click())")
        self.browser.wait("streams.length === 3")
        self.answers(self.pictures[0])
        self.assertEqual((ask(on), ask("camera.textContent")), (0, "Camera"))
        self.assert_quiet()

    def test_the_last_picture(self):
        """Of two that are on their way the one asked for last; dropped anywhere on the page."""
        ask = self.browser.ask
        ask("""(globalThis.kept = createImageBitmap, globalThis.slow = 1,
            globalThis.createImageBitmap = async (blob, how) => {
                const bitmap = await kept(blob, how);
                if (slow-- > 0) await new Promise(resolve => setTimeout(resolve, 500));
                globalThis.read = (globalThis.read ?? 0) + 1;
                return bitmap;
            })""")
        for path in self.pictures:
            self.browser.give("#file", path)
        self.browser.wait("globalThis.read === 2")
        self.settled(ask("page.count") - 1)
        self.assertEqual(ask("[picture.width, picture.height]"), [131, 203])
        ask("createImageBitmap = kept")
        count = ask("page.count")
        taken = ask("""new Promise(resolve => Object.assign(document.createElement("canvas"),
            { width: 30, height: 20 }).toBlob(blob => {
                const dataTransfer = new DataTransfer();
                dataTransfer.items.add(new File([blob], "a.png", { type: "image/png" }));
                const how = { dataTransfer, bubbles: true, cancelable: true };
                resolve(["dragover", "drop"].map(name =>
                    !document.querySelector("footer").dispatchEvent(new DragEvent(name, how))));
            }))""")
        self.assertEqual(taken, [True, True])
        self.settled(count)
        self.assertEqual(ask("[picture.width, picture.height]"), [30, 20])
        self.assert_quiet()

    def test_a_picture_while_unpacking(self):
        """What is drawn or chosen before the networks are there is not taken away."""
        early = """new MutationObserver((_, own) => {
            if (!document.querySelector("#draw")) return;
            own.disconnect();
            document.querySelector("#draw").click();
        }).observe(document, { childList: true, subtree: true })"""
        known = self.browser.call("Page.addScriptToEvaluateOnNewDocument", source=early)
        self.browser.open(self.file.as_uri())
        self.browser.wait("globalThis.page?.count")
        self.browser.call("Page.removeScriptToEvaluateOnNewDocument", **known)
        self.settled(0)
        self.assertTrue(self.browser.ask("!!document.querySelector('.drawing canvas')"))
        self.assert_quiet()
        self.answers(self.pictures[0])

    def test_odd_pictures(self):
        """Turned by EXIF, huge, clear in places; one that is none is named, and nothing lost."""
        array = photographs(1, 90, 150)[0].numpy()
        plain, turned, huge = (
            self.folder / name for name in ("plain.png", "turned.png", "huge.png")
        )
        Image.fromarray(array).save(plain)
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by a quarter, clockwise
        Image.fromarray(np.rot90(array).copy()).save(turned, exif=exif)
        (own,), (other,) = self.answers(plain, "logits")[0], self.answers(turned, "logits")[0]
        np.testing.assert_allclose(own, other, atol=1e-4)
        Image.new("RGB", (9000, 5000), "red").save(huge)
        self.answers(huge)
        size = self.browser.ask("[picture.width, picture.height]")
        self.assertEqual(size, [640, 356])
        none = self.folder / "none.png"
        none.write_bytes(b"no picture")
        self.browser.give("#file", none)
        self.browser.wait("document.querySelector('.fault')?.textContent.includes('none.png')")
        self.answers(plain)
        self.assert_quiet()

    def test_an_old_browser(self):
        """What it lacks is said in words."""
        old = "delete globalThis.DecompressionStream"
        known = self.browser.call("Page.addScriptToEvaluateOnNewDocument", source=old)
        self.browser.open(self.file.as_uri())
        fault = "document.querySelector('.fault')?.textContent"
        self.assertIn("DecompressionStream", self.browser.wait(fault))
        self.browser.call("Page.removeScriptToEvaluateOnNewDocument", **known)
        older = "delete Uint8Array.fromBase64"  # what is not needed
        known = self.browser.call("Page.addScriptToEvaluateOnNewDocument", source=older)
        self.browser.open(self.file.as_uri())
        self.browser.wait("globalThis.page?.count")
        self.browser.call("Page.removeScriptToEvaluateOnNewDocument", **known)

    def test_looks(self):
        self.assert_fits()
        text = self.file.read_text(encoding="utf-8")
        self.assertIn("ckpt_epoch_1.pth", text)
        self.assertIn('id="packed-run0-slope"', text)
        self.assertLess(len(text), 10e6)  # with saliency in it
        self.assertNotRegex(text.partition("<script")[0], r"https?://")


@unittest.skipUnless(WHOLE, "needs Chromium, onnx and onnxruntime-web")
class DetectorTest(WrittenCase):
    task, network, reads = "detection", "center_net", True
    more = {"class_names": ["stop", "give_way", "no_entry", "roundabout"]}

    def test_answers(self):
        """Boxes, scores and classes are PyTorch's, and so is what the second network reads."""
        (detector,), total = self.trained.task.exported(self.trained), 0
        reader = load_trained(self.folder / "reader/ckpt_epoch_1.pth", "cpu", "fp32")
        (classifier,) = reader.task.exported(reader)
        names = [["stop", "停车让行"], ["give way", "减速让行"], ["no entry", "禁止驶入"]]
        names.append(["roundabout", "环岛行驶"])
        for path in self.pictures:
            (found,), image = self.answers(path, "found"), Image.open(path).convert("RGB")
            with torch.inference_mode():
                answers = detector.network(torch.from_numpy(np.array(image))[None])
            boxes, scores, labels = (own[0] for own in answers)
            count = int((scores > 0).sum())
            self.assertEqual(len(found), count)
            np.testing.assert_allclose([own["score"] for own in found], scores[:count], atol=1e-3)
            np.testing.assert_allclose([own["box"] for own in found], boxes[:count], atol=0.3)
            self.assertEqual([own["label"] for own in found], labels[:count].tolist())
            for own in (own for own in found if "read" in own):
                crop = np.array(cut_out(image, own["box"]))
                shares = classifier.network(torch.from_numpy(crop)[None])[0].detach()
                self.assertAlmostEqual(own["read"]["share"], float(shares.max()), places=3)
                self.assertEqual(own["read"]["name"], names[int(shares.argmax())])
                total += 1
        self.assertGreater(total, 0)

    def test_controls(self):
        """A higher threshold leaves fewer lines; the camera gives one still."""
        ask = self.browser.ask
        self.answers(self.pictures[0])
        count = "document.querySelectorAll('#found tbody tr').length"
        for value in (0.05, 0.95):
            ask(f"(own => {{ own.value = {value}; own.dispatchEvent(new Event('input')) }})"
                "(document.querySelector('#threshold'))")  # fmt: skip
            self.browser.wait(f"page.found.every(own => own.score < {value} || own.read)")
            sure = "own.score * own.read?.share"  # as test.py has it
            expected = ask(f"page.found.filter(own => {sure} >= {value}).length")
            self.browser.wait(f"{count} === {expected}")
        plain = np.array(Image.open(self.pictures[0]).convert("RGB"))
        np.testing.assert_array_equal(self.drawn("#picture"), plain)
        ask("(threshold.value = 0.05, threshold.dispatchEvent(new Event('input')))")
        sure = "page.found.filter(own => own.score * own.read?.share >= 0.05).map(own => own.box)"
        left, top, right, bottom = np.round(max(ask(sure), key=lambda box: box[2])).astype(int)
        far = np.abs(self.drawn("#picture").astype(int) - plain).max(2)
        edge = far[(top + bottom) // 2, max(0, left - 1) : left + 2]
        self.assertGreater(int(edge.max()), 20)
        before = ask("page.count")
        self.click("#camera")
        self.browser.wait("!document.querySelector('#snap').disabled")
        self.settled(before)
        self.click("#snap")
        self.settled(before + 1)
        self.assertTrue(ask("document.querySelector('#snap').disabled && picture.width <= 640"))
        self.assert_quiet()

    def test_language(self):
        """Classes that are well known are Chinese on the Chinese page, in the picture as well."""
        ask = self.browser.ask
        self.answers(self.pictures[0])
        ask("(threshold.value = 0.05, threshold.dispatchEvent(new Event('input')))")
        self.browser.wait("page.found.every(own => own.read || own.score < 0.05)")
        ask("new Promise(resolve => setTimeout(resolve, 100))")
        names = "[...document.querySelectorAll('#found td:nth-child(1)')].map(own => own.innerText)"
        pixels = "picture.toDataURL()"
        before, english = ask(pixels), ask(names)
        known = {
            "stop": "停车让行",
            "give way": "减速让行",
            "no entry": "禁止驶入",
            "roundabout": "环岛行驶",
        }
        self.assertTrue(english and set(english) <= set(known), english)
        self.click("#language")
        self.assertEqual(ask(names), [known[name] for name in english])
        read = ask("document.querySelector('#found td:nth-child(3)').innerText")
        self.assertIn(read, known.values())
        self.assertNotEqual(ask(pixels), before)
        self.click("#language")
        self.assertEqual((ask(names), ask(pixels)), (english, before))

    def test_looks(self):
        self.assert_fits()


@unittest.skipUnless(WHOLE, "needs Chromium, onnx and onnxruntime-web")
class SmallDetectorTest(WrittenCase):
    task, network, more = "detection", "center_net", {"longest": 96}

    def test_answers(self):
        """Of a picture as large as those it was trained on; boxes are of the whole one."""
        self.browser.ask("""(post => { Worker.prototype.postMessage = function (message) {
            Worker.prototype.postMessage = post;
            globalThis.given = message.inputs.pictures;
            return post.call(this, message); }; })(Worker.prototype.postMessage)""")
        (found,) = self.answers(self.pictures[0], "found")
        shape = self.browser.ask("given.dims")
        self.assertEqual(shape, [1, 72, 96, 3])
        pixels = np.reshape(np.uint8(self.browser.ask("Array.from(given.data)")), shape)
        (detector,) = self.trained.task.exported(self.trained)
        with torch.inference_mode():
            boxes, scores, _ = (own[0] for own in detector.network(torch.from_numpy(pixels)))
        self.assertEqual(len(found), int((scores > 0).sum()))
        whole = boxes[: len(found)] * 160 / 96
        np.testing.assert_allclose([own["box"] for own in found], whole, atol=0.3)
        count = self.browser.ask("document.querySelectorAll('#found tbody tr').length")
        self.assertEqual(count, int((scores >= 0.3).sum()))
        self.assertEqual(self.browser.ask("picture.width"), 160)
        self.assert_quiet()


@unittest.skipUnless(WHOLE, "needs Chromium, onnx and onnxruntime-web")
class LabellerTest(WrittenCase):
    task, network = "segmentation", "res_unet"

    def test_answers(self):
        """Labels are PyTorch's; a class that is left out is not laid over the picture."""
        (labeller,), ask = self.trained.task.exported(self.trained), self.browser.ask
        for path in self.pictures:
            (labels,) = self.answers(path, "labels")
            picture = torch.from_numpy(np.array(Image.open(path).convert("RGB")))[None]
            expected = labeller.network(picture)[0].flatten().numpy()
            self.assertGreater(float((expected == np.array(labels)).mean()), 0.999)
        pixels = "String(picture.getContext('2d').getImageData(0, 0, picture.width, 99).data)"
        before = ask(pixels)
        self.click("#labels button")
        self.assertNotEqual(ask(pixels), before)
        self.click("#labels button")
        self.assertEqual(ask(pixels), before)
        ask("(opacity.value = 0, opacity.dispatchEvent(new Event('input')))")
        plain = np.array(Image.open(self.pictures[-1]).convert("RGB"))
        np.testing.assert_array_equal(self.drawn("#picture"), plain)
        self.assert_quiet()

    def test_looks(self):
        self.assert_fits()


@unittest.skipUnless(WHOLE, "needs Chromium, onnx and onnxruntime-web")
class PainterTest(WrittenCase):
    task, network = "style", "transform"

    def test_answers(self):
        """Painted as PyTorch paints, to a level; larger when asked."""
        (painter,) = self.trained.task.exported(self.trained)
        for path in self.pictures:
            painted, size = self.answers(path, "painted", "size")
            picture = torch.from_numpy(np.array(Image.open(path).convert("RGB")))[None]
            expected = painter.network(picture)
            self.assertEqual(size, [expected.shape[2], expected.shape[1]])
            far = np.abs(expected.flatten().numpy().astype(int) - np.array(painted))
            self.assertLessEqual(int(far.max()), 1)
        count = self.browser.ask("page.count")
        self.browser.ask(
            "(own => { own.value = 128; own.dispatchEvent(new Event('input')) })"
            "(document.querySelector('#side'))"
        )
        self.settled(count)
        self.assertEqual(max(self.browser.ask("page.size")), 128)
        saved = self.browser.ask("""(HTMLAnchorElement.prototype.click = function () {
            globalThis.saved = [this.download, this.href]; },
            save.click(), globalThis.saved)""")
        self.assertEqual(saved[0], "run.png")
        with Image.open(io.BytesIO(base64.b64decode(saved[1].partition(",")[2]))) as image:
            own = np.array(image.convert("RGB"))
        np.testing.assert_array_equal(own.ravel(), self.browser.ask("page.painted"))
        self.assert_quiet()

    def test_looks(self):
        self.assert_fits()


@unittest.skipUnless(WHOLE, "needs Chromium, onnx and onnxruntime-web")
class ClipTest(WrittenCase):
    task, network = "video", "cnn3d"
    more = {
        "dataset": "motion", "data_root": "none", "class_names": ["left", "right", "up", "still"]
    }  # fmt: skip

    def test_answers(self):
        """After each frame, and in each order, what PyTorch says; shuffles differ."""
        self.assertFalse((PROJECT / "none").exists(), "no data set is drawn for a page")
        self.settled(0)
        (clips,) = self.trained.task.exported(self.trained)
        strip = self.browser.ask(
            "JSON.parse(document.querySelector('#facts').textContent).runs[0].clips[0].strip"
        )
        with Image.open(io.BytesIO(base64.b64decode(strip.partition(",")[2]))) as image:
            frames = np.array(image)
        count = self.trained.state["configs"]["frames"]
        clip = torch.from_numpy(np.stack(np.split(frames, count, 1)))
        held = torch.stack([clip[torch.arange(count).clamp(max=k)] for k in range(count)])
        with torch.inference_mode():
            expected, reversed_ = clips.network(held), clips.network(clip.flip(0)[None])
        np.testing.assert_allclose(self.browser.ask("page.shares"), expected, atol=1e-3)
        orders = self.browser.ask("page.orders")
        np.testing.assert_allclose(orders[0], expected[-1], atol=1e-3)
        np.testing.assert_allclose(orders[1], reversed_[0], atol=1e-3)
        for k, label in product((0, count - 1), range(4)):  # each class's line of the chart
            x = 75 + (k + 0.5) / count * (900 - 95)
            y = 20 + (1 - float(expected[k, label])) * (300 - 60)
            around = f"getImageData({round(x) - 2}, {round(y) - 2}, 5, 5).data[4 * k + 3]"
            ink = f"Array(25).keys().map(k => chart.getContext('2d').{around})"
            self.assertGreater(self.browser.ask(f"Math.max(...{ink})"), 200)
        now = self.browser.ask("page.count")
        self.click("#shuffle")
        self.settled(now)
        self.assertNotEqual(self.browser.ask("page.orders")[2], orders[2])
        self.assertEqual(self.browser.ask("page.orders")[1], orders[1])
        self.click("#language")
        said = self.browser.ask("document.querySelector('.bars').innerText")
        said += self.browser.ask("document.querySelector('#chart ~ p').innerText")
        self.click("#language")
        self.assertIn(["向左", "向右", "向上", "静止"][int(np.argmax(orders[0]))], said)
        self.assertNotRegex(said, "[a-z]")

    def test_film(self):
        """A film's frames, a twelfth of a second apart, and what PyTorch says of those frames."""
        (clips,) = self.trained.task.exported(self.trained)
        count = self.trained.state["configs"]["frames"]
        for name, codec, seconds in (("a.mp4", "libx264", 2), ("b.webm", "libvpx", 2),
                                     ("short.mp4", "libx264", 0.4)):  # fmt: skip
            path, frames = self.folder / name, film_frames(round(30 * seconds))
            save_film(path, codec, frames)
            now = self.browser.ask("page.count")
            self.browser.give("#file", path)
            self.settled(now)
            strip = self.browser.ask(
                "(own => [own.width, own.height, Array.from(own.getContext('2d')"
                ".getImageData(0, 0, own.width, own.height).data)])"
                "(document.querySelector('#chart').closest('.card').parentNode"
                ".querySelector('.side canvas'))"
            )
            pixels = np.reshape(np.uint8(strip[2]), (strip[1], strip[0], 4))[..., :3]
            height, width = frames.shape[1:3]
            own = pixels.reshape(strip[1] // height, height, strip[0] // width, width, 3)
            own = own.swapaxes(1, 2).reshape(-1, height, width, 3)[:count]
            apart = min(1 / 12, seconds / count)
            there = frames[[int((k + 0.5) * apart * 30 + 1e-6) for k in range(count)]]
            far = np.abs(own.astype(int) - there).mean((1, 2, 3))
            self.assertLess(float(far.max()), 8, (name, far.round(1)))
            held = [[min(k, last) for k in range(count)] for last in range(count)]
            with torch.inference_mode():
                expected = clips.network(torch.from_numpy(own[held]))
                of_film = clips.network(torch.from_numpy(there[held]))
            shares = self.browser.ask("page.shares")
            np.testing.assert_allclose(shares, expected, atol=1e-3)
            np.testing.assert_allclose(shares, of_film, atol=0.1)
        self.assert_quiet()

    def test_controls(self):
        """As many frames by camera as are taken; a file that is no film is named; the chart."""
        now = self.browser.ask("page.count")
        self.click("#camera")
        self.settled(now)
        self.assertFalse(self.browser.ask("document.querySelector('#camera').disabled"))
        self.browser.give("#file", self.pictures[0])
        self.browser.wait("document.querySelector('.fault')?.textContent.includes('.png')")
        before = self.browser.ask("chart.toDataURL()")
        self.click("#theme")
        self.assertNotEqual(self.browser.ask("chart.toDataURL()"), before)  # in the other ink
        self.click("#theme")
        self.assertEqual(self.browser.ask("chart.toDataURL()"), before)
        now = self.browser.ask("page.count")
        self.click(".samples button:nth-child(2)")
        self.settled(now)
        self.assert_quiet()

    def test_looks(self):
        self.assert_fits()


@unittest.skipUnless(WHOLE, "needs Chromium, onnx and onnxruntime-web")
class WordsTest(WrittenCase):
    task, network = "diffusion", "latent_diffusion"

    @classmethod
    def setUpClass(cls):
        cls.tokenizer = make_tokenizer(["a stop sign at night, nights"])
        state = tokenizer_state(cls.tokenizer)
        words = ["a", "at", "night", "sign", "stop"]
        cls.more = {"tokenizer": state, "words": words, "dataset": "captions"}
        cls.enterClassContext(mock.patch.object(diffusion_export, "STEPS", 4))
        small = {"channels": (32, 32), "text_layers": 1}
        cls.enterClassContext(mock.patch.dict(KNOWN, small))
        super().setUpClass()

    def idle(self):
        """Wait for the end of what is being painted: until then the button stops it."""
        self.browser.wait("document.querySelector('#go').dataset.words.includes('\"paint\"')")

    def looks(self, ids: torch.Tensor, latents: torch.Tensor, scheduler: object) -> None:
        """Check where each word of a prompt looks, over all steps."""
        graphs = {own.name: own.network for own in self.trained.task.shown(self.trained).graphs}
        scheduler.set_timesteps(4)
        total = 0
        with torch.inference_mode():
            states = graphs["text_encoder"](ids)
            for time in scheduler.timesteps:
                prediction, attention = graphs["step"](latents, time[None], states)
                latents = scheduler.step(prediction, time, latents).prev_sample
                total = total + attention[0]
        self.idle()
        for k in range(ids[0].tolist().index(1) - 1):
            own = self.drawn(f".looks figure:nth-child({k + 1}) canvas")[..., 1]  # green rises
            expected = total[k + 1].reshape(own.shape).numpy()
            expected = (expected / expected.mean()).clip(max=2.5)
            together = np.corrcoef(own.ravel(), expected.ravel())[0, 1]
            self.assertGreater(float(together), 0.95, k)

    def test_answers(self):
        """From words to pixels as diffusers' pipeline paints, from the same noise."""
        ask, prompts = self.browser.ask, ["a night sign, stop!", "At Nights"]
        for guidance, kind in ((1, prompts[:1]), (6.5, prompts)):
            self.idle()
            count = ask("page.count")
            ask(
                f"(document.querySelector('#prompt').value = '{kind[0]}',"
                f" other.value = '{''.join(kind[1:])}', seed.value = '5',"
                f" guidance.value = {guidance}, guidance.dispatchEvent(new Event('input')),"
                " go.click())"
            )
            self.settled(count)
            ids = encode_prompts(self.tokenizer, kind)
            self.assertEqual(ask("page.ids"), ids.tolist())
            pipeline = prepared(make_pipeline(self.trained.network, self.tokenizer))
            side = self.trained.network.unet.config.sample_size
            noise = torch.tensor(ask("page.noise")).view(1, -1, side, side)
            painted = pipeline(
                kind, latents=noise.repeat(len(kind), 1, 1, 1), num_inference_steps=4,
                guidance_scale=guidance, output_type="np",
            ).images  # fmt: skip
            own = np.reshape(ask("page.pictures"), painted.shape)
            self.assertLess(float(np.abs(own - 255 * painted).max()), 1.5)
            if guidance == 1:
                self.looks(ids, noise, pipeline.scheduler)
        self.assertEqual(ask("document.querySelectorAll('.course canvas').length"), 8)
        self.idle()
        count = ask("page.count")
        ask(
            "(other.value = '', go.click(), go.click(),"
            "document.querySelector('#prompt').value = 'stop', go.click())"
        )
        self.settled(count)
        self.idle()
        self.assertEqual(ask("page.count"), count + 1)  # the first was stopped, the second was not
        self.assertEqual(ask("page.ids"), encode_prompts(self.tokenizer, ["stop"]).tolist())
        ask(f"(document.querySelector('#prompt').value = '{prompts[0]}', other.value ="
            f" '{prompts[1]}', go.click())")  # fmt: skip
        self.idle()
        tokens = sum(row.index(1) - 1 for row in ids.tolist())  # between the start and the end
        self.assertEqual(ask("document.querySelectorAll('.looks figure').length"), tokens)
        self.idle()
        ask("(document.querySelector('#prompt').value = 'a zebra', other.value = '', go.click())")
        self.browser.wait("document.body.innerText.includes('zebra')")
        self.settled(ask("page.count"))
        self.assert_quiet()

    def test_looks(self):
        self.assert_fits()


@unittest.skipUnless(WHOLE, "needs Chromium, onnx and onnxruntime-web")
class SideBySideTest(WrittenCase):
    @classmethod
    def setUpClass(cls):
        folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        with mock.patch.dict(KNOWN, {"use_stn": False, "use_non_local": False}):
            cls.second = save_run(folder / "plain", "classification", "classifier")
        super().setUpClass()

    @classmethod
    def command(cls) -> list[object]:
        return ["--ckpt_path", cls.run_folder, cls.second]

    def test_answers(self):
        """Each run's own, on one picture; what is below is of the one that is chosen."""
        ask, picture = self.browser.ask, self.pictures[0]
        (logits,) = self.answers(picture, "logits")
        pixels = torch.from_numpy(np.array(Image.open(picture).convert("RGB")))[None]
        for own, path in zip(logits, (self.run_folder, self.second), strict=True):
            trained = load_trained(path / "ckpt_epoch_1.pth", "cpu", "fp32")
            expected = trained.network(as_images(pixels, preprocess_of_run(trained.state)))
            scale = float(expected.detach().abs().max())
            np.testing.assert_allclose(own, expected[0].detach(), atol=1e-3 * scale)
        first = "[...document.querySelectorAll('.bars')].map(own => own.querySelector('button'))"
        said = ask(f"{first}.map(own => Number(own?.dataset.class))")
        self.assertEqual(said, [int(np.argmax(own)) for own in logits])
        count = ask("page.count")
        self.click("[role=group] button:nth-child(2)")
        self.settled(count)
        hidden = "[...document.querySelectorAll('section')].filter(own => own.hidden).length"
        self.assertEqual(ask(hidden), 1)  # it has no transformer
        self.assert_quiet()

    def test_looks(self):
        self.assert_fits()


class RefusedTest(ScriptCase):
    def test_wrong_runs(self):
        """In a line: of several tasks, twice the same, of other classes, --read of a classifier."""
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        signs = save_run(folder / "signs", "classification", "classifier")
        style = save_run(folder / "style", "style", "transform")
        clips = save_run(folder / "clips", "video", "cnn3d")
        others = save_run(
            folder / "others", "classification", "classifier", class_names=["a", "b", "c", "other"]
        )
        for words, said in (
            ((signs, style), "side by side stand classifiers; these are of classification, style"),
            ((signs, signs), "names a run twice"),
            ((signs, others), "classifiers of the same classes"),
            ((signs, "--read", signs), "--read is of detection"),
            ((clips, "--image", "a.png"), "--image has no use on a page of video"),
        ):
            done = script_here("page.py", "--ckpt_path", *words)
            self.assert_refused(done, 2, said)
        done = script_here("page.py", "--ckpt_path", folder / "none")
        self.assert_refused(done, 1, "no checkpoints in")
        with mock.patch.object(showing, "find_spec", lambda name: None):
            done = script_here("page.py", "--ckpt_path", signs)
        self.assert_refused(done, 1, "pip install onnx onnxscript onnxruntime")
        self.enterContext(mock.patch.object(showing, "find_spec", lambda name: True))
        self.enterContext(mock.patch.object(showing, "find_runtime"))
        done = script_here("page.py", "--ckpt_path", signs, "--image", folder / "none.png")
        self.assert_refused(done, 1, "no image")
        self.assertFalse((signs / "export").exists())  # said before anything is exported
        (signs / "export").write_text("")
        done = script_here("page.py", "--ckpt_path", signs)
        self.assert_refused(done, 1, "cannot write to")
        self.assertFalse((signs / "page.html").exists())


if __name__ == "__main__":
    unittest.main()
