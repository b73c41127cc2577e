"""How far a prediction is, as lines."""

from pathlib import Path

from nucleate.inference.summary import Segmented, Summary
from nucleate.report.prediction_progress import PredictionProgress, sentences


def test_a_line_for_the_start_each_image_and_each_tenth_of_a_slide(capsys, tmp_path):
    small, slide = Path("a.tif"), Path("slide.tif")
    with PredictionProgress([small, slide], tmp_path) as progress:
        progress.observe(small, 1.0, 0.1)
        for step in range(1, 101):
            progress.observe(slide, step / 100, 900.0)
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == "" and all(line.startswith("[0:0") for line in lines)
    assert f"2 images to segment, into {tmp_path}" in lines[0] and "a.tif is done (1/2 |" in lines[1]
    assert [line.split(": ")[1].split(",")[0] for line in lines[2:-1]] == [f"{ten}0%" for ten in range(1, 10)]
    assert "slide.tif is done (2/2 |" in lines[-1]


def test_numbers_and_nouns_agree():
    def said(**bounded):
        return next(iter(sentences(Summary({Path(name): Segmented(9, 1.0, n) for name, n in bounded.items()}))))

    assert said(a=1).startswith("1 nucleus extends 64 pixels (in a)")
    assert said(a=2, b=1).startswith("3 nuclei extend 64 pixels (the first in a)")
