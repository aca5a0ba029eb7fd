"""Optimizers by name compute what torch.optim's do, without what torch.compile wants of them."""

import subprocess
import sys
import unittest

import torch

from lab.optimizers import Muon, make_optimizer, orthogonal, resume_optimizer
from lab.settings import OPTIMIZERS, TrainSettings
from tests.support import PROJECT, environment


class ResumeTest(unittest.TestCase):
    def test_kernels_are_the_devices(self):
        """A state that a processor's fused kernel made is gone on with where there is none."""
        for name in ("adagrad", "adam"):
            weight, settings = torch.ones(3, requires_grad=True), TrainSettings(optim_type=name)
            state = make_optimizer([weight], settings, "cpu").state_dict()
            self.assertIs(state["param_groups"][0]["fused"], True)
            there = make_optimizer([weight], settings, "cuda")
            expected = there.param_groups[0]["fused"]
            resume_optimizer(there, {"optimizer_state": state}, settings)
            self.assertIs(there.param_groups[0]["fused"], expected, name)


class OptimizersTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)

    def test_equal_to_torchs(self):
        """Bit for bit over five steps, the fourth and fifth by one that took the state over."""
        for name, class_name in OPTIMIZERS.items():
            if name == "muon":  # torch's takes no vectors
                continue
            settings = TrainSettings(optim_type=name, lr=0.1, momentum=0.5, weight_decay=0.01)
            options = {"lr": 0.1, "weight_decay": 0.01}
            if name == "sgd":
                options["momentum"] = 0.5
            if name in ("sgd", "adam", "adagrad", "adamw"):
                options["fused"] = True
            weights, expected = (torch.linspace(-1, 1, 7).requires_grad_() for _ in range(2))
            own = make_optimizer([weights], settings, "cpu")
            torchs = getattr(torch.optim, class_name)([expected], **options)
            for step in range(5):
                if step == 3:
                    state = own.state_dict()
                    own = make_optimizer([weights], TrainSettings(optim_type=name), "cpu")
                    own.load_state_dict(state)
                for optimizer, parameter in ((own, weights), (torchs, expected)):
                    optimizer.zero_grad()
                    parameter.sin().sum().backward()
                    optimizer.step()
                with self.subTest(name, step=step):
                    self.assertTrue(torch.equal(weights, expected))
            self.assertEqual(repr(own), repr(torchs))
            self.assertIsInstance(own, getattr(torch.optim, class_name))

    def test_muon_equals_torchs(self):
        """Of matrices, bit for bit; of vectors beside them AdamW's."""
        options = {"lr": 0.1, "weight_decay": 0.1}
        for shape in ((8, 20), (20, 8)):
            start, bias = torch.randn(shape), torch.randn(5)
            own, expected = start.clone().requires_grad_(), start.clone().requires_grad_()
            beside, alone = bias.clone().requires_grad_(), bias.clone().requires_grad_()
            muon = Muon([own, beside], torch.bfloat16, **options)
            torchs = torch.optim.Muon([expected], **options, adjust_lr_fn="match_rms_adamw")
            adamw = torch.optim.AdamW([alone], fused=True, **options)
            for step in range(5):
                if step == 3:
                    state = muon.state_dict()
                    muon = Muon([own, beside], torch.bfloat16)
                    muon.load_state_dict(state)
                both = ((own, beside), [muon]), ((expected, alone), [torchs, adamw])
                for weights, optimizers in both:
                    for optimizer in optimizers:
                        optimizer.zero_grad()
                    sum(w.sin().square().sum() for w in weights).backward()
                    for optimizer in optimizers:
                        optimizer.step()
                self.assertTrue(torch.equal(own, expected))
                self.assertTrue(torch.equal(beside, alone))
            self.assertGreater((own - start).abs().max(), 0.1)

    def test_muon_takes_a_convolution_for_its_matrix(self):
        """Whatever the order of its weights in memory; so do groups with rates of their own."""
        weight = torch.randn(6, 4, 3, 3)
        settings = TrainSettings(optim_type="muon", precision="fp32", lr=0.05)
        ends = []
        last = weight.contiguous(memory_format=torch.channels_last)
        for given in (weight, last, weight.flatten(1)):
            own = given.clone().requires_grad_()
            muon = make_optimizer([{"params": [own], "lr_scale": 0.5}], settings, "cpu")
            self.assertEqual(muon.param_groups[0]["lr_scale"], 0.5)
            for _ in range(3):
                own.flatten(1).square().mul(torch.arange(36)).sum().backward()
                muon.step()
                muon.zero_grad()
            ends.append(own.detach().flatten(1))
        for end in ends[1:]:
            torch.testing.assert_close(end, ends[0], atol=1e-5, rtol=1e-5)

    def test_orthogonal_keeps_directions(self):
        """U and V of each U S V^T stay; of S, each value comes near 1, whatever stands beside."""
        for shape in ((3, 8, 20), (3, 20, 8)):
            matrices = torch.randn(shape, dtype=torch.double)
            matrices[1] *= 100
            u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
            for values in u.mT @ orthogonal(matrices) @ vh.mT:
                torch.testing.assert_close(values, values.diagonal().diag(), atol=1e-9, rtol=0)
                self.assertGreater(values.diagonal().min(), 0.4)
                self.assertLess(values.diagonal().max(), 1.3)

    def test_the_compiler_is_not_imported(self):
        """It takes as long as torch itself; all that training asks of an optimizer is called."""
        code = (
            "import sys, torch\n"
            "from lab.optimizers import make_optimizer, make_schedule\n"
            "from lab.settings import OPTIMIZERS, TrainSettings\n"
            "for name in OPTIMIZERS:\n"
            "    weights = torch.ones(3, requires_grad=True)\n"
            "    settings = TrainSettings(optim_type=name)\n"
            "    optimizer = make_optimizer([weights], settings, 'cpu')\n"
            "    schedule = make_schedule(optimizer, settings, 10, 0)\n"
            "    weights.sum().backward()\n"
            "    optimizer.step()\n"
            "    schedule.step()\n"
            "    optimizer.zero_grad()\n"
            "    optimizer.load_state_dict(optimizer.state_dict())\n"
            "print('torch._dynamo' in sys.modules)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=PROJECT, env=environment(), capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        self.assertEqual(done.stdout.strip(), "False", done.stderr)


if __name__ == "__main__":
    unittest.main()
