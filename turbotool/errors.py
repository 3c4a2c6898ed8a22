"""The one tree of errors. Each class has its own exit code.

1 is that of unexpected failures; 2 is that of the command line, for whatever says that it was misused.
"""

from __future__ import annotations

from typing import Any, ClassVar


class TurbotoolError(Exception):
    """Something that a user can act on: what happened, where, and the next command to type."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        """So that an error of any class can come back from another process."""
        return _restored, (type(self), self.args, self.__dict__)

    def as_json(self) -> dict[str, Any]:
        """The `error` of a document: class, code, message, hint."""
        return {
            "class": type(self).__name__,
            "code": self.exit_code,
            "message": self.message,
            "hint": self.hint,
        }


def first_line(message: str) -> str:
    """What happened, without the output that shows it."""
    return message.partition("\n")[0]


def _restored(
    error_class: type[TurbotoolError], arguments: tuple[object, ...], state: dict[str, object]
) -> TurbotoolError:
    error = error_class.__new__(error_class, *arguments)
    error.__dict__.update(state)
    return error


class UnexpectedFailure(TurbotoolError):
    """What no other error describes: a file that the system refuses, or a slip of turbotool."""

    exit_code = 1


class UsageMistake(TurbotoolError):
    """A mistake on the command line: an unknown name, a value that is not allowed, options that exclude each other."""

    exit_code = 2


class VerificationFailed(TurbotoolError):
    """At least one check of `turbotool verify` failed, or every one was skipped."""

    exit_code = 3


class LockError(TurbotoolError):
    """`vendor/lock.toml` is missing, unreadable, or disagrees with what is on disk."""

    exit_code = 10


class HashMismatch(LockError):
    """Bytes differ from the locked hash; the message names both values."""

    exit_code = 11


class SourceError(TurbotoolError):
    """An upstream source could not be fetched (network, missing package, unknown ref, missing folder)."""

    exit_code = 12


class ArchiveError(TurbotoolError):
    """An archive is truncated, not an archive, or hostile (path escapes, links out of the tree, a bomb)."""

    exit_code = 13


class DirtyTree(TurbotoolError):
    """The vendored tree holds somebody's edits, which are kept unless `--force` is given."""

    exit_code = 14


class SeriesError(TurbotoolError):
    """The series itself is malformed: a listed patch is missing, a name is repeated, a file is not a patch."""

    exit_code = 15


class PatchConflict(TurbotoolError):
    """A patch of the series does not apply; the message carries the conflict report, `report` the same as data."""

    exit_code = 16

    def __init__(self, message: str, *, hint: str | None = None, report: dict[str, object] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.report = report

    def as_json(self) -> dict[str, Any]:
        return {**super().as_json(), "report": self.report}


class ToolMissing(TurbotoolError):
    """A program that is needed is absent or broken; the message lists what was tried, the hint installs it."""

    exit_code = 17


class ToolFailed(TurbotoolError):
    """A child process failed in a way that no more precise class describes."""

    exit_code = 18


class BackendUnavailable(TurbotoolError):
    """The backend cannot be built on this machine (Metal on Linux, CUDA without nvcc)."""

    exit_code = 19


class ConfigureFailed(TurbotoolError):
    """CMake stopped; the message quotes its first error."""

    exit_code = 20


class CompileFailed(TurbotoolError):
    """The compiler stopped; the message quotes its first error and the file."""

    exit_code = 21


class NoSpace(TurbotoolError):
    """The disk is full, or has less free space than the step needs."""

    exit_code = 22


class ModelError(TurbotoolError):
    """A model file is missing, truncated or not GGUF."""

    exit_code = 23


class CorpusError(TurbotoolError):
    """A text is missing, not UTF-8, or too short."""

    exit_code = 24


class UnknownCacheType(TurbotoolError):
    """A cache type that the binaries do not list."""

    exit_code = 25


class ConfigurationMismatch(TurbotoolError):
    """What a binary reports it ran differs from what was requested."""

    exit_code = 26


class Busy(TurbotoolError):
    """Another turbotool process holds the work folder for longer than we are willing to wait."""

    exit_code = 27


class BinaryFailed(TurbotoolError):
    """A built program crashed, or ended with an error on input that it must accept; `how` names signal or status."""

    exit_code = 28

    def __init__(self, message: str, *, how: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.how = how


class StoreError(TurbotoolError):
    """The store of results cannot be opened or written, or a newer version of turbotool made it."""

    exit_code = 29


class PlanError(TurbotoolError):
    """A plan of an evaluation is not shipped, unreadable, or names an unknown key or a value that is not allowed."""

    exit_code = 30


class PackageError(TurbotoolError):
    """A package would not run elsewhere, tells where it was built, or lacks a licence; the message lists all cases."""

    exit_code = 31


class ResultError(TurbotoolError):
    """A document of results is missing, unreadable, or of something else than the one it is compared with."""

    exit_code = 32


class ClusterError(TurbotoolError):
    """A Dask scheduler cannot be reached, has no worker that can be used, or was lost."""

    exit_code = 33


class DocumentError(TurbotoolError):
    """A file that an earlier run left is damaged, is another document, or is of a newer version of turbotool."""

    exit_code = 34


class UpstreamDiffers(TurbotoolError):
    """The pinned upstream holds files that upstream's own repository does not have, or has otherwise."""

    exit_code = 35


class DoesNotFit(TurbotoolError):
    """A model, or the context that was asked for, has no room in the memory; the hint names what would fit."""

    exit_code = 36


class AddressUnavailable(TurbotoolError):
    """A server cannot listen where it was told to: the port is in use, is not allowed, or is of another machine."""

    exit_code = 37


class BindingsDiffer(TurbotoolError):
    """Python bindings assume another llama.h than the libraries have, or cannot load them; the message tells where."""

    exit_code = 38


class AttestationError(TurbotoolError):
    """An attestation does not hold: its signature, its certificate, its entry in the log, or what it says."""

    exit_code = 45


class WrongSigner(AttestationError):
    """An attestation is signed by another repository, workflow or issuer than the one that is trusted."""

    exit_code = 46


class OlderRelease(TurbotoolError):
    """A release is older than the one that is here, or than turbotool itself."""

    exit_code = 47


class FetchError(TurbotoolError):
    """A release, its attestation or the trust root could not be had: address, network, file, or size."""

    exit_code = 48


class Interrupted(TurbotoolError):
    """Ctrl-C."""

    exit_code = 130
