"""The command `nucleate`, as is `python -m nucleate`."""

import sys

from nucleate import signals


def main() -> None:
    """Run the command line as the whole of a process, in which signals are handled from here to its end."""
    signals.listen()
    try:
        from nucleate import cli

        cli.main()
    except KeyboardInterrupt:  # while the command line itself was loaded
        print(signals.verdict()[0], file=sys.stderr)
    finally:
        signals.leave()


if __name__ == "__main__":
    main()
