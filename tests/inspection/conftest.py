"""A real browser, spoken to over the pipe of its DevTools protocol; where there is none, its tests are skipped."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_minilm import (
    MiniLMConfig,
    MiniLMForCausalLM,
    MiniLMForConditionalGeneration,
    MiniLMForPreTraining,
    MiniLMSeq2SeqConfig,
)
from hf_minilm.data.document import Document
from hf_minilm.data.tokenizer import train_tokenizer

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
KEYS = {"ArrowUp": 38, "ArrowDown": 40, "ArrowLeft": 37, "ArrowRight": 39, "Escape": 27, "Tab": 9}
PATIENCE = 60  # seconds for one answer of a browser on a busy machine

LAUNCH = """
import fcntl, os, sys
reading, writing = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(reading, 3)
os.dup2(writing, 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""
"""Becomes the browser, which reads commands from descriptor 3 and writes answers to 4, whatever the pipes are here."""


class Browser:
    """One headless browser with one page.

    Attributes:
        events: What the page did since it was opened: requests, console messages, exceptions.
    """

    def __init__(self, program: str, profile: Path) -> None:
        (read_here, write_there), (read_there, write_here) = os.pipe(), os.pipe()
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        options += [
            "--remote-debugging-pipe",
            "--disable-background-networking",
            "--disable-extensions",
            f"--user-data-dir={profile}",
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(read_there), str(write_there), program, *options, "about:blank"],
            pass_fds=(read_there, write_there),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_there)
        os.close(write_there)
        self.reading, self.writing = read_here, write_here
        self.waiting, self.number = b"", 0
        self.session: str | None = None
        self.events: list[dict[str, Any]] = []
        try:
            self._attach()
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def _attach(self) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command, and give its answer."""
        self.number += 1
        command = {"id": self.number, "method": method, "params": parameters}
        command |= {"sessionId": self.session} if self.session else {}
        os.write(self.writing, json.dumps(command).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open a file and wait until it has loaded."""
        self.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        end = time.monotonic() + PATIENCE
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            assert time.monotonic() < end
            self.events.append(self._next())

    def resize(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def evaluate(self, expression: str) -> Any:
        """Give the value of a JavaScript expression, as JSON would have it."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, *, shift: bool = False) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            code = KEYS[key]
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                modifiers=8 if shift else 0,
            )

    def point(self, selector: str, *, click: bool = False) -> None:
        """Move the mouse onto the middle of an element, and click it where asked to."""
        self.evaluate(f"{selector}.scrollIntoView({{block: 'center'}})")
        box = self.evaluate(f"{selector}.getBoundingClientRect().toJSON()")
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        kinds = ["mouseMoved", *(["mousePressed", "mouseReleased"] if click else [])]
        for kind in kinds:
            button = "none" if kind == "mouseMoved" else "left"
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=1)

    def screenshot(self, path: Path) -> None:
        """Write all of the page, as it is, to a PNG."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(picture["data"]))

    def requested(self) -> list[str]:
        """The addresses that the page asked for, its own first."""
        return [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[dict[str, Any]]:
        """What the console of the page says, exceptions and violations of its policy among it."""
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [event["params"] for event in self.events if event["method"] in kinds]

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError, AssertionError):
            self.session = None
            self.call("Browser.close")
        try:
            self.process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.reading)
        os.close(self.writing)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.waiting:
            ready, _, _ = select.select([self.reading], [], [], PATIENCE)
            piece = os.read(self.reading, 1 << 20) if ready else b""
            assert piece, "the browser does not answer"
            self.waiting += piece
        message, self.waiting = self.waiting.split(b"\0", 1)
        return json.loads(message)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser here: none of {', '.join(NAMES)} is on the PATH")
    browser = Browser(program, tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()


TEXTS = (
    "La niña comió allí, y el señor José no.",
    "The keys to the cabinet are old.",
    "Las llaves del armario están viejas.",
    "Una niña y un niño comieron allí.",
)
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


@dataclass(frozen=True)
class Reader:
    """A small model with its tokenizer; its attention is far from even."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def save(self, folder: Path) -> Path:
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        return folder


def small_tokenizer(kind: str, **options: Any) -> PreTrainedTokenizerBase:
    documents = [Document((text,), source="here") for text in TEXTS * 2]
    return train_tokenizer(documents, kind=kind, vocab_size="auto", max_length=64, **options)


@pytest.fixture(scope="session", params=["encoder", "decoder"])
def one_stack(request: pytest.FixtureRequest) -> Reader:
    return {"encoder": small_encoder, "decoder": small_decoder}[request.param]()


def small_encoder() -> Reader:
    tokenizer = small_tokenizer("wordpiece")
    torch.manual_seed(0)
    config = MiniLMConfig(vocab_size=len(tokenizer), initializer_range=0.3, type_vocab_size=2, **SIZES)
    return Reader(MiniLMForPreTraining(config).eval(), tokenizer)


def small_decoder() -> Reader:
    tokenizer = small_tokenizer("bytelevel_bpe")
    torch.manual_seed(0)
    fields = {**SIZES, "initializer_range": 0.3, "is_causal": True, "position_embedding": "alibi"}
    return Reader(MiniLMForCausalLM(MiniLMConfig(vocab_size=len(tokenizer), **fields)).eval(), tokenizer)


@pytest.fixture(scope="session")
def encoder() -> Reader:
    return small_encoder()


@pytest.fixture(scope="session")
def two_stacks() -> Reader:
    tokenizer = small_tokenizer("bytelevel_bpe", for_pairs=True)
    stack = {**SIZES, "vocab_size": len(tokenizer), "initializer_range": 0.3}
    names = ("pad_token_id", "bos_token_id", "eos_token_id")
    ids = {name: getattr(tokenizer, name) for name in names}
    torch.manual_seed(0)
    config = MiniLMSeq2SeqConfig(encoder=stack, decoder={**stack, "num_hidden_layers": 3}, **ids)
    return Reader(MiniLMForConditionalGeneration(config).eval(), tokenizer)
