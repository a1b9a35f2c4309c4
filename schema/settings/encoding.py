"""What decides an encoding and the curvature that it is compared under."""

import re
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final

from proponent.schema.ids import content_id

from .requiring import require

CODE_BLOCK: Final = 64
"""Components of an encoding that share one quantisation scale."""
CODES: Final = ("float16", "int8", "int4")
"""Formats of stored vectors, from the finest to the coarsest."""
DEFAULT_CODES: Final = "int8"
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
REFERENCE: Final = "reference"
"""Name of the curvature that is fitted with an encoder, and that its encodings are whitened with."""
IDENTITY: Final = "identity"
"""Name of no curvature, R = I."""
MOST_MIXING: Final = 0.99
"""Most weight (lambda) of a task's curvature; nearer to 1, what is left of the reference is noise."""
_CURVATURE_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,47}")


def require_codes(codes: str) -> str:
    """Return the name of a code format. Raises SettingsError for an unknown one."""
    require(codes in CODES, f"codes must be one of {', '.join(CODES)}, not {codes!r}")
    return codes


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
        require(self.precision in PRECISIONS, f"precision must be {' or '.join(PRECISIONS)}, not {self.precision!r}")
        require(self.moments in MOMENTS, f"moments must be one of {', '.join(MOMENTS)}, not {self.moments!r}")
        require(self.blocks >= 0, f"blocks must be at least 1, or 0 for one a layer, not {self.blocks}")
        # Eight squared is one block of codes; beyond 256 a whitening matrix alone has 2^32 entries.
        require(
            0 <= self.side <= 256 and self.side % 8 == 0, f"side must be a multiple of 8 up to 256, not {self.side}"
        )
        require(self.sample is None or self.sample >= 2, f"sample must be at least 2, not {self.sample}")

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
class CurvatureSettings:
    """How a task's curvature is fitted."""

    name: str
    mixing: float | None = None
    """Weight of the queries' curvature (lambda); by default the rule chooses it."""

    def __post_init__(self) -> None:
        require(
            bool(_CURVATURE_NAME.fullmatch(self.name)),
            f"the curvature's name {self.name!r} must be lower-case letters, digits and _, beginning with a letter",
        )
        require(
            self.name not in (REFERENCE, IDENTITY),
            f"the curvature {self.name!r} is every encoder's own; choose another name",
        )
        require(
            self.mixing is None or 0 <= self.mixing <= MOST_MIXING,
            f"mixing must be between 0 and {MOST_MIXING}, not {self.mixing}",
        )
