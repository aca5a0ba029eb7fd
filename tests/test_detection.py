"""Detectors: parts, shapes and losses against loops; what they find; training through the loop."""

import io
import json
import math
import re
import tempfile
import unittest
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.ops import box_iou, generalized_box_iou

import tasks.detection
from lab import checkpoint, engine
from lab.console import LabError
from lab.images import as_input
from lab.registry import Design, build
from lab.runtime import Runtime
from lab.settings import TrainSettings
from lab.weights import load_body
from networks import Classifier
from tasks import TestFlags, TrainFlags
from tasks.detection import DATASETS, OWN, TASK, Flags
from tasks.detection.boxes import multibox_target
from tasks.detection.centernet import (
    CenterNet,
    CenterNetConfig,
    box_loss,
    boxes_to_read,
    certainty,
    focal_loss,
    middles,
    peaks,
)
from tasks.detection.data import SOURCES, make_loader, read_split
from tasks.detection.detector import Detector, split_targets
from tasks.detection.networks import NETWORKS, folded
from tasks.detection.results import as_read
from tasks.detection.ssd import (
    BOOK_SIZES,
    SIGN_SIZES,
    TinySSD,
    base_net,
    bbox_predictor,
    cls_predictor,
    concat_preds,
    down_sample_blk,
    flatten_pred,
    multibox_labels,
    multibox_loss,
)
from tasks.detection.torchvision_detectors import (
    PUBLISHED,
    TorchvisionConfig,
    TorchvisionDetector,
    build_bare,
)
from tasks.detection.windows import Windows
from tasks.sign_reader import SignReader
from tasks.trained import load_trained
from tests.support import ScriptCase, script, script_here, stopped_at
from world.faces import FACES

SMALLEST = "ssdlite320_mobilenet_v3_large"  # of torchvision's


def target(*boxes: tuple[float, float, float, float, int]) -> dict[str, Tensor]:
    """Return a target of boxes, each with its class behind its edges; of class -1, ignored ones."""
    rows = torch.tensor(boxes, dtype=torch.float32).view(-1, 5)
    labels = rows[:, 4].long()
    return {"boxes": rows[:, :4], "labels": labels.clamp(min=0), "ignored": labels < 0}


def trained(network: torch.nn.Module) -> torch.nn.Module:
    """Return a network in evaluation mode whose batch norms have seen something."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.copy_(0.1 * torch.randn(len(module.weight), generator=generator))
            module.running_var.copy_(0.5 + torch.rand(len(module.weight), generator=generator))
    return network.eval()


def center_net(num_classes: int, width: int) -> CenterNet:
    """Return a new CenterNet."""
    return CenterNet(CenterNetConfig(num_classes, width))


def torchvision_detector(name: str, num_classes: int) -> TorchvisionDetector:
    """Return one of torchvision's, new."""
    return TorchvisionDetector(TorchvisionConfig(name, num_classes))


