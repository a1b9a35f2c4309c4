"""How large a study is: facts, passages, models, and what is measured of them."""

from dataclasses import dataclass, field
from typing import Final

from proponent.encode.tail_patch import ADAM, DEFAULT_LR
from proponent.schema.settings import EncoderSettings


@dataclass(frozen=True)
class Shape:
    """A Llama's shape, and how long it is trained."""

    hidden: int
    layers: int
    heads: int
    epochs: int
    learning_rate: float
    batch_size: int = 16
    beta2: float = 0.999


@dataclass(frozen=True)
class Size:
    """Everything that is larger in a larger study. Numbers of facts are for each relation."""

    evaluated: int
    """Facts that are asked; half of them are trained on as filled-in prompts, too."""
    task: int
    """Facts whose queries the task's curvature is fitted on; none of them is evaluated."""
    distractors: int
    """Sentences, in all, that state none of these facts."""
    sentences: int
    """Most sentences that are taken of one fact."""
    vocabulary: int
    main: Shape
    """The model that is studied, also after a quarter and a half of its training."""
    small: Shape
    """A smaller one, trained on the same."""
    tail_patch: int
    """Facts that influence is measured on."""
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    """What is studied; by default the project's own, for a model of so many layers."""
    step_size: float = DEFAULT_LR[ADAM]
    """Learning rate of a tail-patch. Random passages must do next to nothing, or the step is too long."""
    peer_seconds: float = 7200.0
    """When bergson is stopped."""
    resamples: int = 2000
    longest: int = 220
    """Bytes of the longest sentence that is taken."""


SIZES: Final = {
    "toy": Size(
        evaluated=4,
        task=4,
        distractors=40,
        sentences=2,
        vocabulary=400,
        main=Shape(hidden=32, layers=2, heads=2, epochs=4, learning_rate=1e-2, batch_size=8),
        small=Shape(hidden=16, layers=2, heads=2, epochs=4, learning_rate=1e-2, batch_size=8),
        encoder=EncoderSettings(side=16),
        tail_patch=4,
        resamples=200,
    ),
    "cpu": Size(
        evaluated=30,
        task=20,
        distractors=1500,
        sentences=3,
        vocabulary=4096,
        main=Shape(hidden=160, layers=4, heads=4, epochs=8, learning_rate=3e-3),
        small=Shape(hidden=64, layers=4, heads=4, epochs=8, learning_rate=6e-3),
        tail_patch=60,
    ),
    # For a GPU.
    "gpu": Size(
        evaluated=40,
        task=20,
        distractors=20_000,
        sentences=20,
        vocabulary=16_384,
        main=Shape(hidden=512, layers=10, heads=8, epochs=8, learning_rate=1e-3, batch_size=128, beta2=0.99),
        small=Shape(hidden=256, layers=6, heads=4, epochs=8, learning_rate=2e-3, batch_size=128, beta2=0.99),
        tail_patch=60,
        # Of a batch of 128 texts V is so small that the usual step moves every target, whatever the passage.
        step_size=1e-5,
        peer_seconds=240,
    ),
}
