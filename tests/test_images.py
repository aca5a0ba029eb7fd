"""Preprocessing against torchvision's and closed forms; downloads from a real, hostile server."""

import io
import tempfile
import threading
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock
from urllib.parse import urlsplit

import numpy as np
import torch
from PIL import Image
from torch.testing import assert_close
from torchvision import models

from lab import fetching, images
from lab.console import LabError
from lab.fetching import fetch_image, image_path
from lab.imagenet import preprocess_of
from lab.images import Preprocess, cut_out, to_arrays

IMAGENET = Preprocess((4, 6), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Return coloured noise, smooth enough to be resized."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (9, 13, 3), np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(kind: str) -> bytes:
    """Return a picture as the bytes of a file."""
    buffer = io.BytesIO()
    picture(40, 30).save(buffer, kind)
    return buffer.getvalue()


class PreprocessTest(unittest.TestCase):
    def test_equals_torchvisions_presets(self):
        """Of every ImageNet network, what the transforms that come with its weights compute."""
        names = models.list_models(module=models)
        presets = {preprocess_of(name): name for name in names}  # one network for each
        self.assertGreater(len(presets), 10)
        self.assertIn(True, {preset.bicubic for preset in presets})
        for preset, name in presets.items():
            reference = models.get_model_weights(name).DEFAULT.transforms()
            for image in (picture(301, 233), picture(97, 160, "L")):
                with self.subTest(name, size=image.size):
                    found = preset.normalize(torch.from_numpy(preset.fit(image)[None].copy()))
                    expected = reference(image.convert("RGB"))[None]
                    assert_close(found, expected, rtol=0, atol=1e-6, check_stride=False)

    def test_odd_shapes(self):
        """Longer, taller and smaller than the crop, by one pixel or by far."""
        reference = models.get_model_weights("resnet18").DEFAULT.transforms()
        preset = preprocess_of("resnet18")
        for size in ((256, 257), (225, 224), (224, 224), (31, 700), (1000, 17), (500, 333)):
            with self.subTest(size):
                image = picture(*size)
                found = preset.normalize(torch.from_numpy(preset.fit(image)[None].copy()))
                assert_close(found[0], reference(image), rtol=0, atol=1e-6, check_stride=False)

    def test_lines_and_panoramas(self):
        """Only what is kept of them is made: a fraction of the memory, the same pixels."""
        preset = Preprocess((224, 224), resize=256)
        sizes = []

        def watch(image, size, *arguments):
            sizes.append(size)
            return resize(image, size, *arguments)

        resize = Image.Image.resize
        with mock.patch.object(Image.Image, "resize", watch):
            for size in ((3000, 1), (1, 3000), (20_000, 30)):
                self.assertEqual(preset.fit(picture(*size)).shape, (224, 224, 3))
        self.assertLess(max(width * height for width, height in sizes), 2**20)
        for size in ((700, 31), (17, 1000), (301, 233)):
            for bicubic in (False, True):
                preset = Preprocess((40, 48), resize=48, bicubic=bicubic)
                expected = preset.fit(picture(*size)).astype(int)
                with mock.patch.object(images, "RESIZED_LIMIT", 0):
                    found = preset.fit(picture(*size))
                self.assertLessEqual(np.abs(found - expected).max(), 1)

    def test_closed_form(self):
        """Each channel of uint8 pixels: (x / 255 - mean) / std."""
        pixels = torch.arange(256, dtype=torch.uint8)[:192].view(8, 2, 4, 3)
        for preprocess in (IMAGENET, Preprocess()):
            found = preprocess.normalize(pixels)
            self.assertEqual(found.shape, (8, 3, 2, 4))
            self.assertTrue(found.is_contiguous(memory_format=torch.channels_last))
            for channel in range(3):
                mean, std = preprocess.mean[channel], preprocess.std[channel]
                expected = (pixels[..., channel].double() / 255 - mean) / std
                assert_close(found[:, channel].double(), expected, rtol=0, atol=1e-6)
        self.assertEqual(pixels.max(), 191)  # left as they were

    def test_there_and_back(self):
        """`denormalize` gives the pixels back; black and white become the bounds."""
        rng = np.random.default_rng(0)
        for preprocess in (IMAGENET, Preprocess((4, 6), (0.3,), (0.2,))):
            with self.subTest(channels=len(preprocess.mean)):
                pixels = torch.from_numpy(rng.integers(0, 256, (5, *preprocess.shape), np.uint8))
                back = preprocess.denormalize(preprocess.normalize(pixels))
                assert_close(back * 255, pixels.permute(0, 3, 1, 2).float(), rtol=0, atol=1e-4)
                ends = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
                black, white = preprocess.normalize(ends.expand(2, 1, 1, len(preprocess.mean)))
                low, high = preprocess.bounds(torch.device("cpu"))
                assert_close(low, black)
                assert_close(high, white)

    def test_a_gradient_after_a_look_without(self):
        """Whoever asked first for mean and deviation, as a test does, a gradient goes through."""
        preprocess, pixels = Preprocess((2, 3), std=(0.5, 0.25, 0.125)), torch.ones(1, 2, 3, 3)
        with torch.inference_mode():
            preprocess.normalize(pixels.byte())
        images = torch.ones(1, 3, 2, 3, requires_grad=True)
        preprocess.denormalize(images).sum().backward()
        self.assertEqual(images.grad.sum((0, 2, 3)).tolist(), [3.0, 1.5, 0.75])

    def test_files(self):
        """A batch of files of any shape, in as many channels as the network takes."""
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / "wide.png", Path(folder) / "grey.png"]
            picture(40, 20).save(paths[0])
            picture(20, 40, "L").save(paths[1])
            colour = IMAGENET.read(paths)
            grey = Preprocess((4, 6), (0.5,), (0.5,)).read(paths)
            self.assertEqual((colour.shape, grey.shape), ((2, 3, 4, 6), (2, 1, 4, 6)))
            expected = np.array(
                picture(40, 20).convert("L").resize((6, 4), Image.Resampling.BILINEAR)
            )
            assert_close(grey[0, 0], torch.from_numpy(expected) / 127.5 - 1, rtol=0, atol=1e-6)
            (Path(folder) / "text.png").write_text("no image")
            with self.assertRaisesRegex(LabError, r"text\.png: not an image"):
                IMAGENET.read([paths[0], Path(folder) / "text.png"])

    def test_arrays_for_drawing(self):
        """(N, H, W, 3) in [0, 1]; grey is repeated, what lies outside cut off."""
        pixels = torch.tensor([-0.5, 0.25, 1.5]).view(1, 1, 1, 3)
        for channels in (1, 3):
            arrays = to_arrays(pixels.expand(2, channels, 4, 3))
            self.assertEqual(arrays.shape, (2, 4, 3, 3))
            np.testing.assert_array_equal(arrays[1, 2], [[0] * 3, [0.25] * 3, [1] * 3])


