"""The run directory of an instance: opened once and proven ours, or not used at all.

Without XDG_RUNTIME_DIR it lies in the temporary directory, where everybody may make names. So no name is trusted: each
directory above must be one that nobody but root and we can rename things in, as OpenSSH's safe_path has it, and the two
levels that are ours, `asgictl` and NAME, must be real directories of our own uid that nobody else can enter. They are
opened without following a link, each relative to the one above, and everything that is read, written or removed goes
through the descriptor. supervisord, the logs' readers and Unix sockets need paths: once all of the chain is proven,
nobody but root and we can put something else there.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asgictl.config import run_directory
from asgictl.errors import NotRunning, RedisError, RunDirectoryError

DEFAULT_NAME = "default"  # of an instance that was given none
DESCRIPTION = "instance.json"  # how the instance was started
ROOT = 0
ROOM_BYTES = 256 << 10  # that a start must find: its logs, the first files of Redis, notes of workers
OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PASS = OPEN | getattr(os, "O_PATH", 0)  # the directory above ours need not be readable
WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
FULL = {errno.ENOSPC, errno.EDQUOT}
ELSEWHERE = "or set XDG_RUNTIME_DIR to a directory of yours"


def named(name: str) -> str:
    """Return the option that names an instance in a command, " --name NAME"; "" for the one that needs none."""
    return "" if name == DEFAULT_NAME else f" --name {name}"


def handover_path(run_dir: Path, pid: int) -> Path:
    """Return the Unix socket on which an interface takes other processes' sockets."""
    return run_dir / f"handover-{pid}.sock"


def successor_path(run_dir: Path, pid: int) -> Path:
    """Return the file that holds the pid of the process to which an interface hands its sockets over once it drains."""
    return run_dir / f"successor-{pid}"


class RunDir:
    """A run directory, proven when this is made; one that is missing can be made by create().

    where: as run_directory() has it, .../asgictl/NAME. path: the same without links, for sockets and supervisord.
    Raises RunDirectoryError, and nothing was touched. Names are relative to the directory.
    """

    def __init__(self, where: Path) -> None:
        self._base = Path(os.path.realpath(where.parent.parent))
        self.path: Path = self._base / where.parent.name / where.name
        self._above = self._held = -1
        try:
            self._open(create=False)
        except FileNotFoundError:
            pass
        except OSError as error:
            _refuse(self.path, f"cannot be opened ({error.strerror})", "see who owns it and its mode")

    @classmethod
    def of(cls, name: str) -> "RunDir":
        """Return that of the instance of this name, made or not."""
        return cls(run_directory(name))

    @property
    def redis_url(self) -> str:
        """Where the instance's own Redis listens, if it has one."""
        return redis_url(self.path)

    @property
    def exists(self) -> bool:
        """Whether it is there: held, and still what the path names."""
        try:
            named = os.stat(self.path.name, dir_fd=self._above, follow_symlinks=False) if self._held >= 0 else None
        except FileNotFoundError:
            return False
        return named is not None and os.path.samestat(named, os.fstat(self._held))

    def create(self) -> bool:
        """Make it, 0700, unless it exists; returns whether it was made."""
        is_new = not self.exists
        if is_new:
            try:
                with self._writing():
                    self._open(create=True)
            except RunDirectoryError:
                if self._above >= 0:
                    with contextlib.suppress(OSError):  # of another instance, too, unless it is empty
                        os.rmdir(self.path.parent)
                raise
        return is_new

    def lock(self) -> bool:
        """Lock the directory for as long as this process lives; returns whether nobody else has."""
        return _lock(self._descriptor())

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[bool]:
        """Lock a file of this name for a while; yields whether nobody else has."""
        file = self.create_file(name)
        try:
            yield _lock(file)
        finally:
            os.close(file)

    def read(self, name: str) -> str:
        """Return a file's text; raises OSError."""
        with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self._descriptor())) as file:
            return file.read()

    def description(self) -> dict[str, Any]:
        """Return how the instance was started, as JSON has it; raises OSError where none is described."""
        described: dict[str, Any] = json.loads(self.read(DESCRIPTION))
        return described

    def write(self, name: str, text: str) -> None:
        """Replace a file: readers find the old text or the new; on a full disk, and after a crash, the old stays."""
        temporary = f".{name}.{os.getpid()}"
        with self._writing(temporary):
            self._fill(temporary, text.encode())
            os.rename(temporary, name, src_dir_fd=self._held, dst_dir_fd=self._held)

    def mkdir(self, name: str) -> None:
        """Make a directory in it."""
        with self._writing():
            os.mkdir(name, 0o700, dir_fd=self._descriptor())

    def create_file(self, name: str) -> int:
        """Return a descriptor of a new, empty file."""
        with self._writing():
            return os.open(name, WRITE, 0o600, dir_fd=self._descriptor())

    def check_room(self) -> None:
        """Raise RunDirectoryError unless ROOM_BYTES can be written; they are removed again."""
        with self._writing(".room"):
            self._fill(".room", bytes(ROOM_BYTES))
            os.unlink(".room", dir_fd=self._held)

    def clear(self) -> None:
        """Remove what is in it; links are removed, not followed."""
        with self._writing():
            for name in os.listdir(self._descriptor()):
                if stat.S_ISDIR(os.stat(name, dir_fd=self._held, follow_symlinks=False).st_mode):
                    shutil.rmtree(name, dir_fd=self._held)
                else:
                    os.unlink(name, dir_fd=self._held)

    def remove(self) -> None:
        """Remove it, unless it has been replaced: another start may have made one of that name meanwhile."""
        if self._held >= 0:
            with contextlib.suppress(RunDirectoryError):  # a process that ends may still write into it
                self.clear()
            with contextlib.suppress(OSError):
                if self.exists:
                    os.rmdir(self.path.name, dir_fd=self._above)

    def _descriptor(self) -> int:
        if self._held < 0:
            raise FileNotFoundError(f"there is no {self.path}")
        return self._held

    def _fill(self, name: str, content: bytes) -> None:
        with open(os.open(name, WRITE, 0o600, dir_fd=self._descriptor()), "wb") as file:
            file.write(content)

    @contextlib.contextmanager
    def _writing(self, temporary: str = "") -> Iterator[None]:
        """Say in one line why something could not be written, and leave nothing of it."""
        try:
            yield
        except OSError as error:  # a full disk, a quota, a file system that cannot be written, no permission
            if temporary and self._held >= 0:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=self._held)
            hint = "free some space" if error.errno in FULL else "see who owns it and its mode"
            raise RunDirectoryError(
                f"the run directory {self.path} cannot be written: {error.strerror or error}; {hint}, {ELSEWHERE}"
            ) from error

    def _open(self, create: bool) -> None:
        """Prove every level, from the root down, so that none can be replaced behind the look at it."""
        for level in (*reversed(self._base.parents), self._base):
            if create and not level.exists():
                level.mkdir(0o700)
            _refuse(level, _wrong_above(level.lstat()), "mend that")
        base = self._keep(os.open(self._base, PASS))
        self._above = self._open_level(self.path.parent, base, create)
        self._held = self._open_level(self.path, self._above, create)
        with os.scandir(self._held) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # it has gone meanwhile
                    _refuse(self.path / entry.name, _wrong_owner(entry.stat(follow_symlinks=False)))

    def _open_level(self, path: Path, above: int, create: bool) -> int:
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path.name, 0o700, dir_fd=above)
        try:
            level = self._keep(os.open(path.name, OPEN, dir_fd=above))
        except OSError:  # a link, a file, or a directory of somebody else's that we may not read; or nothing is there
            _refuse(path, _wrong(os.stat(path.name, dir_fd=above, follow_symlinks=False)))
            raise
        _refuse(path, _wrong(os.fstat(level)))
        return level

    def _keep(self, descriptor: int) -> int:
        """Have a descriptor closed once this object is gone."""
        weakref.finalize(self, os.close, descriptor)
        return descriptor


