"""The page of corrections in a real browser: the whole loop, the tools, two pages at once."""

import json
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from playwright.sync_api import sync_playwright
from scipy import ndimage

import nucleate
from nucleate.annotating import annotating
from nucleate.data.synthetic import fluorescence
from nucleate.networks import store
from nucleate.training import online
from nucleate.training.copying import copied
from nucleate.training.journal import Journal
from nucleate.training.online import OnlineConfig
from nucleate.web.annotation.routes import make_annotator
from nucleate.web.annotation.workplace import Workplace

NAMES = "chromium", "chromium-browser", "google-chrome"
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=f"needs one of {', '.join(NAMES)}: apt-get install chromium")

REAL = Path(__file__).parents[2] / ".." / "shared" / "data" / "bbbc038" / "fluorescence" / "val" / "images"
PATIENCE = 120_000  # milliseconds; a slow machine is no error
SIDE = 96


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Annotator:
    """A page on which tiles are corrected."""

    def __init__(self, page, served, hash=""):
        self.page, self.served, self.said = page, served, []
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: message.type == "error" and self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: request.url.startswith(served.origin) or self.said.append(request.url))
        page.goto(served.page)
        if hash:
            self.ready()  # else the page would put its own tile there after us
            page.goto(f"{served.origin}/#{hash}")
            page.reload()
        self.ready()

    def until(self, condition, *arguments):
        self.page.wait_for_function(condition, arg=list(arguments), timeout=PATIENCE)

    def ready(self):
        """Wait until a tile and its suggestions are shown."""
        self.until("() => Number(document.getElementById('slide').dataset.version ?? -1) >= 0")

    def data(self, name):
        return self.page.get_attribute("#slide", f"data-{name}")

    def settle(self):
        """Wait until all strokes are saved."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        self.until("() => document.getElementById('slide').dataset.waiting === '0'")

    def at(self, x, y):
        """Where a place of the tile is on the screen; every tile here is a whole image."""
        box = self.page.locator("#slide").bounding_box()
        scale = float(self.data("scale"))
        left, top = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        return left + (x - float(self.data("x"))) * scale, top + (y - float(self.data("y"))) * scale

    def drag(self, *places, button="left"):
        self.page.mouse.move(*self.at(*places[0]))
        self.page.mouse.down(button=button)
        for place in places[1:]:
            self.page.mouse.move(*self.at(*place), steps=3)
        self.page.mouse.up(button=button)

    def point(self, x, y):
        self.page.mouse.move(*self.at(x, y))

    def next(self):
        """Finish the tile and wait for another."""
        tile = self.data("tile")
        self.until("() => !document.getElementById('next').disabled")
        self.press("n")
        self.until("([tile]) => document.getElementById('slide').dataset.tile !== tile", tile)
        self.until("() => !document.getElementById('next').disabled")

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def count(self, name):
        """A number of the side panel, once what was drawn is shown."""
        self.settle()
        return int(self.page.inner_text(f"#{name}"))


def squares(offset=0):
    """Four bright squares on a dark ground, 16 pixels each; two of them touch."""
    pixels = np.random.default_rng(offset).integers(90, 110, (SIDE, SIDE)).astype(np.uint16)
    for y, x in ((10, 10), (10, 60), (60, 10), (60, 26)):
        pixels[y : y + 16, x + offset : x + offset + 16] += 900
    return pixels


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(3):
        tifffile.imwrite(images / f"cells{number}.tif", squares(4 * number))
    return images


@pytest.fixture
def opened(browser, folder, stand_in, takes, serving_app):
    """A server and pages of it; none may have an error at the end, or ask for anything elsewhere."""
    learner = stand_in()
    work = Workplace(folder, learner, takes, folder.parent / "store", order="random")
    contexts, pages = [], []
    with serving_app(make_annotator(work)) as served:

        def open_page(context=None, hash="", **options):
            if context is None:
                context = browser.new_context(**{"viewport": {"width": 1200, "height": 760}, **options})
                contexts.append(context)
            pages.append(Annotator(context.new_page(), served, hash))
            return pages[-1]

        open_page.work, open_page.learner, open_page.served = work, learner, served
        yield open_page
        for context in contexts:
            context.close()
    work.close()
    assert [text for page in pages for text in page.said] == []


def labels_of(opened, tile):
    with opened.work.sheet(tile) as sheet:
        return sheet.labels.copy()


def undo_and_redo(page, opened, tile, painted):
    """The only stroke on a tile goes, and comes back as it was `painted`."""
    page.press("Control+z")
    page.settle()
    assert (labels_of(opened, tile) == -1).all()
    page.press("Control+Shift+Z")
    page.settle()
    np.testing.assert_array_equal(labels_of(opened, tile), painted)


def left_of(opened, tile):
    """How far right the squares of a tile lie."""
    return 4 * opened.work.place(tile).image


def test_the_whole_loop(opened):
    """Load, paint, undo, redo, accept, learn, next, reload: nothing is lost."""
    page = opened()
    tile = page.data("tile")
    off = left_of(opened, tile)
    assert page.count("open-count") == 3  # two squares touch
    page.press("b")
    page.drag((40, 85), (60, 85))
    assert page.count("said-count") == 1
    painted = labels_of(opened, tile)
    assert (painted[85, 40:60] > 0).all() and len(np.unique(painted)) == 2
    undo_and_redo(page, opened, tile, painted)
    page.point(18 + off, 18)
    page.press("a")
    assert page.count("said-count") == 2 and page.count("open-count") == 2
    assert (labels_of(opened, tile)[12:24, 12 + off : 24 + off] > 0).all()
    page.page.reload()
    page.ready()
    assert page.data("tile") == tile and page.count("said-count") == 2
    page.press("Control+z")  # what was drawn before the page was loaded again
    assert page.count("said-count") == 1
    page.press("Control+y", "Shift+A")
    assert page.count("open-count") == 0 and page.count("said-count") == 4
    said = labels_of(opened, tile)
    assert (said != -1).all() and page.page.inner_text("#known") == "100 %"
    page.next()
    page.until("() => document.getElementById('corrections').textContent === '1'")
    ((_, learnt, _, _),) = opened.learner.recorded
    assert learnt.max() == 4 and ((learnt > 0) == (said > 0)).all()
    assert page.page.inner_text("#prequential") == "0.500" and page.page.inner_text("#progress") == "1 of 3 tiles done"
    second = page.data("tile")
    page.ready()
    page.page.reload()
    page.ready()
    assert page.data("tile") == second
    page.next()
    third = page.data("tile")
    page.press("n")
    page.until("() => document.getElementById('notice').textContent.startsWith('Every tile was shown')")
    assert len({tile, second, third}) == 3


@pytest.fixture(params=["drawn", "real"])
def nuclei(request, tmp_path):
    """A folder of two images of nuclei, 256 x 256 pixels."""
    images = tmp_path / "nuclei"
    images.mkdir()
    if request.param == "drawn":
        for number in range(2):
            tifffile.imwrite(images / f"cells{number}.tif", fluorescence(seed=(8, number))[0].pixels)
    elif REAL.is_dir():
        for name in ("06350c7cc618.png", "08ae2741df2f.png"):
            shutil.copyfile(REAL / name, images / name)
    else:
        pytest.skip("needs real nuclei, which are no part of the project")
    return images


def test_a_model_learns_from_what_is_painted(browser, serving_app, nuclei, tmp_path, monkeypatch):
    """The whole loop with a model of the package; its updates are short."""
    monkeypatch.setattr(online, "OnlineConfig", partial(OnlineConfig, steps=3))
    model = copied("fluorescence", tmp_path / "model")
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    weights = store.read_manifest(model).weights_sha256
    with annotating(str(model), nuclei) as work, serving_app(make_annotator(work)) as served:
        opened = SimpleNamespace(work=work)
        page = Annotator(browser.new_page(), served)
        tile = page.data("tile")
        found = work.guess(tile).labels
        suggested = page.count("open-count")
        assert suggested == len(np.unique(found[found > 0])) > 3
        # Paint in the middle of the largest place without a nucleus.
        away = ndimage.distance_transform_edt(np.pad(found <= 0, 1))[1:-1, 1:-1]
        y, x = map(int, np.unravel_index(away.argmax(), away.shape))
        page.press("b")
        page.drag((x - 4, y), (x + 4, y))
        assert page.count("said-count") == 1
        painted = labels_of(opened, tile)
        number = painted[y, x]
        assert number > 0 and (painted[y, x - 4 : x + 5] == number).all()
        undo_and_redo(page, opened, tile, painted)
        page.press("e", "[", "[")
        page.drag((x + 7, y - 6), (x + 7, y + 6))
        page.settle()
        erased = labels_of(opened, tile)
        assert erased[y, x + 7] == 0 and 0 < (erased == number).sum() < (painted == number).sum()
        page.press("Shift+A")
        said = page.count("said-count")
        assert said > suggested - 2 and page.count("open-count") == 0
        whole = labels_of(opened, tile)
        assert (whole >= 0).all() and ((whole == number) == (erased == number)).all()
        page.next()
        other = page.data("tile")
        assert other != tile
        page.until("() => document.getElementById('corrections').textContent === '1'")
        page.press("b")
        page.drag((20, 20), (24, 20))
        page.settle()
        drawn = labels_of(opened, other)
        page.page.reload()
        page.ready()
        assert page.data("tile") == other and page.count("said-count") == 1 and (drawn > 0).any()
        np.testing.assert_array_equal(labels_of(opened, other), drawn)
        np.testing.assert_array_equal(labels_of(opened, tile), whole)
        page.page.close()
    assert page.said == []
    standing = Journal(model).standing()
    ((first, correction),) = standing.corrections.items()
    image, learnt = Journal(model).read(correction)
    assert image.pixels.shape[:2] == learnt.shape and correction.nuclei == learnt.max() == said
    np.testing.assert_array_equal(learnt > 0, whole > 0)
    assert standing.learnt.keys() == {first}
    after = store.read(model).manifest
    assert after.corrections.learnt == 1 and after.weights_sha256 != weights
    assert b"learnt 1 correction " in (model / store.CARD).read_bytes()
    nucleate.undo(model)
    assert {name: (model / name).read_bytes() for name in before} == before


def test_the_tools(opened):
    page = opened()
    tile = page.data("tile")
    off = left_of(opened, tile)
    now = lambda: labels_of(opened, tile)  # noqa: E731
    # Split the suggestion of two squares that touch, from above to below.
    page.press("s")
    page.drag((26 + off, 54), (26 + off, 82))
    page.settle()
    left, right = now()[68, 15 + off], now()[68, 37 + off]
    assert left > 0 < right and left != right and page.count("open-count") == 2
    # Merge them again.
    page.press("m")
    page.drag((15 + off, 68), (37 + off, 68))
    page.settle()
    assert now()[68, 15 + off] == now()[68, 37 + off] > 0 and page.count("said-count") == 1
    # Erase a part; what touches the eraser is taken.
    page.press("e")
    page.drag((60 + off, 18), (60 + off, 18))
    page.settle()
    assert now()[18, 60 + off] == 0 < now()[18, 70 + off] and page.count("open-count") == 1
    # A hole is filled.
    page.press("f")
    page.press("e", "[", "[", "[")
    page.drag((68 + off, 18), (68 + off, 18))
    page.settle()
    assert now()[18, 68 + off] == 0
    page.press("f")
    page.drag((68 + off, 18), (68 + off, 18))
    page.settle()
    assert now()[18, 68 + off] == now()[18, 72 + off] > 0
    # A polygon by clicks, closed by Enter, and one by dragging.
    page.press("p")
    for place in ((42, 40), (58, 40), (58, 54), (42, 54)):
        page.drag(place, place)
    page.press("Enter")
    page.settle()
    assert (now()[41:53, 43:57] > 0).all() and now()[38, 50] == -1
    page.drag((70, 40), (84, 40), (84, 54), (70, 54), (70, 41))
    page.settle()
    assert (now()[42:52, 72:82] > 0).all()
    # Delete a nucleus, and a suggestion.
    count = page.count("said-count")
    page.point(77, 47)
    page.press("Delete")
    assert page.count("said-count") == count - 1 and (now()[42:52, 72:82] == 0).all()
    page.point(18 + off, 18)
    page.press("Delete")
    assert page.count("open-count") == 0 and (now()[12:24, 12 + off : 24 + off] == 0).all()
    # A box is finished, another unknown.
    page.press("x")
    page.drag((0.5, 35.5), (30.5, 50.5))
    page.settle()
    assert (now()[35:51, :31] == 0).all() and now()[34, 5] == now()[40, 31] == -1
    page.press("x")
    assert page.page.inner_text("#region-kind") == "Unknown"
    page.drag((0.5, 35.5), (10.5, 45.5))
    page.settle()
    assert (now()[35:46, :11] == -1).all() and (now()[46:51, :31] == 0).all()
    # All of it is undone, a stroke at a time.
    while not page.page.is_disabled("#undo"):
        page.press("Control+z")
        page.settle()
    assert (now() == -1).all() and page.count("open-count") == 3
    assert json.loads(page.data("strokes")) == 0


def test_two_pages_at_once_lose_no_stroke_and_cross_no_tile(opened):
    first = opened()
    tile = first.data("tile")
    second = opened(hash=tile)
    other = opened()
    assert second.data("tile") == tile != other.data("tile")
    for page in (first, second, other):
        page.press("b")
    rows = range(32, 58, 6)
    for number, row in enumerate(rows):
        page = (first, second)[number % 2]
        page.drag((5, row), (15, row))
        other.drag((80, row), (90, row))
    for page in (first, second, other):
        page.settle()
    said = labels_of(opened, tile)
    numbers = [said[row, 10] for row in rows]
    assert min(numbers) > 0 and len(set(numbers)) == len(numbers) and (said[:, 75:] == -1).all()
    assert (labels_of(opened, other.data("tile"))[:, :30] == -1).all()
    for page in (first, second):
        page.until("([count]) => document.getElementById('said-count').textContent === count", str(len(numbers)))
    # Undo takes back one's own stroke and leaves the others'.
    second.press("Control+z")
    second.settle()
    said = labels_of(opened, tile)
    assert [said[row, 10] > 0 for row in rows] == [True, True, True, False, True]
    # Both draw on the same pixels while neither knows of the other: the later one counts, and both show the same.
    first.drag((40, 85), (60, 85))
    second.drag((50, 80), (50, 90))
    for page in (first, second):
        page.settle()
    with opened.work.sheet(tile) as sheet:
        revision = str(sheet.revision)
    for page in (first, second):
        page.until("([revision]) => document.getElementById('slide').dataset.revision === revision", revision)
    counts = {page.count("said-count") for page in (first, second)}
    assert len(counts) == 1
    first.next()
    assert first.data("tile") != other.data("tile")


def test_strokes_that_cannot_be_sent_are_kept(opened):
    page = opened()
    tile = page.data("tile")
    page.page.route("**/strokes", lambda route: route.abort())
    page.press("b")
    page.drag((40, 85), (60, 85))
    page.drag((40, 40), (60, 40))
    page.until("() => document.getElementById('saved').dataset.state === 'problem'")
    assert "Not saved yet, 2 strokes" in page.page.inner_text("#saved") and (labels_of(opened, tile) == -1).all()
    page.page.unroute("**/strokes")
    page.page.reload()
    page.ready()
    page.settle()
    said = labels_of(opened, tile)
    assert said[85, 50] > 0 < said[40, 50] and page.count("said-count") == 2
    page.said.clear()  # the browser itself says that a request failed


def test_the_page_answers_while_the_model_learns(opened):
    opened.learner.seconds = 3.0
    page = opened()
    page.press("Shift+A")
    page.settle()
    page.next()
    page.ready()
    page.until("() => document.getElementById('learning').dataset.state === 'busy'")
    page.press("b")
    page.drag((40, 85), (60, 85))
    page.settle()
    assert (labels_of(opened, page.data("tile"))[85, 40:60] > 0).all()
    assert not opened.learner.learnt  # the stroke was saved before the pass ended


def test_the_keyboard_alone_can_correct(opened):
    page = opened()
    tile = page.data("tile")
    page.page.locator("#slide").focus()
    page.press(".")
    page.press("a")
    assert page.count("said-count") == 1 and page.count("open-count") == 2
    page.press(".", "Delete")
    assert page.count("open-count") == 1
    page.press("b", *["Shift+ArrowDown"] * 3, "Space", *["ArrowRight"] * 8, "Space")
    assert page.count("said-count") == 2
    page.press("Control+z")
    assert page.count("said-count") == 1
    page.press("Escape", "?")
    page.page.wait_for_selector("#help[open]")
    page.press("n", "Escape")
    assert page.data("tile") == tile


def test_a_pen_draws_its_eraser_erases_and_fingers_then_move(opened):
    page = opened()
    tile = page.data("tile")

    def stroke(kind, places, buttons=1, number=1):
        events = [
            ("pointerdown", places[0]),
            *(("pointermove", place) for place in places[1:]),
            ("pointerup", places[-1]),
        ]
        page.page.evaluate(
            """([kind, events, buttons, number]) => {
                const slide = document.getElementById("slide");
                slide.setPointerCapture = () => {};
                for (const [type, [clientX, clientY]] of events) {
                    const button = type === "pointermove" ? -1 : buttons === 32 ? 5 : 0;
                    const held = type === "pointerup" ? 0 : buttons;
                    const options = { pointerId: number, pointerType: kind, clientX, clientY, button, buttons: held };
                    slide.dispatchEvent(new PointerEvent(type, { ...options, bubbles: true }));
                }
            }""",
            [kind, [[name, page.at(*place)] for name, place in events], buttons, number],
        )
        page.settle()

    stroke("pen", [(40, 85), (60, 85)])
    assert (labels_of(opened, tile)[85, 41:59] > 0).all()
    stroke("pen", [(50, 80), (50, 90)], buttons=32)
    assert (labels_of(opened, tile)[82:88, 50] == 0).all()
    before = float(page.data("x"))
    stroke("touch", [(40, 40), (60, 40)], number=2)
    assert (labels_of(opened, tile)[40] == -1).all() and float(page.data("x")) < before
    assert page.data("strokes") == "2"


def test_the_mouse_zooms_and_its_right_button_moves(opened):
    page = opened()
    scale, x = float(page.data("scale")), float(page.data("x"))
    page.point(48, 48)
    page.page.mouse.wheel(0, -300)
    page.until("([scale]) => Number(document.getElementById('slide').dataset.scale) > scale", scale)
    page.drag((50, 50), (40, 50), button="right")
    page.settle()
    assert float(page.data("x")) > x and page.data("strokes") == "0"
    page.press("0")
    page.settle()
    assert float(page.data("scale")) == scale and float(page.data("x")) == x


def test_layers_can_be_hidden_and_the_entropy_shown(opened):
    page = opened()
    colours = lambda: page.page.evaluate(  # noqa: E731
        """() => {
            const { width, height } = document.getElementById("slide");
            const data = document.getElementById("slide").getContext("2d").getImageData(0, 0, width, height).data;
            let [yellow, green, warm] = [0, 0, 0];
            for (let at = 0; at < data.length; at += 4) {
                const [r, g, b] = [data[at], data[at + 1], data[at + 2]];
                if (r > 200 && g > 160 && b < 60) yellow++;
                if (r < 110 && g > 170 && b > 110 && b < 200) green++;
                if (r > 140 && b < r - 60 && g < r - 40) warm++;
            }
            return [yellow, green, warm];
        }"""
    )

    def shown():
        page.settle()
        return colours()

    first = shown()
    assert first[0] > 100 and first[1] == 0
    off = left_of(opened, page.data("tile"))
    page.point(18 + off, 18)
    page.press("a")
    page.point(50, 50)
    assert shown()[1] > 50
    page.press("u")
    assert shown()[0] == 0
    page.press("i")
    assert shown()[2] > first[2]
    page.press("i", "h")
    assert shown()[:2] == [0, 0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_and_every_control_has_a_name(opened, scheme):
    page = opened(color_scheme=scheme).page
    ratios = page.evaluate(
        """() => {
            const parts = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255);
            const light = (colour) => {
                const [r, g, b] = parts(colour).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const ground = (element) => {
                const colour = getComputedStyle(element).backgroundColor;
                return colour === "rgba(0, 0, 0, 0)" ? ground(element.parentElement) : colour;
            };
            const names = ["h1", "h2", "label", "#tools button", "#tools [aria-pressed=true]", "dt", "dd", ".quiet"];
            return [...names, "#scale", "#next", "#accept-all", "#saved", "#learning"].map((name) => {
                const element = document.querySelector(name);
                const [a, b] = [getComputedStyle(element).color, ground(element)].map(light).sort((a, b) => b - a);
                return [name, (a + 0.05) / (b + 0.05)];
            });
        }"""
    )
    assert all(ratio >= 4.5 for _, ratio in ratios), ratios
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, input, canvas, progress")]
            .filter((one) => !(one.textContent.trim() || one.ariaLabel || one.labels?.length))
            .map((one) => one.id)"""
    )
    assert unnamed == []