class CutOutTest(unittest.TestCase):
    def test_margin(self):
        """GTSRB's: a tenth of the sign's sides, and 5 pixels at least; black beyond the picture."""
        image = Image.linear_gradient("L")  # row k is k grey
        small = np.asarray(cut_out(image, (10, 10, 26, 30)))
        self.assertEqual((small.shape, *small[[0, -1], 0]), ((30, 26), 5, 34))
        large = np.asarray(cut_out(image, (0, 0, 100, 200)))
        self.assertEqual((large.shape, *large[[20, -1], 10]), ((240, 120), 0, 219))
        self.assertFalse(large[:, :10].any())


class Server(BaseHTTPRequestHandler):
    """A server for one test class; the path says how it behaves."""

    left = threading.Event()  # set when a trickle need not go on
    dried_up = threading.Event()  # set when it has ended by itself

    def do_GET(self):
        path = urlsplit(self.path).path
        redirects = {
            "/to-image": "/photo.png",
            "/to-file": "file:///etc/passwd",
            "/to-nonsense": "http://[",
            "/to-itself": "/to-itself",
        }
        if path in redirects:
            self.send_response(302)
            self.send_header("Location", redirects[path])
            self.end_headers()
        elif path == "/silent":
            self.left.wait(10)
        elif path in ("/trickle", "/trickle-headers"):
            self.trickle(in_headers=path == "/trickle-headers")
        elif path == "/missing.png":
            self.send_error(404)
        else:
            bodies = {"/page.png": b"<html>\n</html>", "/empty": b"", "/large.png": bytes(200_000)}
            bodies["/cut.png"] = encoded("PNG")[:-60]
            bodies["/photo"] = encoded("JPEG")
            body = bodies.get(path, encoded("PNG"))
            self.send_response(200)
            if path != "/large.png":  # it does not say how much is to come
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def trickle(self, in_headers: bool):
        """Send a byte now and then, for 10 s at the most."""
        self.send_response(200)
        if not in_headers:
            self.send_header("Content-Length", "100000")
            self.end_headers()
        self.flush_headers()
        try:
            for _ in range(200):
                self.wfile.write(b"x")
                if self.left.wait(0.05):
                    return
        except OSError:  # the other side has gone
            return
        self.dried_up.set()

    def log_message(self, *_):
        pass


class FetchTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
        cls.server.daemon_threads = True
        cls.address = f"http://127.0.0.1:{cls.server.server_port}"
        threading.Thread(target=cls.server.serve_forever, args=(0.05,), daemon=True).start()
        cls.addClassCleanup(cls.server.server_close)
        cls.addClassCleanup(cls.server.shutdown)
        cls.addClassCleanup(Server.left.set)
        no_proxy = mock.patch.dict("os.environ", {"no_proxy": "127.0.0.1"})
        no_proxy.start()
        cls.addClassCleanup(no_proxy.stop)

    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.base = Path(holder.name)
        self.folder = self.base / "deep" / "images"

    def assert_refused(self, url: str, *words: str) -> None:
        """One line that names the address; nothing is written, here or elsewhere."""
        with self.assertRaises(LabError) as caught:
            fetch_image(url, self.folder)
        text = str(caught.exception)
        self.assertNotIn("\n", text)
        self.assertEqual(caught.exception.exit_code, 1)
        for word in (url, *words):
            self.assertIn(word, text)
        self.assertEqual([path for path in self.base.rglob("*") if path.is_file()], [])

    def test_an_image_is_saved_under_a_safe_name(self):
        for path, name in (
            ("/photo.png", "photo.png"),
            ("/photo", "photo.jpg"),  # the content decides, not the name
            ("/to-image", "to-image.png"),
            ("/../../evil%2F..%2Fx.png", "x.png"),
            ("/..%2F..%2F..%2Fetc%2Fpasswd", "passwd.png"),
            ("/..", "image.png"),
            ("/", "image.png"),
            ("/%00.png", "image.png"),
            ("/a b;rm -rf ~.png?size=../../9#top", "a_b_rm_-rf.png"),
            ("/Höhe-交通.png", "H_he-.png"),
            ("/.hidden.php", "hidden.png"),
            (f"/{'long' * 100}.png", f"{'long' * 15}.png"),
            ("/C:%5CWindows%5Cwin.ini", "C_Windows_win.png"),
        ):
            with self.subTest(path):
                saved = fetch_image(self.address + path, self.folder)
                self.assertEqual(saved, self.folder / name)
                files = [path for path in self.base.rglob("*") if path.is_file()]
                self.assertEqual(files, [saved])
                expected = encoded("JPEG" if saved.suffix == ".jpg" else "PNG")
                self.assertEqual(saved.read_bytes(), expected)
                saved.unlink()

    def test_two_that_are_called_alike(self):
        """Neither is lost; one that is fetched again is the same file."""
        bodies = encoded("PNG"), encoded("PNG") + b"another"
        for body, name in zip((*bodies, *bodies), ("photo.png", "photo_2.png") * 2, strict=True):
            with mock.patch.object(fetching, "_download", return_value=body):
                saved = fetch_image(f"{self.address}/photo.png", self.folder)
            self.assertEqual((saved.name, saved.read_bytes()), (name, body))

    def test_what_is_no_image(self):
        for path in ("/page.png", "/empty", "/cut.png"):
            with self.subTest(path):
                self.assert_refused(self.address + path, "not an image")

    def test_too_large(self):
        with mock.patch.object(fetching, "DOWNLOAD_LIMIT", 2**16):
            self.assert_refused(f"{self.address}/large.png", "larger than")

    def test_redirects(self):
        """They may lead to another http(s) address, and to nothing else."""
        self.assert_refused(f"{self.address}/to-file", "could not fetch", "file:///etc/passwd")
        self.assert_refused(f"{self.address}/to-nonsense", "could not fetch")
        self.assert_refused(f"{self.address}/to-itself", "redirects")

    def test_not_there(self):
        self.assert_refused(f"{self.address}/missing.png", "404")
        with ThreadingHTTPServer(("127.0.0.1", 0), Server) as closed:
            port = closed.server_port
        self.assert_refused(f"http://127.0.0.1:{port}/photo.png", "could not fetch")
        for address in ("file:///etc/passwd", "ftp://127.0.0.1/x.png", "http://", "http://.com/x"):
            self.assert_refused(address, "could not fetch")

    def test_a_silent_server(self):
        with mock.patch.object(fetching, "SILENCE_SECONDS", 0.2):
            self.assert_refused(f"{self.address}/silent", "could not fetch", "timed out")

    def test_a_server_that_trickles(self):
        """A byte now and then, of the headers or of the body, holds nobody up."""
        for path in ("/trickle", "/trickle-headers"):
            with self.subTest(path), mock.patch.object(fetching, "DOWNLOAD_SECONDS", 0.3):
                self.assert_refused(self.address + path, "took over")
                self.assertFalse(Server.dried_up.is_set())

    def test_a_folder_that_cannot_be_made(self):
        (self.base / "deep").write_text("in the way")
        with self.assertRaisesRegex(LabError, "cannot write"):
            fetch_image(f"{self.address}/photo.png", self.folder)

    def test_path_or_address(self):
        """`--image` takes both; a path is left where it is."""
        path = self.base / "own.png"
        picture(8, 8).save(path)
        self.assertEqual(image_path(str(path), self.folder), path)
        self.assertFalse(self.folder.exists())
        fetched = image_path(f"{self.address}/photo.png", self.folder)
        self.assertEqual(fetched, self.folder / "photo.png")
        with self.assertRaisesRegex(LabError, "no image"):
            image_path(str(self.base / "missing.png"), self.folder)

    def test_of_a_moving_picture(self):
        """The first frame is looked at, which is said, once; of a still one there is nothing."""
        still, moving, text = (self.base / name for name in ("a.gif", "b.gif", "c.gif"))
        picture(8, 8).save(still)
        picture(8, 8).save(moving, save_all=True, append_images=[picture(8, 8, "L")])
        text.write_text("no picture")
        for name in (still, moving, text):
            with mock.patch.object(fetching, "say") as said:
                self.assertEqual(image_path(str(name), self.folder), name)
                if name != text:
                    self.assertEqual(len(list(fetching.given_images([str(name)]))), 1)
            expected = [mock.call("b.gif: of 2 frames the first is looked at")] * 2
            self.assertEqual(said.call_args_list, expected if name == moving else [])


if __name__ == "__main__":
    unittest.main()
