"""Who is answered: the person with the token, and no other user, page or name."""

import asyncio
import secrets
from http.client import HTTPConnection

import httpx
import pytest

from nucleate.web import access
from nucleate.web.access import Access
from nucleate.web.app import make_app
from nucleate.web.gallery import Gallery

ADDRESSES = ["/", "/viewer.js", "/icon.svg", "/api/images", "/api/images/0/tiles/0/0/0", "/none", "/api/images/9"]


@pytest.fixture(scope="module")
def served(shown, serving):
    with serving(shown) as served:
        yield served


@pytest.fixture(scope="module")
def client(served):
    with served.client() as client:
        yield client


@pytest.mark.parametrize("address", ADDRESSES)
def test_every_answer_says_that_the_page_stands_alone(client, served, address):
    said = [client.get(address), client.post(address), httpx.get(served.origin + address)]
    said += [client.get(address, headers={"host": "evil"}), client.get(address, headers={"origin": "null"})]
    assert [one.status_code for one in said][1:] == [405 if address != "/none" else said[1].status_code, 401, 400, 403]
    for answer in said:
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy and "http" not in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store" and answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("token", ["", "x", "\u00e9", "%00", "A" * 22])
def test_without_the_token_nothing_is_answered(served, address, token):
    for options in ({"params": {"token": token}}, {"headers": {"cookie": f"nucleate={token}".encode()}}, {}):
        answer = httpx.get(served.origin + address, **options)
        assert (
            answer.status_code == 401 and "nucleate view printed" in answer.text and "set-cookie" not in answer.headers
        )


def test_the_address_sets_a_cookie_and_leads_to_the_page(served):
    answer = httpx.get(served.page)
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"]
    assert served.token in cookie and "HttpOnly" in cookie and "SameSite=Strict" in cookie
    with httpx.Client(base_url=served.origin) as client:
        assert client.get(f"/api/images?token={served.token}").status_code == 401  # the page's own address only
        client.get(served.page)
        # The cookies of other servers of this machine, odd ones too, come along.
        client.cookies.set("other", 'a{"b"=[c')
        assert client.get("/").status_code == client.get("/api/images").status_code == 200


def test_tokens_are_long_and_each_servers_own(served, monkeypatch):
    first, second = Access(None), Access(None)
    assert first.token != second.token and len(first.token) >= 128 / 6
    asked = []
    monkeypatch.setattr(access.secrets, "token_urlsafe", lambda count: asked.append(count) or secrets.token_hex(count))
    Access(None)
    assert asked == [128 // 8]


def test_a_token_for_the_browser_is_taken_once(shown):
    gallery = Gallery(shown)
    access = Access(make_app(gallery))

    async def ask(token):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(access), base_url="http://localhost") as client:
            return (await client.get("/", params={"token": token})).status_code

    once = access.open_once()
    tokens = once, once, access.token, access.token
    assert [asyncio.run(ask(token)) for token in tokens] == [303, 401, 303, 303]
    gallery.close()


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "same-origin", "origin": "https://evil.example"},
    ],
)
def test_another_page_is_refused(client, address, headers):
    answer = client.get(address, headers=headers)
    assert answer.status_code == 403 and "tissue" not in answer.text


def test_the_page_itself_is_answered(client, served):
    for headers in ({"origin": served.origin, "sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}):
        assert client.get("/api/images", headers=headers).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1:5000", "localhost:80", "localhost"])
def test_it_answers_to_its_own_names(client, host):
    assert client.get("/api/images", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "0.0.0.0"])
def test_a_page_that_rebinds_its_name_is_refused(client, host):
    answer = client.get("/api/images", headers={"host": host})
    assert answer.status_code == 400 and "tissue" not in answer.text


def test_a_request_without_a_host_is_refused(served):
    connection = HTTPConnection("127.0.0.1", int(served.origin.rpartition(":")[2]))
    connection.putrequest("GET", "/api/images", skip_host=True)
    connection.endheaders()
    assert connection.getresponse().status == 400
    connection.close()
