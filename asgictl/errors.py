"""Every error that asgictl raises on purpose, in one tree.

    AsgictlError
    ├── TargetError           the user's module or attribute cannot serve               exit 3
    ├── AddressError          the address to listen on cannot be had                    exit 4
    ├── RedisError            Redis cannot be reached, or is not fit to carry events    exit 5
    ├── AlreadyRunning        an instance of this name runs                             exit 6
    ├── NotRunning            no instance of this name runs                             exit 7
    ├── StartError            a process of ours did not become ready                    exit 8
    ├── RunDirectoryError     the run directory is not ours alone, or cannot be written exit 13
    ├── SupervisordDied       supervisord ended, and what it ran serves on              exit 14
    ├── ComparisonError       compare cannot be made, or not be written down            exit 12
    ├── WireError             bytes from Redis are not a message that we know
    ├── TransitionError       a connection was told what its state does not allow
    ├── ConsumerError         a consumer, or a command, asked for what cannot be done   exit 9
    ├── UnknownChannel        the application has no background channel of this name    exit 10
    └── ChannelFull           too many messages wait in a background channel            exit 11

Exit status 0 is success, 1 a fault of asgictl's own, 2 a mistake on the command line (click's), 15 a `status --check`
that has found something, 128 + N a start that signal N has ended: 130 for Ctrl-C, 143 for SIGTERM. A process that ends
itself says why by FENCED_STATUS and TIMEOUT_STATUS.
"""

import difflib
from collections.abc import Iterable

NEEDS_ATTENTION_STATUS = 15
TIMEOUT_STATUS = 75  # sysexits.h, EX_TEMPFAIL: a handler took too long
FENCED_STATUS = 76  # sysexits.h, EX_PROTOCOL: this process was taken for dead


class AsgictlError(Exception):
    """Base of all; its text says what was wrong, where, and what to do."""

    exit_code = 1


class TargetError(AsgictlError):
    """The user's TARGET cannot be imported, or is of a kind that this mode does not serve."""

    exit_code = 3


class AddressError(AsgictlError):
    """The address to listen on is malformed, taken, or not ours to bind."""

    exit_code = 4


class RedisError(AsgictlError):
    """Redis cannot be reached, refuses us, is too old, or would evict events."""

    exit_code = 5


class AlreadyRunning(AsgictlError):
    """An instance of this name runs already."""

    exit_code = 6


class NotRunning(AsgictlError):
    """No instance of this name runs."""

    exit_code = 7


class StartError(AsgictlError):
    """A process of the instance ended, or was not ready in time; the text holds its last lines."""

    exit_code = 8


class RunDirectoryError(AsgictlError):
    """Somebody else could change the run directory, or it cannot be written; nothing in it was touched."""

    exit_code = 13


class SupervisordDied(AsgictlError):
    """supervisord was killed under a `start` in the foreground; what it ran serves on."""

    exit_code = 14


class ComparisonError(AsgictlError):
    """What compare needs is missing, or what it was told cannot be."""

    exit_code = 12


class WireError(AsgictlError):
    """Bytes read from Redis are malformed, or of a version that is neither ours nor adjacent."""


class VersionError(WireError):
    """Bytes read from Redis are of a version that is neither ours nor adjacent."""


class TransitionError(AsgictlError):
    """Our own fault: a connection was told of something that its state does not allow; nothing changed."""


class ConsumerError(AsgictlError):
    """The application's fault, or a command's: it asked for what cannot be done (the text names it)."""

    exit_code = 9


class UnknownChannel(AsgictlError):
    """The sender's fault: it named a background channel for which the application has no consumer."""

    exit_code = 10


class ChannelFull(AsgictlError):
    """A background channel holds as much as it may; nothing was sent, and the sender decides what now.

    held: what it holds, as "10000 messages".
    """

    exit_code = 11

    def __init__(self, channel: str, held: str) -> None:
        super().__init__(
            f"background channel {channel!r} holds {held} and takes no more: send again later, or start"
            " more workers for it"
        )


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return which of `known` may have been meant, to be put behind an error."""
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else ""
