"""The cost model: floating-point operations, bytes, requests, seconds and money of a workload on some machines.

Letters in the formulas: N weights that an encoder sees, M of these matrices with W rows and columns in all, V words of
the vocabulary, h width, l layers, L tokens of a passage, T passages, S passages of the sample, s side and B blocks of
the encoder, d = 2 B s^2 its dimensions, b bytes of a stored encoding, Q questions, q questions that share a scan.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from .machines import Machine, Storage
from .workload import Workload

HOUR: Final = 3600
UNIT_PASSAGES: Final = 512
"""Passages whose encodings are one file."""
PUBLISHED_PASSAGES: Final = 8192
PUTS_OF_A_COMMIT: Final = 4
"""Manifest, transaction and what names the newest version."""


@dataclass(frozen=True)
class Line:
    """One quantity of a plan."""

    step: str
    quantity: str
    value: float
    unit: str
    formula: str


def passage_flops(work: Workload, tokens: int) -> float:
    """Return the FLOPs of one encoding: passes, projections, whitening.

    A multiplication and an addition are two. Forward 2 and backward to the activations alone 2 for each weight and
    token, of the head as of the covered matrices; attention 12 L^2 h for each layer, of which a causal mask leaves
    half.
    """
    shape, side = work.shape, work.settings.side
    passes = 4 * (shape.covered + shape.vocabulary * shape.width) * tokens + 6 * tokens**2 * shape.width * shape.layers
    projections = 2 * side * shape.sides * tokens + 2 * side**2 * shape.matrices * tokens
    return passes + projections + whitening_flops(work)


def whitening_flops(work: Workload) -> float:
    """Return the FLOPs of R0^(-1/2) phi: 2 B matrices of s^2 x s^2."""
    return 2 * work.settings.dim * work.settings.side**2


def fit_flops(work: Workload) -> tuple[float, float]:
    """Return the FLOPs of fitting: of the sample's passes, and in float64 of its curvature and the decomposition."""
    size, groups = work.settings.side**2, 2 * work.settings.blocks
    passes = work.sample * passage_flops(work, work.passage_tokens)
    if work.settings.moments in ("auto", "estimated"):
        passes *= 2  # the moments are estimated first
    outer = 2 * work.sample * groups * size**2
    return passes, outer + 12 * groups * size**3


def scan_seconds(work: Workload, machine: Machine, *, devices: int) -> float:
    """Return the seconds of one exact scan for a batch of questions.

    Encodings that fit into memory are read from disk once; they are decoded, and multiplied with all questions.
    """
    stored = work.passages * work.row_bytes
    reading = 0.0 if stored < machine.memory * devices else stored / machine.read_bytes
    sharing = min(work.batch, work.questions)
    products = 2 * work.passages * work.settings.dim * sharing / machine.product_flops
    return max(reading, stored / machine.scan_bytes + products) / devices


def plan(work: Workload, machine: Machine, prices: Storage, *, devices: int = 1) -> list[Line]:
    """Return all lines of a plan, on so many devices."""
    lines = [
        *_fit(work, machine),
        *_encode(work, machine, devices),
        *_store(work, prices),
        *_ask(work, machine, prices, devices),
    ]
    return [replace(line, value=float(line.value)) for line in lines]  # whole operations do not fit into 64 bits


def _fit(work: Workload, machine: Machine) -> Iterator[Line]:
    single, double = fit_flops(work)
    twice = "2 " if work.settings.moments in ("auto", "estimated") else ""
    yield Line("fit", "passages of the sample", work.sample, "passages", "S = min(4 s^2, T), or --sample")
    yield Line("fit", "operations, float32", single, "FLOP", f"{twice}S x those of one encoding")
    yield Line("fit", "operations, float64", double, "FLOP", "2 S (2 B) s^4 + 12 (2 B) s^6")
    seconds = single / machine.encode_flops + double / machine.double_flops
    yield Line("fit", "time on one device", seconds, "s", "operations over the machine's rates")


def _encode(work: Workload, machine: Machine, devices: int) -> Iterator[Line]:
    each = passage_flops(work, work.passage_tokens)
    total = each * work.passages
    seconds = total / machine.encode_flops
    yield Line("encode", "passages", work.passages, "passages", "T = tokens / L")
    yield Line(
        "encode",
        "operations of one encoding",
        each,
        "FLOP",
        "4 (N + V h) L + 6 L^2 h l + 2 s W L + 2 s^2 M L + 2 d s^2",
    )
    yield Line("encode", "operations", total, "FLOP", "T x those of one")
    yield Line("encode", "device time", seconds / HOUR, "h", "operations over the machine's rate")
    yield Line("encode", f"time on {devices:,} devices", seconds / devices, "s", "device time over the devices")
    yield Line("encode", "tokens a second of a device", work.tokens / seconds, "tokens/s", "T L over the device time")
    yield Line("encode", "money", seconds / HOUR * machine.price, "$", "device time x price of an hour")


def _store(work: Workload, prices: Storage) -> Iterator[Line]:
    encodings, text = work.passages * work.row_bytes, work.tokens * work.token_bytes
    files = -(-work.passages // UNIT_PASSAGES)
    parts = math.ceil(UNIT_PASSAGES * work.row_bytes / prices.part_bytes)
    puts = files * parts + PUTS_OF_A_COMMIT * -(-work.passages // PUBLISHED_PASSAGES)
    rows = {"float16": "b = 2 d + 42", "int8": "b = d + d / 32 + 42", "int4": "b = d / 2 + d / 32 + 42"}[work.codes]
    yield Line("store", "one encoding", work.row_bytes, "B", rows)
    yield Line("store", "encodings", encodings, "B", "T b")
    yield Line("store", "text", text, "B", "tokens x bytes of a token; metadata comes on top")
    yield Line("store", "vector index, 3 bits", work.passages * work.settings.dim * 3 / 8, "B", "3 T d / 8, if built")
    yield Line("store", "object-store writes", puts, "requests", "T / 512 files in parts, 4 for each 8,192 passages")
    yield Line("store", "money for writing", puts / 1000 * prices.thousand_puts, "$", "writes x price")
    monthly = (encodings + text) / 1e9 * prices.gigabyte_month
    yield Line("store", "money a month", monthly, "$", "(encodings + text) x price")


def _ask(work: Workload, machine: Machine, prices: Storage, devices: int) -> Iterator[Line]:
    scanned = work.passages * work.row_bytes
    queries = passage_flops(work, work.target_tokens) * work.questions / machine.encode_flops
    scan = scan_seconds(work, machine, devices=devices)
    gets = scanned / prices.part_bytes
    yield Line("ask", "encoding the questions", queries, "s", "Q x operations of one encoding of L' tokens")
    yield Line("ask", "bytes of one scan", scanned, "B", "T b, for all questions of a batch together")
    yield Line(
        "ask",
        "one scan",
        scan,
        "s",
        "max(T b / reading if larger than memory, T b / decoding + 2 T d q / products) over the devices",
    )
    yield Line("ask", "scans", work.batches, "scans", "Q / q")
    yield Line("ask", "seconds a question", (queries + scan * work.batches) / work.questions, "s", "all over Q")
    yield Line("ask", "object-store reads of one scan", gets, "requests", "T b / bytes of a part")
    yield Line("ask", "money for reading, one scan", gets / 1000 * prices.thousand_gets, "$", "reads x price")
    hours = (queries + scan * work.batches * devices) / HOUR
    yield Line("ask", "money for computing", hours * machine.price, "$", "device time of all questions x price")
