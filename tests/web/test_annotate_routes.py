"""The routes of the page of corrections: who is answered, what is taken, and what no address reaches."""

import asyncio
import re
import zlib
from itertools import product
from urllib.parse import quote, unquote

import httpx
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.web.access import Access
from nucleate.web.annotation.routes import ANNOTATE_PAGES, make_annotator
from nucleate.web.annotation.workplace import Workplace

SECRET = "the content of a file beside the images"


@pytest.fixture(scope="module")
def place(tmp_path_factory, stand_in, takes, serving_app):
    """Where a folder with a secret beside it is corrected: the server, what works there, and its routes."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "inner").mkdir()
    for name in ("secret.txt", "inner/secret.txt"):
        (folder / name).write_text(SECRET)
    pixels = np.random.default_rng(0).integers(0, 99, (60, 80)).astype(np.uint16)
    pixels[10:30, 10:30] += 900
    tifffile.imwrite(folder / "cells.tif", pixels)
    tifffile.imwrite(folder / "more.tif", pixels.T.copy())
    work = Workplace(folder, stand_in(), takes, folder / "store")
    app = make_annotator(work)
    with serving_app(app) as served:
        yield served, work, routes_of(app)
    work.close()


@pytest.fixture(scope="module")
def client(place):
    with place[0].client() as client:
        yield client


def routes_of(app):
    return [(method, route.path) for route in app.routes for method in sorted(route.methods)]


def filled(path, tile="a" * 24):
    values = {"tile": tile, "number": 0, "level": 0, "row": 0, "column": 0, "revision": 0, "name": "annotate.js"}
    return re.sub(r"\{(\w+)\}", lambda found: str(values[found[1]]), path)


@pytest.fixture
def tile(client):
    return client.post("/api/next").json()["tile"] or next(iter(client.get("/api/report").json()["earlier"]))["tile"]


def labels_of(client, tile):
    answer = client.get(f"/api/tiles/{tile}/labels")
    return np.frombuffer(answer.content, "<i4"), int(answer.headers["nucleate-revision"])


def test_every_route_asks_for_the_token(place):
    served, work, routes = place
    tile = work.next().id
    assert len(routes) > 10 and {method for method, _ in routes} == {"GET", "POST"}
    others = [{}, {"cookie": "nucleate=x"}, {"cookie": f"nucleate-1={served.token}"}, {"authorization": served.token}]
    asked = [*routes, *(("GET", f"/{name}") for name in ANNOTATE_PAGES), ("PUT", "/"), ("GET", "/none/at/all")]
    with httpx.Client(base_url=served.origin) as stranger:
        for method, path in asked:
            for headers in others:
                answer = stranger.request(method, filled(path, tile), headers=headers)
                assert answer.status_code == 401, (method, path)
                assert "nucleate" in answer.text and "cells" not in answer.text and "set-cookie" not in answer.headers


def test_every_route_refuses_other_pages_and_names(place, client):
    for method, path in place[2]:
        for headers, status in (
            ({"origin": "http://evil.example"}, 403),
            ({"sec-fetch-site": "cross-site"}, 403),
            ({"origin": "null"}, 403),
            ({"host": "evil.example"}, 400),
        ):
            answer = client.request(method, filled(path), headers=headers)
            assert answer.status_code == status and "content-security-policy" in answer.headers


def variations():
    """Addresses that might lead to a file, of many kinds."""
    steps = [
        "..",
        ".",
        "%2e%2e",
        "..%2f",
        "..%5c",
        "....//",
        "%252e%252e",
        "\\..",
        ";",
        "%00",
        "~",
        "",
        "store",
    ]
    ends = ["secret.txt", "inner/secret.txt", "cells.tif", "etc/passwd", "annotate.py", "app.py", "__init__.py", "x/"]
    begins = ["", "api/images/", "api/images/0/", "api/images/0/tiles/", "api/tiles/", f"api/tiles/{'a' * 24}/", "x/"]
    for begin, end, first, second in product(begins, ends, steps, steps):
        if first or second:
            yield f"/{begin}{first}/{second}/{end}"


async def bare_answer(access, token, address, method="GET"):
    """The status and the body of an answer to an address as it is, which clients would tidy up."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    raw, _, query = address.partition("?")
    headers = [(b"host", b"127.0.0.1"), (b"cookie", f"nucleate={token}".encode())]
    scope = {"type": "http", "method": method, "path": unquote(raw), "raw_path": raw.encode(), "headers": headers}
    scope |= {"query_string": query.encode(), "scheme": "http", "http_version": "1.1", "root_path": "", "client": None}
    await access(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def test_five_thousand_addresses_read_no_file(place):
    access = Access(make_annotator(place[1]))

    async def ask_all():
        tried, found = 0, set()
        for address in variations():
            status, body = await bare_answer(access, access.token, address)
            assert SECRET.encode() not in body and b"root:" not in body and b"from __future__" not in body
            assert status in (404, 405) or (status in (200, 307) and len(body) < 300), address
            tried, found = tried + 1, found | {status}
        return tried, found

    tried, found = asyncio.run(ask_all())
    assert tried > 5000 and 404 in found
    status, body = asyncio.run(bare_answer(access, access.token, "/"))
    assert status == 200 and b"<title>Nucleate</title>" in body  # it would be read, were it there


@settings(max_examples=60)
@given(st.text(max_size=40))
def test_no_text_is_an_address_of_a_file(client, text):
    answer = client.get("/" + quote(text, safe="/%."))
    known = answer.status_code == 200 and text.strip("/") in ANNOTATE_PAGES
    assert known or answer.status_code in (400, 404, 405, 422) or "<title>Nucleate</title>" in answer.text
    assert SECRET not in answer.text


def test_a_tile_is_told_drawn_on_and_finished(client, place, tile):
    about = client.get(f"/api/tiles/{tile}").json()
    height, width = about["box"][2:]
    labels, revision = labels_of(client, tile)
    assert labels.size == height * width and (labels == -1).all() and revision == 0 == about["revision"]
    stroke = {"name": "stroke-1", "tool": "brush", "runs": [3, 4, 65537], "revision": 0}
    answer = client.post(f"/api/tiles/{tile}/strokes", json=stroke).json()
    assert answer["revision"] == 1 and answer["edits"][0]["before"] == [3, 4, -1]
    assert client.post(f"/api/tiles/{tile}/strokes", json=stroke).json()["revision"] == 1  # sent again
    labels, revision = labels_of(client, tile)
    assert revision == 1 and (labels[3:7] == 65537).all() and (labels != -1).sum() == 4
    other = client.get(f"/api/tiles/{tile}").json()
    assert other["tab"] > about["tab"] and len(other["edits"]) == 1
    assert client.get(f"/api/tiles/{tile}/since/0").json() == {"revision": 1, "edits": other["edits"]}
    assert client.get(f"/api/tiles/{tile}/since/9").json()["edits"] is None
    assert client.post(f"/api/tiles/{tile}/finish").json() == {"learns": True}
    for _ in range(2000):
        if client.get("/api/report").json()["corrections"]:
            break
    report = client.get("/api/report").json()
    assert report["corrections"] == report["done"] == 1 and report["nuclei"] == 1


def test_what_the_model_finds_is_told_once(client, tile):
    for _ in range(2000):
        answer = client.get(f"/api/tiles/{tile}/guess")
        report = client.get("/api/report").json()
        if answer.status_code == 200 and answer.headers["nucleate-version"] == str(report["corrections"]):
            break
    found = np.frombuffer(answer.content, "<i4")
    version = answer.headers["nucleate-version"]
    assert found.max() >= 1 and 0 < float(answer.headers["nucleate-bits"]) < 1
    assert client.get(f"/api/tiles/{tile}/guess", params={"version": version}).status_code == 204
    assert client.get(f"/api/tiles/{tile}/entropy").headers["content-type"] == "image/png"
    image = client.get(f"/api/tiles/{tile}").json()["image"]
    assert client.get(f"/api/images/{image}/tiles/0/0/0").headers["content-type"] == "image/png"


GOOD = {"name": "stroke-x", "tool": "brush", "runs": [0, 1, 1], "revision": 0}


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "short"},
        {"name": "../../../etc"},
        {"name": "x" * 65},
        {"name": 7},
        {"tool": "Brush Tool"},
        {"tool": ""},
        {"runs": "0,1,1"},
        {"runs": [0.5, 1, 1]},
        {"runs": [0, 10**9, 1]},
        {"runs": [0, 1]},
        {"runs": [2**70, 1, 1]},
        {"runs": [0, 1, -9]},
        {"revision": -1},
        {"revision": "0"},
        {"path": "/etc/passwd"},
    ],
)
def test_strokes_that_are_none_are_refused(client, tile, wrong):
    before = labels_of(client, tile)
    answer = client.post(f"/api/tiles/{tile}/strokes", json={**GOOD, **wrong})
    assert answer.status_code == 404 and "error" in answer.json()
    after = labels_of(client, tile)
    assert after[1] == before[1] and (after[0] == before[0]).all()


