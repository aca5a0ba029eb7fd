"""lab.ipynb: without output, with commands that the scripts take, and Python that is Python."""

import ast
import contextlib
import io
import json
import re
import shlex
import unittest

from tests import test_docs
from tests.support import PROJECT

NOTEBOOK = PROJECT / "lab.ipynb"


class NotebookTest(unittest.TestCase):
    def setUp(self):
        cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
        self.code = ["".join(own["source"]) for own in cells if own["cell_type"] == "code"]
        self.cells = [own for own in cells if own["cell_type"] == "code"]

    def test_stripped(self):
        for cell in self.cells:
            self.assertEqual((cell["outputs"], cell["execution_count"]), ([], None))

    def test_commands(self):
        """Train, test, look inside, a photograph: with flags that there are."""
        known = {"EPOCHS": "2", "DATA": "data", "PHOTO": "photo.jpg"}
        found = [
            re.sub(r"{(\w+)}", lambda name: known[name[1]], line).split(maxsplit=2)
            for line in "\n".join(self.code).splitlines() if line.startswith("!python")
        ]  # fmt: skip
        names = [name for _, name, _ in found]
        self.assertEqual(names[:2], ["train.py", "test.py"])
        self.assertGreaterEqual(names.count("visualize.py"), 2)
        for _, name, flags in found:
            with self.subTest(name, flags=flags), contextlib.redirect_stderr(io.StringIO()) as said:
                try:
                    test_docs.CommandTest.parse(self, name, shlex.split(flags))
                except SystemExit:
                    self.fail(said.getvalue())

    def test_python(self):
        """What is neither a command nor a magic can be parsed, and imports what there is."""
        for cell in self.code:
            plain = re.sub(r"^(\s*)[!%].*$", r"\1pass", cell, flags=re.MULTILINE)
            for node in ast.walk(ast.parse(plain)):
                if isinstance(node, ast.ImportFrom) and node.module.startswith("world"):
                    module = __import__(node.module, fromlist=["_"])
                    self.assertTrue(all(hasattr(module, own.name) for own in node.names))


if __name__ == "__main__":
    unittest.main()
