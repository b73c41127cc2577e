"""The page's server on this machine alone: its files, the list of images, their tiles and measurements."""

from __future__ import annotations

import errno
import signal
import socket
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.resources import files
from typing import Annotated, Any

import imagecodecs
import uvicorn
from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp

from nucleate.errors import InputError, NucleateError, OutputError
from nucleate.signals import SIGNALS
from nucleate.web.access import ADDRESS, Access, hosts_of
from nucleate.web.gallery import Gallery
from nucleate.web.limits import Limits
from nucleate.web.measurements import Filter
from nucleate.web.tiles import LabelTiles

SCRIPTS = (
    "camera",
    "controls",
    "layers",
    "nuclei",
    "outlines",
    "painter",
    "panel",
    "picture",
    "shade",
    "tiles",
    "viewer",
)

PAGES = {
    "": ("index.html", "text/html"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
    "viewer.css": ("viewer.css", "text/css"),
    **{f"{name}.js": (f"{name}.js", "text/javascript") for name in SCRIPTS},
}
"""Each address of the page's own files: the file and its type. Nothing else is served from the disk by name."""

CONNECTIONS = 64
"""At once; a browser opens six for each page."""

MOST = 2**31 - 1

Place = Annotated[int, Path(ge=0, le=MOST)]
"""Any number in an address; what lies beyond the image is refused by what it is asked of."""

Bound = Annotated[float | None, Query(allow_inf_nan=False)]


def bare_app() -> FastAPI:
    """An application without routes, whose errors are sentences."""
    # Where the environment asks for OpenTelemetry, FastAPI would hand on the addresses and errors of all requests.
    app = FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )

    @app.exception_handler(NucleateError)
    def explain(request: Request, error: NucleateError) -> Response:
        return JSONResponse({"error": _text(str(error))}, status_code=404)

    @app.exception_handler(OutputError)
    def complain(request: Request, error: OutputError) -> Response:
        return JSONResponse({"error": _text(str(error))}, status_code=507)

    @app.exception_handler(OSError)
    def report(request: Request, error: OSError) -> Response:
        return JSONResponse({"error": _text(f"{error.filename} cannot be read ({error.strerror}).")}, status_code=404)

    @app.exception_handler(RequestValidationError)
    def refuse(request: Request, error: RequestValidationError) -> Response:
        return JSONResponse({"error": "There is no such image, tile or nucleus."}, status_code=404)

    @app.exception_handler(MemoryError)
    def apologise(request: Request, error: MemoryError) -> Response:
        return JSONResponse({"error": "This machine's memory does not suffice to show that."}, status_code=500)

    return app


def add_pages(app: FastAPI, pages: Mapping[str, tuple[str, str]]) -> None:
    """Serve the page's own files, each under its address in `pages`, and nothing else."""

    @app.get("/")
    @app.get("/{name}")
    def page(name: str = "") -> Response:
        if name not in pages:
            return Response(status_code=404)
        file, kind = pages[name]
        return Response((files("nucleate.web") / "static" / file).read_bytes(), media_type=kind)


