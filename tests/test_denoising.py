"""Noise and its removal against closed forms; the networks that learn it."""

import unittest
from dataclasses import asdict
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU

from lab.console import LabError
from lab.registry import build
from lab.settings import TrainSettings
from tasks.diffusion import FACTORS, TASK, networks
from tasks.diffusion.networks import (
    AutoencoderConfig,
    DiffusionConfig,
    LatentDiffusion,
    make_scheduler,
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
from tasks.diffusion.words import encode_prompts, make_tokenizer
from tests.tiny_diffusion import CPU, SENTENCES, SIGNS, TINY_AUTOENCODER, tiny


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


if __name__ == "__main__":
    unittest.main()
