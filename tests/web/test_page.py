"""The page in a real browser: what is drawn, and what the mouse and the keyboard do."""

import csv
import json
import shutil

import numpy as np
import pytest
import tifffile
from playwright.sync_api import sync_playwright

from nucleate.io.formats import entropy_tiff
from nucleate.io.label_file import read_labels
from nucleate.io.reader import read_image
from nucleate.types import Box

NAMES = "chromium", "chromium-browser", "google-chrome"
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=f"needs one of {', '.join(NAMES)}: apt-get install chromium")

YELLOW, MAGENTA, CYAN = (255, 212, 0), (255, 79, 216), (0, 229, 255)
PATIENCE = 120_000  # milliseconds; a slow machine is no error


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Viewer:
    """A page on which the viewer is open, and what its console said."""

    def __init__(self, page, served):
        self.page, self.said = page, []
        page.set_default_timeout(PATIENCE)
        page.on("console", self.listen)
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: request.url.startswith(served.origin) or self.said.append(request.url))
        page.goto(served.page)
        assert page.url == f"{served.origin}/"
        self.settle()

    def listen(self, message):
        if message.type == "error":
            self.said.append(f"{message.text} ({message.location['url']})")

    def settle(self):
        """Wait until all that is on the screen has come and was drawn."""
        self.page.evaluate(
            """async () => {
                const slide = document.getElementById("slide");
                for (let idle = 0; idle < 4; idle = slide.getAttribute("aria-busy") === "false" ? idle + 1 : 0) {
                    await new Promise((done) => requestAnimationFrame(done));
                }
            }"""
        )

    def camera(self):
        return {name: float(self.page.get_attribute("#slide", f"data-{name}")) for name in ("x", "y", "scale")}

    def at(self, x, y):
        """Where a place of the slide is on the canvas."""
        camera, box = self.camera(), self.page.locator("#slide").bounding_box()
        left, top = box["width"] / 2, box["height"] / 2
        return (x - camera["x"]) * camera["scale"] + left, (y - camera["y"]) * camera["scale"] + top

    def colours(self, places):
        """The colours of the canvas at places of the slide."""
        spots = [[round(way - 0.5) for way in self.at(*place)] for place in places]
        found = self.page.evaluate(
            """(spots) => {
                const pencil = document.getElementById("slide").getContext("2d");
                return spots.map(([x, y]) => [...pencil.getImageData(x, y, 1, 1).data].slice(0, 3));
            }""",
            spots,
        )
        return [tuple(colour) for colour in found]

    def colour(self, x, y):
        return self.colours([(x, y)])[0]

    def away(self, x, y, colour):
        """How much the canvas differs from a colour where it is most like it, within a pixel of a place."""
        step = 1 / self.camera()["scale"]
        places = [(x + across * step, y + down * step) for across in (-1, 0, 1) for down in (-1, 0, 1)]
        return np.abs(np.array(self.colours(places), int) - colour).sum(axis=1).min()

    def go(self, x, y, scale):
        """Zoom and drag with the mouse until a place is in the middle."""
        while self.camera()["scale"] < scale:
            self.page.locator("#in").click()
            self.settle()
        box = self.page.locator("#slide").bounding_box()
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for _ in range(20):
            left, top = self.at(x, y)
            far = [way - side / 2 for way, side in ((left, box["width"]), (top, box["height"]))]
            if max(map(abs, far)) < 1:
                break
            step = [max(-300, min(300, way)) for way in far]
            self.page.mouse.move(*middle)
            self.page.mouse.down()
            self.page.mouse.move(middle[0] - step[0] / 2, middle[1] - step[1] / 2)
            self.page.mouse.move(middle[0] - step[0], middle[1] - step[1])
            self.page.mouse.up()
            self.settle()

    def click(self, x, y):
        left, top = self.at(x, y)
        self.page.locator("#slide").click(position={"x": left, "y": top})

    def measurements(self):
        """What the panel says of the selected nucleus."""
        terms = self.page.locator("#selected dt").all_inner_texts()
        return list(zip(terms, self.page.locator("#selected dd").all_inner_texts(), strict=True))


