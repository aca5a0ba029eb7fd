"""Diffusion by its scripts, on two signs and tiny networks: stages, resume, pipeline, pictures."""

import json
import shutil
import subprocess
import sys
import tempfile
import unittest
from dataclasses import asdict, dataclass, replace
from inspect import signature
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from PIL import Image
from torch import nn
from transformers import CLIPConfig, CLIPImageProcessor

from lab import checkpoint
from lab.optimizers import Muon
from lab.registry import Design
from lab.runtime import start, start_as
from lab.settings import TrainSettings
from networks import Classifier
from tasks import TrainFlags
from tasks.diffusion import (
    AUTOENCODER,
    GUIDANCE,
    PUBLISHED_GUIDANCE,
    SETTINGS,
    STRENGTH,
    TASK,
    WORDS,
    DiffuseFlags,
    Flags,
    networks,
    painting,
    results,
)
from tasks.diffusion.words import make_tokenizer
from tasks.trained import load_trained
from tests.support import PROJECT, ScriptCase, environment, script_here, stopped_at
from tests.tiny_diffusion import (
    CPU,
    SENTENCES,
    TINY_AUTOENCODER,
    TINY_UNET,
    captions_picture,
    make_captioned,
    tiny,
)


def tiny_networks():
    """Return a patch with which whatever builds a network builds a tiny one."""
    sizes = {"autoencoder": TINY_AUTOENCODER, "latent_diffusion": TINY_UNET}
    tiny = {name: replace(networks.NETWORKS[name], fixed=own) for name, own in sizes.items()}
    return mock.patch.dict(networks.NETWORKS, tiny)


def settings(**others):
    """Return the task's own settings but for some."""
    return TrainSettings(**SETTINGS | others)


ASSIGNMENT = """
import torch
from PIL import Image
from diffusers import StableDiffusionImg2ImgPipeline
model_id_or_path = "{folder}"
pipe = StableDiffusionImg2ImgPipeline.from_pretrained(model_id_or_path, torch_dtype=torch.float32)
pipe = pipe.to("cpu")
init_image = Image.open("{image}").convert("RGB")
init_image = init_image.resize((96, 64))
prompt = "A fantasy landscape, trending on artstation"
images = pipe(prompt=prompt, image=init_image, strength=0.75, guidance_scale=7.5).images
images[0].save("{result}")
"""


