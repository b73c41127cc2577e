"""How long a stroke on the page of `nucleate annotate` takes: until it is drawn, and until the server has it.

    python benchmarks/annotate.py [--strokes 50] [--side 512] [--every 150]

The server is a process of its own, as a person starts it, with a copy of the embedded fluorescence model; the browser
is Chromium, without a screen. Strokes are drawn on a tile of drawn nuclei, first while the model rests, and then while
it really learns from other tiles, one after the other. A stroke ends when the pointer comes up. From there it is
measured until the browser has painted the next frame (Event Timing, in steps of 8 ms), and until the server has
answered, which it does once the stroke is on the disk. Needs Playwright. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from playwright.sync_api import Page, sync_playwright

from nucleate.data.synthetic import fluorescence

TILES = 8
"""Of which all but one are learnt from."""

REST = 10_000
"""Milliseconds in which the model predicts the tiles that may come next."""

PATIENCE = 300_000
"""Milliseconds until something that the page does not do is an error."""

WATCH = """() => {
    Object.assign(window, { strokes: [], answers: [], paints: new Map() });
    window.addEventListener("pointerup", ({ timeStamp }) => {
        window.strokes.push({ up: timeStamp, busy: document.getElementById("learning").dataset.state === "busy" });
    });
    new PerformanceObserver((list) => {
        for (const { name, startTime, duration } of list.getEntries()) {
            if (name === "pointerup") window.paints.set(startTime, duration);
        }
    }).observe({ type: "event", durationThreshold: 16 });
    new PerformanceObserver((list) => {
        for (const { name, responseEnd } of list.getEntries()) {
            if (name.endsWith("/strokes")) window.answers.push(responseEnd);
        }
    }).observe({ type: "resource" });
}"""
"""Strokes are sent in their order, and so are their answers. The browser does not tell of paints within 16 ms."""


@contextmanager
def served(images: Path, model: Path) -> Iterator[str]:
    """The address of the page, from a process of its own."""
    command = [
        sys.executable,
        "-m",
        "nucleate",
        "annotate",
        "fluorescence",
        images,
        "--out",
        model,
        "--order",
        "random",
    ]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield child.stdout.readline().split()[0]
        finally:
            child.send_signal(signal.SIGTERM)


def ready(page: Page) -> None:
    """Wait for a tile and what the model suggests for it, and until all is saved and another tile may be asked for."""
    condition = """() => {
        const { version, waiting } = document.getElementById("slide").dataset;
        return version >= 0 && waiting === "0" && !document.getElementById("next").disabled;
    }"""
    page.wait_for_function(condition, timeout=PATIENCE)


def learn_and_go_on(page: Page) -> None:
    """Accept what the model suggests, and have it learn from that while another tile is shown."""
    tile = page.get_attribute("#slide", "data-tile")
    page.keyboard.press("Shift+A")
    page.wait_for_timeout(100)
    ready(page)
    page.keyboard.press("n")
    other = "(tile) => document.getElementById('slide').dataset.tile !== tile"
    page.wait_for_function(other, arg=tile, timeout=PATIENCE)
    ready(page)


def draw(page: Page, count: int, every: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """So many strokes of the brush, one every so many milliseconds; for each the milliseconds that it took."""
    box = page.locator("#slide").bounding_box()
    assert box is not None
    page.keyboard.press("b")
    page.evaluate(WATCH)
    for _ in range(count):
        x, y = box["x"] + box["width"] * rng.uniform(0.3, 0.7), box["y"] + box["height"] * rng.uniform(0.2, 0.8)
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + rng.uniform(-30, 30), y + rng.uniform(-30, 30), steps=5)
        page.mouse.up()
        page.wait_for_timeout(every)
    page.wait_for_function("(count) => window.answers.length === count", arg=count, timeout=PATIENCE)
    page.wait_for_timeout(500)  # until the browser has told of the last paint
    found: list[dict[str, Any]] = page.evaluate(
        "() => strokes.map(({ up, busy }, n) => ({ drawn: paints.get(up) ?? 16, saved: answers[n] - up, busy }))"
    )
    page.reload()  # and with it what was watching
    ready(page)
    return found


def summary(strokes: list[dict[str, Any]]) -> dict[str, float]:
    """Median and 95th percentile of both times, in milliseconds."""
    found: dict[str, float] = {"strokes": len(strokes)}
    for name in ("drawn", "saved"):
        times = [float(one[name]) for one in strokes]
        found[name] = round(statistics.median(times), 1)
        found[f"{name}, 95%"] = round(float(np.percentile(times, 95)), 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strokes", type=int, default=50)
    parser.add_argument("--side", type=int, default=512, help="pixels of a tile")
    parser.add_argument("--every", type=int, default=150, help="milliseconds from one stroke to the next")
    options = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    rng, found = np.random.default_rng(0), dict[str, dict[str, float]]()
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        images = Path(name) / "images"
        images.mkdir()
        for number in range(TILES):
            image, _ = fluorescence(seed=(11, number), height=options.side, width=options.side)
            tifffile.imwrite(images / f"cells{number}.tif", image.pixels)
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        with served(images, Path(name) / "model") as address:
            page = browser.new_page(viewport={"width": 1200, "height": 760})
            page.goto(address)
            ready(page)
            page.wait_for_timeout(REST)
            found["rests"] = summary(draw(page, options.strokes, options.every, rng))
            print(json.dumps(found), flush=True)
            for _ in range(TILES - 1):
                learn_and_go_on(page)
            strokes = draw(page, options.strokes, options.every, rng)
            found["learns"] = summary([one for one in strokes if one["busy"]])
            page.close()
        browser.close()
    for state, times in found.items():
        print(
            f"A stroke while the model {state}: drawn in {times['drawn']} ms (95% in {times['drawn, 95%']}), "
            f"saved in {times['saved']} ms (95% in {times['saved, 95%']}); {times['strokes']} strokes."
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
