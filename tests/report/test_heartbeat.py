"""Lines in the place of a bar."""

import re
import time

from nucleate.report.heartbeat import Heartbeat


def said(capsys):
    captured = capsys.readouterr()
    assert captured.out == ""
    return [re.sub(r"^\[\d+:\d\d\] ", "", line) for line in captured.err.splitlines()]


def test_it_beats_by_itself_and_tells_what_is_now(capsys):
    texts = iter(["one", "", "three", *["more"] * 1000])
    with Heartbeat(lambda: next(texts), first=0, every=0.06):
        time.sleep(0.5)
    lines = said(capsys)
    assert lines[:2] == ["one", "three"] and len(lines) >= 3


def test_a_line_that_is_said_puts_the_next_beat_off(capsys):
    with Heartbeat(lambda: "beat", first=60, every=60) as heartbeat:
        heartbeat.say("begun")
        heartbeat.say("")
    assert said(capsys) == ["begun"]


def test_what_ends_soon_says_nothing_and_what_is_disabled_never(capsys):
    with Heartbeat(lambda: "beat"):
        pass
    with Heartbeat(lambda: "beat", first=0, every=0.01, enabled=False) as heartbeat:
        heartbeat.say("line")
        time.sleep(0.1)
    assert said(capsys) == []
