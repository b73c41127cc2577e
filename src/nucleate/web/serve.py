"""Running the page on this machine until Ctrl-C."""

from __future__ import annotations

import socket
import webbrowser
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from nucleate.errors import InputError
from nucleate.web.app import make_app
from nucleate.web.gallery import Gallery

ADDRESS = "127.0.0.1"
"""No other machine can reach it."""


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
