"""The routes of the page of `nucleate annotate`."""

from __future__ import annotations

from typing import Annotated, Any

import imagecodecs
import numpy as np
from fastapi import FastAPI, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from nucleate.web.annotation.workplace import Workplace
from nucleate.web.app import MOST, PAGES, Place, add_pages, bare_app
from nucleate.web.tiles import heat

SCRIPTS = (
    "annotate",
    "board",
    "contours",
    "dashboard",
    "drawing",
    "edits",
    "history",
    "keys",
    "pointer",
    "raster",
    "sync",
    "tools",
)

ANNOTATE_PAGES = {
    **PAGES,
    "": ("annotate.html", "text/html"),
    "annotate.css": ("annotate.css", "text/css"),
    **{f"{name}.js": (f"{name}.js", "text/javascript") for name in SCRIPTS},
}

MOST_RUNS = 3 * 2**18
"""Numbers in a stroke: as many runs as a tile has pixels."""

TileId = Annotated[str, Path(pattern=r"^[0-9a-f]{24}$")]


class Stroke(BaseModel):
    """What the page sends of a stroke; see `sheet.Edit`. `revision` is the last one that it knows."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(pattern=r"^[0-9a-zA-Z-]{8,64}$")]
    tool: Annotated[str, Field(pattern=r"^[a-z-]{1,20}$")]
    revision: Annotated[int, Field(ge=0, le=MOST)]
    runs: Annotated[list[int], Field(max_length=MOST_RUNS)]


def make_annotator(work: Workplace) -> FastAPI:
    """The application in which tiles are corrected, to be put behind `Access`."""
    app = bare_app()

    @app.get("/api/images/{number}/tiles/{level}/{row}/{column}")
    def tile_of_image(number: Place, level: Place, row: Place, column: Place) -> Response:
        if number >= len(work.places.sources):
            return Response(status_code=404)
        with work.pictures.image(number) as picture:
            colours = picture.tiles.tile(level, row, column)
        return Response(imagecodecs.png_encode(colours, level=1), media_type="image/png")

    @app.get("/api/report")
    def report() -> dict[str, Any]:
        return {**work.report(), "notes": work.notes}

    @app.post("/api/next")
    def following() -> dict[str, Any]:
        place = work.next()
        return {"tile": None if place is None else place.id}

    @app.get("/api/tiles/{tile}")
    def about(tile: TileId) -> dict[str, Any]:
        return work.about(tile)

    @app.get("/api/tiles/{tile}/labels")
    def labels(tile: TileId) -> Response:
        with work.sheet(tile) as sheet:
            return _packed(sheet.labels, {"Nucleate-Revision": str(sheet.revision)})

    @app.get("/api/tiles/{tile}/since/{revision}")
    def since(tile: TileId, revision: Annotated[int, Path(ge=0, le=MOST)]) -> dict[str, Any]:
        with work.sheet(tile) as sheet:
            edits = sheet.since(revision)
            known = None if edits is None else [edit.as_json() for edit in edits]
            return {"revision": sheet.revision, "edits": known}

    @app.post("/api/tiles/{tile}/strokes")
    def stroke(tile: TileId, sent: Stroke) -> dict[str, Any]:
        with work.sheet(tile) as sheet:
            sheet.apply(sent.name, sent.tool, sent.runs)
            edits = sheet.since(sent.revision)
            known = None if edits is None else [edit.as_json() for edit in edits]
            return {"revision": sheet.revision, "edits": known}

    @app.post("/api/tiles/{tile}/finish")
    def finish(tile: TileId) -> dict[str, Any]:
        return {"learns": work.finish(tile)}

    @app.get("/api/tiles/{tile}/guess")
    def guess(tile: TileId, version: Annotated[int, Query(ge=-1, le=MOST)] = -1) -> Response:
        """What the model finds, where it is newer than what the page has."""
        found = work.guess(tile)
        if found is None or found.version <= version:
            return Response(status_code=204)
        return _packed(found.labels, {"Nucleate-Version": str(found.version), "Nucleate-Bits": f"{found.mean:.4f}"})

    @app.get("/api/tiles/{tile}/entropy")
    def entropy(tile: TileId) -> Response:
        found = work.guess(tile)
        if found is None:
            return Response(status_code=204)
        return Response(imagecodecs.png_encode(heat(found.bits), level=1), media_type="image/png")

    add_pages(app, ANNOTATE_PAGES)
    return app


def _packed(labels: np.ndarray[Any, Any], headers: dict[str, str]) -> Response:
    packed = imagecodecs.zlib_encode(labels.astype("<i4").tobytes(), level=1)
    said = {"Content-Encoding": "deflate", **headers}
    return Response(packed, media_type="application/octet-stream", headers=said)
