"""What captioned signs promise: each can be read, sentences say what is seen, the same bytes."""

import json
import subprocess
import sys
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from tests.support import PROJECT, ScriptCase, script_here
from tests.test_signs import digests
from world import captions, missing
from world.captions import PLACES, TIMES, WEATHERS, Facts
from world.signs import CLASSES, NAMES, contrast

STOP = NAMES.index("stop")


def drawn(count=12, **facts):
    """Return pictures, (N, 64, 64, 3), of classes in turn, otherwise alike."""

    def draw(k):
        return captions.draw_picture(Facts(label=k % 26, **facts), np.random.default_rng(k))

    return np.stack([np.asarray(draw(k)) for k in range(count)])


class PictureTest(unittest.TestCase):
    def test_every_kind_can_be_drawn_and_read(self):
        number = 0
        for time in TIMES:
            for weather in WEATHERS:
                for behind in PLACES:
                    rng = np.random.default_rng(number)
                    facts = Facts(number % 26, time, weather, behind, blurred=number % 3 == 0)
                    first, plate = captions.photograph(facts, np.random.default_rng(number))
                    picture = np.asarray(captions.draw_picture(facts, rng))
                    self.assertEqual(picture.shape, (64, 64, 3))
                    if contrast(first, plate) >= captions.READABLE:
                        np.testing.assert_array_equal(picture, first)
                    number += 1
        self.assertEqual(number, 75)

    def test_what_nobody_can_read_is_drawn_again(self):
        """Of two photographs, the first all black, the second one is taken."""
        facts, taken = Facts(STOP, "day", "clear", "sky", False), []
        take = captions.photograph

        def black_first(*arguments):
            picture, plate = take(*arguments)
            taken.append(picture)
            return (picture if len(taken) > 1 else picture // 50), plate

        with mock.patch.object(captions, "photograph", black_first):
            picture = captions.draw_picture(facts, np.random.default_rng(0))
        self.assertEqual(len(taken), 2)
        np.testing.assert_array_equal(np.asarray(picture), taken[1])

    def test_nights_are_dark_and_their_signs_are_lit(self):
        common = {"weather": "clear", "behind": "trees", "blurred": False}
        day, dusk, night = (drawn(time=time, **common) for time in TIMES)
        edges = [np.concatenate((p[:, :, :8], p[:, :, -8:]), 2).mean() for p in (day, dusk, night)]
        self.assertTrue(edges[0] > 1.3 * edges[1] > 1.3 * edges[2], edges)
        signs = [p[:, 20:44, 20:44].mean() for p in (day, night)]
        self.assertGreater(signs[1], 0.6 * signs[0])

    def test_blur_fog_and_snow_are_seen(self):
        common = {"time": "day", "behind": "houses"}

        def edges(pictures):
            return np.abs(np.diff(pictures.astype(int), axis=2)).mean()

        sharp = drawn(weather="clear", blurred=False, **common)
        self.assertLess(edges(drawn(weather="clear", blurred=True, **common)), 0.75 * edges(sharp))
        self.assertLess(drawn(weather="fog", blurred=False, **common).std(), 0.8 * sharp.std())
        snow = drawn(weather="snow", blurred=False, **common)
        self.assertGreater(snow[:, 56:, :20].mean(), 1.2 * sharp[:, 56:, :20].mean())

    def test_places_differ(self):
        common = {"time": "day", "weather": "clear", "blurred": False}
        top = {place: drawn(behind=place, **common)[:, :10].mean((0, 1, 2)) for place in PLACES}
        self.assertGreater(top["sky"][2], top["sky"][0] + 30)  # blue
        self.assertGreater(top["wall"][0], top["wall"][2] + 10)  # red
        low = {
            place: drawn(behind=place, **common)[:, -8:, :16].mean((0, 1, 2)) for place in PLACES
        }
        self.assertGreater(low["field"][1], low["field"][2] + 25)  # green


class SentenceTest(unittest.TestCase):
    SAID = {
        "time": captions.WHEN, "weather": captions.SKIES, "behind": captions.WHERE,
        "blurred": captions.BLURS,
    }  # fmt: skip

    def sentences(self, count=3000):
        rng = np.random.default_rng(0)
        for index in range(count):
            facts = captions.imagine(index % 26, rng)
            yield facts, captions.caption_of(facts, rng)

    def test_nothing_is_said_that_is_not_so(self):
        """No word for another time, weather or place is in a sentence."""
        for facts, sentence in self.sentences():
            wrong = [
                form
                for detail, forms in self.SAID.items()
                for value, own in forms.items()
                if value != getattr(facts, detail)
                for form in own
            ]
            for value, own in captions.ADJECTIVES.items():
                wrong += own if value not in (facts.time, facts.weather) else ()
            for form in wrong:
                self.assertNotRegex(sentence, rf"\b{form}\b", facts)

    def test_the_sign_is_always_named(self):
        for facts, sentence in self.sentences():
            self.assertTrue(any(name in sentence for name in captions.names(facts.label)), sentence)

    def test_each_sign_has_names_of_its_own(self):
        every = [set(captions.names(label)) for label in range(26)]
        for label, own in enumerate(every):
            self.assertTrue(own, CLASSES[label])
            for other in every[:label]:
                self.assertFalse(own & other)

    def test_many_forms_of_words(self):
        """Of the same picture, hardly a sentence comes twice; none begins "a a" or "a i"."""
        rng = np.random.default_rng(0)
        facts = Facts(STOP, "night", "rain", "houses", False)
        said = [captions.caption_of(facts, rng) for _ in range(500)]
        self.assertGreater(len(set(said)), 350)
        for detail in ("houses", "rain"):
            share = np.mean([any(f in s for f in captions.WHERE["houses"]) for s in said])
            self.assertTrue(0.6 < share < 0.9, (detail, share))
        for sentence in said:
            self.assertNotRegex(sentence, r"\ba [aeiou]")
            self.assertNotRegex(sentence, r"\ban [^aeiou8]")
            self.assertNotIn("  ", sentence)


class DataSetTest(ScriptCase):
    SMALL = {"train": 2, "val": 1, "test": 1}

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)

    def test_same_seed_same_bytes_whatever_the_workers(self):
        steps = []
        captions.draw_captions(self.root / "a", 0, self.SMALL, 1, steps.append)
        captions.draw_captions(self.root / "b", 0, self.SMALL, 2)
        captions.draw_captions(self.root / "c", 1, {"train": 1}, 1)
        a, b, c = (digests(self.root / name) for name in "abc")
        self.assertEqual(a, b)
        self.assertFalse(set(a.values()) & set(c.values()))
        self.assertEqual(len(set(a.values())), len(a), "two pictures, or two splits, share content")
        self.assertEqual(sum(steps), 4 * 26)

    def test_layout(self):
        """A picture's entry says what it shows; its sentences are COCO's."""
        captions.draw_captions(self.root / "a", 0, self.SMALL, 1)
        content = json.loads((self.root / "a" / "train" / "captions.json").read_text())
        self.assertEqual(len(content["images"]), 52)
        self.assertEqual(len(content["annotations"]), 52 * captions.SENTENCES)
        names = {entry["id"]: entry for entry in content["images"]}
        for entry in content["annotations"]:
            shown = names[entry["image_id"]]
            label = CLASSES.index(shown["file_name"].split("/")[0])
            self.assertEqual(shown["shows"]["label"], NAMES[label])
            self.assertTrue(any(name in entry["caption"] for name in captions.names(label)))
        for entry in content["images"]:
            with Image.open(self.root / "a" / "train" / entry["file_name"]) as image:
                self.assertEqual(image.size, (entry["width"], entry["height"]))

    def test_the_command(self):
        root = self.root / "made"
        draw = replace(captions.draw_captions, splits=self.SMALL)
        small = replace(missing.DRAWN["captions"], draw=draw)
        with mock.patch.dict(missing.DRAWN, captions=small):
            done = script_here("datasets.py", "captions", "--root", root)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("52 pictures, captions.json", done.stdout)
            done = script_here("datasets.py", "captions", "--root", root)
        self.assert_refused(done, 1, root, "exists")

    def test_draws_what_is_missing_in_its_own_folder_alone(self):
        with (
            mock.patch.object(missing, "draw") as draw,
            mock.patch.object(missing, "DATA_ROOT", self.root),
        ):
            for folder, count in (("elsewhere", 0), ("captions", 1)):
                missing.draw_missing(missing.DRAWN["captions"], self.root / folder)
                self.assertEqual(draw.call_count, count)
            (self.root / "captions" / "train").mkdir(parents=True)
            missing.draw_missing(missing.DRAWN["captions"], self.root / "captions")
            self.assertEqual(draw.call_count, 1)

    def test_import_is_light(self):
        code = "import sys; from world import captions; sys.exit('torch' in sys.modules)"
        self.assertEqual(subprocess.run([sys.executable, "-c", code], cwd=PROJECT).returncode, 0)


if __name__ == "__main__":
    unittest.main()
