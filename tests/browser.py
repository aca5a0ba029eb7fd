"""A headless Chromium that a test opens pages in and asks, over its DevTools' pipe.

with Browser() as browser:
    browser.open(path.as_uri())
    browser.wait("document.title")
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

HAS_BROWSER = shutil.which("chromium") is not None and os.name != "nt"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--mute-audio",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
)  # fmt: skip
PIPES = (3, 4)  # what Chromium reads and writes


class Browser:
    """One window; `faults` are what its scripts and its console complained of."""

    def __init__(self) -> None:
        self.profile, self.faults, self.requests = tempfile.mkdtemp(), [], []
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # A shell puts the pipes at their numbers: no code of ours runs between fork and exec. Not
        # any: dash knows no number of two digits.
        started = f'exec chromium "$@" 3<&{theirs_in} 4>&{theirs_out}'
        flags = *FLAGS, f"--user-data-dir={self.profile}", "about:blank"
        self._process = subprocess.Popen(
            ["bash", "-c", started, "bash", *flags],
            pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._calls, self._unread, self._session = 0, b"", None
        (target,) = (
            t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"
        )
        known = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = known["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        self._session = None
        try:
            self.call("Browser.close")
        except (OSError, EOFError):
            self._process.kill()
        self._process.wait(30)
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self.profile, ignore_errors=True)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            more = os.read(self._in, 2**20)
            if not more:
                raise EOFError("Chromium has ended")
            self._unread += more
        message, _, self._unread = self._unread.partition(b"\0")
        return json.loads(message)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call one of the protocol's methods, of the window once there is one."""
        self._calls += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._calls, "method": method, "params": params} | session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._calls:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer.get("method"), answer.get("params", {}))

    def _note(self, event: str | None, params: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.faults.append(details.get("exception", {}).get("description") or details["text"])
        elif event == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.faults.append(params["entry"]["text"])
        elif event == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def ask(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript, once it is there."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True,
            userGesture=True,
        )  # fmt: skip
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description") or details["text"])
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 60) -> Any:
        """Return the value of an expression as soon as it is true."""
        end = time.monotonic() + seconds
        while not (value := self.ask(expression)):
            if self.faults or time.monotonic() > end:
                raise TimeoutError(f"{expression} is {value!r}; faults: {self.faults}")
            time.sleep(0.05)
        return value

    def open(self, address: str) -> None:
        self.faults.clear()
        self.requests.clear()
        self.call("Page.navigate", url=address)

    def size(self, width: int, height: int = 900) -> None:
        """Have the window be so large, as a telephone below 600 pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=width < 600)  # fmt: skip

    def screenshot(self, path: Path) -> None:
        """Save the whole page as a picture."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 9000)}
        shot = self.call(
            "Page.captureScreenshot", clip=clip | {"scale": 1}, captureBeyondViewport=True
        )
        path.write_bytes(base64.b64decode(shot["data"]))

    def give(self, selector: str, *paths: Path) -> None:
        """Choose files in a form."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])