def by_heart(network: torch.nn.Module, images: Tensor, targets: list[dict[str, Tensor]]) -> None:
    """Have a network learn a batch; its batch norms then have the statistics of that batch."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        sum(network(images, targets).values()).backward()
        optimizer.step()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches, from here on
            module.reset_running_stats()
    with torch.no_grad():
        network(images)


class TestParts(unittest.TestCase):
    def test_predictors_of_the_book(self):
        first = cls_predictor(8, 5, 10)(torch.zeros(2, 8, 20, 20))
        second = cls_predictor(16, 3, 10)(torch.zeros(2, 16, 10, 10))
        self.assertEqual((first.shape, second.shape), ((2, 55, 20, 20), (2, 33, 10, 10)))
        self.assertEqual(concat_preds([first, second]).shape, (2, 25300))
        self.assertEqual(bbox_predictor(8, 5)(torch.zeros(2, 8, 20, 20)).shape, (2, 20, 20, 20))

    def test_blocks_of_the_book(self):
        self.assertEqual(down_sample_blk(3, 10)(torch.zeros(2, 3, 20, 20)).shape, (2, 10, 10, 10))
        self.assertEqual(base_net()(torch.zeros(2, 3, 256, 256)).shape, (2, 64, 32, 32))

    def test_predictions_are_laid_out_as_anchors_are(self):
        count, values = 3, 2
        pred = torch.arange(2 * count * values * 4 * 5).view(2, count * values, 4, 5)
        flat = flatten_pred(pred).view(2, 4 * 5 * count, values)
        for y, x, anchor in ((0, 0, 1), (2, 3, 0), (3, 4, 2)):
            expected = pred[1, anchor * values : (anchor + 1) * values, y, x]
            self.assertEqual(flat[1, (y * 5 + x) * count + anchor].tolist(), expected.tolist())

    def test_shapes_of_the_book(self):
        with torch.no_grad():
            anchors, classes, offsets = TinySSD(num_classes=1)(torch.zeros(32, 3, 256, 256))
        self.assertEqual(anchors.shape, (1, 5444, 4))
        self.assertEqual(classes.shape, (32, 5444, 2))
        self.assertEqual(offsets.shape, (32, 21776))

    def test_faults_of_the_printed_code(self):
        """`nun_anchors=4` names nothing: predictors keep another number, and reshaping fails."""
        with self.assertRaises(TypeError):
            cls_predictor(64, nun_anchors=4, num_classes=1)
        with self.assertRaises(TypeError):
            TinySSD(num_classes=1, nun_anchors=4)
        features, anchors = torch.zeros(2, 64, 32, 32), 32 * 32 * 4
        for num_anchors in (5, 3):  # of the book's examples before it
            left_over = concat_preds([cls_predictor(64, num_anchors, 1)(features)])
            with self.assertRaises(RuntimeError):
                left_over.reshape(2, anchors, 2)
        ours = concat_preds([cls_predictor(64, 4, 1)(features)])
        self.assertEqual(ours.reshape(2, anchors, 2).shape, (2, anchors, 2))


class TestTinySSD(unittest.TestCase):
    def test_anchors_have_one_size_in_pixels(self):
        network = trained(TinySSD(1))
        sides = []
        for height, width in ((256, 256), (512, 768), (352, 416)):
            with torch.no_grad():
                maps = network.maps(torch.zeros(1, 3, height, width))
            whole = (math.ceil(height / 256), math.ceil(width / 256))
            self.assertEqual(tuple(maps[-1].shape[-2:]), whole)
            for anchors, stride in zip(
                network.anchors(maps, height, width), (8, 16, 32, 64, 256), strict=True
            ):
                boxes = anchors[0] * torch.tensor([width, height, width, height])
                sides.append((boxes[:, 2:] - boxes[:, :2])[:4])
                first = (boxes[0, :2] + boxes[0, 2:]) / 2
                torch.testing.assert_close(first, torch.full((2,), stride / 2))
        torch.testing.assert_close(sides[:5], sides[5:10])
        torch.testing.assert_close(sides[:5], sides[10:])

    def test_a_whole_picture_is_searched_as_its_crops_are(self):
        """Away from the crop's edges, each scale says the same of its anchors."""
        network = trained(TinySSD(2, SIGN_SIZES))
        torch.manual_seed(0)
        picture = torch.randn(1, 3, 768, 768)
        with torch.no_grad():
            whole = self.by_map(network(picture), 768)
            crop = self.by_map(network(picture[..., 256:512, 256:512]), 256)
        for predictions, of_crop, stride, edge in zip(whole, crop, (8, 16), (6, 5), strict=True):
            inner = slice(256 // stride + edge, 512 // stride - edge)
            for ours, expected in zip(predictions, of_crop, strict=True):
                expected = expected[edge:-edge, edge:-edge]
                torch.testing.assert_close(ours[inner, inner], expected, atol=1e-4, rtol=1e-4)

    @staticmethod
    def by_map(predictions: tuple[Tensor, Tensor, Tensor], side: int) -> list[list[Tensor]]:
        """Return classes and offsets of the first two maps, (h, w, anchors * values) each."""
        _, classes, offsets = predictions
        maps, start = [], 0
        for rows in (side // 8, side // 16):
            own = slice(start, start := start + rows * rows * 4)
            both = (classes[0], offsets.view(-1, 4))
            maps.append([values[own].view(rows, rows, -1) for values in both])
        return maps

    def test_images_of_any_size(self):
        network = trained(TinySSD(3))
        for size in ((20, 30), (64, 64), (100, 333), (300, 200)):
            with torch.no_grad():
                found = network.detect(torch.randn(2, 3, *size), threshold=0.0)
            for each in found:
                self.assertTrue(len(each["boxes"]))
                self.assertTrue((each["boxes"] >= 0).all())
                self.assertLessEqual(each["boxes"][:, 2].max(), size[1])
                self.assertLessEqual(each["boxes"][:, 3].max(), size[0])
                self.assertTrue((each["scores"].diff() <= 0).all())
                self.assertTrue(((each["labels"] >= 0) & (each["labels"] < 3)).all())

    def test_loss_against_a_loop(self):
        torch.manual_seed(0)
        anchors = torch.rand(1, 40, 2)
        anchors = torch.cat((anchors * 0.6, anchors * 0.6 + 0.35), 2)
        targets = [
            target((10, 20, 44, 56, 1), (50, 40, 90, 78, 0)),
            target((0, 0, 60, 50, -1)),
        ]
        classes, offsets = torch.randn(2, 40, 3), torch.randn(2, 160)
        losses = multibox_loss(anchors, classes, offsets, targets, 100, 100)
        truth = multibox_target(anchors, multibox_labels(split_targets(targets)[0], 100, 100))
        class_losses, box_losses = [], []
        for n in range(2):
            positive, negative, distance = [], [], 0.0
            for a in range(40):
                kind = int(truth[2][n, a])
                each = float(-classes[n, a].log_softmax(0)[kind])
                x = 100 * float(anchors[0, a, 0] + anchors[0, a, 2]) / 2
                y = 100 * float(anchors[0, a, 1] + anchors[0, a, 3]) / 2
                if kind:
                    positive.append(each)
                    for k in range(4):
                        gap = abs(float(offsets[n, 4 * a + k] - truth[0][n, 4 * a + k]))
                        distance += gap - 0.5 if gap > 1 else gap * gap / 2
                elif n == 0 or not (x < 60 and y < 50):
                    negative.append(each)
            worst = sorted(negative)[::-1][: max(8, 3 * len(positive))]
            class_losses.append((sum(positive) + sum(worst)) / max(1, len(positive)))
            box_losses.append(distance / max(1, len(positive)))
        self.assertAlmostEqual(float(losses["class_loss"]), sum(class_losses) / 2, places=3)
        self.assertAlmostEqual(float(losses["box_loss"]), sum(box_losses) / 2, places=3)

    def test_what_is_predicted_is_found(self):
        """Predictions that say the truth give the true boxes, in pixels, once each."""
        truth = [target((40, 50, 70, 85, 1), (150, 60, 260, 170, 0)), target()]
        network = TinySSD(2, SIGN_SIZES).eval()
        images = torch.zeros(2, 3, 200, 300)
        with torch.no_grad():
            filled = F.pad(images, (0, 20, 0, 24))
            anchors, classes, _ = network(filled)
        offsets, _, kinds = multibox_target(anchors, multibox_labels(truth, 224, 320))
        logits = 20.0 * F.one_hot(kinds, 3)
        network.forward = lambda images: (anchors, logits.view_as(classes), offsets)
        found = network.detect(images)
        order = found[0]["labels"].argsort(descending=True)
        self.assertEqual(found[0]["labels"][order].tolist(), [1, 0])
        torch.testing.assert_close(
            found[0]["boxes"][order], truth[0]["boxes"], atol=1e-2, rtol=1e-3
        )
        self.assertEqual(len(found[1]["boxes"]), 0)


class TestCenterNet(unittest.TestCase):
    def test_shapes(self):
        network = center_net(5, 8).eval()
        with torch.no_grad():
            heat, distances, features = network(torch.zeros(2, 3, 64, 96))
        self.assertEqual((heat.shape, distances.shape), ((2, 1, 16, 24), (2, 4, 16, 24)))
        self.assertEqual([each.shape for each in features], [(2, 8, 16, 24), (2, 16, 8, 12)])
        self.assertTrue((distances > 0).all())
        # A new network takes nearly nothing for a sign, so that the first steps are no shock.
        self.assertLess(heat.sigmoid().max(), 0.02)

    def test_a_whole_picture_is_searched_as_its_crops_are(self):
        """Away from the crop's edges, positions and boxes say the same."""
        network = trained(center_net(3, 8))
        torch.manual_seed(0)
        picture = torch.randn(1, 3, 704, 704)
        with torch.no_grad():
            whole = network(picture)
            crop = network(picture[..., 96:608, 96:608])
            inner, own = slice(344 // 4, 360 // 4), slice(248 // 4, 264 // 4)
            for ours, of_crop in zip(whole[:2], crop[:2], strict=True):
                expected = of_crop[..., own, own]
                torch.testing.assert_close(ours[..., inner, inner], expected, atol=1e-4, rtol=1e-4)
            box = torch.tensor([[340.0, 345, 362, 366]])
            ours, expected = network.read(whole[2], [box]), network.read(crop[2], [box - 96])
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)

    def test_focal_loss_against_a_loop(self):
        torch.manual_seed(0)
        heat = torch.randn(1, 10, 12)
        targets = [target((8, 8, 28, 20, 0), (21, 10, 29, 34, 0), (0, 24, 18, 40, -1))]
        sought, ignored = split_targets(targets)
        centres = middles(heat[:, None])
        expected = 0.0
        for j in range(10):
            for i in range(12):
                x, y, bell = 4 * i + 2, 4 * j + 2, 0.0
                for left, top, right, bottom in sought[0]["boxes"].tolist():
                    cx, cy = (left + right) / 2, (top + bottom) / 2
                    sx, sy = max(2, 0.09 * (right - left)), max(2, 0.09 * (bottom - top))
                    near = math.exp(-(((x - cx) / sx) ** 2 + ((y - cy) / sy) ** 2) / 2)
                    bell = max(bell, min(near, 1 - 1e-4))
                    if (i, j) == (cx // 4, cy // 4):
                        bell = 1
                p = 1 / (1 + math.exp(-float(heat[0, j, i])))
                if bell == 1:
                    expected -= (1 - p) ** 2 * math.log(p)
                elif not (x < 18 and 24 <= y < 40):
                    expected -= (1 - bell) ** 4 * p**2 * math.log(1 - p)
        self.assertAlmostEqual(
            float(focal_loss(heat, centres, sought, ignored)), expected, places=3
        )

    def test_box_loss_against_a_loop(self):
        """The 3x3 positions next to a centre learn, where they are within the box."""
        torch.manual_seed(0)
        distances = torch.rand(2, 4, 8, 8) * 12 + 1
        sought, _ = split_targets([target((6, 5, 25, 22, 0), (20, 20, 25, 30, 1)), target()])
        expected = 0.0
        for box in sought[0]["boxes"]:
            each = []
            for j in range(8):
                for i in range(8):
                    x, y = 4.0 * i + 2, 4.0 * j + 2
                    near = max(abs(x - float(box[0] + box[2]) / 2),
                               abs(y - float(box[1] + box[3]) / 2)) < 6  # fmt: skip
                    if near and box[0] < x < box[2] and box[1] < y < box[3]:
                        a, b, c, d = distances[0, :, j, i].tolist()
                        found = torch.tensor([[x - a, y - b, x + c, y + d]])
                        each.append(1 - float(generalized_box_iou(found, box[None])))
            self.assertIn(len(each), range(1, 10))
            expected += sum(each) / len(each)
        loss = box_loss(distances, middles(distances), sought)
        self.assertAlmostEqual(float(loss), expected, places=4)
        self.assertEqual(
            float(box_loss(distances, middles(distances), split_targets([target()] * 2)[0])), 0
        )

    def test_what_is_asked_of_the_second_look(self):
        """True boxes and clear ones; half a sign, and what is ignored, are left out."""
        (sought,), (ignored,) = split_targets([target((10, 10, 30, 30, 2), (60, 60, 90, 90, -1))])
        likeliest = torch.tensor(
            [[11.0, 11, 31, 31], [20, 10, 40, 30], [62, 62, 88, 88], [100, 0, 120, 20]]
        )
        boxes, answers = boxes_to_read(likeliest, sought, ignored, no_sign=5)
        self.assertEqual(answers.tolist(), [2, 2, 5])
        expected = torch.stack((sought["boxes"][0], likeliest[0], likeliest[3]))
        torch.testing.assert_close(boxes, expected)
        half = torch.tensor([[10.0, 10, 30, 20]])  # an IoU of exactly 0.5 is found
        self.assertEqual(boxes_to_read(half, sought, ignored, no_sign=5)[1].tolist(), [2, 2])
        boxes, answers = boxes_to_read(
            likeliest[:0], *(each[0] for each in split_targets([target()])), 5
        )
        self.assertEqual((len(boxes), len(answers)), (0, 0))

    def test_peaks_are_the_highest_around(self):
        heat = torch.full((1, 1, 6, 7), -9.0)
        heat[0, 0, 2, 3], heat[0, 0, 2, 4], heat[0, 0, 5, 0] = 2.0, 1.0, 0.0
        distances = torch.tensor([1.0, 2, 3, 4]).view(1, 4, 1, 1).expand(1, 4, 6, 7)
        boxes, scores = peaks(heat, distances, 3)
        torch.testing.assert_close(scores[0, :2], torch.tensor([2.0, 0.0]).sigmoid())
        self.assertLess(scores[0, 2], 0.01)
        expected = torch.tensor([[13.0, 8, 17, 14], [1, 20, 5, 26]])
        torch.testing.assert_close(boxes[0, :2], expected)

    def test_pictures_without_a_sign(self):
        """All is background there; what is ignored is nothing at all."""
        network = center_net(2, 8)
        losses = network(torch.randn(2, 3, 64, 64), [target(), target((0, 0, 64, 64, -1))])
        sum(losses.values()).backward()
        self.assertTrue(all(value.isfinite() for value in losses.values()))
        self.assertEqual(float(losses["box_loss"].detach()), 0)
        found = network.eval().detect(torch.randn(1, 3, 50, 70), threshold=0.9)
        self.assertEqual({name: len(value) for name, value in found[0].items()},
                         {"boxes": 0, "scores": 0, "labels": 0})  # fmt: skip

    def test_certainty_is_the_mean_of_three_shares(self):
        scores, shares = torch.tensor([0.5, 0.9]), torch.tensor([[0.6, 0.3, 0.1], [0.0, 0.2, 0.8]])
        found, labels = certainty(scores, shares)
        self.assertEqual(labels.tolist(), [0, 1])
        wanted = [(0.5**2 * 0.9**2 * 0.6) ** (1 / 5), (0.9**2 * 0.2**2 * 0.2) ** (1 / 5)]
        torch.testing.assert_close(found, torch.tensor(wanted))

    def test_the_threshold_leaves_out_nothing_else(self):
        """What the first look alone lets pass is all that both would."""
        torch.manual_seed(0)
        network = center_net(2, 8).eval()
        torch.nn.init.normal_(network.head[1].weight, std=0.5)
        images = torch.randn(1, 3, 96, 96)
        (every,) = network.detect(images, threshold=0.0)
        least = float(every["scores"].median())
        (most,) = network.detect(images, threshold=least)
        kept = every["scores"] >= least
        self.assertTrue(0 < kept.sum() < len(kept))
        for name, value in most.items():
            torch.testing.assert_close(value, every[name][kept])

    def test_learns_a_sign(self):
        """By heart, in a few steps: where it is, how large, and which of two."""
        torch.manual_seed(0)
        images, targets = -torch.ones(4, 3, 64, 64), []
        for k, (x, y, side) in enumerate([(10, 12, 20), (30, 20, 28), (24, 36, 16), (4, 4, 40)]):
            images[k, k % 2, y : y + side, x : x + side] = 1
            targets.append(target((x, y, x + side, y + side, k % 2)))
        network = center_net(2, 16)
        by_heart(network, images, targets)
        with torch.inference_mode():
            found = network.eval().detect(images, threshold=0.5)
        for each, truth in zip(found, targets, strict=True):
            self.assertEqual(each["labels"].tolist(), truth["labels"].tolist())
            self.assertGreater(float(box_iou(each["boxes"], truth["boxes"])), 0.7)


class TestTorchvisionDetector(unittest.TestCase):
    def test_losses_and_detections(self):
        """In either mode losses, batch norms left alone in evaluation; classes begin at 0."""
        targets = [target((30, 30, 60, 60, 1), (80, 70, 90, 95, -1)), target()]
        torch.manual_seed(0)
        network = torchvision_detector(SMALLEST, 2)
        images = torch.rand(2, 3, 96, 128) * 2 - 1
        self.assertTrue(all(loss.isfinite() for loss in network(images, targets).values()))
        network.eval()
        before = {name: value.clone() for name, value in network.named_buffers()}
        with torch.inference_mode():
            self.assertTrue(all(loss.isfinite() for loss in network(images, targets).values()))
            found = network.detect(images, threshold=0.0)
        self.assertFalse(any(module.training for module in network.modules()))
        for name, value in network.named_buffers():
            torch.testing.assert_close(value, before[name])
        self.assertEqual(set(found[0]["labels"].tolist()), {0, 1})

    def test_what_it_is_to_learn(self):
        """Classes begin at 1 there, and what is ignored is left out."""
        network = torchvision_detector(SMALLEST, 2)
        with mock.patch.object(network.network, "forward", return_value={}) as forward:
            network(torch.zeros(1, 3, 64, 64), [target((3, 3, 6, 6, 1), (8, 7, 9, 9, -1))])
        (_, (sought,)), _ = forward.call_args
        self.assertEqual(sought["labels"].tolist(), [2])
        self.assertEqual(sought["boxes"].tolist(), [[3, 3, 6, 6]])

    def test_one_object_is_of_one_class(self):
        """Of boxes in one place the likeliest stays, whatever the classes; of others all do."""
        network = torchvision_detector(SMALLEST, 3).eval()
        found = {
            "boxes": torch.tensor([[10.0, 10, 40, 40], [11, 10, 41, 40], [60, 10, 90, 40]]),
            "scores": torch.tensor([0.5, 0.8, 0.3]),
            "labels": torch.tensor([1, 2, 3]),
        }
        with mock.patch.object(network.network, "forward", return_value=[found]):
            (kept,) = network.detect(torch.zeros(1, 3, 64, 96))
        self.assertEqual(kept["labels"].tolist(), [1, 2])
        self.assertEqual(kept["boxes"].tolist(), [[11, 10, 41, 40], [60, 10, 90, 40]])

    def test_sees_what_torchvision_would(self):
        """Pixels in [-1, 1] come to the network as its weights expect them; sizes are kept."""
        network = torchvision_detector("fasterrcnn_mobilenet_v3_large_320_fpn", 1).eval()
        pixels = torch.rand(1, 3, 64, 96)
        seen = []
        network.network.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        with torch.inference_mode():
            network.detect(pixels * 2 - 1)
        mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        torch.testing.assert_close(seen[0], (pixels - mean) / std, atol=1e-5, rtol=1e-5)

    def test_takes_weights_as_torchvision_publishes_them(self):
        """Of 90 classes, without counts of batches, under the names of its first versions."""
        name = "fasterrcnn_mobilenet_v3_large_320_fpn"
        published = {
            key.replace("blocks.0.0.", "blocks.0.").replace("rpn.head.conv.0.0.", "rpn.head.conv."):
            value for key, value in build_bare(TorchvisionConfig(name, 90)).state_dict().items()
            if not key.endswith("num_batches_tracked")
        }  # fmt: skip
        for key in ("backbone.fpn.inner_blocks.0.weight", "rpn.head.conv.weight"):
            self.assertIn(key, published)
        network = torchvision_detector(name, 2)
        box_predictor = "network.roi_heads.box_predictor"
        new = network.load_published(published)
        self.assertEqual(new, (f"{box_predictor}.cls_score", f"{box_predictor}.bbox_pred"))
        own = network.network.state_dict()
        for ours, theirs in (
            ("backbone.fpn.inner_blocks.0.0.weight", "backbone.fpn.inner_blocks.0.weight"),
            ("rpn.head.conv.0.0.weight", "rpn.head.conv.weight"),
            ("roi_heads.box_head.fc6.weight",) * 2,
        ):
            self.assertTrue(torch.equal(own[ours], published[theirs]), ours)


class TestNetworks(unittest.TestCase):
    def test_names(self):
        """Those that help texts list are those that there are; students import the book's."""
        self.assertEqual(DATASETS, tuple(SOURCES))
        self.assertEqual((*OWN, *PUBLISHED), tuple(NETWORKS))
        for name in (
            "TinySSD", "base_net", "bbox_predictor", "cls_predictor", "concat_preds",
            "down_sample_blk", "flatten_pred", "assign_anchor_to_bbox", "box_iou",
            "multibox_detection", "multibox_prior", "multibox_target", "nms", "offset_boxes",
            "offset_inverse",
        ):  # fmt: skip
            self.assertTrue(callable(getattr(tasks.detection, name)), name)
        with self.assertRaises(ImportError):
            from tasks.detection import nothing  # noqa: F401

    def test_checkpoints_of_the_first_versions(self):
        """Their configs hold what was needed then; the weights' names are the same."""
        for name, configs, network, names in (
            ("tiny_ssd", {"num_classes": 2, "sizes": SIGN_SIZES}, TinySSD(2, SIGN_SIZES),
             ("blk_0.0.0.weight", "cls_4.weight", "bbox_4.bias")),
            ("center_net", {"num_classes": 2, "width": 8}, center_net(2, 8),
             ("stage4.0.0.weight", "head.1.bias", "reader.2.weight")),
            (SMALLEST, {"num_classes": 2}, torchvision_detector(SMALLEST, 2),
             ("network.head.classification_head.module_list.0.1.weight",)),
        ):  # fmt: skip
            with self.subTest(name):
                weights = network.state_dict()
                self.assertLessEqual(set(names), weights.keys())
                state = {"task": "detection", "network": name, "configs": configs,
                         "class_names": ["stop", "cat"], "model_state": weights}  # fmt: skip
                objective, restored = TASK.restore(state)
                self.assertEqual(objective.ranks_by, "ap50")
                self.assertIs(type(restored), type(network))
                self.assertEqual(restored.config, network.config)
                for key, value in restored.state_dict().items():
                    self.assertTrue(torch.equal(value, weights[key]), key)
                state["configs"] = configs | {"depth": 3}
                with self.assertRaisesRegex(LabError, "depth"):
                    TASK.restore(state)

    def test_start_from_other_classes(self):
        """All but what tells classes apart is loaded."""
        old, new = center_net(4, 8), center_net(7, 8)
        self.assertEqual(load_body(new, old.state_dict(), new.outputs), ("reader.2",))
        torch.testing.assert_close(new.head[1].weight, old.head[1].weight)
        with self.assertRaisesRegex(LabError, "do not fit"):
            load_body(new, {"conv.weight": torch.zeros(3)}, new.outputs)

    def test_outputs_tell_classes_apart(self):
        """Their weights are more for more classes; no others are."""
        for name in (*OWN, SMALLEST):
            few, many = (build(NETWORKS, name, {"num_classes": count}) for count in (2, 5))
            shapes = {key: value.shape for key, value in many.state_dict().items()}
            others = {k for k, value in few.state_dict().items() if value.shape != shapes[k]}
            self.assertEqual({key.rpartition(".")[0] for key in others}, set(few.outputs), name)

    def test_folded_it_finds_the_same(self):
        """Batch norms are gone, and nothing else has changed."""
        torch.manual_seed(0)
        for network in (TinySSD(2, SIGN_SIZES), center_net(2, 8)):
            network, images = trained(network), torch.randn(1, 3, 128, 128)
            with torch.no_grad():
                expected = network(images)
                found = folded(network)(images)
            self.assertFalse(any("BatchNorm" in type(each).__name__ for each in network.modules()))
            for ours, unfolded in zip(found[:2], expected[:2], strict=True):
                torch.testing.assert_close(ours, unfolded, atol=1e-4, rtol=1e-4)


# ---------------------------------------------------------------- through the scripts

NAMES = tuple(FACES)


def write_signs(
    root: Path, counts: dict[str, int], side: int = 96, names: Sequence[str] = NAMES[:2]
) -> Path:
    """Write pictures with a red or a blue square each, which count as two of the signs: COCO."""
    rng = np.random.default_rng(0)
    for mode, count in counts.items():
        (root / mode).mkdir(parents=True)
        images, boxes = [], []
        for k in range(count):
            pixels = rng.integers(0, 60, (side, side, 3)).astype(np.uint8)
            label, size = int(k % 2), int(rng.integers(20, 40))
            x, y = rng.integers(0, side - size, 2).tolist()
            pixels[y : y + size, x : x + size, 2 * label] = 255
            Image.fromarray(pixels).save(root / mode / f"{k}.png")
            images.append({"id": k, "file_name": f"{k}.png", "height": side, "width": side})
            boxes.append(
                {"id": k, "image_id": k, "category_id": label + 1, "bbox": [x, y, size, size]}
            )
        categories = [{"id": k, "name": name} for k, name in enumerate(names, 1)]
        content = {"images": images, "annotations": boxes, "categories": categories}
        (root / mode / "annotations.json").write_text(json.dumps(content))
    return root


@dataclass(frozen=True)
class ToyConfig:
    """What a network of one's own is built from."""

    num_classes: int


class Toy(Detector):
    """One object an image: what a network of one's own takes to be trained and tested."""

    outputs = ("kind",)

    def __init__(self, config: ToyConfig):
        super().__init__()
        self.body = torch.nn.Conv2d(3, 8, 8, 8)
        self.place, self.kind = torch.nn.Linear(8, 4), torch.nn.Linear(8, config.num_classes)

    def forward(self, images, targets=None):
        features = self.body(images).relu().mean((2, 3))
        corner, sides = self.place(features).sigmoid().split(2, 1)
        boxes, logits = (
            images.shape[3] * torch.cat((corner, corner + sides), 1),
            self.kind(features),
        )
        if targets is None:
            return boxes, logits
        sought, _ = split_targets(targets)
        there = torch.tensor([len(each["labels"]) > 0 for each in sought])
        truth = torch.stack([each["boxes"][0] for each in sought if len(each["labels"])])
        labels = torch.stack([each["labels"][0] for each in sought if len(each["labels"])])
        return {"class_loss": F.cross_entropy(logits[there], labels),
                "box_loss": F.l1_loss(boxes[there], truth) / 64}  # fmt: skip

    def _detect(self, images, threshold):
        boxes, logits = self(images)
        scores, labels = logits.softmax(1).max(1)
        rows = zip(boxes, scores, labels, strict=True)
        return [{"boxes": b[None], "scores": s[None], "labels": k[None]} for b, s, k in rows]


class TestScripts(ScriptCase):
    """The real scripts on a few small pictures."""

    @classmethod
    def setUpClass(cls):
        cls.addClassCleanup(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.base = Path(holder.name)
        cls.data = write_signs(cls.base / "data", {"train": 12, "val": 2, "test": 3})
        cls.flags = ("--task", "detection", "--dataset", "gtsdb", "--data_root", cls.data,
                     "--batch_size", "4", "--epoch", "2", "--no_show")  # fmt: skip
        # Four windows a picture are for photographs.
        source = replace(SOURCES["gtsdb"], windows=Windows(size=64, around=1.0))
        patch = mock.patch.dict(SOURCES, gtsdb=source)
        patch.start()
        cls.addClassCleanup(patch.stop)
        cls.said = {
            network: cls.train(cls.base / network, *cls.flags, "--network", network).stdout
            for network in ("tiny_ssd", "center_net")
        }

    @classmethod
    def train(cls, folder, *flags):
        done = script_here("train.py", *flags, "--ckpt_path", folder)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def report(self, *flags):
        done = script_here("test.py", "--epoch", "last", "--no_show", *flags)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_trains_and_tests(self):
        for network in ("tiny_ssd", "center_net"):
            folder = self.base / network
            rows = checkpoint.load(folder / "ckpt_epoch_2.pth")["history"]
            self.assertTrue({"class_loss", "box_loss", "val_sign_ap50"} <= rows[1].keys())
            said = self.report("--ckpt_path", folder, "--epoch", "best", "--save")
            told = r"Test sign_ap50 of the best epoch, \d: (.+)"
            (tested,) = re.findall(told, self.said[network])
            self.assertRegex(said, rf"sign ap50 +{tested}\n")
            self.assertTrue((folder / "precision_recall.jpg").is_file())
            self.assertEqual(len(list((folder / "results").glob("[0-9]*.jpg"))), 3)
        mistakes = len(list((folder / "results").glob("mistake_*.jpg")))
        self.assertIn(f"Saved {mistakes} mistakes in", said)

    def test_stops_and_goes_on_exactly(self):
        """Stopped within the second epoch, it comes to the same weights, bit by bit."""
        folder = self.base / "stopped"
        flags = (*self.flags, "--network", "center_net", "--ckpt_path", folder)
        with stopped_at(4):
            done = script_here("train.py", *flags)
        self.assertEqual(done.returncode, 130, done.stderr)
        self.assertIn("epoch 2, 8 of 12 images", done.stdout)
        self.train(folder, "--resume", folder, "--no_show")
        last = "ckpt_epoch_2.pth"
        self.assert_same_weights(self.base / "center_net" / last, folder / last)

    def test_a_picture_of_ones_own(self):
        folder = self.base / "center_net"
        self.report("--ckpt_path", folder, "--image", str(self.data / "test" / "0.png"))
        self.assertTrue((folder / "found_000_0.jpg").is_file())

    @mock.patch("tasks.detection.views.TIMED_REGIONS", 4)  # of 2,000, for the sake of time
    def test_views(self):
        for network, kinds in {
            "tiny_ssd": ("boxes", "anchors", "regions", "cam"),
            "center_net": ("boxes", "regions", "cam"),
        }.items():
            for kind in kinds:
                with self.subTest(network=network, kind=kind):
                    done = script_here(
                        "visualize.py", "--type", kind, "--ckpt_path", self.base / network,
                        "--epoch", "last", "--save_dir", self.base / "seen", "--no_show",
                    )  # fmt: skip
                    self.assertEqual(done.returncode, 0, done.stderr)
                    self.assertTrue((self.base / "seen" / kind / f"{kind}.jpg").is_file())

    def test_what_views_show(self):
        """Each row of boxes names its file, the first too; anchors are not one long column."""
        shown = {}
        with (
            mock.patch("tasks.viewing.draw", lambda picture: shown.update({picture.path: picture})),
            mock.patch("tasks.viewing.publish", lambda *_: None),
        ):
            for kind, network in {"boxes": "tiny_ssd", "anchors": "tiny_ssd",
                                  "cam": "center_net"}.items():  # fmt: skip
                script_here("visualize.py", "--type", kind, "--ckpt_path", self.base / network,
                            "--epoch", "last", "--no_show")  # fmt: skip
        (boxes,) = shown["boxes/boxes.jpg"].parts
        names = [row[0].note for row in boxes.tiles]
        self.assertTrue(names and all(name.endswith(".png") for name in names), names)
        (anchors,) = shown["anchors/anchors.jpg"].parts
        self.assertEqual([len(row) for row in anchors.tiles], [2, 2, 1])
        path = checkpoint.find(self.base / "center_net", "last")
        network = folded(load_trained(path, "cpu", "fp32").network)
        for picture, *maps in shown["cam/cam.jpg"].parts[0].tiles:
            with torch.no_grad():
                (found,) = network.detect(as_input(picture.image))
            left, top, right, bottom = found["boxes"][0].tolist()  # the likeliest
            corners = {(left, top), (right, top), (right, bottom), (left, bottom)}
            for tile in (picture, *maps):
                points = {tuple(point) for point in (tile.marks[0].points + 0.5).tolist()}  # edges
                self.assertEqual(points, corners)
            kinds = [tile.caption.partition(",")[0] for tile in maps]
            self.assertEqual(kinds, ["LayerCAM", "Grad-CAM", "saliency"])
            self.assertGreater(len({tile.image.tobytes() for tile in maps}), 1)

    def test_refusals(self):
        done = script_here("train.py", *self.flags, "--network", "tiny_sdd")
        self.assert_refused(done, 2, "tiny_sdd", "center_net", "ssdlite320_mobilenet_v3_large")
        done = script_here("train.py", *self.flags, "--network", "tiny_ssd", "--pretrained",
                           "--ckpt_path", self.base / "no")  # fmt: skip
        self.assert_refused(done, 2, "--pretrained", "--weights PATH")
        done = script_here("train.py", "--resume", self.base / "tiny_ssd", "--epoch", 3,
                           "--network", "center_net")  # fmt: skip
        self.assert_refused(done, 1, "holds another network", "tiny_ssd", "leave out")
        done = script_here("visualize.py", "--type", "anchors", "--epoch", "last",
                           "--ckpt_path", self.base / "center_net")  # fmt: skip
        self.assert_refused(done, 1, "center_net", "anchors")
        done = script_here("test.py", "--epoch", "last", "--ckpt_path", self.base / "tiny_ssd",
                           "--read", self.base / "center_net")  # fmt: skip
        self.assert_refused(done, 1, "--read", "no checkpoint of a classifier")

    def test_fine_tuning(self):
        said = self.train(
            self.base / "tuned", *self.flags, "--weights", self.base / "center_net", "--epoch", "1"
        ).stdout
        self.assertIn("the body, trained as well, with its output layer, reader.2", said)
        state = checkpoint.load(self.base / "tuned" / "ckpt_epoch_1.pth")
        self.assertEqual(state["network"], "center_net")

    def assert_frozen(self, start, end, outputs):
        """All but output layers is as it was, bit by bit; what batch norms have seen as well."""
        names = {key for key, value in end.items() if not torch.equal(value, start[key])}
        own = {key for key in end if key.rpartition(".")[0] in outputs}
        self.assertTrue(names)
        self.assertLessEqual(names, own)
        self.assertEqual({key.rpartition(".")[0] for key in names}, set(outputs))

    def test_a_frozen_body(self):
        folder, start = self.base / "frozen", self.base / "center_net"
        flags = ("--weights", start, "--epoch", "1", "--freeze")
        said = self.train(folder, *self.flags, *flags).stdout
        self.assertIn("the body, frozen", said)
        self.assertIn("Training 5,676 parameters", said)
        before = checkpoint.load(checkpoint.find(start, "best"))["model_state"]
        first = checkpoint.load(folder / "ckpt_epoch_1.pth")
        self.assert_frozen(before, first["model_state"], CenterNet.outputs)
        self.train(folder, "--resume", folder, "--epoch", "2", "--no_show")  # which stays frozen
        second = checkpoint.load(folder / "ckpt_epoch_2.pth")
        self.assert_frozen(first["model_state"], second["model_state"], CenterNet.outputs)
        done = script_here("train.py", "--resume", folder, "--epoch", "3", "--no-freeze")
        self.assert_refused(done, 2, "--freeze")
        done = script_here("train.py", *self.flags, "--freeze", "--ckpt_path", self.base / "no")
        self.assert_refused(done, 2, "--freeze", "--weights")

    def test_torchvisions_weights(self):
        """Of 90 classes, of which none is ours."""
        published = build_bare(TorchvisionConfig(SMALLEST, 90)).state_dict()
        flags = ("--network", SMALLEST, "--pretrained", "--freeze", "--epoch", "1")
        with mock.patch("tasks.starting.download_weights", return_value=published):
            said = self.train(self.base / "coco", *self.flags, *flags).stdout
        self.assertIn("Starting from COCO: the body, frozen, with new output layers", said)
        state = checkpoint.load(self.base / "coco" / "ckpt_epoch_1.pth")
        self.assertEqual(state["configs"], {"name": SMALLEST, "num_classes": len(NAMES)})
        for key, value in published.items():
            ours = state["model_state"][f"network.{key}"]
            same = ours.shape == value.shape and torch.equal(ours, value)
            self.assertEqual(same, f"network.{key}".rpartition(".")[0] not in state["new_layers"])

    def test_a_network_of_ones_own(self):
        """A class, its config and a line: it is trained, goes on, is tested and looked at."""
        folder = self.base / "toy"
        with mock.patch.dict(NETWORKS, toy=Design(ToyConfig, Toy)):
            self.train(folder, *self.flags, "--network", "toy", "--epoch", "1")
            self.train(folder, "--resume", folder, "--epoch", "2", "--no_show")
            said = self.report("--ckpt_path", folder)
            self.report("--ckpt_path", folder, "--image", str(self.data / "test" / "0.png"))
        self.assertIn("sign ap50", said)
        state = checkpoint.load(folder / "ckpt_epoch_2.pth")
        self.assertEqual((state["network"], state["configs"]), ("toy", {"num_classes": len(NAMES)}))

    def test_signs_get_small_anchors(self):
        """Unless the checkpoint that is started from has others."""
        state = checkpoint.load(self.base / "tiny_ssd" / "ckpt_epoch_2.pth")
        self.assertEqual(state["configs"]["sizes"], SIGN_SIZES)
        data = write_signs(self.base / "things", {"train": 4, "val": 2}, names=("red", "blue"))
        flags = TrainFlags(data_root=data, settings=TrainSettings(), own=Flags(dataset="coco"))
        job = TASK.prepare(flags, Runtime(torch.device("cpu")), None, None)
        self.assertEqual(job.identity["configs"], {"num_classes": 2, "sizes": BOOK_SIZES})
        flags = replace(flags, own=replace(flags.own, weights=self.base / "tiny_ssd"))
        with redirect_stdout(io.StringIO()):
            job = TASK.prepare(flags, Runtime(torch.device("cpu")), None, state)
        self.assertEqual(job.identity["configs"], {"num_classes": 2, "sizes": SIGN_SIZES})
        self.assertEqual(job.identity["new_layers"], list(TinySSD.outputs))


class Sizer(Toy):
    """Finds one cat all over a picture, and keeps the (height, width) of all that it is shown."""

    seen: ClassVar = []

    def _detect(self, images, threshold):
        height, width = images.shape[2:]
        self.seen.append((height, width))
        box = torch.tensor([[0.0, 0, width / 2, height / 2]])
        own = {"boxes": box, "scores": torch.tensor([0.9]), "labels": torch.tensor([0])}
        return [own] * len(images)

    def fill(self, images):
        return images


class TestSizes(ScriptCase):
    """A network sees pictures in the size that it was trained for, whichever script shows them."""

    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.base = Path(holder.name)
        cls.data = write_signs(cls.base / "data", {"train": 4, "val": 2, "test": 2}, 640, "ab")
        cls.run_of = cls.base / "run"
        flags = ("--task", "detection", "--dataset", "coco", "--data_root", cls.data, "--epoch", 1,
                 "--network", "toy", "--batch_size", 2, "--no_show")  # fmt: skip
        with mock.patch.dict(NETWORKS, toy=Design(ToyConfig, Sizer)):
            done = script_here("train.py", *flags, "--ckpt_path", cls.run_of)
        assert done.returncode == 0, done.stdout + done.stderr

    def sees(self, script, *flags):
        """Run a script; return what it said, and the (height, width) of what the network saw."""
        Sizer.seen.clear()
        with mock.patch.dict(NETWORKS, toy=Design(ToyConfig, Sizer)):
            done = script_here(script, *flags, "--epoch", "last", "--no_show")
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout, set(Sizer.seen)

    def test_every_script(self):
        photo = self.data / "test" / "0.png"
        run, out = ("--ckpt_path", self.run_of), ("--save_dir", self.base / "seen")
        self.assertEqual(self.sees("test.py", *run)[1], {(320, 320)})
        said, seen = self.sees("test.py", *run, "--image", photo)
        self.assertEqual(seen, {(320, 320)})
        # What is found is told in pixels of the photograph, which is twice as large.
        self.assertIn("0.png  a 90.0%  at 0, 0, 320, 320", said)
        for image in ((), ("--image", photo)):
            _, seen = self.sees("visualize.py", "--type", "boxes", *run, *out, *image)
            self.assertEqual(seen, {(320, 320)})

    def test_the_checkpoint_says_it(self):
        """Those of earlier versions do not: they see data shrunk, and pictures as they are."""
        state = checkpoint.load(self.run_of / "ckpt_epoch_1.pth")
        self.assertEqual(state["longest"], 320)
        photo = self.data / "test" / "0.png"
        for longest, tested, read in ((64, 64, 64), (None, 320, 640)):
            run = self.base / f"of_{longest}"
            run.mkdir()
            old = {name: value for name, value in state.items() if name != "longest"}
            checkpoint.save(run / "ckpt_epoch_1.pth", old | ({"longest": 64} if longest else {}))
            seen = self.sees("test.py", "--ckpt_path", run)[1]
            self.assertEqual(seen, {(tested, tested)})
            seen = self.sees("test.py", "--ckpt_path", run, "--image", photo)[1]
            self.assertEqual(seen, {(read, read)})

    def test_signs_are_seen_as_they_are(self):
        """However small the pictures of the training: parts of frames, or a camera's own."""
        signs = write_signs(self.base / "signs", {"train": 2, "val": 2})
        for dataset, longest in (("gtsdb", None), ("coco", 96)):
            flags = TrainFlags(
                data_root=signs, settings=TrainSettings(), own=Flags(dataset=dataset)
            )
            job = TASK.prepare(flags, Runtime(torch.device("cpu")), None, None)
            self.assertEqual(job.identity["longest"], longest)


class TestProcesses(ScriptCase):
    """Two processes of torchrun share the pictures, and all of them count."""

    def test_figures_are_those_of_all_pictures(self):
        with tempfile.TemporaryDirectory() as base:
            folder, weights = Path(base) / "run", Path(base) / "weights.pth"
            data = write_signs(Path(base) / "data", {"train": 9, "val": 5, "test": 2})
            split = read_split("gtsdb", data, "val")
            loader = make_loader(split, 5)
            network = center_net(len(NAMES), 16)
            by_heart(network, *next(iter(loader)))
            state = {"network": "center_net", "configs": asdict(network.config)}
            checkpoint.save(weights, state | {"model_state": network.state_dict()})
            flags = ("--task", "detection", "--dataset", "gtsdb", "--network", "center_net",
                     "--weights", weights, "--lr", "1e-12", "--batch_size", "36", "--epoch", "1",
                     "--precision", "fp32", "--no_show", "--data_root", data,
                     "--ckpt_path", folder)  # fmt: skip
            done = script("train.py", *flags, processes=2)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(done.stdout.count("Epoch  1/1"), 1)
            state = checkpoint.load(folder / "ckpt_epoch_1.pth")
            objective, network = TASK.restore(state)
            figures = engine.evaluate(
                network, objective.meter(), loader, Runtime(torch.device("cpu"))
            )
            self.assertGreater(figures["ap50"], 0.1)
            for name, value in figures.items():
                self.assertAlmostEqual(state["history"][0][f"val_{name}"], value, places=4)


class TestReader(ScriptCase):
    """A classifier reads what a detector has found."""

    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.path = Path(holder.name) / "ckpt_epoch_1.pth"
        self.flags = TestFlags(device="cpu", precision="fp32", read=self.path)

    def save(self, *class_names):
        """Save a classifier that takes what is red for the first class, else for the second."""
        network = Classifier(3, len(class_names))
        torch.nn.init.zeros_(network.fc_net[-1].weight)
        configs = asdict(network.config)
        state = {"model_state": network.state_dict(), "configs": configs}
        checkpoint.save(self.path, state | {"class_names": list(class_names)})

    def test_classes_by_name(self):
        """Its numbering is its own; the certainty of the reading multiplies the score."""
        self.save("00_stop", "01_yield")
        reader = SignReader(self.flags, ("yield", "no_entry", "stop"))
        first, second = torch.tensor([[2.0, 0.0], [0.0, 2.0]]).split(1)
        reader.network.forward = lambda images: torch.where(
            images[:, :1].mean((2, 3)) > -0.5, first, second
        )
        picture = np.zeros((60, 80, 3), np.uint8)
        picture[10:30, 10:30, 0] = 255
        found = {
            "boxes": torch.tensor([[10.0, 10, 30, 30], [40, 20, 60, 50]]),
            "scores": torch.tensor([0.9, 0.5]),
            "labels": torch.tensor([1, 1]),
        }
        read = as_read(reader, picture, found)
        self.assertEqual(read["labels"].tolist(), [2, 0])
        sure = 1 / (1 + math.exp(-2))
        torch.testing.assert_close(read["scores"], torch.tensor([0.9, 0.5]) * sure)
        torch.testing.assert_close(read["boxes"], found["boxes"])

    def test_no_detector_to_read_for(self):
        self.save("00_stop", "01_yield")
        done = script_here("test.py", "--ckpt_path", self.path.parent, "--read", self.path)
        self.assert_refused(done, 2, "--read", self.path)

    def test_unknown_classes(self):
        self.save("00_stop", "01_penguin")
        with self.assertRaisesRegex(LabError, "penguin"):
            SignReader(self.flags, ("stop", "yield"))


if __name__ == "__main__":
    unittest.main()
