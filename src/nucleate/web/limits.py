"""How much the page may ask for: the size of what it sends, and how often it changes something."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST = 4 * 2**20
"""Bytes of a request: a stroke that changes every pixel of a tile fits."""

RATE, BURST = 50.0, 500
"""Requests a second that change something, and how many may come at once, as after a pause of the network."""

_DRAINED = 2**26  # bytes
_READING = ("GET", "HEAD", "OPTIONS")


class Limits:
    """An application that refuses requests that are too large (413) or come too fast (429).

    The rate is that of a token bucket: `burst` requests at once, then `rate` a second. Requests that only read are not
    counted, as a page asks for many tiles of an image.

    Args:
        app: what answers the others.
        largest: bytes of a request.
        rate, burst: see above.
        clock: seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        largest: int = LARGEST,
        rate: float = RATE,
        burst: int = BURST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._largest, self._rate, self._burst, self._clock = app, largest, rate, burst, clock
        self._left, self._at = float(burst), clock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        said = Headers(scope=scope).get("content-length", "0")
        if not said.isdecimal() or len(said) > 12 or int(said) > self._largest:
            await _drain(receive)
            await _refusal(f"A request may have {self._largest} bytes.", 413)(scope, receive, send)
            return
        if scope["method"] not in _READING and not self._counts():
            await _refusal("Too many changes at once: they are sent again in a moment.", 429)(scope, receive, send)
            return
        received, answered = 0, False

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._largest:
                raise _TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self._app(scope, bounded, noted)
        except _TooLarge:
            if not answered:
                await _refusal(f"A request may have {self._largest} bytes.", 413)(scope, receive, send)

    def _counts(self) -> bool:
        now = self._clock()
        self._left = min(float(self._burst), self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class _TooLarge(HTTPException):
    """More came than was said."""

    def __init__(self) -> None:
        super().__init__(413)


def _refusal(sentence: str, status: int) -> JSONResponse:
    return JSONResponse({"error": sentence}, status)


async def _drain(receive: Receive) -> None:
    """Throw away what comes, as a client that still sends would not see the answer; but not without an end."""
    seen = 0
    while seen < _DRAINED:
        message = await receive()
        seen += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return