def instance_names() -> list[str]:
    """Return the names of this user's instances on this machine: those that have a run directory, proven or not."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(each.name for each in run_directory("").iterdir() if each.is_dir())
    return []


def unnamed(names: list[str]) -> str:
    """Return which of these instances is meant where no name was given: DEFAULT_NAME, else the only one.

    "" where several run; DEFAULT_NAME where none does.
    """
    return DEFAULT_NAME if DEFAULT_NAME in names or not names else names[0] if len(names) == 1 else ""


def not_found(name: str) -> NotRunning:
    """Return what is to be raised where no instance of this name runs: it lists those that do."""
    others = ", ".join(each for each in instance_names() if each != name)
    hint = f"running: {others}" if others else "start one with asgictl start"
    return NotRunning(f"no instance {name!r} is running; {hint}")


def the_instance() -> str:
    """Return the name of the only instance that runs here. Raises NotRunning where several do."""
    names = instance_names()
    if not (found := unnamed(names)):
        raise NotRunning(f"several instances run here: {', '.join(names)}")
    return found


def redis_url_of(name: str) -> str:
    """Return where the instance of this name has its own Redis.

    Raises NotRunning, RedisError when it was given one, and RunDirectoryError when its directory is not ours alone.
    """
    run_dir = RunDir.of(name)
    try:
        described = run_dir.description()
    except OSError:
        raise not_found(name) from None
    if described["redis"] != "embedded":
        raise RedisError(f"instance {name!r} has no embedded Redis: give the URL of its Redis with --redis")
    return run_dir.redis_url


def redis_url(run_dir: Path) -> str:
    """Return where an instance's own Redis listens, if it has one."""
    return f"unix://{run_dir}/redis.sock"


def has_own_redis(run_dir: Path) -> bool:
    """Whether an embedded Redis runs for the instance of this run directory."""
    return (run_dir / "redis.sock").exists()


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _refuse(level: Path, wrong: str, hint: str = "remove it") -> None:
    if wrong:
        raise RunDirectoryError(f"the run directory cannot be trusted: {level} {wrong}; {hint}, {ELSEWHERE}")


def _wrong_owner(found: os.stat_result, *others: int) -> str:
    owners = (os.getuid(), *others)
    return "" if found.st_uid in owners else f"belongs to uid {found.st_uid}, not to uid {os.getuid()}"


def _wrong(found: os.stat_result) -> str:
    """Say what keeps a level from being ours alone; "" when nothing does."""
    if not stat.S_ISDIR(found.st_mode):
        return "is a symbolic link" if stat.S_ISLNK(found.st_mode) else "is not a directory"
    mode = stat.S_IMODE(found.st_mode)
    return _wrong_owner(found) or (f"is open to others (mode {mode:04o} instead of 0700)" if mode & 0o077 else "")


def _wrong_above(found: os.stat_result) -> str:
    """Say why somebody else could rename what lies in a directory; "" when nobody can."""
    if not stat.S_ISDIR(found.st_mode):
        return "is not a directory"
    mode = stat.S_IMODE(found.st_mode)
    is_shared = mode & 0o022 and not mode & stat.S_ISVTX
    return _wrong_owner(found, ROOT) or (f"can be written by others (mode {mode:04o}, not sticky)" if is_shared else "")
