"""Words, painting by them, what is counted of it, and the census of the network."""

import json
import shutil
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import diffusers
import numpy as np
import torch
from PIL import Image
from transformers import CLIPTokenizer

from lab.console import LabError
from tasks.diffusion import DiffuseFlags, networks, painting, results
from tasks.diffusion.census import census
from tasks.diffusion.data import LatentDataset, encode_sentences, read_captioned
from tasks.diffusion.networks import make_pipeline, make_scheduler, stable_diffusion_unet
from tasks.diffusion.views import attention_of_words
from tasks.diffusion.words import (
    encode_prompts,
    make_tokenizer,
    restore_tokenizer,
    tokenizer_state,
    unknown_words,
    words_of,
)
from tests.tiny_diffusion import CPU, SENTENCES, captions_picture, make_captioned, tiny
from world import captions
from world.signs import NAMES


class WordsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        rng = np.random.default_rng(0)
        facts = [captions.imagine(k % 26, rng) for k in range(1500)]
        cls.sentences = [captions.caption_of(own, rng) for own in facts]
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

    def test_files_of_transformers_4(self):
        """Words and merges in files of their own, beside the one that transformers 5 writes."""
        prompts = [*self.sentences[:50], "a Fantasy castle, 停车 éa 120 km/h"]
        expected = encode_prompts(self.tokenizer, prompts)
        with tempfile.TemporaryDirectory() as holder:
            folder = Path(holder)
            self.tokenizer.save_pretrained(folder)
            networks.save_tokens(self.tokenizer, folder)
            self.assertTrue(
                torch.equal(
                    encode_prompts(CLIPTokenizer.from_pretrained(folder), prompts), expected
                )
            )
            vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))
            first, *merges = (folder / "merges.txt").read_text("utf-8").splitlines()
            self.assertTrue(first.startswith("#version"))  # it is skipped, whatever it says
            # As transformers 4 reads them; tried with 4.57.6, both of its tokenizers.
            pairs = [tuple(merge.split()) for merge in merges]
            alone = CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=32)
            self.assertTrue(torch.equal(encode_prompts(alone, prompts), expected))

    def test_is_the_same_each_time(self):
        again = make_tokenizer(reversed(self.sentences))
        self.assertEqual(tokenizer_state(again), tokenizer_state(self.tokenizer))

    def test_unknown_words(self):
        prompt = "A STOP sign, a fantasy sign at 40 km/h 停车 a fantasy"
        self.assertEqual(unknown_words(prompt, self.words), ["fantasy", "4", "停车"])
        self.assertEqual(unknown_words("", self.words), [])


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
        """0 is the prediction without the words, 1 with them; beyond, on in that direction."""
        pictures = []
        for guidance in (0.0, 0.5, 1.0, 3.0):
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

    def test_negative_prompt(self):
        """Guidance goes away from it, instead of from nothing."""
        plain, same, away = (
            self.paint(SENTENCES[0], negative=words, seeds=[5]).pictures[0].astype(int)
            for words in ("", SENTENCES[0], SENTENCES[1])
        )
        alone = self.paint(SENTENCES[0], guidance=1.0, seeds=[5]).pictures[0]
        self.assertLessEqual(np.abs(same - alone).max(), 1)
        self.assertGreater(np.abs(away - plain).max(), 1)

    def test_course(self):
        """What is left after the last step is the picture; what is not shown is not decoded."""
        whole = self.paint(*SENTENCES[:2], course=True)
        self.assertTrue(np.array_equal(whole.course[-1], whole.pictures[0]))
        for shown, steps in ((10, [1, 2, 3, 4]), (3, [1, 3, 4]), (2, [1, 4])):
            with (
                mock.patch.object(painting, "SHOWN", shown),
                mock.patch.object(painting, "decode", wraps=painting.decode) as decode,
            ):
                painted = self.paint(*SENTENCES[:2], course=True)
            self.assertEqual(list(painted.steps), steps)
            self.assertEqual(decode.call_count, len(steps) - 1)
            expected = whole.course[[step - 1 for step in steps]]
            self.assertLessEqual(np.abs(painted.course.astype(int) - expected).max(), 1)

    def test_schedulers(self):
        plain = self.pipeline.scheduler
        self.addCleanup(setattr, self.pipeline, "scheduler", plain)
        for name in painting.SCHEDULERS:
            painting.set_scheduler(self.pipeline, name)
            self.assertEqual(self.pipeline.scheduler.config.prediction_type, "v_prediction")
            for options in ({}, {"images": [Image.new("RGB", (80, 64))]}):
                pictures = self.paint("a stop sign", **options).pictures
                self.assertGreater(pictures.std(), 0.5, name)

    def test_latents_are_not_clipped(self):
        """By no scheduler, whatever the settings that it is made from leave open."""
        plain = self.pipeline.scheduler
        self.addCleanup(setattr, self.pipeline, "scheduler", plain)
        for kind in (diffusers.EulerDiscreteScheduler, diffusers.DDPMScheduler):
            for name in ("ddim", "ddpm"):
                self.pipeline.scheduler = kind(prediction_type="v_prediction")
                painting.set_scheduler(self.pipeline, name)
                scheduler = self.pipeline.scheduler
                scheduler.set_timesteps(4)
                noisy, nothing = torch.full((1, 4, 8, 8), 5.0), torch.zeros(1, 4, 8, 8)
                step = scheduler.step(nothing, scheduler.timesteps[-1], noisy)
                self.assertGreater(float(step.pred_original_sample.min()), 2, (kind, name))

    def test_steps_that_no_scheduler_has(self):
        """More than it was trained with; of some that count from 1, as many too."""
        plain = self.pipeline.scheduler
        self.addCleanup(setattr, self.pipeline, "scheduler", plain)
        counting = diffusers.PNDMScheduler(skip_prk_steps=True, steps_offset=1)
        for scheduler, most in ((plain, 1000), (counting, 999)):
            self.pipeline.scheduler = scheduler
            painting.check_steps(self.pipeline, most)
            for steps in (most + 1, 10**12):
                with self.assertRaisesRegex(LabError, f"{steps} steps.*give fewer"):
                    painting.check_steps(self.pipeline, steps)

    def test_sizes(self):
        """Those asked for; of a picture its own shape, of no more than 2 to 1, in steps of 8."""
        own = (64, 64)
        for asked, given, expected in (
            ({}, None, (64, 64)), ({"height": 128}, None, (128, 64)),
            ({}, (90, 60), (64, 96)), ({}, (60, 90), (96, 64)), ({}, (3000, 7), (64, 128)),
            ({}, (7, 3000), (128, 64)), ({}, (1, 1), (64, 64)), ({}, (640, 427), (64, 96)),
            ({"width": 32}, (60, 90), (48, 32)), ({"height": 32}, (90, 60), (32, 48)),
            ({"height": 72, "width": 64}, (90, 60), (72, 64)),
        ):  # fmt: skip
            image = given and Image.new("RGB", given)
            with self.subTest(asked=asked, given=given):
                size = painting.size_for(DiffuseFlags(**asked), own, image)
                self.assertEqual(size, expected)
        image = Image.new("RGB", (768, 512))
        self.assertEqual(painting.size_for(DiffuseFlags(), (512, 512), image), (512, 768))
        painting.size_for(DiffuseFlags(height=2048, width=2048), own, None)
        with self.assertRaisesRegex(LabError, "--height"):
            painting.size_for(DiffuseFlags(height=2056, width=2048), own, None)

    def test_paints_any_size(self):
        image = Image.fromarray(captions_picture())
        for options in ({}, {"images": [image]}, {"images": [image], "strength": 0.0}):
            painted = self.paint("a stop sign", size=(32, 72), **options)
            self.assertEqual(painted.pictures.shape, (1, 32, 72, 3))

    def test_the_middle_is_taken(self):
        """As much of it as has the shape that is asked for."""
        pixels = np.zeros((20, 40, 3), np.uint8)
        pixels[:, 10:30] = 200
        image = Image.fromarray(pixels)
        self.assertEqual(np.asarray(painting.cut_to(image, 20, 20)).min(), 200)
        self.assertEqual(painting.cut_to(image, 16, 32).getpixel((0, 8)), (0, 0, 0))
        for size, lost in (((20, 20), 0.5), ((16, 32), 0), ((16, 64), 0.5)):
            self.assertAlmostEqual(painting.lost_by_cutting(image, *size), lost)

    def test_what_are_no_numbers(self):
        """Broken weights, or too little precision, are not handed out as black pictures."""
        bias = self.model.vae.decoder.conv_out.bias
        before = bias.detach().clone()
        self.addCleanup(bias.data.copy_, before)
        bias.data[0] = torch.nan
        with self.assertRaisesRegex(LabError, "no numbers"):
            self.paint(SENTENCES[0])

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
        self.assertAlmostEqual(results.frechet_distance(first, second), expected, places=6)
        self.assertAlmostEqual(results.frechet_distance(first, first), 0, places=6)

    def test_the_first_of_each_class(self):
        labels = torch.tensor([0, 1, 0, 0, 1, 1, 0])
        own, others = results.first_of_each(labels, 2)
        self.assertEqual((own.tolist(), others.tolist()), ([0, 2, 1, 4], [3, 6, 5]))

    def test_signs_are_turned_into_others(self):
        classes = ["a", "b", "c"]
        turned = results.others_in_turn(["x", "b", "c", "a", "b"], classes)
        self.assertEqual(turned, [0, 2, 0, 1, 2])

    def test_the_middle_is_read(self):
        picture = np.arange(100 * 100 * 3).reshape(100, 100, 3).astype(np.uint8)
        np.testing.assert_array_equal(np.asarray(results.middle(picture)), picture[6:94, 6:94])


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
        """All parameters are in some block, those that tell it the prompt as a whole as well."""
        for options in ({}, {"pooled": True, "time_width": 24}):
            with self.subTest(options):
                unet = tiny(**options).unet
                blocks = census(unet)
                whole = sum(parameter.numel() for parameter in unet.parameters())
                self.assertEqual(sum(block.parameters for block in blocks), whole)
                width = options.get("time_width", 4 * unet.config.block_out_channels[0])
                self.assertEqual(blocks[0].channels, width)


class DataTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.root = make_captioned(Path(holder.name) / "data", {"train": 3})

    def test_sentences_are_those_of_the_picture(self):
        captioned = read_captioned(self.root, "train")
        self.assertEqual(captioned.split.images.shape, (6, 64, 64, 3))
        for label, sentences in zip(captioned.split.labels, captioned.sentences, strict=True):
            name = captioned.split.classes[label][3:]
            for sentence in sentences:
                own = captions.names(NAMES.index(name))
                self.assertTrue(any(word in sentence for word in own), sentence)

    def test_a_sentence_is_drawn_anew(self):
        captioned = read_captioned(self.root, "train")
        tokenizer = make_tokenizer(s for own in captioned.sentences for s in own)
        ids = encode_sentences(captioned, tokenizer)
        self.assertEqual(ids.shape, (6, captions.SENTENCES, 32))
        latents = torch.arange(6.0).view(6, 1, 1, 1)
        varied, fixed = (LatentDataset(captioned, latents, ids, vary) for vary in (True, False))
        self.assertTrue(torch.equal(fixed.__getitems__([4, 2])[1], ids[[4, 2], 0]))
        seen = set()
        for seed in range(30):
            batch = indices_of([4, 2], seed)
            z, words = varied.__getitems__(batch)
            self.assertEqual(z.flatten().tolist(), [4, 2])
            self.assertTrue(torch.equal(words, varied.__getitems__(batch)[1]))
            which = [(ids[k] == own).all(1).nonzero()[0, 0] for k, own in zip((4, 2), words)]  # noqa: B905
            seen.add(tuple(map(int, which)))
        self.assertGreater(len(seen), 8)

    def test_captions_from_windows(self):
        """A byte order mark, and the other system's separators."""
        root = self.root.parent / "windows"
        shutil.copytree(self.root, root)
        file = root / "train" / "captions.json"
        content = json.loads(file.read_text())
        for entry in content["images"]:
            entry["file_name"] = entry["file_name"].replace("/", "\\")
        file.write_text(json.dumps(content), encoding="utf-8-sig")
        expected = read_captioned(self.root, "train").sentences
        self.assertEqual(read_captioned(root, "train").sentences, expected)

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
                read_captioned(root / name, "train")


def indices_of(indices, seed):
    from lab.batches import BatchIndices

    batch = BatchIndices(indices)
    batch.seed = seed
    return batch


def drop_one(path):
    content = json.loads(path.read_text())
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 1]
    path.write_text(json.dumps(content))


if __name__ == "__main__":
    unittest.main()
