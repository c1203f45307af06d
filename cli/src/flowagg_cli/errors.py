"""The command's own errors, and the exit codes that they end it with."""

from typing import Final

from flowagg.errors import FlowaggError

FAILED: Final = 1
"""Something did not answer, or did not end well."""
USAGE: Final = 2
"""The command line or the settings are wrong."""
REFUSED: Final = 3
"""Nothing was done: it would lose exactness, or harm what is there; the text says what and why."""
DAMAGED: Final = 4
"""A file or a view is not what FlowAggregator writes."""

BUSY: Final = 5
"""As REFUSED, because consumers of the view run: the same command will do once they have ended."""


class CommandError(FlowaggError):
    """Ends the command with its exit code."""

    exit_code = FAILED


class WrongUsage(CommandError):
    """The command line does not make sense."""

    exit_code = USAGE


class Refused(CommandError):
    """It would lose exactness, or harm what is there."""

    exit_code = REFUSED


class Busy(Refused):
    """Consumers of the view run."""

    exit_code = BUSY


class DamagedFile(CommandError):
    """A file is cut, altered, or no export of a view."""

    exit_code = DAMAGED


class Unsettled(CommandError):
    """What is read changes its identity, or too fast, while it is read."""