class ScriptTest(ScriptCase):
    """The real scripts, on two signs and networks of a few thousand weights."""

    @classmethod
    def setUpClass(cls):
        cls.addClassCleanup(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.base = Path(holder.name)
        cls.data = make_captioned(cls.base / "data", {"train": 8, "val": 2, "test": 4})
        cls.enterClassContext(tiny_networks())
        cls.flags = ("--task", "diffusion", "--data_root", cls.data, "--epoch", 2,
                     "--batch_size", 8, "--autoencoder_epoch", 2, "--autoencoder_batch_size", 8,
                     "--precision", "fp32", "--no_show")  # fmt: skip
        cls.run_folder = cls.base / "run"
        cls.said = cls.train("--ckpt_path", cls.run_folder, *cls.flags)

    @classmethod
    def train(cls, *flags):
        done = script_here("train.py", *flags)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def shown(self, name, *flags):
        done = script_here(name, "--no_show", *flags)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def reader(self):
        """Save a classifier that takes everything for a stop sign; return its file."""
        path = self.base / "reader" / "ckpt_epoch_1.pth"
        path.parent.mkdir(exist_ok=True)
        network = Classifier(3, 2)
        nn.init.zeros_(network.fc_net[-1].weight)
        network.fc_net[-1].bias.data = torch.tensor([1.0, 0.0])
        names = {"class_names": ["00_stop", "01_roundabout"]}
        state = {"model_state": network.state_dict(), "configs": asdict(network.config)}
        checkpoint.save(path, state | names)
        return path

    # ------------------------------------------------------------ training

    def test_both_stages_are_runs(self):
        self.assertIn("Stage 1 of 2", self.said)
        self.assertIn("Stage 2 of 2", self.said)
        self.assertEqual(self.said.count("Next, try"), 1)
        first = checkpoint.load(self.run_folder / "autoencoder" / "ckpt_epoch_2.pth")
        last = checkpoint.load(self.run_folder / "ckpt_epoch_2.pth")
        self.assertTrue({"val_psnr", "kl", "loss"} <= first["history"][1].keys())
        self.assertTrue({"val_r2", "val_loss", "loss"} <= last["history"][1].keys())
        self.assertEqual(first["settings"]["lr"], AUTOENCODER["lr"])
        self.assertEqual(last["settings"]["lr"], SETTINGS["lr"])
        self.assertTrue(last["configs"]["pooled"])
        before, after = (TASK.restore(state)[1].eval().vae for state in (first, last))
        changed = {name.split(".")[0] for name, value in before.state_dict().items()
                   if not torch.equal(value, after.state_dict()[name])}  # fmt: skip
        self.assertEqual(changed, {"quant_conv", "post_quant_conv"})  # by another basis alone
        images = torch.rand(2, 3, 64, 64)
        with torch.no_grad():
            decoded = [vae.decode(vae.encode(images).latent_dist.mode()).sample
                       for vae in (before, after)]  # fmt: skip
        torch.testing.assert_close(*decoded, atol=1e-4, rtol=1e-4)

    def test_latents_have_unit_deviation(self):
        """Of the pictures trained on; those tested on are scaled alike."""
        flags = TrainFlags(
            data_root=self.data, settings=settings(batch_size=8),
            own=Flags(stage="unet", autoencoder=self.run_folder),
        )  # fmt: skip
        job = TASK.prepare(flags, CPU, None, None)
        self.assertAlmostEqual(float(job.loaders["train"].dataset.latents.std()), 1, places=3)
        trained = load_trained(self.run_folder / "ckpt_epoch_2.pth", "cpu", "fp32")
        latents = TASK.test_loader(trained, self.data, 4).dataset.latents
        self.assertTrue(torch.equal(latents, job.loaders["test"].dataset.latents))

    def test_stopped_twice_it_comes_to_the_same_weights(self):
        """Once in each stage, in the middle of an epoch."""
        folder = self.base / "stopped"
        with stopped_at(2, Muon):  # the autoencoder's
            done = script_here("train.py", "--ckpt_path", folder, *self.flags)
        self.assertEqual(done.returncode, 130, done.stderr)
        self.assertIn("epoch 2, 8 of 16 images", done.stdout)
        self.assertTrue((folder / "autoencoder" / "ckpt_interrupted.pth").is_file())
        with stopped_at(WORDS["epoch"] + 2):  # a step an epoch of words, two of the UNet's first
            done = script_here("train.py", "--resume", folder, "--no_show")
        self.assertEqual(done.returncode, 130, done.stderr)
        self.assertTrue((folder / "ckpt_interrupted.pth").is_file(), done.stdout)
        self.train("--resume", folder, "--no_show")
        self.assert_same(folder)
        self.assertTrue((folder / "pipeline" / "model_index.json").is_file())

    def assert_same(self, folder):
        straight, gone_on = (
            checkpoint.load(own / "ckpt_epoch_2.pth") for own in (self.run_folder, folder)
        )
        for kind in ("model_state", "raw_state"):
            for name, value in straight[kind].items():
                self.assertTrue(torch.equal(value, gone_on[kind][name]), name)
        self.assertEqual(straight["settings"], gone_on["settings"])

    def test_killed_between_the_stages(self):
        """With the autoencoder done and nothing of the UNet, --resume trains the UNet."""
        folder = self.base / "killed"
        shutil.copytree(self.run_folder / "autoencoder", folder / "autoencoder")
        said = self.train("--resume", folder, "--no_show")
        self.assertNotIn("Stage 1", said)
        self.assert_same(folder)

    def test_a_stage_alone_and_another_runs_autoencoder(self):
        folder = self.base / "alone"
        flags = ("--ckpt_path", folder, *self.flags)
        said = self.train(*flags, "--stage", "autoencoder")
        self.assertNotIn("visualize.py", said.partition("Next, try")[2])  # its views are the UNet's
        self.assertFalse((folder / "ckpt_epoch_1.pth").exists())
        done = script_here("train.py", "--resume", folder, "--no_show")
        self.assert_refused(done, 1, "has done 2 epochs already")
        self.train(*flags, "--stage", "unet")
        self.assert_same(folder)
        other = self.base / "other"
        self.train("--ckpt_path", other, *self.flags, "--autoencoder", folder)
        self.assertFalse((other / "autoencoder").exists())
        self.assert_same(other)
        done = script_here("train.py", "--ckpt_path", self.base / "no", *self.flags,
                           "--stage", "unet")  # fmt: skip
        self.assert_refused(done, 1, "no autoencoder in")
        done = script_here("train.py", *self.flags, "--ckpt_path", self.base / "no",
                           "--autoencoder", self.reader())  # fmt: skip
        self.assert_refused(done, 1, "holds no autoencoder")

    def test_an_earlier_run_is_set_aside_at_once(self):
        """Stopped in its first stage, a new run is not mistaken for the old one."""
        folder = self.base / "again"
        shutil.copytree(self.run_folder, folder)
        with stopped_at(2, Muon):
            script_here("train.py", "--ckpt_path", folder, *self.flags, "--seed", 1)
        self.assertTrue((folder / "previous_1" / "pipeline").is_dir())
        self.assertFalse((folder / "pipeline").exists())
        self.assertEqual(checkpoint.resume_point(folder).parent, folder / "autoencoder")

    def test_noise_can_be_predicted_instead(self):
        folder = self.base / "noise"
        self.train("--ckpt_path", folder, *self.flags, "--prediction", "epsilon", "--autoencoder",
                   self.run_folder, "--epoch", 1)  # fmt: skip
        index = json.loads(
            (folder / "pipeline" / "scheduler" / "scheduler_config.json").read_text()
        )
        self.assertEqual(index["prediction_type"], "epsilon")

    def test_by_heart(self):
        """--overfit_batch is of the stage that comes first."""
        with mock.patch("lab.engine.OVERFIT_STEPS", 2):
            said = self.train("--ckpt_path", self.base / "heart", *self.flags, "--overfit_batch")
        self.assertIn("Learning 8 training images by heart", said)

    # ------------------------------------------------------------ the pipeline

    def test_the_assignments_script_runs(self):
        """Its lines, but for the model's name, in a process of their own."""
        paths = {name: self.base / f"{name}.png" for name in ("image", "result")}
        Image.fromarray(captions_picture()).save(paths["image"])
        code = ASSIGNMENT.format(folder=self.run_folder / "pipeline", **paths)
        done = subprocess.run([sys.executable, "-c", code], cwd=self.base, env=environment(),
                              capture_output=True, text=True, timeout=300)  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        with Image.open(paths["result"]) as result:
            self.assertEqual(result.size, (96, 64))

    def test_pipeline_holds_the_averaged_weights(self):
        pipeline = painting.load_pipeline(str(self.run_folder), CPU)
        state = checkpoint.load(self.run_folder / "ckpt_epoch_2.pth")["model_state"]
        for part in ("vae", "unet", "text_encoder"):
            for name, value in getattr(pipeline, part).state_dict().items():
                self.assertTrue(torch.equal(value, state[f"{part}.{name}"]), name)
        self.assertIsNone(pipeline.safety_checker)
        files = {path.name for path in (self.run_folder / "pipeline" / "tokenizer").iterdir()}
        self.assertLessEqual({"vocab.json", "merges.txt", "tokenizer.json"}, files)

    # ------------------------------------------------------------ diffuse.py

    def diffuse(self, *flags):
        seen = self.base / "painted"
        before = set((seen / "diffuse").glob("*"))
        said = self.shown("diffuse.py", "--model", self.run_folder, "--save_dir", seen,
                          "--steps", 3, *flags)  # fmt: skip
        return said, (set((seen / "diffuse").glob("*")) - before)

    def test_paints(self):
        """A folder for what was asked for; each picture says how it was made."""
        flags = ("--prompt", "a stop sign at night", "--num_images", 2, "--seed", 7)
        said, (folder,) = self.diffuse(*flags)
        self.assertNotIn("Never learned", said)
        self.assertRegex(folder.name, r"^a_stop_sign_at_night_model_run_[0-9a-f]{8}_steps_3$")
        asked = "_seed_7_num_images_2"
        self.assertEqual(
            sorted(path.name for path in folder.glob("*")),
            [f"course{asked}.jpg", f"pictures{asked}.jpg", "seed_7.png", "seed_8.png"],
        )
        first = (folder / "seed_8.png").read_bytes()
        with Image.open(folder / "seed_8.png") as image:
            self.assertEqual(image.text["prompt"], "a stop sign at night")
            self.assertIn("--steps 3 --seed 8", image.text["settings"])
        self.assertEqual(self.diffuse(*flags)[1], set())
        self.assertEqual((folder / "seed_8.png").read_bytes(), first)
        _, (other,) = self.diffuse("--prompt", "a stop sign, at night!", "--num_images", 1)
        self.assertTrue((other / "seed_0.png").is_file())

    def test_paints_over_a_picture(self):
        path = self.base / "photo.png"
        Image.fromarray(captions_picture()).resize((90, 70)).save(path)
        _, (folder,) = self.diffuse("--prompt", "a stop sign", "--image", path, "--strength", 0.7,
                                 "--guidance_scale", 7.5, "--scheduler", "euler",
                                 "--num_images", 1, "--seed", 20)  # fmt: skip
        with Image.open(folder / "seed_20.png") as image:
            self.assertEqual(image.size, (80, 64))

    def test_prompts(self):
        """Each means something, or is said to mean nothing, in a line."""
        once = ("--num_images", 1)
        for prompt, said in (
            ("", None),
            ("a fantasy castle", "Never learned, so without a meaning: fantasy, castle"),
            ("停车标志", "停车标志, that is all of it"),
            ("sign " * 40, "The prompt is too long; left out is: sign sign"),
        ):
            output, _ = self.diffuse("--prompt", prompt, *once)
            unsaid = ("Saved", "pictures show boxes")  # the latter where no font is installed
            lines = [line for line in output.splitlines() if not line.startswith(unsaid)]
            self.assertEqual(len(lines), int(said is not None), output)
            if said is not None:
                self.assertIn(said, lines[0])

    def test_what_cannot_be_painted(self):
        prompt = ("--prompt", "a stop sign")
        for flags, code, *words in (
            (("--model", self.base / "nowhere", *prompt), 1, "no folder", "train.py"),
            (("--model", self.data, *prompt), 1, "no pipeline"),
            (("--model", "nobody/nothing-of-the-kind", *prompt), 1, "nobody/nothing", "downloaded"),
            (("--strength", 0.5, *prompt), 2, "--image"),
            (("--strength", 1.5, "--image", "x", *prompt), 2, "from 0 to 1"),
            (("--image", self.base / "none.png", *prompt), 1, "no image"),
            ((), 2, "--prompt"),
        ):
            with self.subTest(flags), mock.patch.dict("os.environ", HF_HUB_OFFLINE="1"):
                with mock.patch("huggingface_hub.constants.HF_HUB_OFFLINE", True):
                    done = script_here("diffuse.py", *flags)
                self.assert_refused(done, code, *words)
        unfinished = self.base / "unfinished"
        shutil.copytree(self.run_folder, unfinished)
        shutil.rmtree(unfinished / "pipeline")
        done = script_here("diffuse.py", "--model", unfinished, *prompt)
        self.assert_refused(done, 1, "--resume", "has not ended")
        broken = self.base / "broken"
        shutil.copytree(self.run_folder / "pipeline", broken)
        (broken / "unet" / "config.json").write_text("{")
        done = script_here("diffuse.py", "--model", broken, *prompt)
        self.assert_refused(done, 1, broken, "cannot be loaded")

    # ------------------------------------------------------------ test.py and visualize.py

    def test_measures_of_painted_pictures(self):
        with (
            mock.patch.object(results, "PER_CLASS", 2),
            mock.patch.object(results, "draw", wraps=results.draw) as drawn,
        ):
            said = self.shown("test.py", "--ckpt_path", self.run_folder, "--epoch", "best",
                              "--read", self.reader(), "--save")  # fmt: skip
        self.assertRegex(said, r"Painted 4 pictures in 25 steps at guidance [\d.]+: [\d.]+ s")
        self.assertRegex(said, r"stop +100\.00% +100\.00%")
        self.assertRegex(said, r"roundabout +0\.00% +0\.00%")
        self.assertRegex(said, r"all +50\.00% +50\.00%")
        self.assertRegex(said, r"Fréchet distance to drawn pictures: \d")
        self.assertRegex(said, r"of as many other drawn pictures: +\d")
        self.assertTrue((self.run_folder / "painted.jpg").is_file())
        picture = drawn.call_args.args[0]
        self.assertIn("(2 of 4 painted are what was asked for)", picture.title)
        (row,) = picture.parts[0].tiles  # what a reader took for another sign is framed
        self.assertEqual([tile.caption for tile in row], ["stop", "", "roundabout", ""])
        self.assertEqual([tile.note for tile in row], ["stop"] * 4)
        self.assertEqual([len(tile.marks) for tile in row], [0, 0, 1, 1])
        self.assertEqual(len(list((self.run_folder / "results").glob("stop_*.png"))), 2)

    def test_what_is_loaded_is_handed_on(self):
        """A test builds one network and starts one runtime, whatever it paints with them."""
        for folder, kind in (
            (self.run_folder, networks.LatentDiffusion),
            (self.run_folder / "autoencoder", networks.Autoencoder),
        ):
            build = kind.__init__
            with (
                mock.patch.object(results, "PER_CLASS", 1),
                mock.patch.object(kind, "__init__", autospec=True, side_effect=build) as made,
                mock.patch("tasks.trained.start_as", side_effect=start_as) as started,
            ):
                self.shown("test.py", "--ckpt_path", folder, "--epoch", "best")
            self.assertEqual((made.call_count, started.call_count), (1, 1))

    def test_measures_of_reconstructions(self):
        folder = self.run_folder / "autoencoder"
        said = self.shown("test.py", "--ckpt_path", folder, "--epoch", "best", "--read",
                          self.reader())  # fmt: skip
        self.assertRegex(said, r"PSNR [\d.]+ dB")
        self.assertRegex(said, r"stop +100\.00% +100\.00%")
        self.assertIn("decoded over originals: 1.000", said)
        self.assertTrue((folder / "reconstructions.jpg").is_file())

    def test_pictures_of_ones_own(self):
        photos = self.base / "photos" / "14_stop"
        photos.mkdir(parents=True)
        for index in range(3):
            Image.fromarray(captions_picture()).resize((40, 50)).save(photos / f"{index}.png")
        said = self.shown("test.py", "--ckpt_path", self.run_folder, "--epoch", "best",
                          "--image", photos, "--read", self.reader())  # fmt: skip
        self.assertIn("Cut to their middle: 3 of 3 pictures, by up to 20.0%", said)
        self.assertEqual(said.count("into roundabout, read as stop"), 3)
        self.assertIn("Read as what was asked for: 0.00%", said)
        self.assertTrue((self.run_folder / "turned_14_stop.jpg").is_file())
        folder = self.run_folder / "autoencoder"
        self.shown("test.py", "--ckpt_path", folder, "--epoch", "best", "--image", photos)

    def test_views(self):
        seen = self.base / "seen"
        steps, words = ("--steps", 5), ("--prompt", "a stop sign")
        for kind, flags, asked in (
            ("unet", (), ""),
            ("words", (*words, *steps), "_prompt_a_stop_sign_steps_5"),
            ("strength", steps, "_steps_5"),
        ):
            said = self.shown("visualize.py", "--type", kind, "--ckpt_path", self.run_folder,
                              "--epoch", "last", "--save_dir", seen, *flags)  # fmt: skip
            self.assertTrue((seen / kind / f"{kind}{asked}.jpg").is_file())
            if kind == "unet":
                self.assertIn("Stable Diffusion 1.5, 859,520,964 parameters", said)
                self.assertIn("2 CrossAttnDownBlock2D", said)

    def test_views_of_what_has_none(self):
        seen = ("--save_dir", self.base / "seen", "--no_show")
        done = script_here("visualize.py", "--type", "unet", "--model", "stable_diffusion", *seen)
        self.assertEqual(done.returncode, 0, done.stderr)
        done = script_here("visualize.py", "--type", "words", "--model", "stable_diffusion", *seen)
        self.assert_refused(done, 2, "--ckpt_path")
        done = script_here("visualize.py", "--type", "words", "--epoch", "last", "--ckpt_path",
                           self.run_folder / "autoencoder", *seen)  # fmt: skip
        self.assert_refused(done, 1, "autoencoder")
        done = script_here("visualize.py", "--type", "words", "--epoch", "last", "--ckpt_path",
                           self.run_folder, "--prompt", "sign " * 40, *seen)  # fmt: skip
        self.assert_refused(done, 2, "--prompt")
        done = script_here("visualize.py", "--type", "strength", "--epoch", "last", "--ckpt_path",
                           self.run_folder, "--steps", 1001, *seen)  # fmt: skip
        self.assert_refused(done, 1, "1001 steps", "give fewer")


# ---------------------------------------------------------------- published pipelines


class PublishedTest(ScriptCase):
    """Pipelines as others publish them: another scheduler, a safety checker, no list of words."""

    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.base = Path(holder.name)
        tokenizer = make_tokenizer(SENTENCES)
        own = networks.make_pipeline(tiny(len(tokenizer), prediction="epsilon"), tokenizer)
        own.scheduler = EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        )
        own.save_pretrained(cls.base / "plain")
        text, vision = ({"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1,
                         "num_hidden_layers": 1} for _ in range(2))  # fmt: skip
        vision |= {"image_size": 32, "patch_size": 16}
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
        checker = StableDiffusionSafetyChecker(config)
        checker.concept_embeds_weights.data[:] = -2  # nothing is as far from a concept as that
        size = {"height": 32, "width": 32}
        strict = StableDiffusionPipeline(
            **own.components | {
                "safety_checker": checker,
                "feature_extractor": CLIPImageProcessor(size=size, crop_size=size),
            }
        )  # fmt: skip
        strict.save_pretrained(cls.base / "strict")

    def diffuse(self, *flags, model="plain"):
        """Paint one picture in 3 steps; return what is said, and it."""
        with tempfile.TemporaryDirectory() as seen:
            done = script_here("diffuse.py", "--model", self.base / model, "--prompt", SENTENCES[0],
                               "--num_images", 1, "--steps", 3, "--no_show", "--save_dir", seen,
                               *flags)  # fmt: skip
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertNotIn("outdated", done.stderr)  # as the library says of such settings
            with Image.open(next(Path(seen).rglob("seed_0.png"))) as image:
                return done.stdout, np.asarray(image)

    def by_library(self, **options):
        generator = torch.Generator().manual_seed(0)
        pipeline = StableDiffusionPipeline.from_pretrained(self.base / "plain")
        painting.prepared(pipeline)
        with start("cpu").autocast():
            painted = pipeline(SENTENCES[0], num_inference_steps=3, guidance_scale=7.5,
                               generator=generator, output_type="np", **options)  # fmt: skip
        return painting.as_bytes(painted.images)[0]

    def test_its_own_scheduler(self):
        """Unless another is asked for; what is painted is what the library paints."""
        said, own = self.diffuse()
        self.assertNotIn("learned", said)
        self.assertLessEqual(np.abs(own.astype(int) - self.by_library()).max(), 1)
        _, other = self.diffuse("--scheduler", "ddim")
        self.assertGreater(np.abs(own.astype(int) - other).max(), 1)
        self.assertGreater(other.std(), 0.5)

    def test_size_and_what_is_not_to_be_seen(self):
        flags = ("--height", 32, "--width", 72, "--negative_prompt", SENTENCES[1])
        _, painted = self.diffuse(*flags)
        self.assertEqual(painted.shape, (32, 72, 3))
        expected = self.by_library(height=32, width=72, negative_prompt=SENTENCES[1])
        self.assertLessEqual(np.abs(painted.astype(int) - expected).max(), 1)

    def test_the_shape_of_a_picture_is_kept(self):
        """And what is cut off is said."""
        path = self.base / "photo.png"
        for given, flags, expected, said in (
            ((90, 60), (), (64, 96), "photo.png, 90x60, as 96x64"),
            ((300, 20), (), (64, 128), "300x20, as 128x64, without 86.7% of it, at left and right"),
            ((60, 90), ("--height", 64, "--width", 64), (64, 64), "33.3% of it, at top and bottom"),
            ((64, 64), ("--strength", 0.1), (64, 64), "No step is left"),
        ):
            Image.new("RGB", given, "red").save(path)
            output, painted = self.diffuse("--image", path, *flags)
            self.assertEqual(painted.shape[:2], expected)
            self.assertIn(said, output)

    def test_what_the_safety_checker_has_blackened(self):
        """It is said, and no step of it is shown."""
        with mock.patch.object(painting, "TOGETHER", 1):
            said, painted = self.diffuse("--num_images", 2, model="strict")
        self.assertEqual(painted.max(), 0)
        for seed in (0, 1):
            self.assertIn(f"Seed {seed}: black, by the model's own safety checker", said)
        self.assertNotIn("course", said)

    def test_what_cannot_be_painted(self):
        flags = ("--model", self.base / "plain", "--prompt", "a stop sign", "--no_show")
        for own, code, *words in (
            (("--steps", 1001), 1, "1001 steps", "give fewer"),
            (("--height", 100), 2, "'100' is not a multiple of 8"), (("--width", 0), 2, "'0'"),
            (("--height", 80000), 2, "5.1 million"),
            (("--negative_prompt", "night", "--guidance_scale", 1), 2, "--guidance_scale"),
        ):  # fmt: skip
            self.assert_refused(script_here("diffuse.py", *flags, *own), code, *words)


