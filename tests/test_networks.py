"""Blocks and classifier against layer-by-layer references; layout, keys and parameter counts."""

import copy
import unittest
import warnings
from dataclasses import asdict
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from lab.console import LabError
from lab.registry import build
from networks import NETWORKS, Classifier, ConvBlock
from tests.support import network_of

FLAGS = tuple(product((False, True), (False, True), (0.0, 0.3)))  # batch norm, STN, dropout


def setUpModule():
    """Use one thread: for tensors this small the others cost more than they bring."""
    unittest.addModuleCleanup(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(1)


def scramble(model: nn.Module) -> nn.Module:
    """Give a network values that no default hides: weights, shifts and running statistics."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.1)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    return model


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a state dict, which training-mode batch norm does not touch."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def batch_norm(x: Tensor, state: dict[str, Tensor], name: str, training: bool) -> Tensor:
    """Ioffe and Szegedy's formula over (N, C) or (N, C, H, W); the input itself without weights."""
    if f"{name}.weight" not in state:
        return x
    mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    if training:
        every_axis_but_channels = [axis for axis in range(x.dim()) if axis != 1]
        mean = x.mean(every_axis_but_channels)
        variance = x.var(every_axis_but_channels, correction=0)
    mean, variance, weight, bias = (
        values.view(1, -1, *[1] * (x.dim() - 2))
        for values in (mean, variance, state[f"{name}.weight"], state[f"{name}.bias"])
    )
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def block(
    x: Tensor,
    state: dict[str, Tensor],
    name: str,
    stride: int,
    padding: int,
    training: bool,
    residual: bool = False,
) -> Tensor:
    """A ConvBlock step by step: convolution, batch norm, activation, then the input added."""
    out = F.conv2d(x, state[f"{name}conv.weight"], state[f"{name}conv.bias"], stride, padding)
    out = batch_norm(out, state, f"{name}bn", training)
    out = out.clamp(min=0)
    return out + x if residual else out


def linear(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def classify(
    x: Tensor, state: dict[str, Tensor], use_stn: bool, dropout_prob: float, training: bool
) -> Tensor:
    """The contract's classifier as one straight line of operations."""
    if use_stn:
        h = block(x, state, "stn.localization_conv.0.", 2, 2, training)
        h = block(h, state, "stn.localization_conv.1.", 2, 1, training)
        h = block(h, state, "stn.localization_conv.2.", 2, 1, training)
        h = linear(h.flatten(1), state, "stn.localization_fc.0")
        h = batch_norm(h, state, "stn.localization_fc.1", training).clamp(min=0)
        theta = linear(h, state, "stn.localization_fc.3").view(-1, 2, 3)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        x = F.grid_sample(x, grid, align_corners=False)
    x = block(x, state, "conv_net.0.", 1, 2, training)
    x = block(x, state, "conv_net.1.", 2, 2, training)
    x = F.max_pool2d(x, 2, 2)
    x = block(x, state, "conv_net.3.", 1, 1, training, residual=True)
    x = block(x, state, "conv_net.4.", 1, 1, training)
    x = F.max_pool2d(x, 2, 2)
    x = block(x, state, "conv_net.6.", 1, 1, training, residual=True)
    x = F.dropout(x, dropout_prob, training)
    x = linear(x.flatten(1), state, "fc_net.0").clamp(min=0)
    x = batch_norm(x, state, "fc_net.2", training)
    x = F.dropout(x, dropout_prob, training)
    return linear(x, state, "fc_net.4")


class ConvBlockTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)

    def test_equals_reference(self):
        """relu(bn(conv(x))), plus x when residual, in training and evaluation mode."""
        for bn, residual, training in product((False, True), repeat=3):
            with self.subTest(bn=bn, residual=residual, training=training):
                out_channels, stride = (6, 1) if residual else (9, 2)
                model = ConvBlock(6, out_channels, 3, stride, 1, bn, residual)
                state = snapshot(scramble(model).train(training))
                x = torch.randn(4, 6, 8, 8)
                expected = block(x, state, "", stride, 1, training, residual)
                assert_close(model(x), expected, rtol=1e-4, atol=1e-5)

    def test_contract(self):
        """Attributes conv, bn, relu; without batch norm, bn is an identity."""
        plain, normalised = ConvBlock(3, 8, 5, 2, 2), ConvBlock(3, 8, 5, 2, 2, use_batch_norm=True)
        self.assertEqual([name for name, _ in plain.named_children()], ["conv", "bn", "relu"])
        self.assertIsInstance(plain.bn, nn.Identity)
        self.assertIsInstance(normalised.bn, nn.BatchNorm2d)
        self.assertEqual(list(plain.state_dict()), ["conv.weight", "conv.bias"])

    def test_residual_is_added_after_the_activation(self):
        """With a zero convolution the block returns x, its negative entries too."""
        model = ConvBlock(4, 4, 3, 1, 1, use_residual=True)
        nn.init.zeros_(model.conv.weight)
        nn.init.zeros_(model.conv.bias)
        x = torch.randn(2, 4, 5, 5)
        self.assertLess(x.min(), 0)
        self.assertTrue(torch.equal(model(x), x))

    def test_batch_norm_comes_before_the_activation(self):
        """In training mode the values under the activation have mean 0 and variance 1."""
        model = ConvBlock(3, 5, 3, 1, 1, use_batch_norm=True)
        seen = []
        model.relu.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        model(torch.randn(8, 3, 16, 16) * 7 + 3)
        assert_close(seen[0].mean((0, 2, 3)), torch.zeros(5), atol=1e-5, rtol=0)
        assert_close(seen[0].var((0, 2, 3), correction=0), torch.ones(5), atol=1e-3, rtol=0)

    def test_residual_that_changes_the_shape_is_refused(self):
        """Other channels, a stride, or padding that is not same: ValueError at once."""
        for arguments in ((4, 8, 3, 1, 1), (4, 4, 3, 2, 1), (4, 4, 3, 1, 0), (4, 4, 2, 1, 1)):
            with self.subTest(arguments), self.assertRaisesRegex(ValueError, "residual"):
                ConvBlock(*arguments, use_residual=True)


class ClassifierTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)

    def test_equals_reference(self):
        """All flags, in training and evaluation mode; dropout drops what the seed says."""
        for (bn, stn, dropout), training in product(FLAGS, (False, True)):
            with self.subTest(bn=bn, stn=stn, dropout=dropout, training=training):
                model = scramble(Classifier(3, 7, bn, stn, dropout)).train(training)
                state = snapshot(model)
                x = torch.randn(4, 3, 32, 32)
                torch.manual_seed(1)
                expected = classify(x, state, stn, dropout, training)
                torch.manual_seed(1)
                assert_close(model(x), expected, rtol=1e-3, atol=1e-4)

    def test_every_parameter_is_trained(self):
        """The loss's gradient reaches each of them, the STN's last layer included."""
        model = scramble(Classifier(3, 7, True, True))
        F.cross_entropy(model(torch.randn(8, 3, 32, 32)), torch.arange(8) % 7).backward()
        for name, parameter in model.named_parameters():
            # A bias in front of a batch norm is cancelled by it: only rounding is left of these.
            with self.subTest(name):
                self.assertGreater(parameter.grad.abs().max(), 0)

    def test_conv_net_layout(self):
        """The contract's table: the blocks with their arguments, the pools, the dropout."""
        table = {
            0: (3, 32, 5, 1, 2, False),  # in, out, kernel, stride, padding, residual
            1: (32, 64, 5, 2, 2, False),
            3: (64, 64, 3, 1, 1, True),
            4: (64, 128, 3, 1, 1, False),
            6: (128, 128, 3, 1, 1, True),
        }
        net = Classifier(3, 26, dropout_prob=0.25).conv_net
        self.assertEqual(len(net), 8)
        for index, row in table.items():
            with self.subTest(index):
                self.assertIsInstance(net[index], ConvBlock)
                conv = net[index].conv
                sizes = (conv.kernel_size, conv.stride, conv.padding)
                self.assertEqual(sizes, tuple((size, size) for size in row[2:5]))
                self.assertEqual((conv.in_channels, conv.out_channels), row[:2])
                self.assertEqual(net[index].use_residual, row[5])
        for index in (2, 5):
            self.assertIsInstance(net[index], nn.MaxPool2d)
            pool = net[index]
            self.assertEqual((pool.kernel_size, pool.stride, pool.padding), (2, 2, 0))
        self.assertIsInstance(net[7], nn.Dropout)
        self.assertEqual(net[7].p, 0.25)

    def test_fc_net_layout(self):
        """Linear 256, ReLU, batch norm or identity, dropout, Linear num_classes."""
        for bn, norm in ((False, nn.Identity), (True, nn.BatchNorm1d)):
            net = Classifier(3, 26, bn, dropout_prob=0.25).fc_net
            kinds = [type(layer) for layer in net]
            self.assertEqual(kinds, [nn.Linear, nn.ReLU, norm, nn.Dropout, nn.Linear])
            self.assertEqual((net[0].in_features, net[0].out_features), (2048, 256))
            self.assertEqual((net[4].in_features, net[4].out_features), (256, 26))
            self.assertEqual(net[3].p, 0.25)

    def test_state_dict_keys(self):
        """The names by which the scaffold's checkpoints and ours know the weights."""
        layers = {f"conv_net.{i}.conv" for i in (0, 1, 3, 4, 6)} | {"fc_net.0", "fc_net.4"}
        norms = {f"conv_net.{i}.bn" for i in (0, 1, 3, 4, 6)} | {"fc_net.2"}
        plain = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
        kinds = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        normalised = plain | {f"{norm}.{kind}" for norm in norms for kind in kinds}
        self.assertEqual(set(Classifier(3, 26).state_dict()), plain)
        self.assertEqual(set(Classifier(3, 26, use_batch_norm=True).state_dict()), normalised)
        with_stn = set(Classifier(3, 26, True, True).state_dict())
        self.assertEqual({key for key in with_stn if not key.startswith("stn.")}, normalised)

    def test_parameter_counts(self):
        """k^2 C_in C_out + C_out a convolution, 2 C a batch norm, summed by hand."""

        def count(*arguments) -> int:
            return sum(parameter.numel() for parameter in Classifier(*arguments).parameters())

        def conv(c_in: int, c_out: int, k: int) -> int:
            return k * k * c_in * c_out + c_out

        convs = conv(32, 64, 5) + conv(64, 64, 3) + conv(64, 128, 3) + conv(128, 128, 3)
        norms = 2 * (32 + 64 + 64 + 128 + 128 + 256)
        for c_in, classes in ((3, 26), (3, 10), (1, 43)):
            plain = conv(c_in, 32, 5) + convs + (2048 * 256 + 256) + (256 * classes + classes)
            stn = conv(c_in, 16, 5) + conv(16, 32, 3) + conv(32, 64, 3) + 2 * (16 + 32 + 64)
            stn += (1024 * 128 + 128) + 2 * 128 + (128 * 6 + 6)
            with self.subTest(in_channels=c_in, num_classes=classes):
                self.assertEqual(count(c_in, classes), plain)
                self.assertEqual(count(c_in, classes, True), plain + norms)
                self.assertEqual(count(c_in, classes, True, True), plain + norms + stn)
        self.assertEqual(count(3, 26), 843_290)
        self.assertEqual(count(3, 26, True), 844_634)
        self.assertEqual(count(3, 26, True, True), 1_001_440)

    def test_dropout(self):
        """Training drops a value with probability p and scales the others by 1 / (1 - p)."""
        model = Classifier(3, 26, dropout_prob=0.25).train()
        x = torch.randn(16, 3, 32, 32)
        features, dropped = model.conv_net[:7](x), model.conv_net(x)
        kept = dropped != 0
        assert_close(dropped[kept], features[kept] / 0.75)
        share = 1 - (kept.sum() / (features != 0).sum()).item()
        self.assertAlmostEqual(share, 0.25, delta=0.02)  # 9 standard deviations of 32,768 draws
        self.assertFalse(torch.equal(model(x), model(x)))

    def test_no_dropout_in_evaluation(self):
        """There the network computes what the same weights without dropout compute."""
        model, without = Classifier(3, 26, dropout_prob=0.5), Classifier(3, 26)
        without.load_state_dict(model.state_dict())
        x = torch.randn(4, 3, 32, 32)
        self.assertTrue(torch.equal(model.eval()(x), without.eval()(x)))

    def test_round_trip(self):
        """A network is rebuilt from its config and weights alone, and computes the same."""
        x = torch.randn(4, 3, 32, 32)
        for bn, stn, dropout in FLAGS:
            with self.subTest(bn=bn, stn=stn, dropout=dropout):
                model = scramble(Classifier(3, 7, bn, stn, dropout))
                configs = asdict(model.config)
                wanted = ("in_channels", "num_classes", "use_batch_norm", "use_stn", "dropout_prob")
                expected = dict(zip(wanted, (3, 7, bn, stn, dropout), strict=True))
                self.assertEqual(configs, expected | {"use_non_local": False})
                self.assertEqual(build(NETWORKS, "classifier", configs).config, model.config)
                rebuilt = network_of({"configs": configs, "model_state": model.state_dict()})
                self.assertTrue(torch.equal(rebuilt.eval()(x), model.eval()(x)))

    def test_scripted(self):
        """TorchScript takes it, of whole numbers as of others; the same logits."""
        images = torch.randn(2, 3, 32, 32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            for options in ({}, {"dropout_prob": 0}, {"use_batch_norm": True, "use_stn": True}):
                with self.subTest(options):
                    network = Classifier(3, 26, **options).eval()
                    scripted = torch.jit.script(network)
                    torch.testing.assert_close(scripted(images), network(images))

    def test_exported_for_any_number_of_images(self):
        number = torch.export.Dim("number", min=1, max=64)
        for options in ({}, {"use_non_local": True, "use_stn": True}):
            with self.subTest(options):
                network = Classifier(3, 26, **options).eval()
                for weight in network.parameters():  # else the non-local block is the identity
                    nn.init.normal_(weight, std=0.05)
                images = (torch.randn(4, 3, 32, 32),)
                exported = torch.export.export(network, images, dynamic_shapes=({0: number},))
                others = torch.randn(7, 3, 32, 32)
                logits = exported.module()(others)
                torch.testing.assert_close(logits, network(others), rtol=1e-4, atol=1e-4)

    def test_in_half_precision(self):
        """`.half()` and `.bfloat16()`, as a user may have it, with what turns the image too."""
        torch.manual_seed(0)
        images = torch.randn(4, 3, 32, 32)
        network = Classifier(3, 26, use_batch_norm=True, use_stn=True).eval()
        expected = network(images)
        for dtype in (torch.float16, torch.bfloat16):
            logits = copy.deepcopy(network).to(dtype)(images.to(dtype))
            self.assertEqual(logits.dtype, dtype)
            torch.testing.assert_close(logits.float(), expected, rtol=0.05, atol=0.05)

    def test_non_local_block(self):
        """It sits between blocks 3 and 4; untrained it changes nothing, trained it does."""
        model, without = Classifier(3, 7, use_non_local=True).eval(), Classifier(3, 7).eval()
        without.load_state_dict(model.state_dict(), strict=False)
        x = torch.randn(4, 3, 32, 32)
        assert_close(model(x), without(x))
        nn.init.normal_(model.non_local.out_conv.weight)
        middle = model.non_local(model.conv_net[:4](x))
        expected = model.fc_net(model.conv_net[4:](middle).flatten(1))
        self.assertTrue(torch.equal(model(x), expected))
        self.assertGreater((model(x) - without(x)).abs().max(), 1e-3)

    def test_what_cannot_be_built(self):
        """Unknown network, missing or unknown argument, weights of another network: one line."""
        configs = asdict(Classifier(3, 7).config)
        for name, arguments, named in (
            ("transformer", configs, "transformer"),
            ("classifier", {"in_channels": 3}, "num_classes"),
            ("classifier", configs | {"use_gelu": True}, "use_gelu"),
        ):
            with self.subTest(named), self.assertRaisesRegex(LabError, named) as caught:
                build(NETWORKS, name, arguments)
            self.assertNotIn("\n", str(caught.exception))
        weights = Classifier(3, 7, use_batch_norm=True).state_dict()
        with self.assertRaisesRegex(LabError, "do not fit") as caught:
            network_of({"configs": configs, "model_state": weights})
        self.assertNotIn("\n", str(caught.exception))


if __name__ == "__main__":
    unittest.main()
