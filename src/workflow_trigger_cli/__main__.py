"""`python -m workflow_trigger_cli`."""

import sys


def main() -> None:
    """Run a command. What it needs is imported here, so that Ctrl-C before its first line ends as any other."""
    try:
        from workflow_trigger_cli.main import main as run  # noqa: PLC0415
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