# ---------------------------------------------------------------- a network of one's own


@dataclass(frozen=True)
class ShrinkConfig:
    factor: int = 8
    gain: float = 0.5


class Shrink(nn.Module):
    """Keeps the mean colour of each place, times a gain that it learns."""

    def __init__(self, config):
        super().__init__()
        self.factor, self.gain = config.factor, nn.Parameter(torch.tensor(config.gain))

    def forward(self, images):
        latents = F.avg_pool2d(images, self.factor)
        decoded = F.interpolate(self.gain * latents, scale_factor=self.factor)
        return decoded, latents, torch.zeros_like(latents)


class OwnNetworkTest(ScriptCase):
    def test_an_autoencoder(self):
        """A class, its config and a line of NETWORKS: it trains, goes on and is tested."""
        with (
            tempfile.TemporaryDirectory() as base,
            mock.patch.dict(networks.NETWORKS, autoencoder=Design(ShrinkConfig, Shrink)),
        ):
            data = make_captioned(Path(base) / "data", {"train": 8, "val": 2, "test": 4})
            folder = Path(base) / "run" / "autoencoder"
            for flags in (
                ("train.py", "--task", "diffusion", "--stage", "autoencoder", "--data_root", data,
                 "--factor", 4, "--autoencoder_epoch", 1, "--autoencoder_batch_size", 8,
                 "--autoencoder_lr", 0.1, "--ckpt_path", folder.parent),
                ("train.py", "--resume", folder, "--epoch", 2),
                ("test.py", "--ckpt_path", folder),
            ):  # fmt: skip
                done = script_here(*flags, "--no_show")
                self.assertEqual(done.returncode, 0, done.stderr)
            self.assertRegex(done.stdout, r"PSNR [\d.]+ dB")
            state = checkpoint.load(folder / "ckpt_epoch_2.pth")
            self.assertEqual(state["configs"], {"factor": 4, "gain": 0.5})
            self.assertNotEqual(float(state["model_state"]["gain"]), 0.5)


