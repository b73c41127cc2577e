"""A model and image files -> label images, tables, outlines and overlays."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from nucleate.errors import OutputError
from nucleate.inference import cellprofiler, in_place
from nucleate.inference.earlier import Earlier, examine, too_long_name
from nucleate.inference.predictor import Predictor
from nucleate.inference.request import Observe as Observe
from nucleate.inference.request import Request as Request
from nucleate.inference.resume import refuse_unfinished
from nucleate.inference.run import Run
from nucleate.inference.shared_run import SharedRun
from nucleate.inference.sources import Source, sources
from nucleate.inference.stacks import refuse_others, stacks_of, write_stacks
from nucleate.inference.summary import Failed, ImageResult, Summary
from nucleate.io.prediction_json import record_file
from nucleate.io.stack import Choice
from nucleate.networks.runtime import keep_memory
from nucleate.parallel import Communicator, SingleProcess
from nucleate.parallel.launch import done_by_living, require_shared


def predict(
    predictor: Predictor,
    images: Sequence[Path],
    out: Path,
    request: Request | None = None,
    *,
    observe: Observe | None = None,
    ranks: Communicator | None = None,
) -> Summary:
    """Segment image files into a folder.

    Of many small images, one more is in work at once than the network has threads, each on one of them, as one may wait
    for the disk; large ones follow one after the other. What is computed of a large image is kept in the folder
    .NAME.work of `out` until it is done. Of a file that holds several images each is segmented, unless `request.stacks`
    names one; of a stack what that says, or what the model was trained on. Where images have one
    name, their results keep the folder or the ending (`sources.unique_names`).

    Args:
        predictor: what segments.
        images: the files.
        out: the folder that is given, for each image, the files of `request.formats`, NAME.json, which describes them,
            and, on request, NAME_entropy.tif and NAME_overlay.png.
        request: what is asked of each image.
        observe: is told of each image before any is segmented, then how far the work on each is.
        ranks: the processes that share the work, by default this one alone. All call this with the same arguments and
            see the same folders: small images are dealt out, a large one is done by all. Where the MPI can go on
            without a rank that ended (ULFM), the others do its work.

    Returns:
        What became of each image; one that cannot be used is noted, and the others are done.

    Raises:
        OutputError: for an output that cannot be written, and before anything is computed where one would replace an
            image, or what is no result of an earlier run; it ends the run.
    """
    request, ranks = request or Request(), ranks or SingleProcess()
    known = predictor.model.manifest.data.stacks
    found, said = sources(images, request.stacks, Choice(z=known.get("z"), t=known.get("t")))
    refused = {one.name: one.refused or too_long_name(one, request.files(one.stem).values()) for one in found}
    results: dict[str, ImageResult] = {name: Failed(why) for name, why in refused.items() if why is not None}
    wanted = [one for one in found if one.name not in results]
    stacks = stacks_of(wanted)
    refuse_others(stacks, out, overwrite=request.overwrite)
    for_cellprofiler = "cellprofiler" in request.formats
    if for_cellprofiler:
        cellprofiler.refuse_others(out, overwrite=request.overwrite)
    images_in_place, left = in_place.images(wanted, overwrite=request.overwrite) if request.in_place else ([], [])

    def begin(ranks: Communicator) -> dict[str, Earlier]:
        earlier = ranks.together(partial(_earlier, wanted, images, out, request))
        ranks.by_first(partial(_make_folders, wanted, out))
        require_shared(ranks, out)
        return earlier

    ranks, earlier = done_by_living(ranks, begin)
    if observe is not None:
        for one in found:
            observe(one.name, float(one.name in results), 0.0)
    keep_memory()
    run = Run(predictor, out, request, earlier, observe)
    if ranks.size == 1:
        with closing(run.results(wanted)) as finished:
            for source, result in finished:
                results[source.name] = result
                run.told(source, result)
    else:
        results |= SharedRun(run, wanted).results(ranks)

    def finish(ranks: Communicator) -> None:
        ranks.by_first(partial(write_stacks, stacks, results, out, request))
        ranks.by_first(partial(in_place.write, images_in_place, results, out, request))
        if for_cellprofiler:
            ranks.by_first(partial(cellprofiler.write_tables, wanted, results, out))

    if stacks or images_in_place or for_cellprofiler:
        done_by_living(ranks, finish)
    return Summary({one.name: results[one.name] for one in found}, (*said, *left))


def _earlier(found: Sequence[Source], images: Sequence[Path], out: Path, request: Request) -> dict[str, Earlier]:
    """What earlier runs left of each image, once it is sure that nothing else is replaced."""
    if not request.resume:
        for one in found:
            refuse_unfinished(one.folder(out), one.stem)
    files = {one: [*request.files(one.stem).values(), record_file(one.stem)] for one in found}
    return examine(files, out, images, resume=request.resume, overwrite=request.overwrite)


def _make_folders(found: Sequence[Source], out: Path) -> None:
    for folder in {out, *(one.folder(out) for one in found)}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot be made ({error.strerror}): choose another --out.") from error
