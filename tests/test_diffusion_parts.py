"""The parts of diffusion: noise against closed forms, words, painting, figures, the census."""

import json
import shutil
import tempfile
import unittest
from dataclasses import asdict
from pathlib import Path
from unittest import mock

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from PIL import Image
from transformers import CLIPTokenizer

from lab.console import LabError
from lab.registry import build
from lab.runtime import Runtime
from lab.settings import TrainSettings
from tasks.diffusion import FACTORS, TASK, DiffuseFlags, networks, painting, results
from tasks.diffusion.census import census
from tasks.diffusion.data import LatentDataset, encode_sentences, read_captioned
from tasks.diffusion.networks import (
    AutoencoderConfig,
    DiffusionConfig,
    LatentDiffusion,
    make_pipeline,
    make_scheduler,
    stable_diffusion_unet,
)
from tasks.diffusion.objective import (
    UNTOLD,
    Denoising,
    Reconstruction,
    difference,
    divergence,
    empty_where,
    told,
)
from tasks.diffusion.training import learn_words
from tasks.diffusion.views import attention_of_words
from tasks.diffusion.words import (
    encode_prompts,
    make_tokenizer,
    restore_tokenizer,
    tokenizer_state,
    unknown_words,
    words_of,
)
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
            drawn += captions.draw_chunk_of_captions(chunk)
        captions.write_sentences(root / split, drawn)
    return root


