"""The command `nucleate`, as is `python -m nucleate`."""

import sys

from nucleate import out_of_memory, signals
from nucleate.parallel import launch


def main() -> None:
    """Run the command line as the whole of a process, in which signals are handled from here to its end."""
    signals.listen()
    code: object = 1
    try:
        from nucleate import cli

        cli.main()
    except SystemExit as end:
        code = end.code or 0
        raise
    except KeyboardInterrupt:  # while the command line itself was loaded
        sentence, code = signals.verdict()
        print(sentence, file=sys.stderr)
    finally:
        signals.leave(code if isinstance(code, int) else 1, at_once=out_of_memory.met or launch.has_lost())


if __name__ == "__main__":
    main()
