"""How much the page may ask for, and the names that a server answers to where others may reach it."""

import asyncio
import socket

import httpx
import pytest
from fastapi import FastAPI, Request

from nucleate.errors import InputError
from nucleate.web import app as web
from nucleate.web.access import HOSTS, Access, hosts_of
from nucleate.web.limits import Limits


def application():
    app = FastAPI()

    @app.get("/")
    def read():
        return {}

    @app.post("/")
    async def write(request: Request):
        return {"bytes": len(await request.body())}

    return app


def ask(app, *requests):
    async def all_of_them():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return [await client.request(method, "/", **options) for method, options in requests]

    return asyncio.run(all_of_them())


def chunks(*parts):
    async def give():
        for part in parts:
            yield part

    return give()


def test_what_is_too_large_is_refused_whether_it_says_so_or_not():
    app = Limits(application(), largest=1000)
    said = ask(
        app,
        ("POST", {"content": b"x" * 1000}),
        ("POST", {"content": b"x" * 1001}),
        ("POST", {"content": chunks(b"x" * 600, b"x" * 400)}),
        ("POST", {"content": chunks(b"x" * 600, b"x" * 401)}),
        ("POST", {"content": b"", "headers": {"content-length": "-1"}}),
        ("POST", {"content": b"", "headers": {"content-length": "9" * 5000}}),
    )
    assert [one.status_code for one in said] == [200, 413, 200, 413, 413, 413]
    assert said[0].json() == {"bytes": 1000} and "1000 bytes" in said[1].json()["error"]


def test_changes_that_come_too_fast_are_refused_and_reading_is_not():
    now = [0.0]
    app = Limits(application(), rate=2, burst=5, clock=lambda: now[0])
    burst = ask(app, *[("POST", {})] * 7)
    assert [one.status_code for one in burst] == [200] * 5 + [429] * 2
    assert {one.status_code for one in ask(app, *[("GET", {})] * 50)} == {200}
    now[0] = 1.0
    assert [one.status_code for one in ask(app, *[("POST", {})] * 3)] == [200, 200, 429]
    now[0] = 1000.0
    assert [one.status_code for one in ask(app, *[("POST", {})] * 6)] == [200] * 5 + [429]


def test_a_server_on_its_own_answers_to_this_machine_only():
    assert hosts_of("127.0.0.1") == hosts_of("localhost") == HOSTS
    assert hosts_of("192.168.7.8") == ("192.168.7.8", *HOSTS)
    every = hosts_of("0.0.0.0")
    assert {*HOSTS, socket.gethostname().lower()} <= set(every) and "0.0.0.0" not in every


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(("192.168.7.8:80", 401), ("192.168.7.8", 401), ("127.0.0.1", 401)),
        *(("evil.example", 400), ("192.168.7.9", 400), ("[::1]:80", 400), ("", 400)),
    ],
)
def test_where_others_may_reach_it_the_name_and_the_token_are_asked_for(host, status):
    app = Access(application(), hosts=hosts_of("192.168.7.8"), command="nucleate annotate")
    (answer,) = ask(app, ("GET", {"headers": {"host": host}}))
    assert answer.status_code == status
    assert ("nucleate annotate printed" if status == 401 else "192.168.7.8") in answer.text


def test_an_address_that_is_none_of_this_machine_is_named():
    for host in ("192.0.2.77", "no.such.host.invalid"):
        with pytest.raises(InputError, match=f"{host} is no address of this machine .*: choose another --host"):
            web._listening(0, host)
    with web._listening(0, "0.0.0.0") as listener:
        assert listener.getsockname()[0] == "0.0.0.0"