def make_app(gallery: Gallery) -> FastAPI:
    """The application that shows a gallery, to be put behind `Access`. Every route only reads."""
    app = bare_app()

    @app.get("/api/images")
    def images() -> list[str]:
        return [_text(name) for name in gallery.names]

    @app.get("/api/notes")
    def notes() -> list[str]:
        return [_text(note) for note in gallery.notes]

    @app.get("/api/images/{number}")
    def image(number: Place) -> dict[str, Any]:
        with gallery.image(number) as shown:
            return shown.about()

    @app.get("/api/images/{number}/tiles/{level}/{row}/{column}")
    def tile(number: Place, level: Place, row: Place, column: Place) -> Response:
        with gallery.image(number) as shown:
            colours = shown.tiles.tile(level, row, column)
        return Response(imagecodecs.png_encode(colours, level=1), media_type="image/png")

    @app.get("/api/images/{number}/entropy/{level}/{row}/{column}")
    def entropy(number: Place, level: Place, row: Place, column: Place) -> Response:
        with gallery.image(number) as shown:
            if shown.entropy is None:
                return Response(status_code=404)
            heat = shown.entropy.tile(level, row, column)
        return Response(imagecodecs.png_encode(heat, level=1), media_type="image/png")

    @app.get("/api/images/{number}/labels/{level}/{row}/{column}")
    def labels(number: Place, level: Place, row: Place, column: Place) -> Response:
        with gallery.image(number) as shown:
            return _packed(shown.labels, level, row, column)

    @app.get("/api/images/{number}/truth/{level}/{row}/{column}")
    def truth(number: Place, level: Place, row: Place, column: Place) -> Response:
        with gallery.image(number) as shown:
            return _packed(shown.truth, level, row, column)

    @app.get("/api/images/{number}/nuclei")
    def nuclei(
        number: Place,
        sort: str = "id",
        descending: bool = False,
        column: str = "id",
        low: Bound = None,
        high: Bound = None,
        start: Annotated[int, Query(ge=0, le=MOST)] = 0,
    ) -> dict[str, Any]:
        with gallery.image(number) as shown:
            if shown.measurements is None:
                return {"columns": [], "rows": [], "found": 0}
            return shown.measurements.listed(sort, descending, Filter(column, low, high), start)

    @app.get("/api/images/{number}/nuclei/{nucleus}")
    def nucleus(number: Place, nucleus: Place) -> dict[str, str]:
        with gallery.image(number) as shown:
            return {} if shown.measurements is None else shown.measurements.row(nucleus)

    add_pages(app, PAGES)
    return app


def serve(
    gallery: Gallery,
    port: int = 0,
    *,
    host: str = ADDRESS,
    browser: bool = False,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve the page of a gallery until the process is interrupted; see `serve_app`."""
    serve_app(make_app(gallery), "nucleate view", port, host=host, browser=browser, announce=announce)
    gallery.close()


def serve_app(
    app: ASGIApp,
    command: str,
    port: int = 0,
    *,
    host: str = ADDRESS,
    browser: bool = False,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve an application on `port` of this machine, or on a free one for 0, until the process is interrupted.

    Only this machine can reach it, unless `host` is another address. `announce` is told the address, with its token,
    once it answers; `browser` opens the page.

    Raises `InputError` where the port is taken or the address is none of this machine.
    """
    with _listening(port, host) as listener:
        port = listener.getsockname()[1]
        hosts = hosts_of(host)
        access = Access(Limits(app), f"nucleate-{port}", hosts, command)
        shown = host if host in hosts else hosts[-1]
        address = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/?token="
        announce(address + access.token)
        if browser:
            webbrowser.open(address + access.open_once())
        server = uvicorn.Server(configuration(access))
        # Ctrl-C is how a person ends it; some versions of uvicorn raise it again.
        with suppress(KeyboardInterrupt), _ended_by_signals(server):
            server.run(sockets=[listener])


@contextmanager
def _ended_by_signals(server: uvicorn.Server) -> Iterator[None]:
    """End the server by every signal as by those that it knows: what a signal raises within a request would be lost."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, server.handle_exit)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


def configuration(access: Access) -> uvicorn.Config:
    """How the server is run."""
    return uvicorn.Config(
        access,
        log_level="warning",
        ws="none",
        lifespan="off",
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=5,
    )


def _listening(port: int, host: str = ADDRESS) -> socket.socket:
    """A socket on which connections are already taken up, so that a browser may be sent there at once."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            said = f"{host} is no address of this machine ({error.strerror}): choose another --host."
            raise InputError(said) from error
        raise InputError(f"Port {port} cannot be used ({error.strerror}): choose another --port.") from error
    return listener


def _packed(tiles: LabelTiles | None, level: int, row: int, column: int) -> Response:
    """A tile of labels, as the browser unpacks it."""
    if tiles is None:
        return Response(status_code=404)
    packed = imagecodecs.zlib_encode(tiles.tile(level, row, column).astype("<u4").tobytes(), level=1)
    return Response(packed, media_type="application/octet-stream", headers={"Content-Encoding": "deflate"})


def _text(text: str) -> str:
    """Text that UTF-8 can hold, as names of files need not be."""
    return text.encode("utf-8", "backslashreplace").decode()
