"""Optimizers by name compute what torch.optim's do, without what torch.compile wants of them."""

import subprocess
import sys
import unittest

import torch

from lab.optimizers import make_optimizer
from lab.settings import OPTIMIZERS, TrainSettings
from tests.support import PROJECT, environment


class OptimizersTest(unittest.TestCase):
    def test_equal_to_torchs(self):
        """Bit for bit over five steps, the fourth and fifth by one that took the state over."""
        for name, class_name in OPTIMIZERS.items():
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