def says(page, element, text):
    """Wait until an element of the page has a text in it."""
    shown = "([element, text]) => document.getElementById(element).textContent.includes(text)"
    page.wait_for_function(shown, arg=[element, text], timeout=PATIENCE)


@pytest.fixture
def open_page(browser):
    """Opens pages; at the end, none may have had an error, or asked for anything elsewhere."""
    contexts, viewers = [], []

    def opened(served, **options):
        contexts.append(browser.new_context(**{"viewport": {"width": 1100, "height": 700}, **options}))
        viewers.append(Viewer(contexts[-1].new_page(), served))
        return viewers[-1]

    yield opened
    for context in contexts:
        context.close()
    assert [text for viewer in viewers for text in viewer.said] == []


@pytest.fixture(scope="module")
def address(shown, serving):
    with serving(shown) as address:
        yield address


@pytest.fixture
def tissue(open_page, address):
    viewer = open_page(address)
    viewer.page.select_option("#images", label="tissue")
    viewer.page.wait_for_function("() => document.title.startsWith('tissue')")
    viewer.settle()
    return viewer


@pytest.fixture
def squares(open_page, address):
    return open_page(address)


def nucleus_of(shown):
    """Number, row and column inside, of a large nucleus in the middle of the tissue."""
    with (shown / "tissue.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if 200 < float(row["y"]) < 400 and 300 < float(row["x"]) < 600]
    row = max(rows, key=lambda row: int(row["area"]))
    return row, round(float(row["y"])), round(float(row["x"]))


def test_the_slide_is_drawn_as_it_is(tissue, shown):
    tissue.page.uncheck("#outlines")
    tissue.go(450, 300, 4)
    pixels = read_image(shown / "images" / "tissue.tif").pixels
    places = [(y, x) for y in range(280, 320, 7) for x in range(400, 500, 9)]
    seen = tissue.colours([(x + 0.5, y + 0.5) for y, x in places])
    assert np.abs(np.array(seen) - [pixels[place] for place in places]).max() <= 1


def test_outlines_run_along_the_labels_and_can_be_turned_off(tissue, shown):
    row, y, x = nucleus_of(shown)
    labels = read_labels(shown / "tissue_labels.tif")
    tissue.go(x, y, 8)
    left = x
    while labels[y, left - 1] == int(row["id"]):
        left -= 1
    edge, inside = (left, y + 0.5), (x + 0.5, y + 0.5)
    drawn = tissue.away(*edge, YELLOW), tissue.colours([edge, inside])
    tissue.page.uncheck("#outlines")
    tissue.settle()
    off = tissue.away(*edge, YELLOW), tissue.colours([edge, inside])
    assert drawn[0] < 120 < off[0] and drawn[1][0] != off[1][0] and drawn[1][1] == off[1][1]
    tissue.page.locator("#slide").press("o")
    tissue.settle()
    assert tissue.page.is_checked("#outlines")
    assert (tissue.away(*edge, YELLOW), tissue.colours([edge, inside])) == drawn
    tissue.page.locator("#opacity").fill("0")
    tissue.settle()
    assert tissue.colours([edge, inside]) == off[1]


def test_small_outlines_are_drawn_as_pixels(tissue, shown):
    row, y, x = nucleus_of(shown)
    labels = read_labels(shown / "tissue_labels.tif") == int(row["id"])
    assert 0.5 < tissue.camera()["scale"] < 1.01
    tissue.page.locator("#opacity").fill("100")
    tissue.go(x, y, 1)
    rows, columns = np.nonzero(labels)
    top = rows.argmin()
    assert tissue.away(columns[top] + 0.5, rows[top] + 0.5, YELLOW) < 120
    assert tissue.away(x + 0.5, y + 0.5, YELLOW) > 150


def test_a_click_on_a_nucleus_shows_its_row_of_the_table(tissue, shown):
    row, y, x = nucleus_of(shown)
    tissue.go(x, y, 2)
    tissue.click(x + 0.5, y + 0.5)
    tissue.page.wait_for_selector("#selected dl")
    said = tissue.measurements()
    assert said[0] == ("Number", row["id"])
    assert ("Area", f"{row['area']} px²") in said and ("Area", f"{row['area_um2']} µm²") in said
    assert len(said) == len(row)
    tissue.settle()
    labels = read_labels(shown / "tissue_labels.tif") == int(row["id"])
    left = int(np.nonzero(labels[y])[0][0])
    assert tissue.away(left, y + 0.5, CYAN) < 120
    tissue.page.locator("#slide").press("Escape")
    tissue.page.wait_for_selector("#selected p")
    background = np.argwhere(read_labels(shown / "tissue_labels.tif")[y - 60 : y + 60, x - 60 : x + 60] == 0)[0]
    tissue.click(x + 0.5, y + 0.5)
    tissue.page.wait_for_selector("#selected dl")
    tissue.click(x - 60 + background[1] + 0.5, y - 60 + background[0] + 0.5)
    tissue.page.wait_for_selector("#selected p")


def test_outlines_are_hidden_but_clicks_still_find(tissue, shown):
    row, y, x = nucleus_of(shown)
    tissue.page.uncheck("#outlines")
    tissue.click(x + 0.5, y + 0.5)
    tissue.page.wait_for_selector("#selected dl")
    assert tissue.measurements()[0] == ("Number", row["id"])


def test_a_nucleus_is_found_by_its_number_without_a_mouse(tissue, shown):
    row, _, _ = nucleus_of(shown)
    tissue.page.locator("#number").fill(row["id"])
    tissue.page.locator("#number").press("Enter")
    tissue.page.wait_for_selector("#selected dl")
    tissue.settle()
    camera = tissue.camera()
    assert (camera["x"], camera["y"]) == (float(row["x"]) + 0.5, float(row["y"]) + 0.5) and camera["scale"] >= 2
    tissue.page.locator("#slide").press("Escape")
    tissue.page.wait_for_selector("#selected p")
    tissue.page.locator("#slide").press("Enter")
    tissue.page.wait_for_selector("#selected dl")
    assert tissue.measurements()[0] == ("Number", row["id"])


def test_the_wheel_zooms_about_the_mouse_and_dragging_pans(tissue):
    before = tissue.camera()
    box = tissue.page.locator("#slide").bounding_box()
    x, y = box["x"] + 200, box["y"] + 150

    def under():
        camera = tissue.camera()
        away = 200 - box["width"] / 2, 150 - box["height"] / 2
        return [camera[axis] + way / camera["scale"] for axis, way in zip("xy", away, strict=True)]

    place = under()
    tissue.page.mouse.move(x, y)
    for _ in range(3):
        tissue.page.mouse.wheel(0, -300)
        tissue.settle()
    after = tissue.camera()
    assert after["scale"] > 2 * before["scale"] and under() == pytest.approx(place, abs=0.01)
    tissue.page.mouse.down()
    tissue.page.mouse.move(x + 30, y + 20)
    tissue.page.mouse.move(x + 60, y + 40)
    tissue.page.mouse.up()
    tissue.settle()
    moved = tissue.camera()
    assert (after["x"] - moved["x"]) * after["scale"] == pytest.approx(60, abs=1)
    assert (after["y"] - moved["y"]) * after["scale"] == pytest.approx(40, abs=1)
    assert tissue.page.locator("#selected dl").count() == 0  # a drag is no click


def test_the_keyboard_moves_and_zooms(tissue):
    slide = tissue.page.locator("#slide")
    first = tissue.camera()
    slide.press("+")
    slide.press("ArrowRight")
    slide.press("ArrowDown")
    tissue.settle()
    camera = tissue.camera()
    assert camera["scale"] == pytest.approx(1.5 * first["scale"])
    assert camera["x"] > first["x"] and camera["y"] > first["y"]
    slide.press("ArrowLeft")
    slide.press("ArrowUp")
    slide.press("-")
    tissue.settle()
    assert tissue.camera() == pytest.approx(first)
    slide.press("+")
    slide.press("0")
    tissue.settle()
    assert tissue.camera() == pytest.approx(first)


def test_a_region_at_half_the_resolution_lies_in_its_place(squares):
    """Square 1 covers rows 10 to 29 and columns 20 to 49 of a region that begins at (40, 60), all times 2."""
    squares.go(210, 140, 4)
    edges = [(160, 120), (220, 120), (160, 130), (190, 100), (190, 140)]
    for x, y in edges:
        assert squares.away(x, y, YELLOW) < 120, (x, y)
    assert {squares.colour(190, 120), squares.colour(240, 120)} == {(0, 0, 0)}
    assert squares.colour(255, 120) == (255, 255, 255)
    squares.click(161, 101)
    squares.page.wait_for_selector("#selected dl")
    assert squares.measurements()[0] == ("Number", "1")
    assert squares.page.locator("#bar").is_hidden()  # its pixel size is not known


def test_every_image_can_be_chosen(squares):
    page = squares.page
    assert page.locator("#images option").all_inner_texts() == ["squares", "tissue"]
    page.select_option("#images", label="tissue")
    page.wait_for_function("() => document.title.startsWith('tissue')")
    squares.settle()
    assert "900 × 600 px" in page.locator("#about").inner_text()
    assert page.locator("#bar").inner_text().endswith("µm")
    page.select_option("#images", label="squares")
    page.wait_for_function("() => document.title.startsWith('squares')")
    squares.settle()
    assert "500 × 400 px" in page.locator("#about").inner_text()


def test_it_can_be_used_without_sight_of_the_canvas(squares):
    """Every control has a name, and all are reached by the keyboard."""
    page = squares.page
    for role, name in (
        ("application", "The slide and its nuclei"),
        ("combobox", "Image"),
        ("button", "Previous image"),
        ("button", "Next image"),
        ("checkbox", "Outlines"),
        ("slider", "Opacity"),
        ("slider", "Brightness"),
        ("slider", "Contrast"),
        ("button", "Reset"),
        ("button", "Save picture"),
        ("button", "Keys"),
        ("region", "List of nuclei"),
        ("combobox", "Column to filter by"),
        ("spinbutton", "from"),
        ("spinbutton", "to"),
        ("button", "Zoom in"),
        ("button", "Zoom out"),
        ("button", "Fit"),
        ("spinbutton", "Number"),
    ):
        assert page.get_by_role(role, name=name, exact=True).count() == 1, name
    reached = set()
    for _ in range(45):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert {"images", "next", "outlines", "in", "out", "fit", "save", "ask", "slide", "number", "Show"} <= reached
    assert {"column", "low", "high", "rows", "Area (px²)", "2", "brightness", "contrast", "opacity", "reset"} <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(open_page, address, scheme):
    """Contrast by WCAG 2.2, level AA: at least 4.5 for text."""
    page = open_page(address, color_scheme=scheme).page
    says(page, "found", "nuclei")
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
            const names = ["h1", "h2", "label", "select", "button", "dt", "dd", ".quiet", "#scale"];
            return [...names, "th button", "td", "td button"].map((name) => {
                const element = document.querySelector(name);
                const [a, b] = [getComputedStyle(element).color, ground(element)].map(light).sort((a, b) => b - a);
                return [name, (a + 0.05) / (b + 0.05)];
            });
        }"""
    )
    assert all(ratio >= 4.5 for _, ratio in ratios), ratios


def test_a_finger_drags_and_two_zoom(open_page, address):
    viewer = open_page(address, has_touch=True)
    before = viewer.camera()
    viewer.page.evaluate(
        """() => {
            const slide = document.getElementById("slide");
            slide.setPointerCapture = () => {};
            const point = (type, pointerId, clientX, clientY) =>
                slide.dispatchEvent(new PointerEvent(type, { pointerId, clientX, clientY, button: 0, bubbles: true }));
            point("pointerdown", 1, 300, 300);
            point("pointerdown", 2, 400, 300);
            point("pointermove", 1, 250, 300);
            point("pointermove", 2, 450, 300);
            point("pointerup", 1, 250, 300);
            point("pointerup", 2, 450, 300);
        }"""
    )
    viewer.settle()
    assert viewer.camera()["scale"] == pytest.approx(2 * before["scale"])
    assert viewer.page.locator("#selected dl").count() == 0


def test_what_is_missing_is_said_in_words(tmp_path, predicted, serving, open_page):
    pixels = np.ones((90, 90), np.uint8)
    predicted(tmp_path, "gone", pixels, np.eye(90, dtype=np.int32))
    predicted(tmp_path, "plain", pixels, np.eye(90, dtype=np.int32), formats=("csv",))
    predicted(tmp_path, "tableless", pixels, np.ones((90, 90), np.int32), formats=("tif",))
    with serving(tmp_path) as address:
        viewer = open_page(address)
        (tmp_path / "images" / "gone.tif").unlink()
        page = viewer.page
        page.select_option("#images", label="plain")
        says(page, "notice", "--format tif")
        page.select_option("#images", label="tableless")
        page.wait_for_function("() => document.title.startsWith('tableless')")
        viewer.settle()
        viewer.click(40, 40)
        says(page, "selected", "--format csv")
        assert page.locator("#find").is_hidden()
    with serving(tmp_path) as address:
        context = page.context.browser.new_context()
        page = context.new_page()
        page.goto(address.page)
        says(page, "notice", "gone.tif does not exist")
        context.close()


def test_a_large_slide_shows_no_outlines_until_it_is_near(tmp_path, predicted, serving, open_page):
    labels = np.zeros((60, 16_000), np.int32)
    labels[20:40, 7990:8010] = 1
    predicted(tmp_path, "strip", np.zeros((60, 16_000), np.uint8), labels)
    with serving(tmp_path) as address:
        viewer = open_page(address)
        assert viewer.page.locator("#notice").inner_text() == "Zoom in to see the outlines."
        assert viewer.page.locator("#chooser").is_hidden()
        viewer.go(8000, 30, 4)
        assert viewer.page.locator("#notice").inner_text() == ""
        assert viewer.away(7990, 30, YELLOW) < 120


def test_names_are_text_and_no_markup(tmp_path, predicted, serving, open_page):
    name = "<img src=x onerror=alert(1)>"
    predicted(tmp_path, name, np.ones((9, 9), np.uint8), np.eye(9, dtype=np.int32))
    with serving(tmp_path) as address:
        viewer = open_page(address)
        assert viewer.page.locator("#images option").all_inner_texts() == [name]
        assert viewer.page.locator("img").count() == 0


def test_a_tile_that_cannot_be_read_is_said(tmp_path, predicted, serving, browser):
    """The image is damaged in the middle, after its header."""
    rng = np.random.default_rng(0)
    folder = predicted(tmp_path, "cells", rng.integers(0, 255, (600, 600), np.uint8), np.eye(600, dtype=np.int32))
    image = folder / "images" / "cells.tif"
    tifffile.imwrite(image, rng.integers(0, 255, (600, 600), np.uint8), tile=(64, 64), compression="zlib")
    data = bytearray(image.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
    image.write_bytes(data)
    with serving(folder) as address:
        context = browser.new_context()
        page = context.new_page()
        page.goto(address.page)
        says(page, "notice", "cells.tif")
        context.close()


def titled(viewer, name):
    viewer.page.wait_for_function("(name) => document.title.startsWith(name)", arg=name)
    viewer.settle()


def listed(viewer, count):
    """The numbers in the list of nuclei, once it says so many."""
    says(viewer.page, "found", count)
    return [int(text) for text in viewer.page.locator("#rows tbody button").all_inner_texts()]


def test_the_next_and_the_previous_image_come_by_key_and_by_button(squares):
    page = squares.page
    assert page.is_disabled("#previous") and page.is_enabled("#next")
    page.locator("#slide").press("n")
    titled(squares, "tissue")
    assert page.is_disabled("#next") and "900 × 600 px" in page.locator("#about").inner_text()
    page.locator("#outlines").press("n")  # there is none, whatever has the focus
    page.locator("#outlines").press("p")
    titled(squares, "squares")
    page.click("#next")
    titled(squares, "tissue")
    assert page.input_value("#images") == "1"


def test_brightness_and_contrast_change_the_picture_and_are_reset(tissue):
    tissue.page.uncheck("#outlines")
    tissue.settle()
    places = [(x, y) for x in range(100, 800, 90) for y in range(100, 500, 90)]
    first = np.array(tissue.colours(places))
    tissue.page.locator("#brightness").fill("50")
    tissue.settle()
    brighter = 255 * (first / 255) ** 0.5
    assert np.abs(np.array(tissue.colours(places)) - brighter).max() <= 2  # as smaller tiles are mixed
    tissue.page.locator("#contrast").fill("25")
    tissue.settle()
    assert np.abs(np.array(tissue.colours(places)) - np.clip((brighter - 127.5) * 2 + 127.5, 0, 255)).max() <= 4
    tissue.page.click("#reset")
    tissue.settle()
    assert (np.array(tissue.colours(places)) == first).all()
    assert tissue.page.input_value("#brightness") == tissue.page.input_value("#contrast") == "0"


def test_nuclei_are_listed_sorted_filtered_and_found(tissue, shown):
    with (shown / "tissue.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    page = tissue.page
    assert listed(tissue, str(len(rows))) == list(range(1, min(100, len(rows)) + 1))
    page.click("#rows th[data-column=area] button")
    page.wait_for_selector("#rows th[data-column=area][aria-sort=descending]")
    largest = sorted(rows, key=lambda row: -int(row["area"]))
    assert listed(tissue, str(len(rows)))[0] == int(largest[0]["id"])
    page.click("#rows th[data-column=area] button")
    page.wait_for_selector("#rows th[data-column=area][aria-sort=ascending]")
    page.select_option("#column", "area")
    page.fill("#low", largest[4]["area"])
    few = [int(row["id"]) for row in rows if int(row["area"]) >= int(largest[4]["area"])]
    assert sorted(listed(tissue, f"{len(few)} of {len(rows)}")) == few
    page.click(f"#rows tr[data-number='{largest[0]['id']}'] td:last-child")
    page.wait_for_selector(f"#rows tr[data-number='{largest[0]['id']}'][aria-current=true]")
    page.wait_for_selector("#selected dl")
    tissue.settle()
    assert tissue.measurements()[0] == ("Number", largest[0]["id"])
    assert tissue.camera()["x"] == float(largest[0]["x"]) + 0.5
    page.fill("#low", "1e9")
    assert listed(tissue, f"0 of {len(rows)}") == []


def test_a_long_list_comes_in_parts(tmp_path, predicted, serving, open_page):
    labels = np.zeros((60, 100), np.int32)
    labels[::4, ::4] = np.arange(1, 376).reshape(15, 25)
    with serving(predicted(tmp_path, "dots", np.zeros((60, 100), np.uint8), labels)) as address:
        viewer = open_page(address)
        assert listed(viewer, "375 nuclei") == list(range(1, 101))
        for count in (200, 300, 375):
            viewer.page.click("#more")
            viewer.page.wait_for_function("(n) => document.querySelectorAll('#rows tbody tr').length === n", arg=count)
        assert viewer.page.locator("#more").is_hidden()


def test_true_outlines_and_entropy_are_layers(tmp_path, predicted, serving, open_page):
    found, truth = np.zeros((2, 80, 120), np.int32)
    found[20:40, 20:40], truth[20:40, 20:40], truth[50:70, 70:100] = 1, 1, 2
    folder = predicted(tmp_path / "found", "cells", np.full((80, 120), 90, np.uint8), found)
    (tmp_path / "truth").mkdir()
    tifffile.imwrite(tmp_path / "truth" / "cells.tif", truth.astype(np.uint16))
    record = json.loads((folder / "cells.json").read_text())
    record["files"]["entropy"] = "cells_entropy.tif"
    (folder / "cells.json").write_text(json.dumps(record))
    bits = np.zeros((80, 120), np.float16)
    bits[60:, :20] = 1
    entropy_tiff.write(
        folder / "cells_entropy.tif", Box(0, 0, 80, 120), lambda box: bits[box.y : box.bottom, box.x : box.right]
    )
    with serving(folder, tmp_path / "truth") as address:
        viewer = open_page(address)
        page = viewer.page
        assert viewer.away(70, 60, MAGENTA) < 120 < viewer.away(70, 60, YELLOW)
        assert viewer.away(20, 30, YELLOW) < 120  # the truth is below
        plain = viewer.colours([(10, 70), (60, 10)])
        page.locator("#slide").press("e")
        page.locator("#slide").press("t")
        viewer.settle()
        assert page.is_checked("#entropy") and not page.is_checked("#truth")
        unsure = viewer.colours([(10, 70), (60, 10)])
        assert unsure[1] == plain[1] and unsure[0][0] > plain[0][0] + 80 > unsure[0][2] + 80 - 60
        assert viewer.away(70, 60, MAGENTA) > 200
        page.check("#truth")
        viewer.settle()
        assert viewer.away(70, 60, MAGENTA) < 120
    with serving(folder) as address:
        viewer = open_page(address)
        assert viewer.page.locator("#truth").is_hidden() and viewer.page.locator("#entropy").is_visible()


def test_the_picture_is_saved_with_its_outlines_and_its_scale_bar(tissue, shown, tmp_path):
    _, y, x = nucleus_of(shown)
    tissue.go(x, y, 4)
    with tissue.page.expect_download() as download:
        tissue.page.locator("#slide").press("s")
    assert download.value.suggested_filename == "tissue_view.png"
    download.value.save_as(tmp_path / "view.png")
    saved = read_image(tmp_path / "view.png").pixels.astype(int)
    box = tissue.page.locator("#slide").bounding_box()
    assert saved.shape[:2] == (round(box["height"]), round(box["width"]))
    across = int(tissue.at(x, y)[0])
    column = (np.abs(saved - YELLOW).sum(axis=2) < 60)[:, across - 40 : across + 40]
    assert column.any()
    bar = tissue.page.locator("#bar").bounding_box()
    bottom = round(bar["y"] + bar["height"] - box["y"]) - 2
    middle = round(bar["x"] + bar["width"] / 2 - box["x"])
    assert (saved[bottom, middle] == 255).all() and (saved[bottom - 6, middle - 40] < 60).all()


def test_the_keys_are_explained_and_fields_keep_theirs(squares):
    page = squares.page
    page.locator("#slide").press("?")
    page.wait_for_selector("#help[open]")
    assert page.get_by_role("dialog", name="Keys").count() == 1
    page.keyboard.press("n")
    assert page.title().startswith("squares")  # the dialog is open
    page.keyboard.press("Escape")
    page.wait_for_selector("#help:not([open])", state="attached")
    page.locator("#number").press("0")
    page.locator("#high").press("e")
    assert page.input_value("#number") == "0"
    page.click("#ask")
    page.click("#help button")
    page.wait_for_selector("#help:not([open])", state="attached")


def test_it_fits_a_phone(open_page, address):
    viewer = open_page(address, viewport={"width": 360, "height": 740})
    page = viewer.page
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.locator("#slide").bounding_box()["height"] > 200
    for name in ("#images", "#outlines", "#fit", "#save", "#ask"):
        box = page.locator(name).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 360, name


def test_what_is_odd_is_noted(tmp_path, predicted, serving, open_page):
    predicted(tmp_path, "cells", np.ones((90, 90), np.uint8), np.eye(90, dtype=np.int32))
    (tmp_path / ".slide.work").mkdir()
    (tmp_path / "truth").mkdir()
    tifffile.imwrite(tmp_path / "truth" / "other.tif", np.ones((3, 3), np.uint8))
    with serving(tmp_path, tmp_path / "truth") as address:
        viewer = open_page(address)
        notes = viewer.page.locator("#notes").all_inner_texts()[0]
        assert "Not finished: slide;" in notes and "--resume" in notes and "no true labels of cells" in notes


def test_a_server_that_ended_is_said(tmp_path, predicted, serving, browser):
    predicted(tmp_path, "cells", np.ones((90, 90), np.uint8), np.eye(90, dtype=np.int32))
    with serving(tmp_path) as address:
        context = browser.new_context()
        page = context.new_page()
        page.goto(address.page)
        page.wait_for_function("() => document.title.startsWith('cells')")
    page.locator("#number").fill("1")
    page.locator("#number").press("Enter")
    says(page, "selected", "is nucleate view still running?")
    context.close()
