"""The routes: what they answer, and what they refuse."""

import io
from http.client import HTTPConnection

import hypothesis
import imagecodecs
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from nucleate.io.label_file import read_labels
from nucleate.io.reader import read_image
from nucleate.web import app as web
from nucleate.web.gallery import Gallery


@pytest.fixture(scope="module")
def client(shown, serving):
    with serving(shown) as served, served.client() as client:
        yield client


def test_the_page_and_its_files(client):
    assert client.get("/").headers["content-type"] == "text/html; charset=utf-8"
    for name, (_, kind) in web.PAGES.items():
        answer = client.get(f"/{name}")
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind) and answer.text
    # Every file that the page names is served, and nothing from elsewhere.
    for name in web.PAGES:
        text = client.get(f"/{name}").text
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https://" not in text


def test_images_tiles_labels_and_measurements(client, shown):
    assert client.get("/api/images").json() == ["squares", "tissue"]
    about = client.get("/api/images/1").json()
    assert about["width"] == 900 and about["origin"] == [0, 0] and about["tile"] == 256
    tile = client.get("/api/images/1/tiles/0/1/2")
    assert tile.headers["content-type"] == "image/png"
    pixels = read_image(shown / "images" / "tissue.tif").pixels
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(tile.content))), pixels[256:512, 512:768])
    found = client.get("/api/images/1/labels/0/1/2")
    side = about["tile"] + 2
    labels = read_labels(shown / "tissue_labels.tif")[255:513, 511:769]
    np.testing.assert_array_equal(np.frombuffer(found.content, "<u4").reshape(side, side), labels)
    row = client.get("/api/images/0/nuclei/2").json()
    assert (row["id"], row["y"], row["x"], row["area"]) == ("2", "114.5", "132.0", "150")


def test_labels_travel_packed(client):
    answer = client.get("/api/images/0/labels/0/0/0")
    assert answer.headers["content-encoding"] == "deflate" and len(answer.content) == 4 * 258**2
    assert int(answer.headers["content-length"]) < 4000


@pytest.mark.parametrize(
    "address",
    [
        "/api/images/2",
        "/api/images/99999999999999999999999",
        "/api/images/0/tiles/9/0/0",
        "/api/images/0/tiles/0/9/0",
        "/api/images/0/labels/4/0/0",
        "/api/images/0/labels/3000000000/0/0",
        "/api/images/0/tiles/3000000000/0/0",
        f"/api/images/0/tiles/0/{'9' * 5000}/0",
        "/api/images/0/nuclei?start=-1",
        "/api/images/0/nuclei?low=inf",
        "/api/images/0/nuclei/3",
        "/api/images/-1",
    ],
)
def test_what_is_not_there_is_said_in_a_sentence(client, address):
    answer = client.get(address)
    assert answer.status_code == 404 and answer.json()["error"].startswith("There is no ")


@pytest.mark.parametrize(
    "address",
    [
        "/app.py",
        "/../app.py",
        "/%2e%2e/app.py",
        "/static/../app.py",
        "/..%2fapp.py",
        "/index.html",
        "/squares.json",
        "/docs",
        "/openapi.json",
        "/api",
        "//etc/passwd",
        "/api/images/squares",
        "/api/images/0/nuclei/../../../../etc/passwd",
    ],
)
def test_nothing_else_is_served(client, address):
    connection = HTTPConnection(client.base_url.host, client.base_url.port)  # sends the address as it is
    cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    connection.request("GET", address, headers={"Cookie": cookies})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert answer.status in (404, 422)
    assert "nucleate.web" not in text and "root:" not in text


@pytest.mark.parametrize("method", ["post", "put", "delete", "patch", "head", "options"])
def test_it_only_reads(client, method):
    for address in ("/", "/api/images", "/api/images/0"):
        assert getattr(client, method)(address).status_code == 405


def test_an_image_that_is_gone_is_explained(tmp_path, predicted, serving):
    folder = predicted(tmp_path, "cells", np.ones((9, 9), np.uint8), np.eye(9, dtype=np.int32), formats=())
    with serving(folder) as served, served.client() as client:
        assert client.get("/api/images/0/labels/0/0/0").status_code == 404
        assert client.get("/api/images/0/nuclei/1").json() == {}
    (folder / "images" / "cells.tif").unlink()
    with serving(folder) as served, served.client() as client:
        answer = client.get("/api/images/0")
        assert answer.status_code == 404
        assert "cells.tif does not exist: put the image back there" in answer.json()["error"]


def test_tiles_are_png_of_the_whole_contrast(client):
    answer = client.get("/api/images/0/tiles/1/0/0")
    colours = imagecodecs.png_decode(answer.content)
    assert colours.shape == (200, 250, 3) and set(np.unique(colours)) == {0, 255}


NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([2**31 - 1, 2**31, 3_000_000_000, 2**63, 2**64, 10**400, -(2**63)]),
    st.floats(width=32),
    st.sampled_from(["", "x", "nan", "1e999", "0x10", "%00", "..", "id", "area", "true"]),
)


@hypothesis.settings(max_examples=150)
@hypothesis.given(
    route=st.sampled_from(
        [
            *("tiles/{}/{}/{}", "labels/{}/{}/{}", "truth/{}/{}/{}", "entropy/{}/{}/{}", "nuclei/{}", ""),
            *("nuclei?sort={}&column={}&low={}", "nuclei?start={}&high={}&descending={}"),
        ]
    ),
    image=NUMBERS,
    numbers=st.lists(NUMBERS, min_size=3, max_size=3),
)
def test_no_number_stops_it(client, route, image, numbers):
    answer = client.get(f"/api/images/{image}/{route.format(*numbers)}", follow_redirects=False)
    assert answer.status_code in (200, 307, 400, 404) and len(answer.content) < 10**6
    assert answer.elapsed.total_seconds() < 10  # most of which is this machine's


def test_a_fault_of_its_own_is_answered_with_the_policy(shown, serving, monkeypatch):
    monkeypatch.setattr(Gallery, "image", lambda self, number: 1 / 0)
    with serving(shown) as served, served.client() as client:
        answer = client.get("/api/images/0")
        assert answer.status_code == 500 and answer.headers["x-content-type-options"] == "nosniff"
        monkeypatch.setattr(Gallery, "image", lambda self, number: np.empty(2**50))
        answer = client.get("/api/images/0")
        assert answer.status_code == 500 and "memory does not suffice" in answer.json()["error"]
        assert client.get("/api/images").json() == ["squares", "tissue"]


def test_nuclei_are_listed_in_parts(client, shown):
    everything = client.get("/api/images/1/nuclei", params={"sort": "area", "descending": True}).json()
    areas = [row[everything["columns"].index("area")] for row in everything["rows"]]
    assert len(areas) == min(100, everything["found"]) and areas == sorted(areas, reverse=True)
    few = client.get("/api/images/1/nuclei", params={"column": "area", "low": areas[3], "high": areas[1]}).json()
    assert 3 <= few["found"] <= everything["found"] and [row[0] for row in few["rows"]] == sorted(
        r[0] for r in few["rows"]
    )
    assert (
        client.get("/api/images/1/nuclei", params={"sort": "colour"}).json()["error"].endswith("area_um2, diameter_um.")
    )
