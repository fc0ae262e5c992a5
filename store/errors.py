"""All errors that the project raises on purpose.

Each is a `RelabelError` and also the builtin that fits it, so that callers can catch either. A message names
the file or key, what was expected, what was found and what to do; commands print it as one line.
"""


class RelabelError(Exception):
    """Root of all errors that a user can cause or mend."""


class ShardError(RelabelError, ValueError):
    """An image shard that is missing, damaged or not laid out as WebDataset lays out samples."""


class ChangedShardError(ShardError):
    """An image shard that is not the one its labels were made from."""


class ImageError(RelabelError, ValueError):
    """An image that cannot be decoded; its row is recorded as undecodable."""


class FailedShardsError(RelabelError, RuntimeError):
    """Some shards of a run failed, each named before; the others are in the store."""


class StoreNotFoundError(RelabelError, FileNotFoundError):
    """No label store at that path."""


class LabelNotFoundError(RelabelError, LookupError):
    """No such group or key in the store."""


class RowNotFoundError(LabelNotFoundError, IndexError):
    """No row of that number in the group."""


class DamagedStoreError(RelabelError, ValueError):
    """Bytes in the store that do not match their commit record or the format."""


class AuditIndexError(RelabelError, ValueError):
    """A file of `relabel-store audit --index` that cannot be read, or belongs to another store or an older state."""


class VerificationError(RelabelError, ValueError):
    """Faults that `relabel-store verify` found; each was printed before."""


class FormatVersionError(RelabelError, ValueError):
    """A store of a format version that this release does not read."""


class StoreMismatchError(RelabelError, ValueError):
    """A store written with another teacher, preprocessing or size than this run would write."""


class GroupExistsError(RelabelError, FileExistsError):
    """Another writer has committed this group already."""


class StoreReadError(RelabelError, OSError):
    """The store's disk or network failed while reading."""


class StoreWriteError(RelabelError, OSError):
    """The disk or network refused a write: full, read-only or gone."""


class CodecError(RelabelError, RuntimeError):
    """Zarr cannot encode arrays as it is installed and configured here."""


class LabelMapError(RelabelError, ValueError):
    """Label arrays or boxes whose shape, dtype or values cannot be stored or pooled."""


class TeacherError(RelabelError, ValueError):
    """A teacher that cannot be built, loaded or trusted cell by cell."""


class JoinError(RelabelError, ValueError):
    """Image shards and label groups that do not belong together."""


class SettingsError(RelabelError, ValueError):
    """A setting with an unknown name or an impossible value."""


class RunFolderError(RelabelError, OSError):
    """A run folder or checkpoint that cannot be used."""


class FileWriteError(RunFolderError, StoreWriteError):
    """The disk refused to write a file of a command or a run; the old file is as it was."""


class TrainingError(RelabelError, ArithmeticError):
    """Training that cannot go on, such as a loss that is not finite."""


class PeerError(RelabelError, RuntimeError):
    """Another rank of this run has failed, and said why."""


class WorkerError(RelabelError, RuntimeError):
    """A worker process that died."""


def not_installed(module: str | None, extra: str, *, use: str = "") -> str:
    """The message for a ModuleNotFoundError: the missing module, its use, and how to install its extra."""
    needed = f", {use}" if use else ""
    return f"{module} is not installed{needed}; in this project's folder, pip install -e '.[{extra}]'"
