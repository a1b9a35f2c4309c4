"""Settings, validated when they are made. Nothing deeper down reads the environment or global state."""

import json
import re
import shlex
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from ipaddress import ip_address
from typing import Any, Final

from .errors import SettingsError
from .ids import content_id
from .selectors import Selector, parse_selector

CODE_BLOCK: Final = 64
"""Components of an encoding that share one quantisation scale."""
CODES: Final = ("float16", "int8", "int4")
"""Formats of stored vectors, from the finest to the coarsest."""
DEFAULT_CODES: Final = "int8"

SIMILAR: Final = 0.8
"""Least similarity of near-duplicates, unless another is given."""

RAY: Final = "ray"
ENGINES: Final = ("local", RAY)
"""What does the work of many workers: processes of this machine, or a Ray cluster."""

DEVICE_MAPS: Final = ("auto", "balanced", "balanced_low_0", "sequential")
"""How accelerate may spread a model over the devices that there are."""

MOMENTS: Final = ("auto", "file", "adam", "estimated", "none")
PRECISIONS: Final = ("float32", "bfloat16")
MOST_BLOCKS: Final = 8
"""Blocks of an encoder whose settings name none, where the model has as many layers."""
SIDES_OF_ENCODER: Final = (32, 40)
"""Sides among which one is chosen for an encoder whose settings name none."""
NEAR_DIM: Final = 16_384
"""Components that the chosen side comes nearest to."""
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

REFERENCE: Final = "reference"
"""Name of the curvature that is fitted with an encoder, and that its encodings are whitened with."""
IDENTITY: Final = "identity"
"""Name of no curvature, R = I."""
MOST_MIXING: Final = 0.99
"""Most weight (lambda) of a task's curvature; nearer to 1, what is left of the reference is noise."""

GROUPINGS: Final = ("source", "entity", "month", "corpus")
"""What passages are grouped by."""
GROUP_KINDS: Final = ("all", *GROUPINGS)
"""What sums are kept of: those, and all passages together."""
OPTIMIZERS: Final = ("auto", "adam", "sgd")
"""Optimizers of a tail-patch's step."""
TAIL_PATCH_TOP: Final = 10
"""Passages of each kind that a tail-patch score of a fact is the mean over."""

GROUP_BYTES: Final = 64 << 20
"""Bytes that the sums of one kind of groups may take, unless the lake says otherwise; one takes 8 d."""

_CURVATURE_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,47}")
_IMPORT_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,22}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise SettingsError(message)


def require_codes(codes: str) -> str:
    """Return the name of a code format. Raises SettingsError for an unknown one."""
    _require(codes in CODES, f"codes must be one of {', '.join(CODES)}, not {codes!r}")
    return codes


def imported_method(name: str) -> str:
    """Return the method of traces that another tool made. Raises SettingsError for a name that is none."""
    _require(
        _IMPORT_NAME.fullmatch(name) is not None,
        f"{name!r} cannot be the name of imported traces; take up to 23 letters, digits, dots, dashes and underscores",
    )
    return IMPORTED + name


