"""What ends a command, and the exit codes that scripts can use."""

from enum import IntEnum


class Exit(IntEnum):
    """How a command ended."""

    WELL = 0  # done, and nothing needs anybody
    ATTENTION = 1  # done, and something needs somebody
    USAGE = 2  # the command was typed wrongly
    FAILED = 3  # could not be done: no such stack, no credentials, AWS said no
    INTERRUPTED = 130  # by hand; the same command goes on


class OpsError(Exception):
    """A command cannot be carried out. The message names what to mend."""

    exit = Exit.FAILED


class TypedWrongly(OpsError):
    """What was typed has no meaning."""

    exit = Exit.USAGE
