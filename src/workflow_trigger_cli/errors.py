"""Errors of the commands, and their exit codes."""

from enum import IntEnum


class Exit(IntEnum):
    """How a command ended."""

    OK = 0  # done, and nothing needs attention
    ATTENTION = 1  # done; something needs attention
    USAGE = 2  # the command line was wrong
    FAILED = 3  # no such stack, no credentials, or an error of AWS
    INTERRUPTED = 130  # Ctrl-C; the same command continues


class CommandError(Exception):
    """The command failed. The message names what to fix."""

    exit = Exit.FAILED


class UsageError(CommandError):
    """The command line was wrong."""

    exit = Exit.USAGE