def is_imported(method: str) -> bool:
    """Whether a trace's method says that another tool made it."""
    return method.startswith(IMPORTED)


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """What decides an encoding, besides the model."""

    moments: str = field(default="auto", metadata={"help": "Second moments: auto, file, adam, estimated or none."})
    blocks: int = field(default=0, metadata={"help": "Groups of neighbouring layers (B); 0: one a layer, up to 8."})
    side: int = field(default=0, metadata={"help": "Rows and columns of a projected gradient (s); 0: by the blocks."})
    seed: int = field(default=0, metadata={"help": "Seed of the projections and of the fitting sample."})
    sample: int | None = field(default=None, metadata={"help": "Passages to fit on; by default 4 for each dimension."})
    precision: str = field(default="float32", metadata={"help": "Precision of the model's passes.", "later": True})

    def __post_init__(self) -> None:
        _require(self.precision in PRECISIONS, f"precision must be {' or '.join(PRECISIONS)}, not {self.precision!r}")
        _require(self.moments in MOMENTS, f"moments must be one of {', '.join(MOMENTS)}, not {self.moments!r}")
        _require(self.blocks >= 0, f"blocks must be at least 1, or 0 for one a layer, not {self.blocks}")
        # Eight squared is one block of codes; beyond 256 a whitening matrix alone has 2^32 entries.
        _require(
            0 <= self.side <= 256 and self.side % 8 == 0, f"side must be a multiple of 8 up to 256, not {self.side}"
        )
        _require(self.sample is None or self.sample >= 2, f"sample must be at least 2, not {self.sample}")

    def of_layers(self, n_layers: int) -> "EncoderSettings":
        """Return the settings for a model of so many layers: blocks and side that were left open are chosen.

        A block for each layer, up to the paper's eight (arXiv:2410.17413, section 3), and of the two sides the one
        that brings d nearest to 16,384. A small model has few blocks, and so gets the larger side; a third would cost
        too much, since whitening is made in s^6 operations a group. `benchmarks/fact_tracing/` measured it.
        """
        blocks = self.blocks or min(n_layers, MOST_BLOCKS)
        side = self.side or min(SIDES_OF_ENCODER, key=lambda one: abs(2 * blocks * one**2 - NEAR_DIM))
        return replace(self, blocks=blocks, side=side)

    @property
    def dim(self) -> int:
        """Components of an encoding: 2 B s^2 (arXiv:2410.17413, section 3)."""
        assert self.blocks, "of_layers chooses the blocks"
        assert self.side, "of_layers chooses the side"
        return 2 * self.blocks * self.side**2

    @property
    def sample_size(self) -> int:
        """Passages that the reference curvature is fitted on, where the corpus has as many."""
        return self.sample or 4 * self.side**2

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON data."""
        return asdict(self)

    def encoder_id(self, *, model_id: str) -> str:
        """Return the id of the encoder that these settings make of a model."""
        decisive = self.to_dict()
        for one in fields(self):
            if one.metadata.get("later") and decisive[one.name] == one.default:
                del decisive[one.name]  # encoders that were made before there was this setting keep their ids
        return content_id("encoder", model_id, *(f"{name}={value}" for name, value in sorted(decisive.items())))


@dataclass(frozen=True, kw_only=True)
class FieldMapping:
    """Which field of a corpus's rows is which column; the names are those of the ingest options.

    Each is the name of a field, a constant or a template, as `selectors` reads them.
    """

    id: str = "id"
    text: str = "text"
    source: str | None = "source"
    date: str | None = "date"
    title: str | None = "title"
    url: str | None = "url"
    author: str | None = "author"
    language: str | None = "language"
    license: str | None = "license"
    entities: str | None = "entities"
    trained_on: str | None = "trained_on"

    def __post_init__(self) -> None:
        _ = self.selectors

    @cached_property
    def selectors(self) -> dict[str, Selector]:
        """How the value of every column is picked from a row."""
        specs = {name: spec for name, spec in asdict(self).items() if spec is not None}
        return {name: parse_selector(spec, option=name.replace("_", "-")) for name, spec in specs.items()}

    @cached_property
    def taken(self) -> frozenset[str]:
        """Names of the fields that become columns as a whole, or part of the text."""
        whole = (one for name, one in self.selectors.items() if one.is_field or name == "text")
        return frozenset(name for one in whole for name in one.names)

    @cached_property
    def nested(self) -> tuple[str, ...]:
        """Those of them that may be fields of fields."""
        return tuple(sorted(name for name in self.taken if "." in name))


@dataclass(frozen=True, kw_only=True)
class ReadSettings:
    """How corpus files become rows."""

    reader: str | None = None
    """Name of the reader; by default the files' names and contents say it."""
    separator: str | None = None
    """Line between two documents of a text file; by default a file is a document."""
    max_row_bytes: int = 1 << 26
    """Size above which a row is rejected; no reader need hold more of one."""

    def __post_init__(self) -> None:
        _require(1 <= self.max_row_bytes <= 1 << 30, "max_row_bytes must be between 1 and 2^30")
        _require(self.separator is None or "\n" not in self.separator, "separator must be one line")


