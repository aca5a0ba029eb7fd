"""mnist_cnn, new output layers, frozen bodies, learning-rate groups; fine-tuning by train.py."""

import re
import shutil
import tempfile
import unittest
from functools import partial
from pathlib import Path
from unittest import mock
from urllib.error import URLError

import torch
from torch import nn
from torchvision import models

from lab import checkpoint
from lab.console import LabError
from lab.imagenet import PUBLISHED, download_weights, preprocess_of
from lab.optimizers import make_optimizer, make_schedule, resume_optimizer
from lab.registry import build, new_config
from lab.settings import SCHEDULES, TrainSettings
from lab.weights import load_body, load_weights, output_layer, parameter_groups
from networks import Classifier, MnistCNN
from tasks.classification.networks import NETWORKS, check_network
from tests.support import ScriptCase, make_images, script_here

# One network of each family, small ones, with the name of its output layer.
FAMILIES = {
    "resnet18": "fc",
    "vgg11": "classifier.6",
    "squeezenet1_1": "classifier.1",
    "mobilenet_v3_small": "classifier.3",
    "efficientnet_b0": "classifier.1",
}


def setUpModule():
    """Use one thread: for tensors this small the others cost more than they bring."""
    unittest.addModuleCleanup(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(1)


class MnistCNNTest(unittest.TestCase):
    def test_shapes_are_the_assignments(self):
        """28 to 26, 13, 11, 5 pixels a side; 1600 features; logits of every class."""
        model, sides = MnistCNN(1, 10), []
        for layer in model.conv_net:
            layer.register_forward_hook(lambda _, __, out: sides.append(tuple(out.shape[1:])))
        self.assertEqual(tuple(model(torch.zeros(2, 1, 28, 28)).shape), (2, 10))
        expected = [(32, 26, 26), (32, 13, 13), (64, 11, 11), (64, 5, 5)]
        self.assertEqual(sides[:4], expected)
        self.assertEqual(model.fc_net[0].in_features, 1600)

    def test_parameters_in_closed_form(self):
        for channels, classes in ((1, 10), (3, 7)):
            count = sum(p.numel() for p in MnistCNN(channels, classes).parameters())
            convolutions = 32 * (9 * channels + 1) + 64 * (9 * 32 + 1)
            self.assertEqual(count, convolutions + 128 * (1600 + 1) + classes * (128 + 1))

    def test_equals_the_assignments_layers(self):
        """The same numbers as the network written out in torch's own layers, dropout included."""
        model = MnistCNN(1, 10)
        layers = [
            nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(),
            nn.MaxPool2d(2), nn.Dropout(0.3), nn.Flatten(), nn.Linear(1600, 128), nn.ReLU(),
            nn.Dropout(0.3), nn.Linear(128, 10),
        ]  # fmt: skip
        reference = nn.Sequential(*layers)
        values = model.state_dict().values()
        reference.load_state_dict(dict(zip(reference.state_dict(), values, strict=True)))
        images = torch.randn(8, 1, 28, 28)
        outputs = []
        for network in (model, reference):
            torch.manual_seed(3)
            outputs.append((network.train()(images), network.eval()(images)))
        for ours, theirs in zip(*outputs, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        self.assertFalse(torch.equal(*outputs[0]))


class OutputLayerTest(unittest.TestCase):
    def test_five_families(self):
        """Trained on 9 classes, started with 4: the body is theirs, the output layer is new."""
        for name, layer in FAMILIES.items():
            with self.subTest(name):
                trained = build(NETWORKS, name, {"num_classes": 9})
                model = build(NETWORKS, name, {"num_classes": 4})
                fresh = {k: v.clone() for k, v in model.state_dict().items()}
                weights = trained.state_dict()
                self.assertEqual(load_body(model, weights, (layer,)), (layer,))
                for key, value in model.state_dict().items():
                    source = fresh if key.startswith(f"{layer}.") else weights
                    self.assertTrue(torch.equal(value, source[key]), key)
                with torch.inference_mode():
                    logits = model.eval()(torch.zeros(1, 3, 64, 64))
                self.assertEqual(tuple(logits.shape), (1, 4))

    def test_every_classifier_loads_what_it_saves(self):
        """Of all of torchvision's, every weight by its own name, and DenseNet's by the file's."""
        computed = ("regnet", "swin")  # these compute with tensors when they are built
        smallest = ("regnet_x_400mf", "regnet_y_400mf", "swin_t", "swin_v2_t")
        for name in PUBLISHED:
            if name.startswith(computed) and name not in smallest:
                continue
            place = "cpu" if name in smallest else "meta"
            with self.subTest(name), torch.device(place):
                network = build(NETWORKS, name, {"num_classes": 3})
                for weights in (network.state_dict(), dict(network.state_dict())):
                    load_weights(network, weights)
                new = load_body(network, network.state_dict(), (output_layer(network)[0],))
                self.assertEqual(new, ())
        with torch.device("meta"):
            network = build(NETWORKS, "densenet121", {"num_classes": 3})
        published = {
            re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key): value
            for key, value in network.state_dict().items()
        }
        self.assertIn("features.denseblock1.denselayer1.norm.1.weight", published)
        load_weights(network, published)

    def test_classes_of_other_names(self):
        """As many, but others: the output layer of the old ones is not theirs."""
        trained, model = (build(NETWORKS, "squeezenet1_1", {"num_classes": 4}) for _ in range(2))
        fresh = model.classifier[1].weight.clone()
        new = load_body(model, trained.state_dict(), ("classifier.1",), keep=False)
        self.assertEqual(new, ("classifier.1",))
        self.assertTrue(torch.equal(model.classifier[1].weight, fresh))
        self.assertTrue(torch.equal(model.features[0].weight, trained.features[0].weight))

    def test_as_many_classes_keep_the_layer(self):
        trained, model = (build(NETWORKS, "squeezenet1_1", {"num_classes": 4}) for _ in range(2))
        self.assertEqual(load_body(model, trained.state_dict(), ("classifier.1",)), ())
        for a, b in zip(model.parameters(), trained.parameters(), strict=True):
            self.assertTrue(torch.equal(a, b))

    def test_a_body_alone(self):
        """Weights without an output layer, or with one more than is here."""
        model = build(NETWORKS, "resnet18", {"num_classes": 4})
        fresh = model.fc.weight.clone()
        body = build(NETWORKS, "resnet18", {"num_classes": 9}).state_dict()
        for extra in ({}, {"head.weight": torch.zeros(2)}):
            weights = {key: value for key, value in body.items() if key[:3] != "fc."} | extra
            self.assertEqual(load_body(model, weights, ("fc", "head")), ("fc",))
            self.assertTrue(torch.equal(model.conv1.weight, weights["conv1.weight"]))
            self.assertTrue(torch.equal(model.fc.weight, fresh))

    def test_first_mismatch_is_named(self):
        """Weights of another network, or with a layer missing, are refused by that layer's name."""
        model = build(NETWORKS, "resnet18", {"num_classes": 4})
        other = build(NETWORKS, "resnet34", {"num_classes": 9}).state_dict()
        with self.assertRaisesRegex(LabError, "do not fit the network: .*layer1.2"):
            load_body(model, other, ("fc",))
        weights = build(NETWORKS, "resnet18", {"num_classes": 9}).state_dict()
        del weights["layer3.0.conv1.weight"]
        with self.assertRaisesRegex(LabError, "layer3.0.conv1.weight"):
            load_body(model, weights, ("fc",))

    def test_what_cannot_be_trained(self):
        """Images too small, several outputs, no such network: refused before any data is read."""
        four = partial(new_config, NETWORKS, num_classes=4)
        self.assertTrue(check_network("resnet18", four("resnet18"), (32, 32)))
        self.assertFalse(check_network("squeezenet1_1", four("squeezenet1_1"), (64, 64)))
        for name, size, words in (
            ("squeezenet1_1", 8, "no images of 8x8 pixels"),
            ("vit_b_32", 100, "no images of 100x100"),
            ("googlenet", 224, "several logits"),
            ("resnet19", 224, "--network resnet19: there are "),
        ):
            with self.subTest(name), self.assertRaisesRegex(LabError, words):
                check_network(name, four(name), (size, size))


class LearningRateTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.model = build(NETWORKS, "squeezenet1_1", {"num_classes": 4})

    def test_the_new_layer_learns_ten_times_as_fast(self):
        """One SGD step moves body and new layer by 1 and 10 times the rate; all are in a group."""
        groups = parameter_groups(self.model, ("classifier.1",), ("classifier.1",))
        settings = TrainSettings(optim_type="sgd", momentum=0.0, lr=1e-2)
        optimizer = make_optimizer(groups, settings, "cpu")
        make_schedule(optimizer, settings, 1, 0)
        before = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.model.eval()(torch.randn(2, 3, 64, 64)).square().sum().backward()
        optimizer.step()
        for name, parameter in self.model.named_parameters():
            rate = 1e-1 if name.startswith("classifier.1.") else 1e-2
            expected = before[name] - rate * parameter.grad
            torch.testing.assert_close(parameter.detach(), expected)

    def test_schedule_and_resuming_keep_the_ratio(self):
        """1 to 10 at every step of all schedules, also resumed, also with another rate."""
        for schedule in SCHEDULES:
            settings = TrainSettings(schedule=schedule, lr=0.1, optim_type="sgd")
            rates, saved = {}, {}
            for resumed_at in (0, 7):
                groups = parameter_groups(self.model, ("classifier.1",), ("classifier.1",))
                optimizer = make_optimizer(groups, settings, "cpu")
                if resumed_at:
                    resume_optimizer(optimizer, {"optimizer_state": saved}, settings)
                course = make_schedule(optimizer, settings, 20, resumed_at)
                for step in range(resumed_at, 20):
                    if step == 7 and not resumed_at:
                        saved = optimizer.state_dict()
                        saved["param_groups"] = [dict(group) for group in saved["param_groups"]]
                    body, head = (group["lr"] for group in optimizer.param_groups)
                    self.assertAlmostEqual(head, 10 * body, places=12)
                    self.assertAlmostEqual(rates.setdefault(step, body), body, places=12)
                    optimizer.step()
                    course.step()
        other = TrainSettings(lr=0.3, optim_type="sgd")
        optimizer = make_optimizer(groups, other, "cpu")
        resume_optimizer(optimizer, {"optimizer_state": saved}, other)
        make_schedule(optimizer, other, 20, 7)
        self.assertEqual([group["lr"] for group in optimizer.param_groups], [0.3, 3.0])

    def test_what_is_trained(self):
        """All of it in one group, unless a layer is new; what the network has frozen in none."""
        every = list(self.model.parameters())
        (group,) = parameter_groups(self.model, ("classifier.1",))
        self.assertEqual(list(map(id, group["params"])), list(map(id, every)))
        self.assertNotIn("lr_scale", group)
        self.model.features[0].requires_grad_(False)
        (group,) = parameter_groups(self.model)
        self.assertEqual(list(map(id, group["params"])), list(map(id, every[2:])))
        body, head = parameter_groups(self.model, new=("classifier.1",))
        self.assertEqual(list(map(id, body["params"])), list(map(id, every[2:-2])))
        self.assertEqual(list(map(id, head["params"])), list(map(id, every[-2:])))
        self.assertEqual(head["lr_scale"], 10)

    def test_frozen(self):
        """The output layer alone is trained; the rest needs no gradient."""
        (group,) = parameter_groups(self.model, ("classifier.1",), freeze=True)
        layer = output_layer(self.model)[1]
        self.assertEqual([id(p) for p in group["params"]], [id(layer.weight), id(layer.bias)])
        trained = [name for name, p in self.model.named_parameters() if p.requires_grad]
        self.assertEqual(trained, ["classifier.1.weight", "classifier.1.bias"])


class FineTuneTest(ScriptCase):
    """The real train.py, from weights on disk."""

    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.base = Path(holder.name)
        cls.data = make_images(cls.base / "data", {"train": 10, "val": 3, "test": 3})
        torch.manual_seed(1)
        cls.body = build(NETWORKS, "resnet18", {"num_classes": 1000}).state_dict()
        torch.save(cls.body, cls.base / "resnet18.pth")
        cls.resnet = ("--network", "resnet18", "--weights", cls.base / "resnet18.pth")

    @classmethod
    def train(cls, *more):
        common = ("--dataset", "folder", "--data_root", cls.data, "--batch_size", 8, "--epoch", 2)
        return script_here("train.py", *common, *more)

    def test_frozen_body_is_bit_identical(self):
        """Weights and batch norm's statistics are the file's; the new layer has learned."""
        folder = self.base / "frozen"
        done = self.train(*self.resnet, "--image_size", 64, "--freeze", "--ckpt_path", folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("a new output layer, fc", done.stdout)
        self.assertIn("Training 1,539 parameters on 30 train", done.stdout)
        first, last = (checkpoint.load(folder / f"ckpt_epoch_{n}.pth") for n in (1, 2))
        for key, value in last["model_state"].items():
            same = torch.equal(value, self.body[key]) if not key.startswith("fc.") else None
            self.assertIn(same, (True, None), key)
        for key in ("fc.weight", "fc.bias"):
            self.assertFalse(torch.equal(first["model_state"][key], last["model_state"][key]))
        self.assertEqual(last["preprocess"]["size"], (64, 64))
        self.assertEqual(last["preprocess"]["resize"], 73)  # 256 / 224 of 64
        self.assertEqual(last["preprocess"]["mean"], preprocess_of("resnet18").mean)
        done = script_here("test.py", "--ckpt_path", folder, "--epoch", "last")
        self.assertIn("accuracy on the test set", done.stdout, done.stderr)
        done = script_here("train.py", "--resume", folder, "--epoch", 3)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("Training 1,539 parameters", done.stdout)
        state = checkpoint.load(folder / "ckpt_epoch_3.pth")["model_state"]
        self.assertTrue(torch.equal(state["bn1.running_var"], self.body["bn1.running_var"]))

    def test_one_image_a_step(self):
        """Enough for a frozen body, whose statistics stand still; too little for batch norm."""
        flags = (*self.resnet, "--image_size", 32, "--batch_size", 1, "--epoch", 1)
        done = self.train(*flags, "--freeze", "--ckpt_path", self.base / "one")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_refused(
            self.train(*flags), 2, "--batch_size 1 is too small: batch norm needs 2"
        )

    def test_a_sign_checkpoints_body(self):
        """Our own checkpoint brings its flags; frozen, STN and statistics stay as they are."""
        signs = self.base / "signs"
        four = make_images(self.base / "four", {"train": 8, "val": 2})
        for mode in ("train", "val"):
            (four / mode / "red" / "000.png").rename(four / mode / "moved.png")
            (four / mode / "white").mkdir()
            (four / mode / "moved.png").rename(four / mode / "white" / "000.png")
        done = script_here(
            "train.py", "--data_root", four, "--bn", "--stn", "--epoch", 1, "--ckpt_path", signs
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        file = signs / "ckpt_epoch_1.pth"
        trained = checkpoint.load(file)["model_state"]
        # A run's folder stands for its best epoch.
        for weights, flags in ((signs, ("--freeze",)), (file, ("--optim_type", "sgd"))):
            folder = self.base / f"from_signs{len(flags)}"
            done = self.train("--weights", weights, *flags, "--ckpt_path", folder)
            self.assertEqual(done.returncode, 0, done.stderr)
            state = checkpoint.load(folder / "ckpt_epoch_2.pth")
            self.assertTrue(state["configs"]["use_stn"] and state["configs"]["use_batch_norm"])
            self.assertEqual(state["configs"]["num_classes"], 3)
            for key, value in state["model_state"].items():
                if key.endswith((".conv.bias", "localization_fc.0.bias")):
                    continue  # batch norm takes it out again: its gradient is rounding alone
                stays = "--freeze" in flags and not key.startswith("fc_net.4.")
                self.assertEqual(torch.equal(value, trained[key]), stays, key)

    def test_as_many_classes(self):
        """Of the same names, the output layer is gone on with; of others, or in another order, not.

        A file that does not name its classes is taken at its word.
        """
        folder, step = self.base / "three", ("--epoch", 1, "--lr", 1e-12)
        self.assertEqual(self.train("--bn", "--ckpt_path", folder, "--epoch", 1).returncode, 0)
        file = folder / "ckpt_epoch_1.pth"
        state = checkpoint.load(file)
        layer = state["model_state"]["fc_net.4.weight"]
        other = Path(shutil.copytree(self.data, self.base / "pink"))
        for mode in other.iterdir():
            (mode / "red").rename(mode / "pink")
        nameless, turned = self.base / "nameless.pth", self.base / "turned.pth"
        torch.save({k: v for k, v in state.items() if k != "class_names"}, nameless)
        torch.save(state | {"class_names": state["class_names"][::-1]}, turned)
        for number, (weights, data, kept) in enumerate((
            (file, self.data, True), (file, other, False), (turned, self.data, False),
            (nameless, other, True),
        )):  # fmt: skip
            with self.subTest(weights=weights, data=data):
                run = self.base / f"three_{number}"
                done = self.train("--weights", weights, "--data_root", data, *step,
                                  "--ckpt_path", run)  # fmt: skip
                self.assertEqual(done.returncode, 0, done.stderr)
                now = checkpoint.load(run / "ckpt_epoch_1.pth")["model_state"]["fc_net.4.weight"]
                self.assertEqual(torch.allclose(now, layer, atol=1e-6), kept)
                self.assertEqual(f"{weights}, of other classes" in done.stdout, not kept)

    def test_mobilenet_v2_trained_and_tested(self):
        """What it saves is read again, by test.py and to go on from."""
        folder = self.base / "mobile"
        flags = ("--network", "mobilenet_v2", "--image_size", 32, "--epoch", 1)
        self.assertEqual(self.train(*flags, "--ckpt_path", folder).returncode, 0)
        done = script_here("test.py", "--ckpt_path", folder)
        self.assertIn("accuracy on the test set", done.stdout, done.stderr)

    def test_weights_among_other_things(self):
        """A file of another program, its weights under `state_dict`."""
        file, folder = self.base / "other.pth", self.base / "from_other"
        torch.save({"state_dict": self.body, "epoch": 90, "arch": "resnet18"}, file)
        done = self.train(
            "--network", "resnet18", "--weights", file, "--image_size", 32, "--freeze",
            "--ckpt_path", folder, "--epoch", 1,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        state = checkpoint.load(folder / "ckpt_epoch_1.pth")["model_state"]
        for key, value in self.body.items():
            self.assertTrue(key.startswith("fc.") or torch.equal(state[key], value), key)

    def test_resumed_fine_tuning_is_bit_identical(self):
        """Body and new layer at their rates: two epochs are one and one resumed, bit for bit."""
        flags = (*self.resnet, "--image_size", 32, "--schedule", "onecycle", "--lr", "1e-4")
        whole, parts = self.base / "whole", self.base / "parts"
        done = self.train(*flags, "--ckpt_path", whole)
        self.assertEqual(done.returncode, 0, done.stderr)
        parts.mkdir()
        (parts / "ckpt_epoch_1.pth").write_bytes((whole / "ckpt_epoch_1.pth").read_bytes())
        done = script_here("train.py", "--resume", parts)
        self.assertEqual(done.returncode, 0, done.stderr)
        a, b = (checkpoint.load(folder / "ckpt_epoch_2.pth") for folder in (whole, parts))
        for key, value in a["model_state"].items():
            self.assertTrue(torch.equal(value, b["model_state"][key]), key)
        rates = [group["lr"] for group in b["optimizer_state"]["param_groups"]]
        self.assertAlmostEqual(rates[1] / rates[0], 10)
        self.assertEqual(a["new_layers"], ["fc"])
        # Runs of earlier versions had one new layer at the most, and called it so.
        first = checkpoint.load(whole / "ckpt_epoch_1.pth")
        first["new_layer"] = first.pop("new_layers")[0]
        earlier = self.base / "earlier"
        earlier.mkdir()
        checkpoint.save(earlier / "ckpt_epoch_1.pth", first)
        done = script_here("train.py", "--resume", earlier)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_same_weights(earlier / "ckpt_epoch_2.pth", whole / "ckpt_epoch_2.pth")

    def test_refusals(self):
        """Weights that do not fit, and two starts at once, in one line each."""
        folder = self.base / "refused"
        done = self.train("--network", "resnet34", *self.resnet[2:], "--ckpt_path", folder)
        self.assert_refused(done, 1, "do not fit", "layer1.2")
        self.assert_refused(self.train(*self.resnet, "--pretrained"), 2, "not allowed with")
        own, model = self.base / "own.pth", Classifier(3, 3, use_batch_norm=True)
        torch.save({"model_state": model.state_dict(), "configs": vars(model.config)}, own)
        # Flags of the checkpoint's network are not those of another.
        done = self.train("--network", "mnist_cnn", "--weights", own, "--ckpt_path", folder)
        self.assert_refused(done, 1, "do not fit")
        self.assertFalse(list(folder.glob("*")))


class FlagsTest(ScriptCase):
    def test_what_does_not_go_together(self):
        """A flag that the network has no use for is refused, and said whose it is."""
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for flags, words in {
            "--network resnet18 --bn": "--dropout belong to --network classifier",
            "--network mnist_cnn --dropout 0.5": "belong to --network classifier",
            "--network resnet19": "there are classifier, mnist_cnn and torchvision's",
            "--network mnist_cnn --image_size 32": "--image_size is for torchvision's",
            "--network classifier --pretrained": "--weights PATH",
            "--network classifier --freeze": "add --pretrained or --weights",
        }.items():
            with self.subTest(flags):
                done = script_here("train.py", *flags.split(), "--ckpt_path", folder)
                self.assert_refused(done, 2, words)

    def test_no_connection(self):
        """Weights that cannot be downloaded: where to put them, and what else to do."""
        weights = models.ResNet18_Weights.DEFAULT
        with (
            mock.patch.object(type(weights), "get_state_dict", side_effect=URLError("no route")),
            self.assertRaisesRegex(LabError, "no route.*--weights FILE, or train from scratch"),
        ):
            download_weights("resnet18", "train from scratch")