class FlagsTest(unittest.TestCase):
    def fresh(self, code):
        return subprocess.run([sys.executable, "-c", code], cwd=PROJECT, env=environment(),
                              capture_output=True, text=True)  # fmt: skip

    def test_the_libraries(self):
        """They are imported where diffusion is asked for, not to read the flags of all tasks.

        And they do not take our `datasets` for Hugging Face's package of that name.
        """
        code = (
            "import sys, tasks, diffuse; [tasks.load(name) for name in tasks.TASKS]; "
            "heavy = {'torch', 'diffusers', 'transformers'}; "
            "print(list(heavy & set(sys.modules))); import datasets; "
            "from diffusers import StableDiffusionImg2ImgPipeline, UNet2DConditionModel; "
            "from transformers import CLIPTextModel; import tasks.diffusion.networks; "
            "print(datasets.get_data_loader.__name__)"
        )
        done = self.fresh(code)
        self.assertEqual(done.stdout.split(), ["[]", "get_data_loader"], done.stderr)

    def test_stages_are_kept_apart(self):
        """The flags of one stage are not those of the other."""
        own = Flags(prediction="epsilon", autoencoder_epoch=3, autoencoder_batch_size=5,
                    autoencoder_lr=0.1)  # fmt: skip
        flags = TrainFlags(ckpt_path=Path("x"), settings=settings(seed=4), own=own)
        (first, _), (last, _) = TASK.stages(flags, None)
        expected = AUTOENCODER | {"epoch": 3, "batch_size": 5, "lr": 0.1, "seed": 4}
        self.assertEqual(first.settings, settings(**expected))
        self.assertEqual((last.settings, last.ckpt_path), (flags.settings, Path("x")))
        self.assertEqual(first.own.then["epoch"], SETTINGS["epoch"])
        self.assertEqual(first.own.then["prediction"], "epsilon")

    def test_the_first_stage_goes_on_into_the_second(self):
        """By what its checkpoint says, whatever flags it goes on with."""
        then = asdict(settings(epoch=7)) | {"prediction": "epsilon", "of_an_earlier_version": 1}
        own = Flags(stage="autoencoder", then=then)
        flags = TrainFlags(ckpt_path=Path("x/autoencoder"), resume=Path("x"), own=own,
                           settings=settings(**AUTOENCODER))  # fmt: skip
        last = AUTOENCODER["epoch"]
        for finished, first in ((last - 1, [(flags, {"epoch": last - 1})]), (last, [])):
            *before, (later, goes_on_from) = TASK.stages(flags, {"epoch": finished})
            self.assertEqual(before, first)
            self.assertIsNone(goes_on_from)
            self.assertEqual(later, TrainFlags(
                ckpt_path=Path("x"), settings=settings(epoch=7),
                own=Flags(stage="unet", autoencoder=Path("x/autoencoder"), prediction="epsilon"),
            ))  # fmt: skip

    def test_help_says_what_is_painted_with(self):
        """Its defaults are those of painting itself."""
        done = script_here("diffuse.py", "--help")
        said = " ".join(done.stdout.split())
        self.assertIn(f"(default: {GUIDANCE:g}, of --model NAME {PUBLISHED_GUIDANCE:g})", said)
        self.assertIn(f"nothing of it (default {STRENGTH:g})", said)
        defaults = signature(painting.paint).parameters
        asked = DiffuseFlags()
        self.assertEqual(defaults["steps"].default, asked.steps)
        self.assertEqual(defaults["guidance"].default, GUIDANCE)
        self.assertEqual(defaults["strength"].default, STRENGTH)


if __name__ == "__main__":
    unittest.main()
