"""A headless Chromium, driven over a pair of pipes: just enough to load, click and look."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
"""The browser; "" where there is none."""


class Browser:
    """One page in a browser of its own; a context manager.

    Args:
        profile: An empty folder for the browser's own files.
    """

    def __init__(self, profile: Path) -> None:
        self._profile = profile
        self._unread = b""
        self._number = 0
        self._session: dict[str, str] = {}
        self.complaints: list[str] = []
        self._loaded = False

    def __enter__(self) -> "Browser":
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        options = (
            "--headless=new --no-sandbox --disable-gpu --hide-scrollbars --no-first-run "
            f"--disable-dev-shm-usage --remote-debugging-pipe --user-data-dir={self._profile}"
        )
        shell = f"exec {CHROMIUM} {options} 3<&{commands} 4>&{answers}"
        self._process = subprocess.Popen(
            ["bash", "-c", shell], pass_fds=(commands, answers), stderr=subprocess.DEVNULL
        )
        os.close(commands)
        os.close(answers)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol, and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters} | self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                found: dict[str, Any] = answer["result"]
                return found

    def open(
        self, page: Path, *, width: int = 1280, height: int = 900, dark: bool = False
    ) -> float:
        """Load a page, and return the seconds that it took."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self._loaded, started = False, time.monotonic()
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not self._loaded:
            self._next()
        return time.monotonic() - started

    def run(self, script: str) -> Any:
        """Return the value of an expression of the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def click(self, place: str, ready: str, done: str) -> None:
        """Click where an expression of the page says, until that has an effect.

        Args:
            place: The expression, [x, y] in its window.
            ready: What holds once the pointer is there.
            done: What holds once the click was taken.
        """
        given_up = time.monotonic() + 30.0
        for nudge in itertools.cycle((0, 1)):  # the page may still be moving
            x, y = self.run(place)
            self._mouse("mouseMoved", x + nudge, y)
            if self._comes(ready, 0.5):
                self._mouse("mousePressed", x + nudge, y)
                self._mouse("mouseReleased", x + nudge, y)
                if self._comes(done, 2.0):
                    return
            assert time.monotonic() < given_up, f"never: {done}"

    def _mouse(self, kind: str, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def _comes(self, script: str, seconds: float) -> bool:
        given_up = time.monotonic() + seconds
        while not self.run(script):
            if time.monotonic() > given_up:
                return False
            time.sleep(0.02)
        return True

    def picture(self, path: Path) -> None:
        """Write a picture of the whole page, a PNG."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def _next(self) -> dict[str, Any]:
        """Read one message, and remember what the page complains of."""
        while b"\0" not in self._unread:
            read = os.read(self._answers, 1 << 20)
            assert read, "the browser is gone"
            self._unread += read
        text, _, self._unread = self._unread.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        kind, details = message.get("method"), message.get("params", {})
        if kind == "Page.loadEventFired":
            self._loaded = True
        elif kind == "Runtime.exceptionThrown":
            self.complaints.append(str(details["exceptionDetails"]))
        elif kind == "Runtime.consoleAPICalled" and details["type"] in ("error", "warning"):
            self.complaints.append(str(details["args"]))
        elif kind == "Log.entryAdded" and details["entry"]["level"] in ("error", "warning"):
            self.complaints.append(str(details["entry"]))
        return message
