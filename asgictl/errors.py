"""Every error that asgictl raises on purpose, in one tree.

    AsgictlError
    ├── TargetError           TARGET cannot be imported or served                       exit 3
    ├── AddressError          the address to listen on cannot be used                   exit 4
    ├── RedisError            Redis cannot be reached, or is unsuitable                 exit 5
    ├── AlreadyRunning        an instance of this name is already running               exit 6
    ├── NotRunning            no instance of this name is running                       exit 7
    ├── StartError            a process did not become ready                            exit 8
    ├── RunDirectoryError     the run directory is unsafe or not writable               exit 13
    ├── SupervisordDied       supervisord died; its processes still serve               exit 14
    ├── ComparisonError       a comparison cannot be made or written                    exit 12
    ├── WireError             bytes from Redis are not a known message
    ├── TransitionError       an event reached a connection in the wrong state
    ├── ConsumerError         a consumer or command asked for something impossible      exit 9
    ├── UnknownChannel        the application has no background channel of this name    exit 10
    └── ChannelFull           a background channel is full                              exit 11

Exit status 0 is success, 1 a fault of asgictl's own, 2 a mistake on the command line (click's), 15 a `status --check`
that has found something, 128 + N a start that signal N has ended: 130 for Ctrl-C, 143 for SIGTERM. A process that ends
itself says why by FENCED_STATUS and TIMEOUT_STATUS.
"""

import difflib
from collections.abc import Iterable

NEEDS_ATTENTION_STATUS = 15
TIMEOUT_STATUS = 75  # sysexits.h, EX_TEMPFAIL: a handler exceeded --timeout
FENCED_STATUS = 76  # sysexits.h, EX_PROTOCOL: the lease of this process expired


class AsgictlError(Exception):
    """Base class; the message says what was wrong, where, and what to do."""

    exit_code = 1


class TargetError(AsgictlError):
    """TARGET cannot be imported, or is not an application that this mode serves."""

    exit_code = 3


class AddressError(AsgictlError):
    """The address to listen on is malformed, in use, or not permitted."""

    exit_code = 4


class RedisError(AsgictlError):
    """Redis cannot be reached, denies access, is too old, or could evict events."""

    exit_code = 5


class AlreadyRunning(AsgictlError):
    """An instance of this name is already running."""

    exit_code = 6


class NotRunning(AsgictlError):
    """No instance of this name is running."""

    exit_code = 7


class StartError(AsgictlError):
    """A process of the instance ended or was not ready in time; the message has its last log lines."""

    exit_code = 8


class RunDirectoryError(AsgictlError):
    """The run directory is not writable, or other users could change it; nothing in it was changed."""

    exit_code = 13


class SupervisordDied(AsgictlError):
    """supervisord was killed under a `start` in the foreground; its processes still serve."""

    exit_code = 14


class ComparisonError(AsgictlError):
    """`compare` lacks something that it needs, or its options contradict each other."""

    exit_code = 12


class WireError(AsgictlError):
    """Bytes read from Redis are malformed, or of an incompatible wire version."""


class VersionError(WireError):
    """Bytes read from Redis are of a wire version that is neither this one nor adjacent."""


class TransitionError(AsgictlError):
    """A bug in asgictl: an event reached a connection in a state that does not allow it; nothing changed."""


class ConsumerError(AsgictlError):
    """The application, or a command, asked for something impossible; the message names it."""

    exit_code = 9


class UnknownChannel(AsgictlError):
    """The sender named a background channel for which the application has no consumer."""

    exit_code = 10


class ChannelFull(AsgictlError):
    """A background channel is full; nothing was sent, and the sender may try again later.

    held: what it holds, as "10000 messages".
    """

    exit_code = 11

    def __init__(self, channel: str, held: str) -> None:
        super().__init__(
            f"background channel {channel!r} holds {held} and takes no more: send again later, or start"
            " more workers for it"
        )


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return a hint for the end of an error message: which of `known` may have been meant."""
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else ""
