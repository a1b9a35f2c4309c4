"""How methods are compared on facts."""

import shlex
from dataclasses import dataclass, field
from typing import Final

from proponent.schema.errors import SettingsError

from .requiring import require

OPTIMIZERS: Final = ("auto", "adam", "sgd")
"""Optimizers of a tail-patch's step."""
TAIL_PATCH_TOP: Final = 10
"""Passages of each kind that a tail-patch score of a fact is the mean over."""


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
        require(self.facts >= 0, f"the facts of a tail-patch must be 0 or more, not {self.facts}")
        require(
            self.optimizer in OPTIMIZERS, f"optimizer must be one of {', '.join(OPTIMIZERS)}, not {self.optimizer!r}"
        )
        require(self.lr is None or 0 < self.lr < 1e6, f"the learning rate must be above 0, not {self.lr}")


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
        require(1 <= self.epochs <= 100_000, f"epochs must be between 1 and 100000, not {self.epochs}")
        require(1 <= self.batch_size <= 100_000, f"the batch must have 1 to 100000 texts, not {self.batch_size}")
        require(0 < self.learning_rate < 1e3, f"the learning rate must be above 0, not {self.learning_rate}")
        require(0 <= self.beta2 < 1, f"beta2 must be between 0 and 1, not {self.beta2}")


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
    """Models that this machine trains at once, each on one thread; by default one for each core."""

    def __post_init__(self) -> None:
        require(self.subsets == 0 or self.subsets >= 3, f"a rank correlation needs 3 subsets, not {self.subsets}")
        require(0.01 <= self.fraction <= 0.99, f"the fraction must be between 0.01 and 0.99, not {self.fraction}")
        require(self.counterfactuals >= 0, f"the facts must be 0 or more, not {self.counterfactuals}")
        require(1 <= self.without <= 10_000, f"1 to 10000 texts can be left out, not {self.without}")
        require(1 <= self.draws <= 1000, f"random texts are left out 1 to 1000 times, not {self.draws}")
        require(1 <= self.seeds <= 1000, f"1 to 1000 models are trained on the same texts, not {self.seeds}")
        require(
            self.processes is None or 1 <= self.processes <= 1000, f"processes must be 1 to 1000, not {self.processes}"
        )
        if self.command is not None:
            arguments = _split(self.command)
            for name in ("{passages}", "{output}"):
                require(any(name in one for one in arguments), f"the command that trains must have {name} somewhere")

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
    require(bool(words), "the command that trains is empty")
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
        require(
            self.retraining.counterfactuals == 0 or self.retraining.without <= self.depth,
            f"{self.retraining.without} texts cannot be left out of lists of {self.depth}; raise the depth",
        )
        require(len(self.methods) > 0, "name the methods to be evaluated, or all")
        require(10 <= self.depth <= 10_000, f"depth must be between 10 and 10000, not {self.depth}")
        require(0 <= self.seed < 1 << 32, f"seed must be between 0 and {(1 << 32) - 1}, not {self.seed}")
        require(100 <= self.resamples <= 1_000_000, f"resamples must be 100 to 1000000, not {self.resamples}")
        require(0.5 <= self.confidence < 1, f"confidence must be at least 0.5 and below 1, not {self.confidence}")
