"""The page's server on this machine alone: its files, the list of images, their tiles and measurements."""

from __future__ import annotations

import socket
import webbrowser
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.resources import files
from typing import Any

import imagecodecs
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse

from nucleate.errors import InputError, NucleateError
from nucleate.web.gallery import Gallery

SCRIPTS = ("camera", "outlines", "painter", "panel", "tiles", "viewer")

PAGES = {
    "": ("index.html", "text/html"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
    "viewer.css": ("viewer.css", "text/css"),
    **{f"{name}.js": (f"{name}.js", "text/javascript") for name in SCRIPTS},
}
"""Each address of the page's own files: the file and its type. Nothing else is served from the disk by name."""

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
"""No other machine can reach it."""

HOSTS = [ADDRESS, "localhost"]
"""The names that this server answers to: a page elsewhere that rebinds its own name to 127.0.0.1 is refused."""


def make_app(gallery: Gallery) -> FastAPI:
    """The application that shows a gallery. Every route only reads."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)

    @app.middleware("http")
    async def guard(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await answer(request)
        response.headers.update(HEADERS)
        return response

    @app.exception_handler(NucleateError)
    def explain(request: Request, error: NucleateError) -> Response:
        return JSONResponse({"error": str(error).encode("utf-8", "backslashreplace").decode()}, status_code=404)

    @app.get("/api/images")
    def images() -> list[str]:
        return [name.encode("utf-8", "backslashreplace").decode() for name in gallery.names]

    @app.get("/api/images/{number}")
    def image(number: int) -> dict[str, Any]:
        return gallery[number].about()

    @app.get("/api/images/{number}/tiles/{level}/{row}/{column}")
    def tile(number: int, level: int, row: int, column: int) -> Response:
        colours = gallery[number].tiles.tile(level, row, column)
        return Response(imagecodecs.png_encode(colours, level=1), media_type="image/png")

    @app.get("/api/images/{number}/labels/{level}/{row}/{column}")
    def labels(number: int, level: int, row: int, column: int) -> Response:
        tiles = gallery[number].labels
        if tiles is None:
            return Response(status_code=404)
        data = tiles.tile(level, row, column).astype("<u4").tobytes()
        packed = imagecodecs.zlib_encode(data, level=1)
        return Response(packed, media_type="application/octet-stream", headers={"Content-Encoding": "deflate"})

    @app.get("/api/images/{number}/nuclei/{nucleus}")
    def nucleus(number: int, nucleus: int) -> Response:
        measurements = gallery[number].measurements
        return JSONResponse({} if measurements is None else measurements.row(nucleus))

    @app.get("/")
    @app.get("/{name}")
    def page(name: str = "") -> Response:
        if name not in PAGES:
            return Response(status_code=404)
        file, kind = PAGES[name]
        return Response((files("nucleate.web") / "static" / file).read_bytes(), media_type=kind)

    return app


def serve(gallery: Gallery, port: int = 0, *, browser: bool = False, announce: Callable[[str], None] = print) -> None:
    """Serve the page on `port` of this machine, or on a free one for 0, until the process is interrupted.

    `announce` is told the address once it answers; `browser` opens it there.

    Raises `InputError` where the port is taken.
    """
    with _listening(port) as listener:
        address = f"http://{ADDRESS}:{listener.getsockname()[1]}"
        announce(address)
        if browser:
            webbrowser.open(address)
        server = uvicorn.Server(uvicorn.Config(make_app(gallery), log_level="warning", ws="none", lifespan="off"))
        # Ctrl-C is how a person ends it; some versions of uvicorn raise it again.
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
    gallery.close()


def _listening(port: int) -> socket.socket:
    """A socket on which connections are already taken up, so that a browser may be sent there at once."""
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((ADDRESS, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise InputError(f"Port {port} cannot be used ({error.strerror}): choose another --port.") from error
    return listener
