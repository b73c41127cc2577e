"""How a command ends when it is asked to: in a sentence, with the exit code of the signal, and nothing else said."""

import signal
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from contextlib import suppress

import numpy as np
import pytest
import tifffile

from nucleate.io.prediction_json import PredictionRecord, write_record
from nucleate.signals import SIGNALS

NAMES = [signal.Signals(number).name for number in SIGNALS]

PROGRAM = """
import os, signal, sys, time
from nucleate import __main__, cli, signals

def wait():
    print("ready", flush=True)
    time.sleep(60)

def work(arguments):
    {work}

cli.app = lambda arguments, prog_name: work(arguments)
__main__.main()
"""


def end(work, *numbers):
    """Run `work` as a command, and send it signals once it is at it: exit code and what it said."""
    script = PROGRAM.format(work=textwrap.indent(textwrap.dedent(work), " " * 4).strip())
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as process:
        for number in numbers:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize("name", NAMES)
def test_the_first_signal_puts_in_order_what_is_in_work(name):
    number = signal.Signals[name]
    code, out, err = end("try:\n    wait()\nfinally:\n    print('in order')", number)
    assert (code, out) == (128 + number, "in order\n")
    assert err == ("nucleate: interrupted.\n" if name == "SIGINT" else f"nucleate: ended by {name}.\n")


@pytest.mark.parametrize("first", NAMES)
@pytest.mark.parametrize("second", NAMES)
def test_the_second_signal_ends_at_once(first, second):
    work = "try:\n    wait()\nfinally:\n    wait()\n    print('not reached')"
    code, out, err = end(work, signal.Signals[first], signal.Signals[second])
    assert (code, out) == (128 + signal.Signals[second], "")
    assert err == "nucleate: ended at once; what was finished is kept.\n"


def test_no_thread_is_waited_for():
    assert end("import threading; threading.Thread(target=time.sleep, args=(60,)).start(); wait()", 2)[0] == 130


@pytest.mark.parametrize(
    "work",
    [
        "import weakref; x = set(); weakref.finalize(x, wait); del x; wait()",
        "class A:\n    def __del__(self): wait()\nA(); wait()",
        "try:\n    wait()\nexcept BaseException:\n    raise ImportError('initialization failed')",
    ],
    ids=["finalizer", "destructor", "library"],
)
def test_an_interruption_that_something_swallows_ends_the_command_all_the_same(work):
    code, _, err = end(work, signal.SIGINT)
    assert (code, err) == (130, "nucleate: interrupted.\n")


def test_a_signal_that_is_ignored_stays_ignored():
    work = "os.kill(os.getpid(), signal.SIGHUP); print('went on')"
    script = "signal.signal(signal.SIGHUP, signal.SIG_IGN)\nfrom nucleate import __main__, cli"
    program = PROGRAM.replace("from nucleate import __main__, cli", script).format(work=work)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")


def test_afterwards_signals_are_what_they_were():
    program = """
    import os, signal, time
    from nucleate import signals
    before = [signal.getsignal(number) for number in signals.SIGNALS]
    try:
        with signals.handled():
            with signals.handled():
                assert not signals.interrupted()
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
    except KeyboardInterrupt:
        print("interrupted")
    assert [signal.getsignal(number) for number in signals.SIGNALS] == before
    assert not signals.interrupted()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


@pytest.mark.parametrize("name", NAMES)
def test_the_page_ends_with_any_of_them(tmp_path, name):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint8))
    image = str(tmp_path / "a.tif")
    record = PredictionRecord(image, 0, (0, 0), (8, 8), downsample=1.0, pixel_size=None, count=0, files={})
    write_record(tmp_path / "a.json", record)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-m", "nucleate", "view", str(tmp_path)], **pipes) as process:
        address = process.stdout.readline().split()[0]
        with suppress(urllib.error.HTTPError), urllib.request.urlopen(address, timeout=60):
            pass  # the server is at work
        process.send_signal(signal.Signals[name])
        try:
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, err) == (0, "")
