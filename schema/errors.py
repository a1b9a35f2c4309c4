"""The error tree. Everything proponent raises on purpose is a ProponentError.

    ProponentError
    ├── LakeError
    │   ├── LakeNotFoundError     (FileNotFoundError)  no lake at this path
    │   ├── LakeHalfMadeError     (RuntimeError)       `init` was cut short here
    │   ├── LakeVersionError      (RuntimeError)       made by another version of proponent
    │   ├── LakeBusyError         (TimeoutError)       another process holds the lock
    │   ├── CatalogError          (OSError)            the catalog's database cannot be read or written
    │   ├── StorageError          (OSError)            the object store of the lake cannot be read or written
    │   ├── LeaseLostError        (RuntimeError)       this process was held for dead and must not write
    │   ├── WorkerError           (RuntimeError)       a worker process failed or died again and again
    │   ├── DamagedLakeError      (RuntimeError)       stored data contradict each other
    │   └── OlderCatalogError     (RuntimeError)       the catalog is a copy from before what the tables have
    ├── InputError                (ValueError)         something a user gave cannot be used
    │   ├── SettingsError                              a setting is out of range or contradicts another
    │   ├── FilterError                                a filter that the gate refuses
    │   ├── SqlError                                   a statement that is refused or fails
    │   └── CorpusError                                a corpus file, or a row of it
    │       └── RefusedCorpusError                     a corpus that was read, and is not taken
    ├── NotFoundError             (LookupError)        a name or id that the lake does not have
    └── ModelError                (RuntimeError)
        ├── ModelMismatchError    (ValueError)         weights, tokenizer or encoder do not belong together
        ├── MomentsError          (ValueError)         an optimizer state that does not fit the model
        └── EncodingError         (ValueError)         a passage or query that has no encoding

Each is also the built-in that people would catch. The message is one line that says what is wrong and what to do;
the command line prints it and exits with 1.
"""


class ProponentError(Exception):
    """Base of every error that proponent raises on purpose."""


class LakeError(ProponentError):
    """Something is wrong with the lake as a whole."""


class LakeNotFoundError(LakeError, FileNotFoundError):
    """There is no lake at the path."""


class LakeHalfMadeError(LakeError, RuntimeError):
    """Making the lake was cut short; `proponent init` finishes it."""


class LakeVersionError(LakeError, RuntimeError):
    """The lake has a format, or its catalog a revision, that this version does not read."""


class LakeBusyError(LakeError, TimeoutError):
    """Another live process holds the lock that this operation needs."""


class CatalogError(LakeError, OSError):
    """The catalog's database cannot be read or written: a full disk, a read-only folder, a server that is away."""


class StorageError(LakeError, OSError):
    """The object store of a lake cannot be used: a server that is away or fails, credentials that it refuses."""


class LeaseLostError(LakeError, RuntimeError):
    """The holder of a lock was held for dead, and somebody else has the lock now."""


class WorkerError(LakeError, RuntimeError):
    """A worker process failed, or died again and again on the same piece of work."""


class DamagedLakeError(LakeError, RuntimeError):
    """The catalog and the tables contradict each other."""


class OlderCatalogError(LakeError, RuntimeError):
    """The catalog was restored from a copy that is older than the tables; `proponent check --catch-up` mends it."""


class InputError(ProponentError, ValueError):
    """Something that a user gave cannot be used."""


class SettingsError(InputError):
    """A setting is out of range or contradicts another one."""


class FilterError(InputError):
    """A filter that is not one boolean expression over known columns."""


class SqlError(InputError):
    """A SQL statement that is refused, or that fails."""


class CorpusError(InputError):
    """A corpus file that cannot be read, or a run of too many bad rows."""


class RefusedCorpusError(CorpusError):
    """A corpus was read as a whole and is not taken: too many rejects, no rows, a field that no row has."""


class NotFoundError(ProponentError, LookupError):
    """A name or an id that the lake does not have."""


class ModelError(ProponentError, RuntimeError):
    """A model cannot be used."""


class ModelMismatchError(ModelError, ValueError):
    """Weights, tokenizer, optimizer state or encoder do not belong together."""


class MomentsError(ModelError, ValueError):
    """An optimizer state that does not fit the model, or cannot be read safely."""


class EncodingError(ModelError, ValueError):
    """A passage or a query that has no encoding."""
