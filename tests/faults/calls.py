"""The system calls by which a run changes its folder, one by one: each can be refused, cut, or be the last one.

The kernel stops the run at every such call and asks this process what to do (seccomp_unotify(2), Linux 5.9 or later).
It sees the calls of all code of the run, in any language. It sees neither writes into memory maps nor io_uring.
"""

import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

_SECCOMP, _PIDFD_GETFD = 317, 438  # numbers of system calls on x86-64, as all below
_OPEN, _OPENAT = 2, 257


class _Kind(NamedTuple):
    """What a system call does, and which of its arguments name the file: descriptor, path, or a path beside one."""

    does: str
    descriptor: int | None = None
    path: int | None = None


_KINDS = {
    1: _Kind("write", 0),
    18: _Kind("write", 0),  # pwrite64
    20: _Kind("write", 0),  # writev
    40: _Kind("write", 0),  # sendfile
    296: _Kind("write", 0),  # pwritev
    326: _Kind("write", 2),  # copy_file_range
    _OPEN: _Kind("open", path=0),
    85: _Kind("open", path=0),  # creat
    _OPENAT: _Kind("open", 0, 1),
    82: _Kind("rename", path=1),
    264: _Kind("rename", 2, 3),  # renameat
    316: _Kind("rename", 2, 3),  # renameat2
    87: _Kind("unlink", path=0),
    84: _Kind("unlink", path=0),  # rmdir
    263: _Kind("unlink", 0, 1),  # unlinkat
    83: _Kind("mkdir", path=0),
    258: _Kind("mkdir", 0, 1),  # mkdirat
    76: _Kind("truncate", path=0),
    77: _Kind("truncate", 0),  # ftruncate
    285: _Kind("truncate", 0),  # fallocate
    74: _Kind("fsync", 0),
    75: _Kind("fsync", 0),  # fdatasync
}
_SOURCES = {82: _Kind("rename", path=0), 264: _Kind("rename", 0, 1), 316: _Kind("rename", 0, 1)}
NEED_SPACE = ("write", "open", "rename", "mkdir", "truncate", "fsync")  # on a full disk, files can be removed


@dataclass(frozen=True)
class Fault:
    """What happens at a call.

    Args:
        error: Error number with which the call ends; 0 for none.
        full: All later calls that need space end like this, too.
        cuts: A write leaves the first half of its bytes. It says so, and the error is that of the next call.
        kills: The run is killed at the call.
        power: What the disk was not told to keep is lost: the files are there, and are empty.
    """

    error: int = 0
    full: bool = False
    cuts: bool = False
    kills: bool = False
    power: bool = False

    def hits(self, does: str) -> bool:
        """Whether a kind of call can have this fault."""
        return does == "write" if self.cuts else does in NEED_SPACE or not self.full


FAULTS = {
    "SIGKILL": Fault(kills=True),
    "cut write, SIGKILL": Fault(kills=True, cuts=True),
    "cut write": Fault(errno.ENOSPC, full=True, cuts=True),
    "ENOSPC": Fault(errno.ENOSPC, full=True),
    "EDQUOT": Fault(errno.EDQUOT, full=True),
    "EIO": Fault(errno.EIO),
    "power loss": Fault(kills=True, power=True),
}