def test_it_fits_a_tablet_and_a_phone(opened):
    for width, height in ((820, 1100), (390, 800)):
        page = opened(viewport={"width": width, "height": height}).page
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.locator("#slide").bounding_box()["height"] > 200
        for name in ("#undo", "[data-tool=region]"):
            box = page.locator(name).bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width, name


def test_edits_agree_with_plain_twins(opened):
    """Lines, brushes and polygons of the page against numpy, and pieces against scipy."""
    page = opened().page
    rng = np.random.default_rng(0)
    size, side = {"width": 40, "height": 30}, (30, 40)
    ask = """async ([what, size, ...rest]) => {
        const raster = await import("./raster.js");
        if (what === "pieces") return raster.pieces(size, rest[0]);
        const found = [];
        raster[what](size, ...rest, (at) => found.push(at));
        return found;
    }"""
    y, x = np.mgrid[:30, :40] + 0.5
    for _ in range(30):
        (ax, ay), (bx, by) = rng.uniform(-5, 45, (2, 2))
        radius = rng.uniform(0.5, 8)
        found = page.evaluate(ask, ["capsule", size, {"x": ax, "y": ay}, {"x": bx, "y": by}, radius])
        way = np.array([bx - ax, by - ay])
        along = np.clip(((x - ax) * way[0] + (y - ay) * way[1]) / (way @ way), 0, 1)
        near = np.hypot(x - ax - along * way[0], y - ay - along * way[1]) <= radius
        assert sorted(found) == np.flatnonzero(near).tolist()
        corners = rng.uniform(-4, 44, (5, 2))
        found = page.evaluate(ask, ["polygon", size, [{"x": cx, "y": cy} for cx, cy in corners]])
        inside = np.zeros(side, bool)
        for (cx, cy), (dx, dy) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            crosses = (cy <= y) != (dy <= y)
            inside ^= crosses & (x > cx + (y - cy) / (dy - cy) * (dx - cx))
        assert sorted(found) == np.flatnonzero(inside).tolist()
        mask = rng.random(side) < 0.5
        parts = page.evaluate(ask, ["pieces", size, np.flatnonzero(mask).tolist()])
        twin, count = ndimage.label(mask)
        assert len(parts) == count and [len(part) for part in parts] == sorted(map(len, parts), reverse=True)
        assert all(len(set(twin.reshape(-1)[part])) == 1 for part in parts)
        line = page.evaluate(ask, ["line", size, {"x": 3, "y": 2}, {"x": int(bx) % 40, "y": int(by) % 30}])
        steps = np.abs(np.diff(np.stack(np.unravel_index(line, side)), axis=1))
        assert line[0] == 2 * 40 + 3 and line[-1] == int(by) % 30 * 40 + int(bx) % 40 and steps.max(initial=0) <= 1
