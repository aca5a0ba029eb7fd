"""Diffusion: noise against closed forms, words, and the real scripts on tiny networks."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from argparse import Namespace
from dataclasses import asdict
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import nn

import tasks.diffusion as field
from lab import checkpoint
from lab.console import LabError
from lab.runtime import Runtime
from networks import Classifier
from tasks.diffusion import denoising, found, networks, painting
from tasks.diffusion.autoencoder import Reconstruction, difference, divergence
from tasks.diffusion.census import census
from tasks.diffusion.data import LatentDataset, encode_sentences, read_captioned
from tasks.diffusion.denoising import Denoising, empty_where
from tasks.diffusion.networks import (
    AutoencoderConfig,
    DiffusionConfig,
    LatentDiffusion,
    make_pipeline,
    make_scheduler,
    stable_diffusion_unet,
)
from tasks.diffusion.views import attention_of_words
from tasks.diffusion.words import (
    encode_prompts,
    make_tokenizer,
    restore_tokenizer,
    tokenizer_state,
    unknown_words,
    words_of,
)
from tests.support import PROJECT, ScriptCase, environment, script_here
from world import captions
from world.signs import NAMES

CPU = Runtime(torch.device("cpu"))
SIGNS = ("stop", "roundabout")
SENTENCES = ["a stop sign at night", "a roundabout sign, in front of trees", "120 km/h, blurred"]
TINY_AUTOENCODER = {"channels": (8, 8, 8, 8), "groups": 4, "latent_channels": 4}
TINY_UNET = {"channels": (16, 16), "heads": 2, "groups": 4, "text_width": 16, "text_heads": 2,
             "text_layers": 1}  # fmt: skip


def make_captioned(root, per_class):
    """Draw a few captioned pictures of two signs."""
    for number, (split, count) in enumerate(per_class.items()):
        drawn = []
        for name in SIGNS:
            label = NAMES.index(name)
            (root / split / captions.CLASSES[label]).mkdir(parents=True)
            chunk = captions.Chunk(root / split, 0, number, label, 0, count)
            drawn += captions.draw_chunk(chunk)
        captions.write_sentences(root / split / "captions.json", drawn)
    return root


def tiny(tokens=100, **options):
    """Return an untrained network, the same each time."""
    torch.manual_seed(0)
    config = DiffusionConfig(AutoencoderConfig(**TINY_AUTOENCODER), tokens, **TINY_UNET | options)
    return LatentDiffusion(config).eval()


def tiny_networks():
    """Return a patch with which whatever builds a network builds a tiny one."""
    stack = contextlib.ExitStack()
    sizes = {"AutoencoderConfig": TINY_AUTOENCODER, "DiffusionConfig": TINY_UNET}
    for name, own in sizes.items():
        made = partial(getattr(networks, name), **own)
        stack.enter_context(mock.patch.object(networks, name, made))
    return stack


# ---------------------------------------------------------------- noise


class NoiseTest(unittest.TestCase):
    """The forward process and its reverse, against what the papers say."""

    def setUp(self):
        generator = torch.Generator().manual_seed(0)
        self.clean, self.noise = torch.randn(2, 3, 4, 2, 2, generator=generator)

    def test_forward_process(self):
        """Step by step, z <- sqrt(1 - b) z + sqrt(b) noise has this mean and variance."""
        scheduler = make_scheduler("epsilon")
        mean, variance = 1.0, 0.0
        times = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        for time, beta in enumerate(times):
            mean, variance = mean * (1 - beta) ** 0.5, variance * (1 - beta) + beta
            if time % 111 == 0:
                noisy = scheduler.add_noise(self.clean, self.noise, torch.full((3,), time))
                expected = mean * self.clean + variance**0.5 * self.noise
                torch.testing.assert_close(noisy, expected, atol=1e-4, rtol=1e-4)

    def test_ends_in_nothing_but_noise(self):
        """Of the velocity; the noise that was there first stays as it was (Lin et al. 2024)."""
        plain, shifted = (
            make_scheduler(kind).alphas_cumprod.sqrt() for kind in ("epsilon", "v_prediction")
        )
        self.assertEqual(float(shifted[-1]), 0)
        self.assertGreater(float(plain[-1]), 0.05)
        expected = (plain - plain[-1]) * plain[0] / (plain[0] - plain[-1])
        torch.testing.assert_close(shifted, expected, atol=1e-5, rtol=1e-4)

    def test_velocity_noise_and_picture_turn_into_each_other(self):
        task = Denoising(make_scheduler("v_prediction"))
        times = torch.tensor([0, 300, 999])
        velocity = task.target(self.clean, self.noise, times)
        noisy = task.scheduler.add_noise(self.clean, self.noise, times)
        a = task.scheduler.alphas_cumprod[times].sqrt().view(3, 1, 1, 1)
        s = (1 - a.square()).sqrt()
        torch.testing.assert_close(a * noisy - s * velocity, self.clean, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(s * noisy + a * velocity, self.noise, atol=1e-5, rtol=1e-4)
        other = Denoising(make_scheduler("epsilon"))
        self.assertTrue(torch.equal(other.target(self.clean, self.noise, times), self.noise))

    def test_all_steps_go_back_the_way_that_noise_came(self):
        """A network that knows the picture is led by DDIM through each noisy one to it."""
        for steps in (1000, 25):
            task = Denoising(make_scheduler("v_prediction"))
            task.scheduler.set_timesteps(steps)
            noisy = self.noise
            for time in task.scheduler.timesteps:
                times = time.repeat(3)
                expected = task.scheduler.add_noise(self.clean, self.noise, times)
                torch.testing.assert_close(noisy, expected, atol=2e-3, rtol=1e-2)
                velocity = task.target(self.clean, self.noise, times)
                noisy = task.scheduler.step(velocity, time, noisy).prev_sample
            torch.testing.assert_close(noisy, self.clean, atol=2e-3, rtol=1e-2)


class DenoisingTest(unittest.TestCase):
    def setUp(self):
        self.task = Denoising(make_scheduler("v_prediction"))
        self.latents = torch.randn(64, 4, 2, 2, generator=torch.Generator().manual_seed(1))
        self.ids = torch.zeros(64, 32, dtype=torch.int64)

    def test_loss(self):
        """Of a network that predicts nothing, the mean square of the velocity."""
        scheduler, targets = self.task.scheduler, []
        velocity = self.task.target

        def keep(*arguments):
            targets.append(velocity(*arguments))
            return targets[-1]

        with mock.patch.object(self.task, "target", keep):
            loss = self.task.loss(lambda z, t, ids: torch.zeros_like(z), self.latents, self.ids)
        torch.testing.assert_close(loss, targets[0].square().mean())
        self.assertEqual(scheduler.config.num_train_timesteps, 1000)

    def test_some_captions_are_left_out(self):
        seen = []

        def network(noisy, times, ids):
            seen.append((times, ids))
            return noisy

        torch.manual_seed(0)
        full = torch.full((64, 32), 7)
        for _ in range(40):
            self.task.loss(network, self.latents, full)
        times, ids = (torch.cat(own) for own in zip(*seen, strict=True))
        wordless = (ids != 7).any(1)
        self.assertAlmostEqual(float(wordless.float().mean()), denoising.WORDLESS, delta=0.02)
        self.assertTrue((ids[wordless] == torch.tensor([0] + 31 * [1])).all())
        self.assertTrue((ids[~wordless] == 7).all())
        self.assertTrue(times.min() < 10 and times.max() > 989)
        self.assertAlmostEqual(float(times.float().mean()), 499.5, delta=20)

    def test_the_empty_prompt_is_the_tokenizers(self):
        tokenizer = make_tokenizer(SENTENCES)
        words = encode_prompts(tokenizer, SENTENCES)
        chosen = torch.tensor([[True], [False], [True]])
        expected = encode_prompts(tokenizer, ["", SENTENCES[1], ""])
        self.assertTrue(torch.equal(empty_where(chosen, words), expected))

    def test_meter(self):
        """All of it is explained by who knows the latents, nothing by who says nothing."""
        scheduler = self.task.scheduler

        def knows(noisy, times, ids):
            a = scheduler.alphas_cumprod[times].sqrt().view(-1, 1, 1, 1)
            s = (1 - a.square()).sqrt()
            noise = (noisy - a * own) / s
            return a * noise - s * own

        figures = []
        for network in (knows, knows, lambda z, t, ids: torch.zeros_like(z)):
            meter = self.task.meter()
            for own in self.latents.split(40):
                meter.update(network, own, self.ids[: len(own)])
            figures.append(meter.compute(CPU))
        self.assertAlmostEqual(figures[0]["r2"], 1, places=4)
        self.assertEqual(figures[0], figures[1])
        self.assertAlmostEqual(figures[2]["r2"], 0, places=6)
        self.assertTrue(0.8 < figures[2]["loss"] < 1.2)


class ReconstructionTest(unittest.TestCase):
    def test_difference(self):
        """Pixels, and neighbours' differences down and to the right."""
        images = torch.zeros(1, 1, 2, 2)
        decoded = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
        self.assertAlmostEqual(float(difference(decoded, images)), 0.5 + (0 + 1) / 2)
        self.assertEqual(float(difference(decoded, decoded)), 0)

    def test_divergence(self):
        mean, log_variance = torch.tensor([0.3, -2.0]), torch.tensor([0.5, -1.0])
        own = torch.distributions.Normal(mean, (log_variance / 2).exp())
        expected = torch.distributions.kl_divergence(own, torch.distributions.Normal(0.0, 1.0))
        torch.testing.assert_close(divergence(mean, log_variance), expected.mean())

    def test_meter(self):
        """PSNR is the mean over pictures, of pixels in [0, 1], cut to them."""
        images = torch.zeros(2, 3, 4, 4)
        decoded = torch.stack([torch.full((3, 4, 4), 0.2), torch.full((3, 4, 4), 1.5)])
        nothing = torch.zeros(2, 1)
        meter = Reconstruction().meter()
        for k in range(2):
            part = slice(k, k + 1)
            made = decoded[part], nothing[part], nothing[part]
            meter.update(lambda images, made=made: made, images[part], None)
        expected = np.mean([-20 * np.log10(0.1), -20 * np.log10(0.5)])
        self.assertAlmostEqual(meter.compute(CPU)["psnr"], expected, places=4)

    def test_training_draws_latents(self):
        torch.manual_seed(0)
        network = networks.Autoencoder(AutoencoderConfig(**TINY_AUTOENCODER))
        images = torch.rand(1, 3, 64, 64)
        with torch.no_grad():
            first, again = (network(images)[0] for _ in range(2))
            self.assertFalse(torch.equal(first, again))
            network.eval()
            first, again = (network(images)[0] for _ in range(2))
        self.assertTrue(torch.equal(first, again))
        self.assertEqual(first.shape, images.shape)

    def test_factors(self):
        for factor in networks.FACTORS:
            config = AutoencoderConfig(**TINY_AUTOENCODER | {"factor": factor})
            with torch.no_grad():
                decoded, mean, _ = networks.Autoencoder(config)(torch.rand(1, 3, 64, 64))
            self.assertEqual(mean.shape, (1, 4, 64 // factor, 64 // factor))
            self.assertEqual(decoded.shape, (1, 3, 64, 64))


# ---------------------------------------------------------------- words


class WordsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        rng = np.random.default_rng(0)
        facts = [captions.imagine(k % 26, rng) for k in range(1500)]
        cls.sentences = [captions.describe(own, rng) for own in facts]
        cls.words = {word for sentence in cls.sentences for word in words_of(sentence)}
        cls.tokenizer = make_tokenizer(cls.sentences)

    def test_each_word_is_one_token(self):
        self.assertGreater(len(self.words), 100)
        seen = {}
        for word in self.words:
            start, token, end = self.tokenizer(word).input_ids
            self.assertEqual((start, end), (0, 1))
            self.assertEqual(seen.setdefault(token, word), word)

    def test_sentences_fit_and_come_back(self):
        for sentence in self.sentences[:200]:
            ids = self.tokenizer(sentence).input_ids
            self.assertLessEqual(len(ids), 32)
            words = self.tokenizer.decode(ids, skip_special_tokens=True)
            self.assertEqual(words_of(words), words_of(sentence))

    def test_is_restored_from_plain_values(self):
        state = json.loads(json.dumps(tokenizer_state(self.tokenizer)))
        restored = restore_tokenizer(state)
        for made in (encode_prompts(own, self.sentences) for own in (restored, self.tokenizer)):
            self.assertEqual(made.shape, (1500, 32))
            self.assertTrue(torch.equal(made, encode_prompts(restored, self.sentences)))

    def test_is_the_same_each_time(self):
        again = make_tokenizer(reversed(self.sentences))
        self.assertEqual(tokenizer_state(again), tokenizer_state(self.tokenizer))

    def test_unknown_words(self):
        prompt = "A STOP sign, a fantasy sign at 40 km/h 停车 a fantasy"
        self.assertEqual(unknown_words(prompt, self.words), ["fantasy", "4", "停车"])
        self.assertEqual(unknown_words("", self.words), [])


# ---------------------------------------------------------------- painting


class PaintingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tokenizer = make_tokenizer(SENTENCES)
        cls.model = tiny(len(cls.tokenizer), scaling_factor=0.7)
        cls.pipeline = painting.prepared(make_pipeline(cls.model, cls.tokenizer))

    def paint(self, *prompts, seeds=None, **options):
        return painting.paint(
            self.pipeline, prompts, seeds or range(len(prompts)), CPU, steps=4, **options
        )

    @torch.no_grad()
    def by_hand(self, prompt, guidance, seed):
        """Denoise step by step: the prediction without words, and more than to that with them."""
        scheduler = make_scheduler("v_prediction")
        scheduler.set_timesteps(4)
        noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
        for time in scheduler.timesteps:
            said, unsaid = (
                self.model(noisy, time[None], encode_prompts(self.tokenizer, [words]))
                for words in (prompt, "")
            )
            prediction = said if guidance == 1 else unsaid + guidance * (said - unsaid)
            noisy = scheduler.step(prediction, time, noisy).prev_sample
        image = self.model.vae.decode(noisy / 0.7).sample
        return ((image / 2 + 0.5).clamp(0, 1) * 255).round()[0].permute(1, 2, 0).numpy()

    def test_guidance(self):
        """1 is the prediction with the words, and above 1 it goes on in that direction."""
        pictures = []
        for guidance in (1.0, 3.0):
            painted = self.paint(SENTENCES[0], guidance=guidance, seeds=[5]).pictures[0]
            expected = self.by_hand(SENTENCES[0], guidance, 5)
            self.assertLessEqual(np.abs(painted - expected).max(), 1)
            pictures.append(painted)

    def test_strength_0_is_the_autoencoders_picture(self):
        image = Image.fromarray(captions_picture())
        painted = self.paint("", images=[image], strength=0.0).pictures[0]
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1
        with torch.no_grad():
            decoded = self.model.vae(pixels).sample[0].permute(1, 2, 0) / 2 + 0.5
        expected = (decoded.clamp(0, 1) * 255).round().numpy()
        self.assertLessEqual(np.abs(painted - expected).max(), 1)

    def test_more_strength_keeps_less(self):
        """From all of the noise, the picture that it began with is not seen any more."""
        images = [Image.fromarray(np.full((64, 64, 3), level, np.uint8)) for level in (0, 255)]
        apart = []
        for strength in (0.25, 0.5, 1.0):
            both = [self.paint("", images=[i], strength=strength).pictures[0] for i in images]
            apart.append(np.abs(np.subtract(*(own.astype(int) for own in both))).mean())
        self.assertTrue(apart[0] >= apart[1] >= apart[2], apart)
        self.assertLess(apart[2], 1)

    def test_same_seed_same_bytes(self):
        """And a picture does not hang on those painted beside it."""
        first = self.paint(*SENTENCES).pictures
        self.assertEqual(first.tobytes(), self.paint(*SENTENCES).pictures.tobytes())
        alone = self.paint(SENTENCES[1], seeds=[1]).pictures[0]
        self.assertLessEqual(np.abs(first[1].astype(int) - alone).max(), 1)
        other = self.paint(SENTENCES[1], seeds=[2]).pictures[0]
        self.assertGreater(np.abs(first[1].astype(int) - other).max(), 1)

    def test_more_than_go_together(self):
        with mock.patch.object(painting, "TOGETHER", 2):
            parts = self.paint(*SENTENCES).pictures
        whole = self.paint(*SENTENCES).pictures
        self.assertLessEqual(np.abs(parts.astype(int) - whole).max(), 1)

    def test_course(self):
        """What is left after the last step is the picture."""
        painted = self.paint(*SENTENCES[:2], course=True)
        self.assertEqual(painted.course.shape, (4, 64, 64, 3))
        self.assertLessEqual(np.abs(painted.course[-1].astype(int) - painted.pictures[0]).max(), 1)

    def test_schedulers(self):
        plain = self.pipeline.scheduler
        self.addCleanup(setattr, self.pipeline, "scheduler", plain)
        for name in painting.SCHEDULERS:
            painting.set_scheduler(self.pipeline, name)
            self.assertEqual(self.pipeline.scheduler.config.prediction_type, "v_prediction")
            for options in ({}, {"images": [Image.new("RGB", (80, 64))]}):
                pictures = self.paint("a stop sign", **options).pictures
                self.assertGreater(pictures.std(), 0.5, name)

    def test_words_are_watched(self):
        """The probabilities that the network itself computes with: they sum to 1 in each place."""
        before = self.paint(SENTENCES[0], seeds=[3]).pictures[0]
        picture, maps = attention_of_words(self.pipeline, SENTENCES[0], CPU, 3, 4)
        self.assertLessEqual(np.abs(picture.astype(int) - before).max(), 1)
        self.assertEqual(maps.shape, (32, 64, 64))
        torch.testing.assert_close(maps.sum(0), torch.ones(64, 64), atol=1e-4, rtol=1e-4)
        names = {type(own).__name__ for own in self.pipeline.unet.attn_processors.values()}
        self.assertNotIn("Watching", names)

    def test_cut_off(self):
        self.assertEqual(painting.cut_off(self.pipeline, SENTENCES[0]), "")
        rest = painting.cut_off(self.pipeline, "sign " * 29 + "stop trees night")
        self.assertEqual(rest, "trees night")


def captions_picture():
    facts = captions.Facts(0, "day", "clear", "sky", False)
    return np.asarray(captions.draw_picture(facts, np.random.default_rng(0)))


# ---------------------------------------------------------------- figures


class FiguresTest(unittest.TestCase):
    def test_frechet_distance(self):
        """As its definition has it, by the root of a matrix; of a set from itself, 0."""
        from scipy.linalg import sqrtm

        rng = np.random.default_rng(0)
        first, second = rng.normal(size=(50, 6)), 2 * rng.normal(size=(40, 6)) @ np.eye(6) + 1
        means = first.mean(0) - second.mean(0)
        spreads = np.cov(first.T), np.cov(second.T)
        root = sqrtm(spreads[0] @ spreads[1]).real
        expected = means @ means + np.trace(spreads[0] + spreads[1] - 2 * root)
        self.assertAlmostEqual(found.frechet_distance(first, second), expected, places=6)
        self.assertAlmostEqual(found.frechet_distance(first, first), 0, places=6)

    def test_the_first_of_each_class(self):
        labels = torch.tensor([0, 1, 0, 0, 1, 1, 0])
        own, others = found.first_of_each(labels, 2)
        self.assertEqual((own.tolist(), others.tolist()), ([0, 2, 1, 4], [3, 6, 5]))

    def test_signs_are_turned_into_others(self):
        classes = ["a", "b", "c"]
        self.assertEqual(found.others_in_turn(["x", "b", "c", "a", "b"], classes), [0, 2, 0, 1, 2])

    def test_the_middle_is_read(self):
        picture = np.arange(100 * 100 * 3).reshape(100, 100, 3).astype(np.uint8)
        np.testing.assert_array_equal(np.asarray(found.middle(picture)), picture[6:94, 6:94])


class CensusTest(unittest.TestCase):
    def test_stable_diffusion(self):
        """Three and three, and 859,520,964 parameters: the published network's."""
        blocks = census(stable_diffusion_unet())
        self.assertEqual(sum(block.parameters for block in blocks), 859_520_964)
        kinds = [block.kind for block in blocks if block.place != "ends"]
        down, up = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
        expected = [down, down, down, "DownBlock2D", "UNetMidBlock2DCrossAttn",
                    "UpBlock2D", up, up, up]  # fmt: skip
        self.assertEqual(kinds, expected)
        sides = [block.side for block in blocks if block.place != "ends"]
        self.assertEqual(sides, [64, 32, 16, 8, 8, 8, 16, 32, 64])

    def test_ours(self):
        unet = tiny().unet
        blocks = census(unet)
        whole = sum(parameter.numel() for parameter in unet.parameters())
        self.assertEqual(sum(block.parameters for block in blocks), whole)


# ---------------------------------------------------------------- data


class DataTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.root = make_captioned(Path(holder.name) / "data", {"train": 3})

    def test_sentences_are_those_of_the_picture(self):
        captioned = read_captioned(self.root, "train", 64)
        self.assertEqual(captioned.split.images.shape, (6, 64, 64, 3))
        for label, sentences in zip(captioned.split.labels, captioned.sentences, strict=True):
            name = captioned.split.classes[label][3:]
            for sentence in sentences:
                own = captions.names(NAMES.index(name))
                self.assertTrue(any(word in sentence for word in own), sentence)

    def test_a_sentence_is_drawn_anew(self):
        captioned = read_captioned(self.root, "train", 64)
        tokenizer = make_tokenizer(s for own in captioned.sentences for s in own)
        ids = encode_sentences(captioned, tokenizer)
        self.assertEqual(ids.shape, (6, captions.SENTENCES, 32))
        latents = torch.arange(6.0).view(6, 1, 1, 1)
        varied, fixed = (LatentDataset(captioned, latents, ids, vary) for vary in (True, False))
        self.assertTrue(torch.equal(fixed.__getitems__([4, 2])[1], ids[[4, 2], 0]))
        seen = set()
        for seed in range(30):
            batch = field_indices([4, 2], seed)
            z, words = varied.__getitems__(batch)
            self.assertEqual(z.flatten().tolist(), [4, 2])
            self.assertTrue(torch.equal(words, varied.__getitems__(batch)[1]))
            which = [(ids[k] == own).all(1).nonzero()[0, 0] for k, own in zip((4, 2), words)]  # noqa: B905
            seen.add(tuple(map(int, which)))
        self.assertGreater(len(seen), 8)

    def test_what_is_wrong_is_said(self):
        root = self.root.parent / "wrong"
        for name, damage, expected in (
            ("none", lambda path: path.unlink(), "captions.json"),
            ("torn", lambda path: path.write_text("{"), "no captions as COCO"),
            ("other", lambda path: path.write_text("[]"), "no captions as COCO"),
            ("few", drop_one, "no sentence for 12_stop/00000.jpg"),
        ):
            shutil.copytree(self.root, root / name)
            damage(root / name / "train" / "captions.json")
            with self.assertRaisesRegex(LabError, expected):
                read_captioned(root / name, "train", 64)


def field_indices(indices, seed):
    from lab.batches import BatchIndices

    batch = BatchIndices(indices)
    batch.seed = seed
    return batch


def drop_one(path):
    content = json.loads(path.read_text())
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 1]
    path.write_text(json.dumps(content))


# ---------------------------------------------------------------- the scripts


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
        self.assertEqual(first["settings"]["lr"], field.AUTOENCODER["lr"])
        self.assertEqual(last["settings"]["lr"], field.SETTINGS["lr"])
        for name, value in first["model_state"].items():
            self.assertTrue(torch.equal(value, last["model_state"][name]), name)

    def test_latents_have_unit_deviation(self):
        state = checkpoint.load(self.run_folder / "ckpt_epoch_2.pth")
        loader = field.test_loader(state, self.data, 4, CPU)
        self.assertTrue(0.3 < float(loader.dataset.latents.std()) < 3)
        model = field.load_trained(state)
        captioned = read_captioned(self.data, "train", 64)
        images = captioned.preprocess.normalize(captioned.split.images)
        with torch.no_grad():
            latents = model.vae.encode(images).latent_dist.mean * model.config.scaling_factor
        self.assertAlmostEqual(float(latents.std()), 1, places=3)

    def test_stopped_twice_it_comes_to_the_same_weights(self):
        """Once in each stage, in the middle of an epoch."""
        folder = self.base / "stopped"
        made = torch.optim.AdamW.step

        def stop_after(count):
            steps = iter(range(99))

            def step(*arguments, **options):
                if next(steps) == count:
                    signal.raise_signal(signal.SIGINT)
                return made(*arguments, **options)

            return mock.patch.object(torch.optim.AdamW, "step", step)

        with stop_after(2):
            done = script_here("train.py", "--ckpt_path", folder, *self.flags)
        self.assertEqual(done.returncode, 130, done.stderr)
        self.assertIn("epoch 2, 8 of 16 images", done.stdout)
        self.assertTrue((folder / "autoencoder" / "ckpt_interrupted.pth").is_file())
        with stop_after(3):  # one of the autoencoder's, two of the UNet's first epoch
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
        self.train(*flags, "--stage", "autoencoder")
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
        made, steps = torch.optim.AdamW.step, iter(range(99))

        def step(*arguments, **options):
            if next(steps) == 2:
                signal.raise_signal(signal.SIGINT)
            return made(*arguments, **options)

        with mock.patch.object(torch.optim.AdamW, "step", step):
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

    # ------------------------------------------------------------ diffuse.py

    def diffuse(self, *flags):
        seen = self.base / "painted"
        said = self.shown("diffuse.py", "--model", self.run_folder, "--save_dir", seen,
                          "--steps", 3, *flags)  # fmt: skip
        return said, seen / "diffuse"

    def test_paints(self):
        said, folder = self.diffuse("--prompt", "a stop sign at night", "--num_images", 2,
                                    "--seed", 7)  # fmt: skip
        self.assertNotIn("Never learned", said)
        names = sorted(path.name for path in folder.glob("*"))
        for name in ("course.jpg", "pictures.jpg", "seed_7.png", "seed_8.png"):
            self.assertIn(name, names)
        first = (folder / "seed_8.png").read_bytes()
        self.diffuse("--prompt", "a stop sign at night", "--num_images", 2, "--seed", 7)
        self.assertEqual((folder / "seed_8.png").read_bytes(), first)

    def test_paints_over_a_picture(self):
        path = self.base / "photo.png"
        Image.fromarray(captions_picture()).resize((90, 70)).save(path)
        _, folder = self.diffuse("--prompt", "a stop sign", "--image", path, "--strength", 0.7,
                                 "--guidance_scale", 7.5, "--scheduler", "euler",
                                 "--num_images", 1, "--seed", 20)  # fmt: skip
        with Image.open(folder / "seed_20.png") as image:
            self.assertEqual(image.size, (64, 64))

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
            lines = [line for line in output.splitlines() if not line.startswith("Saved")]
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
        with mock.patch.object(found, "PER_CLASS", 2):
            said = self.shown("test.py", "--ckpt_path", self.run_folder, "--epoch", "best",
                              "--read", self.reader(), "--save")  # fmt: skip
        self.assertRegex(said, r"Painted 4 pictures in 25 steps at guidance [\d.]+: [\d.]+ s")
        self.assertRegex(said, r"stop +100\.00% +100\.00%")
        self.assertRegex(said, r"roundabout +0\.00% +0\.00%")
        self.assertRegex(said, r"all +50\.00% +50\.00%")
        self.assertRegex(said, r"Fréchet distance to drawn pictures: \d")
        self.assertRegex(said, r"of as many other drawn pictures: +\d")
        self.assertTrue((self.run_folder / "painted.jpg").is_file())
        self.assertEqual(len(list((self.run_folder / "results").glob("stop_*.png"))), 2)

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
        self.assertEqual(said.count("into roundabout, read as stop"), 3)
        self.assertIn("Read as what was asked for: 0.00%", said)
        self.assertTrue((self.run_folder / "turned.jpg").is_file())
        folder = self.run_folder / "autoencoder"
        self.shown("test.py", "--ckpt_path", folder, "--epoch", "best", "--image", photos)

    def test_views(self):
        seen = self.base / "seen"
        for kind, *flags in (("unet",), ("words", "--prompt", "a stop sign"), ("strength",)):
            said = self.shown("visualize.py", "--type", kind, "--ckpt_path", self.run_folder,
                              "--epoch", "last", "--save_dir", seen, "--steps", 5,
                              *flags)  # fmt: skip
            self.assertTrue((seen / kind / f"{kind}.jpg").is_file())
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


class ImportTest(unittest.TestCase):
    def fresh(self, code):
        return subprocess.run([sys.executable, "-c", code], cwd=PROJECT, env=environment(),
                              capture_output=True, text=True)  # fmt: skip

    def test_the_libraries_do_not_take_our_datasets_for_theirs(self):
        """They look for a package `datasets` of their own; ours stands where Python finds it."""
        code = (
            "import datasets, diffusers, transformers; from diffusers import UNet2DConditionModel, "
            "StableDiffusionImg2ImgPipeline; from transformers import CLIPTextModel; "
            "import tasks.diffusion.networks; print(datasets.get_data_loader.__name__)"
        )
        done = self.fresh(code)
        self.assertEqual(done.stdout.strip(), "get_data_loader", done.stderr)

    def test_are_imported_where_diffusion_is_asked_for(self):
        """Reading the flags of all tasks needs neither."""
        code = (
            "import sys, tasks; [tasks.load(name) for name in tasks.FIELDS]; import diffuse; "
            "print([name for name in ('diffusers', 'transformers') if name in sys.modules])"
        )
        self.assertEqual(self.fresh(code).stdout.strip(), "[]")

    def test_args_are_kept_apart(self):
        """The flags of one stage are not those of the other."""
        args = Namespace(stage="all", autoencoder=None, then=None, overfit_batch=False,
                         ckpt_path=Path("x"), prediction="epsilon", autoencoder_epoch=3,
                         autoencoder_batch_size=5, autoencoder_lr=0.1,
                         **{name: value for name, value in settings().items()})  # fmt: skip
        (first, _), (last, _) = field.stages(args, None)
        self.assertEqual((first.epoch, first.batch_size, first.lr), (3, 5, 0.1))
        self.assertEqual((last.epoch, last.ckpt_path), (field.SETTINGS["epoch"], Path("x")))
        self.assertEqual(first.then["epoch"], field.SETTINGS["epoch"])
        self.assertEqual(first.then["prediction"], "epsilon")


def settings():
    from lab.settings import TrainSettings

    return asdict(TrainSettings(**field.SETTINGS))


if __name__ == "__main__":
    unittest.main()