# ---- in the process that is watched ------------------------------------------------------------------------------


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def be_watched(address: str) -> None:
    """Have this process and its children stop at their calls, and hand them to the one who listens at an address."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(address)
        listener = _stop_at_calls()
        socket.send_fds(channel, [b"."], [listener])
    os.close(listener)


def _stop_at_calls() -> int:
    """Descriptor at which the calls of this process are answered from now on."""
    library = ctypes.CDLL(None, use_errno=True)
    code = _filter()
    program = _Program(len(code) // 8, ctypes.cast(ctypes.c_char_p(code), ctypes.c_void_p))
    library.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS: then no right is needed for what follows
    listener: int = library.syscall(_SECCOMP, 1, 8, ctypes.byref(program))  # SET_MODE_FILTER with NEW_LISTENER
    if listener < 0:
        raise OSError(ctypes.get_errno(), "the kernel stops no process at its calls")
    return listener


def _filter() -> bytes:
    """Program that stops at the calls of the table; of those that open a file, at those that may change it."""
    load, equal, any_of, jump, end = 0x20, 0x15, 0x45, 0x05, 0x06
    numbers = [number for number in _KINDS if number not in (_OPEN, _OPENAT)]
    size = len(numbers)
    changing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    lines = [
        (load, 0, 0, 4),  # the machine
        (equal, 0, size + 7, 0xC000003E),  # is it x86-64?
        (load, 0, 0, 0),  # the call
        *((equal, size + 6 - place, 0, number) for place, number in enumerate(numbers)),
        (equal, 1, 0, _OPEN),
        (equal, 2, 4, _OPENAT),
        (load, 0, 0, 24),  # flags of open
        (jump, 0, 0, 1),
        (load, 0, 0, 32),  # flags of openat
        (any_of, 1, 0, changing),
        (end, 0, 0, 0x7FFF0000),  # go on
        (end, 0, 0, 0x7FC00000),  # ask
    ]
    return b"".join(struct.pack("HBBI", *line) for line in lines)


# ---- in the process that watches ---------------------------------------------------------------------------------


class Call(NamedTuple):
    """A call: what it does, and to which file, as a path in the folder."""

    does: str
    file: str


@dataclass
class Watch:
    """The calls of one run that change a folder.

    Args:
        folder: The folder.
        number: The call that has the fault, counted from 1 among those that can have it.
        fault: The fault.
        at_fault: Called while the run stands still at that call.
    """

    folder: Path
    number: int = 0
    fault: Fault = field(default_factory=Fault)
    at_fault: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.root = os.path.realpath(self.folder)
        self.calls: list[Call] = []  # those that can have the fault
        self.hit: Call | None = None
        self.unsaved: set[str] = set()  # files with content that the disk was not told to keep

    @contextmanager
    def listening(self) -> Iterator[str]:
        """Address at which a run hands over its calls."""
        with tempfile.TemporaryDirectory() as place, socket.socket(socket.AF_UNIX) as self._server:
            self._server.bind(f"{place}/calls")
            self._server.listen()
            yield f"{place}/calls"

    def answer(self, process: int) -> None:
        """Answer the calls of a run until it has ended."""
        channel, _ = self._server.accept()
        _, (listener,), _, _ = socket.recv_fds(channel, 1, 1)
        channel.close()
        calls = select.poll()
        calls.register(listener, select.POLLIN)
        try:
            while True:
                events = calls.poll(200)
                if events and events[0][1] & select.POLLIN:
                    with suppress(FileNotFoundError, ProcessLookupError):  # killed meanwhile
                        self._answer_one(listener, process)
                elif events or _has_ended(process):
                    break
        finally:
            os.close(listener)
        if self.hit and self.fault.power:
            for name in self.unsaved:
                with suppress(FileNotFoundError, IsADirectoryError):
                    os.truncate(os.path.join(self.root, name), 0)

    def _answer_one(self, listener: int, process: int) -> None:
        asked = bytearray(80)
        fcntl.ioctl(listener, 0xC0502100, asked)
        identity, thread, _, number, _, _, *arguments = struct.unpack("QIIiIQ6Q", asked)
        kind = _KINDS[number]
        file = self._inside(_named(thread, kind, arguments))
        value = error = 0
        if file is not None:
            if self._is_fault(Call(kind.does, file)):
                if self.fault.cuts:
                    value = _write_half(thread, number, arguments)
                if self.fault.kills:
                    os.kill(process, signal.SIGKILL)
                    return
                error = 0 if value else self.fault.error
            elif self.hit and self.fault.full and kind.does in NEED_SPACE:
                error = self.fault.error
            if not error:
                self._note(thread, number, arguments, file)
        goes_on = not (value or error)
        fcntl.ioctl(listener, 0xC0182101, struct.pack("QqiI", identity, value, -error, goes_on))

    def _inside(self, path: str) -> str | None:
        inside = path == self.root or path.startswith(f"{self.root}/")
        return os.path.relpath(path, self.root) if inside else None

    def _is_fault(self, call: Call) -> bool:
        """Count a call that can have the fault; whether it has it."""
        if self.hit or not self.fault.hits(call.does):
            return False
        self.calls.append(call)
        if len(self.calls) != self.number:
            return False
        self.hit = call
        self.at_fault()
        return True

    def _note(self, thread: int, number: int, arguments: list[int], file: str) -> None:
        """Keep account of what the disk was told to keep."""
        does = _KINDS[number].does
        if does == "write":
            self.unsaved.add(file)
        elif does in ("fsync", "unlink"):
            self.unsaved.discard(file)
        elif does == "rename":
            before = self._inside(_named(thread, _SOURCES[number], arguments)) or ""
            moved = {name for name in self.unsaved if name == before or name.startswith(f"{before}/")}
            self.unsaved = self.unsaved - moved - {file} | {file + name.removeprefix(before) for name in moved}


def _named(thread: int, kind: _Kind, arguments: list[int]) -> str:
    """Path of the file that a call names."""
    base = ""
    if kind.descriptor is not None:
        number = ctypes.c_int(arguments[kind.descriptor]).value
        base = os.readlink(f"/proc/{thread}/{'cwd' if number == -100 else f'fd/{number}'}")
    elif kind.path is not None:
        base = os.readlink(f"/proc/{thread}/cwd")
    if kind.path is None:
        return base
    text = _memory(thread, arguments[kind.path], 4096).split(b"\0")[0]
    folder, name = os.path.split(os.path.join(base, os.fsdecode(text)))
    return os.path.join(os.path.realpath(folder), name)


def _memory(thread: int, address: int, size: int) -> bytes:
    """Bytes of a process's memory, up to the end of the part that it has."""
    with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
        found = b""
        while len(found) < size:  # page by page: the next one may not be there
            start = address + len(found)
            try:
                part = os.pread(memory.fileno(), min(size - len(found), 4096 - start % 4096), start)
            except OSError:
                break
            found += part
            if size == 4096 and b"\0" in part:
                break
        return found