@dataclass(frozen=True, kw_only=True)
class IngestSettings(ReadSettings):
    """How a corpus becomes documents and passages."""

    corpus: str
    fields: FieldMapping = field(default_factory=FieldMapping)
    explicit_fields: frozenset[str] = frozenset()
    """Names in `fields` that the user gave, and that every row set must therefore have."""
    split_entities: str | None = None
    """What stands between two entities in one text; by default a text is one entity."""
    max_tokens: int | None = None
    """Longest passage in tokens; by default the tokenizer's model's context."""
    max_chars: int = 1000
    """Longest passage in characters, used only when there is no tokenizer."""
    overlap: int = 0
    """Most tokens, or characters, of whole sentences that a passage repeats of the one before."""
    max_reject_share: float = 0.1
    """Share of rejected rows above which a run stops and publishes nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.split_entities != "", "split_entities must not be empty")
        _require(
            bool(self.corpus.strip()) and len(self.corpus) <= 128 and self.corpus.isprintable(),
            "a corpus needs a name of at most 128 printable characters",
        )
        _require(self.max_tokens is None or self.max_tokens >= 8, "max_tokens must be at least 8")
        _require(self.max_chars >= 40, "max_chars must be at least 40")
        _require(0 <= self.max_reject_share <= 1, "max_reject_share must be between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class NearDuplicateSettings:
    """When two documents are near-duplicates."""

    threshold: float = SIMILAR
    """Least share of their shingles that both have."""

    def __post_init__(self) -> None:
        # Below a half, LSH would have to compare texts that have next to nothing in common.
        _require(0.5 <= self.threshold <= 1, f"threshold must be between 0.5 and 1, not {self.threshold}")


def require_engine(engine: str, ray_address: str | None) -> None:
    """Raise SettingsError for an unknown engine, and for an address of a cluster that nobody would join."""
    _require(engine in ENGINES, f"engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    _require(engine == RAY or ray_address is None, "a Ray cluster's address is for --engine ray")


@dataclass(frozen=True, kw_only=True)
class ScanSettings:
    """How much of a machine a scan of all encodings takes; none of it changes a result."""

    memory: int = 1 << 28
    """Bytes for encodings that were read and are not scored yet."""
    threads: int | None = None
    """Threads that score; by default as many as torch has."""

    def __post_init__(self) -> None:
        _require(self.memory >= 1 << 24, f"memory must be at least {1 << 24} bytes, not {self.memory}")
        _require(self.threads is None or 1 <= self.threads <= 1024, f"threads must be 1 to 1024, not {self.threads}")


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
        _require(1 <= self.k <= 100_000, f"k must be between 1 and 100000, not {self.k}")
        _require(self.method in SEARCHES, f"method must be one of {', '.join(SEARCHES)}, not {self.method!r}")
        _require(self.fuse in METHODS, f"fuse must be one of {', '.join(METHODS)}, not {self.fuse!r}")
        _require(
            1 <= self.rank_constant <= 10_000, f"rank_constant must be between 1 and 10000, not {self.rank_constant}"
        )
        _require(
            self.method != BM25 or not (self.encoder or self.curvature or self.approximate),
            f"method {BM25!r} compares words; leave out --encoder, --curvature and --approximate",
        )
        _require(
            self.curvature is None or self.influence not in METHODS_WITHOUT_CURVATURE,
            f"method {self.influence!r} takes no curvature; leave out --curvature",
        )
        _require(0 <= self.min_recall <= 1, f"min_recall must be between 0 and 1, not {self.min_recall}")

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
        _require(
            self.memory_limit >= 1 << 26, f"memory_limit must be at least {1 << 26} bytes, not {self.memory_limit}"
        )
        _require(self.memory_limit <= 1 << 50, f"memory_limit must be at most {1 << 50} bytes, not {self.memory_limit}")
        _require(
            self.time_limit_s is None or 0 < self.time_limit_s <= 1e6,
            f"time_limit_s must be more than 0 and at most 1e6, not {self.time_limit_s}",
        )
        _require(self.max_rows is None or self.max_rows >= 1, f"max_rows must be at least 1, not {self.max_rows}")
        _require(self.max_bytes is None or self.max_bytes >= 1, f"max_bytes must be at least 1, not {self.max_bytes}")


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """How the explorer is served, and to whom."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8321
    """Port to listen on; 0 takes a free one."""
    token: str | None = None
    """What readers must know; None lets everybody in who reaches the address."""
    exposed: bool = False
    """Whether other machines may reach it."""
    names: tuple[str, ...] = ()
    """Names of this machine that browsers may ask for, besides its addresses."""
    read_only: bool = False
    """Whether questions are refused, which are stored in the lake."""
    waiting: int = 16
    """Questions that may wait."""
    rate: float = 100.0
    """Requests a second that one address may go on making, and four times as many at once."""
    max_body: int = 1 << 20
    """Bytes of a request's body."""
    page_time_s: float = 30.0
    """Seconds after which a page is given up."""

    def __post_init__(self) -> None:
        _require(bool(self.host.strip()), "host must not be empty; 127.0.0.1 is this machine alone")
        _require(0 <= self.port <= 65535, f"port must be between 0 and 65535, not {self.port}")
        _require(self.token is None or len(self.token) >= 12, "token must have at least 12 characters")
        _require(
            self.is_local or self.exposed,
            f"host {self.host!r} can be reached from other machines, which could read the whole corpus; "
            "say so with --expose, and set a --token",
        )
        _require(
            not self.exposed or self.token is not None,
            "--expose needs a --token, or everybody who reaches the port could read the whole corpus",
        )
        _require(1 <= self.waiting <= 10_000, f"waiting must be between 1 and 10000, not {self.waiting}")
        _require(self.rate > 0, f"rate must be more than 0, not {self.rate}")
        _require(self.max_body >= 1 << 10, f"max_body must be at least 1024 bytes, not {self.max_body}")
        _require(self.page_time_s > 0, f"page_time_s must be more than 0, not {self.page_time_s}")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the address."""
        try:
            return ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return self.host == "localhost"


LOG_FORMS: Final = ("text", "json")
LOG_LEVELS: Final = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class LogSettings:
    """What is logged, where to, and how."""

    form: str = "text"
    """One of LOG_FORMS: lines for people, or a JSON object a line."""
    level: str = "warning"
    """One of LOG_LEVELS, of proponent's own records; those of libraries are warnings and errors."""
    file: str | None = None
    """File to append to; None is stderr."""

    def __post_init__(self) -> None:
        _require(self.form in LOG_FORMS, f"the form of logs must be one of {', '.join(LOG_FORMS)}, not {self.form!r}")
        _require(self.level in LOG_LEVELS, f"the level of logs must be one of {', '.join(LOG_LEVELS)}")

    def to_json(self) -> str:
        """Return the settings for a child process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, told: str) -> "LogSettings":
        """Read what a parent process has said."""
        return cls(**json.loads(told))


@dataclass(frozen=True)
class MetricsSettings:
    """Where metrics are served."""

    host: str
    port: int
    """0 takes a free one."""

    @classmethod
    def of_address(cls, address: str) -> "MetricsSettings":
        """Read HOST:PORT, :PORT or PORT; this machine alone can reach it unless a host says otherwise.

        Raises SettingsError.
        """
        host, _, port = address.rpartition(":")
        _require(port.isdecimal() and int(port) <= 65535, f"metrics are served at HOST:PORT, not at {address!r}")
        return cls(host.strip("[]") or "127.0.0.1", int(port))


@dataclass(frozen=True, kw_only=True)
class GroupSettings:
    """Which groups of passages are asked for."""

    by: str = "source"
    names: tuple[str | None, ...] | None = None
    """The only ones wanted; None among them: passages that have none."""
    k: int | None = None
    """So many of highest and of lowest influence; by default all."""

    def __post_init__(self) -> None:
        _require(self.by in GROUPINGS, f"groups are by {', '.join(GROUPINGS)}, not {self.by!r}")
        _require(self.k is None or self.k >= 1, f"k must be at least 1, not {self.k}")


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
        _require(0 <= self.tokens <= 1000, f"tokens must be between 0 and 1000, not {self.tokens}")
        _require(0 <= self.words <= 100, f"words must be between 0 and 100, not {self.words}")
        _require(self.title is None or bool(self.title.strip()), "a report's title must not be empty")

    def chosen(self) -> dict[str, Any]:
        """Return the settings that are not as they are by default, as JSON data."""
        return {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name) != one.default}


@dataclass(frozen=True, kw_only=True)
class TailPatchSettings:
    """How influence is measured by training on one passage."""

    facts: int = 0
    """Facts that are drawn for it; 0 measures no influence, since each takes some thirty training steps."""
    optimizer: str = "auto"
    """adam (with the checkpoint's second moments), sgd, or auto: adam where the model has an optimizer state."""
    lr: float | None = None
    """Learning rate; by default 1e-4 with adam and 1e-2 with sgd."""
    model: str | None = None
    """Name of the model; by default that of the encoders, or the only one."""

    def __post_init__(self) -> None:
        _require(self.facts >= 0, f"the facts of a tail-patch must be 0 or more, not {self.facts}")
        _require(
            self.optimizer in OPTIMIZERS, f"optimizer must be one of {', '.join(OPTIMIZERS)}, not {self.optimizer!r}"
        )
        _require(self.lr is None or 0 < self.lr < 1e6, f"the learning rate must be above 0, not {self.lr}")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How long and how fast a small model learns; by default as the demonstration's did."""

    epochs: int = 26
    """Times that every text is seen."""
    batch_size: int = 32
    """Texts in a step."""
    learning_rate: float = 4e-3
    """The peak of the one-cycle schedule."""
    beta2: float = 0.999
    """AdamW's decay of the second moment: it averages over the last 1,000 steps or so."""

    def __post_init__(self) -> None:
        _require(1 <= self.epochs <= 100_000, f"epochs must be between 1 and 100000, not {self.epochs}")
        _require(1 <= self.batch_size <= 100_000, f"the batch must have 1 to 100000 texts, not {self.batch_size}")
        _require(0 < self.learning_rate < 1e3, f"the learning rate must be above 0, not {self.learning_rate}")
        _require(0 <= self.beta2 < 1, f"beta2 must be between 0 and 1, not {self.beta2}")


@dataclass(frozen=True, kw_only=True)
class RetrainingSettings:
    """What an evaluation trains models anew for, and how."""

    subsets: int = 0
    """Subsets of the texts that a model is trained on for the linear datamodelling score; 0 measures none."""
    fraction: float = 0.5
    """Share of the texts that a subset has."""
    counterfactuals: int = 0
    """Facts that are drawn for training without their proponents; 0 measures none."""
    without: int = 10
    """Texts that are left out at once."""
    draws: int = 5
    """Random texts are left out so often, to compare with."""
    opponents: bool = False
    """Whether models are trained without a fact's opponents, too."""
    seeds: int = 1
    """Models that are trained on the same texts, each with other first weights and in another order."""
    training: TrainingSettings = field(default_factory=TrainingSettings)
    command: str | None = None
    """A command that trains, in place of `training`; `{passages}`, `{output}` and `{seed}` stand for what it gets."""
    processes: int | None = None
    """Models that are trained at once, each on one thread; by default one for each core."""

    def __post_init__(self) -> None:
        _require(self.subsets == 0 or self.subsets >= 3, f"a rank correlation needs 3 subsets, not {self.subsets}")
        _require(0.01 <= self.fraction <= 0.99, f"the fraction must be between 0.01 and 0.99, not {self.fraction}")
        _require(self.counterfactuals >= 0, f"the facts must be 0 or more, not {self.counterfactuals}")
        _require(1 <= self.without <= 10_000, f"1 to 10000 texts can be left out, not {self.without}")
        _require(1 <= self.draws <= 1000, f"random texts are left out 1 to 1000 times, not {self.draws}")
        _require(1 <= self.seeds <= 1000, f"1 to 1000 models are trained on the same texts, not {self.seeds}")
        _require(
            self.processes is None or 1 <= self.processes <= 1000, f"processes must be 1 to 1000, not {self.processes}"
        )
        if self.command is not None:
            arguments = _split(self.command)
            for name in ("{passages}", "{output}"):
                _require(any(name in one for one in arguments), f"the command that trains must have {name} somewhere")

    @property
    def wanted(self) -> bool:
        """Whether anything is trained."""
        return bool(self.subsets or self.counterfactuals)

    @property
    def arguments(self) -> tuple[str, ...]:
        """The command as the words that a shell would make of it; empty without one."""
        return tuple(_split(self.command)) if self.command is not None else ()


def _split(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise SettingsError(f"the command {command!r} cannot be read: {error}") from error
    _require(bool(words), "the command that trains is empty")
    return words


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How methods are compared on facts."""

    methods: tuple[str, ...] = ("all",)
    """As `parse_method` of the evaluation reads them; `all` is every method that the lake allows."""
    filter: str | None = None
    """Passages that are searched: those that pass it, and that every encoder has encoded."""
    depth: int = 100
    """Texts that a method lists for a fact; one that stands deeper counts as not found."""
    seed: int = 0
    """Seed of the random order, the resamples and the sample of a tail-patch."""
    resamples: int = 2000
    """Resamples of an interval; a test flips signs ten times as often, since its p-values are corrected."""
    confidence: float = 0.95
    tail_patch: TailPatchSettings = field(default_factory=TailPatchSettings)
    retraining: RetrainingSettings = field(default_factory=RetrainingSettings)

    def __post_init__(self) -> None:
        _require(
            self.retraining.counterfactuals == 0 or self.retraining.without <= self.depth,
            f"{self.retraining.without} texts cannot be left out of lists of {self.depth}; raise the depth",
        )
        _require(len(self.methods) > 0, "name the methods to be evaluated, or all")
        _require(10 <= self.depth <= 10_000, f"depth must be between 10 and 10000, not {self.depth}")
        _require(0 <= self.seed < 1 << 32, f"seed must be between 0 and {(1 << 32) - 1}, not {self.seed}")
        _require(100 <= self.resamples <= 1_000_000, f"resamples must be 100 to 1000000, not {self.resamples}")
        _require(0.5 <= self.confidence < 1, f"confidence must be at least 0.5 and below 1, not {self.confidence}")


@dataclass(frozen=True, kw_only=True)
class CurvatureSettings:
    """How a task's curvature is fitted."""

    name: str
    mixing: float | None = None
    """Weight of the queries' curvature (lambda); by default the rule chooses it."""

    def __post_init__(self) -> None:
        _require(
            bool(_CURVATURE_NAME.fullmatch(self.name)),
            f"the curvature's name {self.name!r} must be lower-case letters, digits and _, beginning with a letter",
        )
        _require(
            self.name not in (REFERENCE, IDENTITY),
            f"the curvature {self.name!r} is every encoder's own; choose another name",
        )
        _require(
            self.mixing is None or 0 <= self.mixing <= MOST_MIXING,
            f"mixing must be between 0 and {MOST_MIXING}, not {self.mixing}",
        )


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
        _require(self.side in SIDES, f"side must be one of {', '.join(SIDES)}, not {self.side!r}")
        _require(
            self.tag is None or (self.tag != "" and not any(letter.isspace() for letter in self.tag)),
            f"the tag of a run is one word, not {self.tag!r}",
        )
