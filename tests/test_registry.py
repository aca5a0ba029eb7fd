"""Networks by name: from a config to a network, and from a checkpoint to the same config."""

import unittest
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from lab.console import LabError, UsageError
from lab.registry import Design, build, check_same, new_config


@dataclass(frozen=True)
class Config:
    num_classes: int
    width: int = 4
    finest: int = 32


class Network(nn.Linear):
    def __init__(self, config: Config):
        super().__init__(config.width, config.num_classes)
        self.config = config


def refuse(config: Config) -> nn.Module:
    raise ValueError(f"no width {config.width}")


NETWORKS = {
    "plain": Design(Config, Network),
    "fine": Design(Config, Network, {"finest": 8}),
    "refused": Design(Config, refuse),
}


class RegistryTest(unittest.TestCase):
    def test_new_config(self):
        """A network takes of what is known what it has an argument for; its name may fix some."""
        known = {"num_classes": 3, "width": 5, "frames": 16}
        self.assertEqual(new_config(NETWORKS, "plain", **known), Config(3, 5))
        self.assertEqual(new_config(NETWORKS, "fine", **known), Config(3, 5, finest=8))
        with self.assertRaisesRegex(UsageError, "--network big: there are plain, fine, refused"):
            new_config(NETWORKS, "big", **known)

    def test_build(self):
        """From the dict that a checkpoint holds; arguments that it is too old for have defaults."""
        network = build(NETWORKS, "plain", asdict(Config(3, 5)))
        self.assertEqual(network.config, Config(3, 5))
        self.assertEqual(build(NETWORKS, "fine", {"num_classes": 3}).config, Config(3, finest=8))

    def test_what_cannot_be_built(self):
        """One line each: no such network, arguments that are missing, unknown or refused."""
        for configs in ({}, {"num_classes": 3, "height": 1}):
            state = {"network": "plain", "configs": configs}
            with self.assertRaisesRegex(LabError, "do not fit the network 'plain'"):
                check_same(NETWORKS, "plain", Config(3), state, Path("run.pth"))
        for name, configs, words in (
            ("big", {}, "unknown network 'big'; there are plain, fine"),
            ("plain", {}, "do not fit the network 'plain': .*num_classes"),
            ("plain", {"num_classes": 3, "height": 1}, "do not fit the network 'plain': .*height"),
            ("refused", {"num_classes": 3}, "do not fit the network 'refused': no width 4"),
        ):
            with self.subTest(words), self.assertRaisesRegex(LabError, words):
                build(NETWORKS, name, configs)

    def test_the_same_network(self):
        """The first difference is named; what the checkpoint is too old for is as by default."""
        path, config = Path("run/ckpt_epoch_1.pth"), Config(3, 5)
        for state in ({"num_classes": 3, "width": 5}, asdict(config)):
            check_same(NETWORKS, "plain", config, {"network": "plain", "configs": state}, path)
        for name, configs, words in (
            ("fine", {"num_classes": 3, "width": 5}, "network is fine there, plain here"),
            ("plain", {"num_classes": 3}, "width is 4 there, 5 here; leave out the flags"),
            ("plain", {"num_classes": 3, "width": 5, "finest": 8}, "finest is 8 there, 32 here"),
        ):
            state = {"network": name, "configs": configs}
            with self.subTest(words), self.assertRaisesRegex(LabError, f"^{path} holds .*{words}"):
                check_same(NETWORKS, "plain", config, state, path)


if __name__ == "__main__":
    unittest.main()