def test_what_is_too_large_or_no_json_is_refused(client, tile):
    assert client.post(f"/api/tiles/{tile}/strokes", content=b"x" * (5 * 2**20)).status_code == 413
    packed = zlib.compress(b"[" * 10**6)
    for content in (b"{", b"[" * 100_000, b"\xff", packed):
        headers = {"content-type": "application/json", "content-encoding": "deflate"}
        assert client.post(f"/api/tiles/{tile}/strokes", content=content, headers=headers).status_code in (400, 404)


def test_tiles_that_were_not_handed_out_are_not_there(client):
    for path in ("", "/labels", "/guess", "/entropy", "/since/0"):
        assert client.get(f"/api/tiles/{'0' * 24}{path}").status_code == 404
    assert client.post(f"/api/tiles/{'0' * 24}/finish").json() == {"error": "There is no such tile."}
    assert client.post(f"/api/tiles/{'0' * 24}/strokes", json=GOOD).status_code == 404


def test_the_page_needs_nothing_from_elsewhere(client):
    for name, (_, kind) in ANNOTATE_PAGES.items():
        answer = client.get(f"/{name}")
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind)
        text = answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text and "style=" not in text
    scripts = {name for name in ANNOTATE_PAGES if name.endswith(".js")}
    wanted = {found for name in scripts for found in re.findall(r'from "\./([\w.]+)"', client.get(f"/{name}").text)}
    assert wanted <= scripts