def tiny(tokens=100, **options):
    """Return an untrained network, the same each time."""
    torch.manual_seed(0)
    config = DiffusionConfig(AutoencoderConfig(**TINY_AUTOENCODER), tokens, **TINY_UNET | options)
    return LatentDiffusion(config).eval()


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
        objective = Denoising(make_scheduler("v_prediction"))
        times = torch.tensor([0, 300, 999])
        velocity = objective.target(self.clean, self.noise, times)
        noisy = objective.scheduler.add_noise(self.clean, self.noise, times)
        a = objective.scheduler.alphas_cumprod[times].sqrt().view(3, 1, 1, 1)
        s = (1 - a.square()).sqrt()
        torch.testing.assert_close(a * noisy - s * velocity, self.clean, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(s * noisy + a * velocity, self.noise, atol=1e-5, rtol=1e-4)
        other = Denoising(make_scheduler("epsilon"))
        self.assertTrue(torch.equal(other.target(self.clean, self.noise, times), self.noise))

    def test_all_steps_go_back_the_way_that_noise_came(self):
        """A network that knows the picture is led by DDIM through each noisy one to it."""
        for steps in (1000, 25):
            objective = Denoising(make_scheduler("v_prediction"))
            objective.scheduler.set_timesteps(steps)
            noisy = self.noise
            for time in objective.scheduler.timesteps:
                times = time.repeat(3)
                expected = objective.scheduler.add_noise(self.clean, self.noise, times)
                torch.testing.assert_close(noisy, expected, atol=2e-3, rtol=1e-2)
                velocity = objective.target(self.clean, self.noise, times)
                noisy = objective.scheduler.step(velocity, time, noisy).prev_sample
            torch.testing.assert_close(noisy, self.clean, atol=2e-3, rtol=1e-2)


class DenoisingTest(unittest.TestCase):
    def setUp(self):
        self.objective = Denoising(make_scheduler("v_prediction"))
        self.latents = torch.randn(64, 4, 2, 2, generator=torch.Generator().manual_seed(1))
        self.ids = torch.zeros(64, 32, dtype=torch.int64)

    def test_loss(self):
        """Of a network that predicts nothing, the mean square of the velocity."""
        scheduler, targets = self.objective.scheduler, []
        velocity = self.objective.target

        def keep(*arguments):
            targets.append(velocity(*arguments))
            return targets[-1]

        with mock.patch.object(self.objective, "target", keep):
            loss = self.objective.loss(
                lambda z, t, ids: torch.zeros_like(z), self.latents, self.ids
            )
        torch.testing.assert_close(loss, targets[0].square().mean())
        self.assertEqual(scheduler.config.num_train_timesteps, 1000)

    def test_weights_of_places(self):
        """Of a network that is wrong in one place alone, the loss is that place's share."""
        weights = torch.tensor([[3.0, 1.0], [0.0, 0.0]])
        objective = Denoising(make_scheduler("v_prediction"), weights)
        target, losses = objective.target, []
        for place in ((0, 0), (0, 1), (1, 0)):

            def off(*arguments, place=place):
                values = target(*arguments)
                values[:, :, *place] += 2.0
                return values

            right = mock.patch.object(objective, "predict", lambda *given: target(*given[1:4]))
            with right, mock.patch.object(objective, "target", off):
                losses.append(objective.loss(None, self.latents, self.ids))
        torch.testing.assert_close(torch.stack(losses), torch.tensor([3.0, 1.0, 0.0]))

    def test_what_classes_differ_in(self):
        """The variance of their means, place by place; where there is none, all the same."""
        latents, labels = torch.zeros(8, 4, 2, 2), torch.arange(8) % 2
        latents[labels == 1, :, 0, 0] = 1.0
        latents[:, :, 1, 1] = torch.arange(8.0)[:, None] // 2  # within classes
        weights = told(latents, labels)
        expected = torch.tensor([[4.0, 0.0], [0.0, 0.0]])
        torch.testing.assert_close(weights, (expected + UNTOLD) / (1 + UNTOLD))
        torch.testing.assert_close(told(latents, 0 * labels), torch.ones(2, 2))

    def test_some_captions_are_left_out(self):
        seen = []

        def network(noisy, times, ids):
            seen.append((times, ids))
            return noisy

        torch.manual_seed(0)
        full = torch.full((64, 32), 7)
        for _ in range(40):
            self.objective.loss(network, self.latents, full)
        times, ids = (torch.cat(own) for own in zip(*seen, strict=True))
        wordless = (ids != 7).any(1)
        self.assertAlmostEqual(float(wordless.float().mean()), 0.1, delta=0.02)
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
        scheduler = self.objective.scheduler

        def knows(noisy, times, ids):
            a = scheduler.alphas_cumprod[times].sqrt().view(-1, 1, 1, 1)
            s = (1 - a.square()).sqrt()
            noise = (noisy - a * own) / s
            return a * noise - s * own

        figures = []
        for network in (knows, knows, lambda z, t, ids: torch.zeros_like(z)):
            meter = self.objective.meter()
            for own in self.latents.split(40):
                meter.update(network, own, self.ids[: len(own)])
            figures.append(meter.compute(CPU))
        self.assertAlmostEqual(figures[0]["r2"], 1, places=4)
        self.assertEqual(figures[0], figures[1])
        self.assertAlmostEqual(figures[2]["r2"], 0, places=6)
        self.assertTrue(0.8 < figures[2]["loss"] < 1.2)

    def test_meter_of_other_batches(self):
        """What the n-th latent is given does not hang on them; times are as evenly spread."""
        seen = {}
        for size in (64, 10, 1):
            given, meter = [], self.objective.meter()

            def network(noisy, times, ids, given=given):
                given.append((noisy, times))
                return 0 * noisy

            for own in self.latents.split(size):
                meter.update(network, own, self.ids[: len(own)])
            seen[size] = [torch.cat(values) for values in zip(*given, strict=True)]
        for size in (10, 1):
            for one, other in zip(seen[64], seen[size], strict=True):
                torch.testing.assert_close(one, other)
        gaps = seen[64][1].sort().values.diff()
        self.assertGreater(int(gaps.min()), 5)  # 1000 / 64 is 16
        self.assertLess(int(gaps.max()), 40)


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
        for factor in FACTORS:
            config = AutoencoderConfig(**TINY_AUTOENCODER | {"factor": factor})
            with torch.no_grad():
                decoded, mean, _ = networks.Autoencoder(config)(torch.rand(1, 3, 64, 64))
            self.assertEqual(mean.shape, (1, 4, 64 // factor, 64 // factor))
            self.assertEqual(decoded.shape, (1, 3, 64, 64))

    @torch.no_grad()
    def test_decorrelated_latents_are_decoded_as_before(self):
        torch.manual_seed(0)
        vae = networks.build_vae(AutoencoderConfig(**TINY_AUTOENCODER)).double().eval()
        vae.quant_conv.bias.uniform_(-1, 1)
        vae.post_quant_conv.bias.uniform_(-1, 1)
        images = torch.rand(40, 3, 64, 64, dtype=torch.double)
        before = vae.encode(images).latent_dist.mode()
        decoded = vae.decode(before).sample
        places = before.movedim(1, -1).flatten(0, -2)
        variances = np.linalg.eigvalsh(np.cov(places.numpy().T))

        networks.decorrelate(vae, before)

        posterior = vae.encode(images).latent_dist
        after = posterior.mode()
        torch.testing.assert_close(vae.decode(after).sample, decoded)
        covariance = np.cov(after.movedim(1, -1).flatten(0, -2).numpy().T)
        # 0.05: about ten times the variance of the Gaussians that the autoencoder learns.
        expected = np.diag(variances / (variances + 0.05))
        np.testing.assert_allclose(covariance, expected, atol=1e-9)
        np.testing.assert_allclose(after.mean((0, 2, 3)), 0, atol=1e-9)
        torch.testing.assert_close(posterior.sample(), after, atol=1e-5, rtol=0)


class UNetTest(unittest.TestCase):
    @torch.no_grad()
    def test_prompt_as_a_whole(self):
        """It reaches the residual blocks, whatever the places attend to."""
        noisy, times = torch.randn(1, 4, 8, 8), torch.tensor([500])
        prompts = torch.tensor([[0, 5, 6, *[1] * 29], [0, 7, 8, *[1] * 29]])
        for pooled in (True, False):
            network = tiny(pooled=pooled)
            for name, weight in network.unet.named_parameters():
                if ".attn2.to_out." in name:
                    weight.zero_()
            made = [network(noisy, times, ids[None]) for ids in prompts]
            self.assertEqual(not torch.allclose(*made), pooled)

    def test_words_are_learned_before(self):
        """Then those that the pictures depend on set prompts apart, and others do not."""
        prompts = [f"a {sign} sign {where}" for sign in SIGNS for where in ("at night", "in snow")]
        tokenizer = make_tokenizer(prompts)
        ids = encode_prompts(tokenizer, prompts)
        latents = torch.tensor([1.0, 1, -1, -1])[:, None, None, None].expand(4, 4, 8, 8)
        network = tiny(len(tokenizer), pooled=True)

        def apart():
            with torch.no_grad():
                states = network.text_encoder(ids).last_hidden_state
                pooled = network.unet.add_embedding(states)
            return float((pooled[0] - pooled[2]).norm() / (pooled[0] - pooled[1]).norm())

        self.assertLess(apart(), 2)
        settings = TrainSettings(clip_norm=1.0)
        learn_words(
            network, latents.repeat(64, 1, 1, 1), ids[:, None].repeat(64, 1, 1), settings, CPU
        )
        self.assertGreater(apart(), 4)

    @torch.no_grad()
    def test_gates(self):
        """They compute what the library's do."""
        gates = [module for module in tiny().unet.modules() if isinstance(module, GEGLU)]
        self.assertEqual({type(gate) for gate in gates}, {networks.Gated})
        inputs = torch.randn(2, 5, gates[0].proj.in_features)
        values, gated = gates[0].proj(inputs).chunk(2, -1)
        torch.testing.assert_close(gates[0](inputs), values * F.gelu(gated))

    def test_groups_are_as_wide_as_a_processors_vectors(self):
        for config in (AutoencoderConfig(), DiffusionConfig(AutoencoderConfig(), 9)):
            for channels in config.channels:
                self.assertEqual(channels % config.groups, 0)
                self.assertGreaterEqual(channels // config.groups, 16)


class CheckpointTest(unittest.TestCase):
    """What checkpoints of any version hold, key by key: their networks are built from it."""

    AUTOENCODER = {
        "factor": 4, "latent_channels": 4, "channels": (8, 8, 8, 8), "layers": 1, "groups": 4,
    }  # fmt: skip
    UNET = {
        "autoencoder": AUTOENCODER, "tokens": 40, "scaling_factor": 0.5, "prediction": "epsilon",
        "channels": (16, 16), "layers": 1, "heads": 2, "groups": 4, "text_width": 16,
        "text_layers": 1, "text_heads": 2, "time_width": 32, "pooled": True,
    }  # fmt: skip

    def test_autoencoder(self):
        made = networks.Autoencoder(AutoencoderConfig(**self.AUTOENCODER))
        weights = made.state_dict()
        self.assertTrue(all(name.startswith("vae.") for name in weights))
        state = {"network": "autoencoder", "configs": self.AUTOENCODER, "model_state": weights}
        objective, network = TASK.restore(state)
        self.assertIsInstance(objective, Reconstruction)
        self.assert_same(network, made, self.AUTOENCODER)
        self.assertEqual(TASK.flags_of(state), {"factor": 4})

    def test_latent_diffusion(self):
        autoencoder = AutoencoderConfig(**self.AUTOENCODER)
        made = LatentDiffusion(DiffusionConfig(**self.UNET | {"autoencoder": autoencoder}))
        weights = made.state_dict()
        parts = {name.split(".")[0] for name in weights}
        self.assertEqual(parts, {"vae", "text_encoder", "unet"})
        state = {"network": "latent_diffusion", "configs": self.UNET, "model_state": weights}
        self.assertIsNone(TASK.restore(state)[0].weights)  # as in earlier checkpoints
        objective, network = TASK.restore(state | {"place_weights": [[2.0, 0.0]]})
        self.assertEqual(objective.weights.tolist(), [[2.0, 0.0]])
        self.assertEqual(objective.scheduler.config.prediction_type, "epsilon")
        self.assert_same(network, made, self.UNET)
        self.assertFalse(any(weight.requires_grad for weight in network.vae.parameters()))
        self.assertEqual(TASK.flags_of(state), {"factor": 4, "prediction": "epsilon"})

    def test_of_before_prompts_were_pooled(self):
        configs = {name: value for name, value in self.UNET.items() if name != "pooled"}
        network = build(networks.NETWORKS, "latent_diffusion", configs)
        self.assertFalse(any("add_embedding" in name for name in network.state_dict()))
        self.assertEqual(network.unet.config.resnet_time_scale_shift, "default")

    def assert_same(self, network, made, configs):
        self.assertEqual(network.config, made.config)
        self.assertEqual(asdict(network.config), configs)
        for name, value in made.state_dict().items():
            self.assertTrue(torch.equal(value, network.state_dict()[name]), name)

    def test_what_does_not_fit(self):
        for name, configs in (("other", {}), ("autoencoder", {"size": 1}),
                              ("latent_diffusion", {"autoencoder": {"size": 1}, "tokens": 9}),
                              ("latent_diffusion", {"tokens": 9})):  # fmt: skip
            with self.assertRaisesRegex(LabError, name):
                build(networks.NETWORKS, name, configs)


# ---------------------------------------------------------------- words


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
