"""How the lake is asked: traces, groups of passages, SQL; and how what it says is told."""

import re
from dataclasses import dataclass, fields
from typing import Any, Final

from .requiring import require

METHODS: Final = ("trackstar", "logra", "trak", "gradcos", "graddot")
"""Methods that compare gradients: their scores are influence."""
METHODS_WITHOUT_CURVATURE: Final = ("gradcos", "graddot")
BM25: Final = "bm25"
"""The method that compares words."""
HYBRID: Final = "hybrid"
"""The method that joins the ranks of BM25 and of a method that compares gradients."""
SEARCHES: Final = (*METHODS, BM25, HYBRID)
"""All methods of a trace."""
IMPORTED: Final = "imported:"
"""What the methods of traces begin with that another tool made; the name that they were given follows."""
SIDES: Final = ("proponent", "opponent")
MOST_RECOMPUTED: Final = 1000
"""Hits of one side that are scored again with full gradients: each costs a forward and a backward pass."""
INDEX_KINDS: Final = ("rq3", "rq2")
"""Kinds of vector index: RaBitQ codes of 3 or 2 bits a component, in partitions (IVF_RQ of Lance)."""
DEFAULT_INDEX: Final = "rq3"
MIN_RECALL: Final = 0.95
"""Least measured recall of an index that is used, unless another is asked for."""
GROUPINGS: Final = ("source", "entity", "month", "corpus")
"""What passages are grouped by."""
GROUP_KINDS: Final = ("all", *GROUPINGS)
"""What sums are kept of: those, and all passages together."""
GROUP_BYTES: Final = 64 << 20
"""Bytes that the sums of one kind of groups may take, unless the lake says otherwise; one takes 8 d."""
_IMPORT_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,22}")


def imported_method(name: str) -> str:
    """Return the method of traces that another tool made. Raises SettingsError for a name that is none."""
    require(
        _IMPORT_NAME.fullmatch(name) is not None,
        f"{name!r} cannot be the name of imported traces; take up to 23 letters, digits, dots, dashes and underscores",
    )
    return IMPORTED + name


def is_imported(method: str) -> bool:
    """Whether a trace's method says that another tool made it."""
    return method.startswith(IMPORTED)


@dataclass(frozen=True, kw_only=True)
class ScanSettings:
    """How much of a machine a scan of all encodings takes; none of it changes a result."""

    memory: int = 1 << 28
    """Bytes for encodings that were read and are not scored yet."""
    threads: int | None = None
    """Threads that score; by default as many as torch has."""

    def __post_init__(self) -> None:
        require(self.memory >= 1 << 24, f"memory must be at least {1 << 24} bytes, not {self.memory}")
        require(self.threads is None or 1 <= self.threads <= 1024, f"threads must be 1 to 1024, not {self.threads}")


