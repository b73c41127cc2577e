"""The routes: what they answer, and what they refuse."""

import io
from http.client import HTTPConnection

import httpx
import imagecodecs
import numpy as np
import pytest
from PIL import Image

from nucleate.io.reader import read_image, read_labels
from nucleate.web import app as web


@pytest.fixture(scope="module")
def client(shown, serving):
    with serving(shown) as address, httpx.Client(base_url=address, timeout=60) as client:
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
    connection.request("GET", address)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert answer.status in (404, 422)
    assert "nucleate.web" not in text and "root:" not in text


@pytest.mark.parametrize("method", ["post", "put", "delete", "patch"])
def test_it_only_reads(client, method):
    for address in ("/", "/api/images", "/api/images/0"):
        assert getattr(client, method)(address).status_code == 405


@pytest.mark.parametrize(
    "address", ["/", "/viewer.js", "/api/images", "/api/images/0/tiles/0/0/0", "/none", "/api/images/9"]
)
def test_every_answer_says_that_the_page_stands_alone(client, address):
    headers = client.get(address).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy and "http" not in policy and "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1:5000", 200), ("localhost:80", 200), ("localhost", 200)])
def test_it_answers_to_its_own_names(client, host, status):
    assert client.get("/api/images", headers={"host": host}).status_code == status


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "0.0.0.0"])
def test_a_page_that_rebinds_its_name_is_refused(client, host):
    answer = client.get("/api/images", headers={"host": host})
    assert answer.status_code == 400 and "tissue" not in answer.text
    assert "content-security-policy" in answer.headers


def test_an_image_that_is_gone_is_explained(tmp_path, predicted, serving):
    folder = predicted(tmp_path, "cells", np.ones((9, 9), np.uint8), np.eye(9, dtype=np.int32), formats=())
    with serving(folder) as address:
        assert httpx.get(f"{address}/api/images/0/labels/0/0/0").status_code == 404
        assert httpx.get(f"{address}/api/images/0/nuclei/1").json() == {}
    (folder / "images" / "cells.tif").unlink()
    with serving(folder) as address:
        answer = httpx.get(f"{address}/api/images/0")
        assert answer.status_code == 404 and "cells.tif does not exist" in answer.json()["error"]


def test_tiles_are_png_of_the_whole_contrast(client):
    answer = client.get("/api/images/0/tiles/1/0/0")
    colours = imagecodecs.png_decode(answer.content)
    assert colours.shape == (200, 250, 3) and set(np.unique(colours)) == {0, 255}