def _write_half(thread: int, number: int, arguments: list[int]) -> int:
    """Do the first half of a write in the place of the process: the number of bytes."""
    if number not in (1, 18, 40):
        return 0
    with _descriptor(thread, arguments[0]) as target:
        if number == 40:
            with _descriptor(thread, arguments[1]) as source:
                left = os.fstat(source).st_size - os.lseek(source, 0, os.SEEK_CUR)
                return os.sendfile(target, source, None, min(arguments[2], left) // 2) if left > 1 else 0
        half = _memory(thread, arguments[1], arguments[2] // 2)
        return (os.pwrite(target, half, arguments[3]) if number == 18 else os.write(target, half)) if half else 0


@contextmanager
def _descriptor(thread: int, number: int) -> Iterator[int]:
    """A descriptor of another process."""
    status = Path(f"/proc/{thread}/status").read_text()
    process = os.pidfd_open(int(status.split("Tgid:")[1].split()[0]))
    try:
        taken = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, process, number, 0)
        if taken < 0:
            raise OSError(ctypes.get_errno(), "no descriptor of another process may be taken")
        try:
            yield taken
        finally:
            os.close(taken)
    finally:
        os.close(process)


def _has_ended(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def unwatchable() -> str:
    """Why no process can be watched here; empty if it can."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return f"the numbers of system calls are those of Linux on x86-64, not of {platform.platform()}"
    child = os.fork()
    if child == 0:
        with suppress(OSError):
            _stop_at_calls()
            os._exit(0)  # asks nobody: no call of the table
        os._exit(1)
    failed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
    return "the kernel lets no process stop another one at its calls (seccomp_unotify)" if failed else ""
