"""Who may ask the page's server for anything: the person who has the address that it printed, and nobody else."""

from __future__ import annotations

import hmac
import secrets
import socket
from collections.abc import Collection
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""On every answer: the page runs its own scripts only, talks to this server only, and no other page may embed it."""

ADDRESS = "127.0.0.1"
"""No other machine can reach it; another address is listened to only where a person says so."""

HOSTS = (ADDRESS, "localhost")
"""The names that this server answers to: a page elsewhere that rebinds its own name to 127.0.0.1 is refused."""

_OWN_SITES = ("same-origin", "none")
"""What a browser says in Sec-Fetch-Site of the page itself, and of an address that a person typed or opened."""

_TOKEN_BYTES = 16


class Access:
    """An application behind a token. Other users of the machine, and other pages in the browser, are refused.

    The address with the token in it sets a cookie and leads to the address without it. `open_once` makes a token for a
    single use, as every user of a machine may read the arguments with which a browser is started.

    Args:
        app: what answers those who may ask.
        name: of the cookie. Cookies belong to a machine and not to a port, so each server needs a name of its own.
        hosts: the names that it answers to.
        command: what printed the address, for the sentence that refuses.
    """

    def __init__(
        self,
        app: ASGIApp,
        name: str = "nucleate",
        hosts: Collection[str] = HOSTS,
        command: str = "nucleate view",
    ) -> None:
        self._app, self._cookie, self._hosts, self._command = app, name, tuple(hosts), command
        self.token = secrets.token_urlsafe(_TOKEN_BYTES)
        self._once: set[str] = set()

    def open_once(self) -> str:
        """A token that is taken once."""
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        self._once.add(token)
        return token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        answer = self._refusal(scope) or self._entrance(scope) or self._app
        await answer(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that another page made, or that was sent to another name."""
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if name_of(host) not in self._hosts:
            return PlainTextResponse(f"This server answers to {' and '.join(self._hosts)} only.", 400)
        elsewhere = origin is not None and origin != f"http://{host}"
        if elsewhere or headers.get("sec-fetch-site", "none") not in _OWN_SITES:
            return PlainTextResponse("Another page asked for this: type the address into the browser instead.", 403)
        return None

    def _entrance(self, scope: Scope) -> Response | None:
        """The way in with the token, None for those who are in, and 401 for everybody else."""
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and asked and self._takes(asked):
            cookie = f"{self._cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/"
            return Response(status_code=303, headers={"Location": "/", "Set-Cookie": cookie})
        cookies = Headers(scope=scope).get("cookie", "").split(";")
        if any(_same(one.strip(), f"{self._cookie}={self.token}") for one in cookies):
            return None
        return PlainTextResponse(f"Open the whole address that {self._command} printed, with its token.", 401)

    def _takes(self, asked: str) -> bool:
        once = next((token for token in self._once if _same(asked, token)), None)
        self._once.discard(once or "")
        return once is not None or _same(asked, self.token)


def hosts_of(address: str) -> tuple[str, ...]:
    """The names that a server on this address answers to: its own, and where it listens on every address of the
    machine, the names and the addresses of the machine.

    >>> hosts_of("127.0.0.1")
    ('127.0.0.1', 'localhost')
    """
    if address in HOSTS:
        return HOSTS
    names = [address, *HOSTS]
    with suppress(ValueError):
        if ip_address(address).is_unspecified:
            names = [*HOSTS, "::1", socket.gethostname(), socket.getfqdn()]
            with suppress(OSError):
                names += [str(found[4][0]) for found in socket.getaddrinfo(socket.gethostname(), None)]
            names += _outward()
    return tuple(dict.fromkeys(name.lower() for name in names))


def _outward() -> list[str]:
    """The address that this machine has in its network; nothing is sent to find it."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # of no machine (RFC 5737)
        return [str(probe.getsockname()[0])]
    return []


def name_of(host: str) -> str:
    """The name in a Host header, without the port.

    >>> [name_of(host) for host in ("localhost:80", "127.0.0.1", "[::1]:8000", "")]
    ['localhost', '127.0.0.1', '::1', '']
    """
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _same(given: str, token: str) -> bool:
    """Whether they are equal, in a time that does not say how much of them is."""
    return hmac.compare_digest(given.encode(), token.encode())
