"""What the process exits with. The table is the documentation: ``docs/cli.md`` is checked against it."""

from __future__ import annotations

from enum import IntEnum

from ..modelfile.errors import LadingError, NotAuthorisedError, NotFoundError, UnreachableError, UsageError


class ExitCode(IntEnum):
    """Exit codes of ``lading``. Scripts may rely on them."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_AUTHORISED = 4
    UNREACHABLE = 5
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        """One phrase for the table in the documentation."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.OK: "it worked",
    ExitCode.FAILURE: "it failed; the sentence on stderr says why",
    ExitCode.USAGE: "the command line is wrong",
    ExitCode.NOT_FOUND: "what was named does not exist",
    ExitCode.NOT_AUTHORISED: "credentials are missing or were refused",
    ExitCode.UNREACHABLE: "a server or registry could not be reached",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C)",
}

# The first class that matches wins, so a subclass stands before its base.
_CODES: tuple[tuple[type[LadingError], ExitCode], ...] = (
    (UsageError, ExitCode.USAGE),
    (NotFoundError, ExitCode.NOT_FOUND),
    (NotAuthorisedError, ExitCode.NOT_AUTHORISED),
    (UnreachableError, ExitCode.UNREACHABLE),
    (LadingError, ExitCode.FAILURE),
)


def exit_code_of(error: LadingError) -> ExitCode:
    """The exit code that tells a script what kind of failure ``error`` is."""
    return next(code for kind, code in _CODES if isinstance(error, kind))