@dataclass(frozen=True, kw_only=True)
class TraceSettings(ScanSettings):
    """How a query is traced."""

    k: int = 10
    method: str = "trackstar"
    encoder: str | None = None
    filter: str | None = None
    approximate: bool = False
    min_recall: float = MIN_RECALL
    """Least measured recall of the index of an approximate search."""
    curvature: str | None = None
    """Curvature of the score: by default the encoder's own, or none for a method that takes none."""
    fuse: str = "trackstar"
    """Method whose ranks the method `hybrid` joins with those of BM25."""
    rank_constant: int = 60
    """What `hybrid` adds to a rank: a rank counts 1 / (rank_constant + rank)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 <= self.k <= 100_000, f"k must be between 1 and 100000, not {self.k}")
        require(self.method in SEARCHES, f"method must be one of {', '.join(SEARCHES)}, not {self.method!r}")
        require(self.fuse in METHODS, f"fuse must be one of {', '.join(METHODS)}, not {self.fuse!r}")
        require(
            1 <= self.rank_constant <= 10_000, f"rank_constant must be between 1 and 10000, not {self.rank_constant}"
        )
        require(
            self.method != BM25 or not (self.encoder or self.curvature or self.approximate),
            f"method {BM25!r} compares words; leave out --encoder, --curvature and --approximate",
        )
        require(
            self.curvature is None or self.influence not in METHODS_WITHOUT_CURVATURE,
            f"method {self.influence!r} takes no curvature; leave out --curvature",
        )
        require(0 <= self.min_recall <= 1, f"min_recall must be between 0 and 1, not {self.min_recall}")

    @property
    def influence(self) -> str:
        """The method that compares gradients, of a hybrid the one that is part of it."""
        return self.fuse if self.method == HYBRID else self.method


@dataclass(frozen=True, kw_only=True)
class SqlSettings:
    """What a SQL query may take; none of it changes a result."""

    memory_limit: int = 4 << 30
    """Bytes that DuckDB may use; a query that makes the process grow by much more is stopped, too."""
    time_limit_s: float | None = 300.0
    """Seconds after which a query is stopped; None sets no limit."""
    max_rows: int | None = None
    """Rows of a result, at most; by default any number of them."""
    max_bytes: int | None = 1 << 30
    """Bytes of a result in memory, at most; None sets no limit of its own."""
    end_process: bool = False
    """Whether this process ends when a query cannot be stopped, half a minute after its time was up."""

    def __post_init__(self) -> None:
        # With less, the relations of a lake cannot be scanned.
        require(self.memory_limit >= 1 << 26, f"memory_limit must be at least {1 << 26} bytes, not {self.memory_limit}")
        require(self.memory_limit <= 1 << 50, f"memory_limit must be at most {1 << 50} bytes, not {self.memory_limit}")
        require(
            self.time_limit_s is None or 0 < self.time_limit_s <= 1e6,
            f"time_limit_s must be more than 0 and at most 1e6, not {self.time_limit_s}",
        )
        require(self.max_rows is None or self.max_rows >= 1, f"max_rows must be at least 1, not {self.max_rows}")
        require(self.max_bytes is None or self.max_bytes >= 1, f"max_bytes must be at least 1, not {self.max_bytes}")


@dataclass(frozen=True, kw_only=True)
class GroupSettings:
    """Which groups of passages are asked for."""

    by: str = "source"
    names: tuple[str | None, ...] | None = None
    """The only ones wanted; None among them: passages that have none."""
    k: int | None = None
    """So many of highest and of lowest influence; by default all."""

    def __post_init__(self) -> None:
        require(self.by in GROUPINGS, f"groups are by {', '.join(GROUPINGS)}, not {self.by!r}")
        require(self.k is None or self.k >= 1, f"k must be at least 1, not {self.k}")


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """What a report tells, besides the hits of its traces."""

    title: str | None = None
    """By default it is made of the questions."""
    compare: bool = False
    """Whether two traces are told side by side."""
    tokens: int = 0
    """First hits of each side whose tokens are shaded by what they add to the score; loads the model."""
    groups: bool = True
    """Whether it says where the influence comes from, over the whole corpus."""
    words: int = 5
    """Passages that match the question's words best, told beside the hits."""

    def __post_init__(self) -> None:
        require(0 <= self.tokens <= 1000, f"tokens must be between 0 and 1000, not {self.tokens}")
        require(0 <= self.words <= 100, f"words must be between 0 and 100, not {self.words}")
        require(self.title is None or bool(self.title.strip()), "a report's title must not be empty")

    def chosen(self) -> dict[str, Any]:
        """Return the settings that are not as they are by default, as JSON data."""
        return {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name) != one.default}


@dataclass(frozen=True, kw_only=True)
class ExchangeSettings:
    """How traces are told in the files of other tools."""

    query_id: str | None = None
    """Field of a query's metadata that is its id there; by default the lake's own id."""
    side: str = "proponent"
    """Side of the hits that a TREC run lists; the scores of opponents have the other sign there."""
    tag: str | None = None
    """Last field of every line of a TREC run; by default the method."""

    def __post_init__(self) -> None:
        require(self.side in SIDES, f"side must be one of {', '.join(SIDES)}, not {self.side!r}")
        require(
            self.tag is None or (self.tag != "" and not any(letter.isspace() for letter in self.tag)),
            f"the tag of a run is one word, not {self.tag!r}",
        )
