"""Unwhitened encodings phi in float32 of passages and queries, for ablations in memory; nothing is quantised here.

Notable: a matrix's projections depend on its name and not on its group, so that encodings of fewer blocks are sums of
those of more.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Final, NamedTuple

import numpy as np
import torch
from work import MAIN, Work, read_rows

from proponent.encode.batches import TokenBudget, in_batches
from proponent.encode.checkpoint import Checkpoint, load_checkpoint, load_tokenizer, read_facts
from proponent.encode.encoder import Projector, estimate_moments
from proponent.encode.gradients import Example
from proponent.encode.layers import cover
from proponent.encode.moments import FactoredMoments, Moments, read_moments
from proponent.encode.tokens import passage_examples, query_example
from proponent.schema.settings import EncoderSettings


class Variant(NamedTuple):
    """An encoder; blocks and side as shares of the study's own, or by number."""

    model: str = MAIN
    moments: str = "file"
    seed: int = 0
    blocks: float = 1.0
    side: float = 1.0
    numbers: tuple[int, int] | None = None

    def settings(self, of_study: EncoderSettings) -> EncoderSettings:
        """Return its settings, all chosen."""
        blocks, side = self.numbers or (
            max(1, round(of_study.blocks * self.blocks)),
            max(8, 8 * round(of_study.side * self.side / 8)),
        )
        moments = "file" if self.moments == "half" else self.moments
        return replace(of_study, moments=moments, blocks=blocks, side=side, seed=self.seed)


BASE: Final = "by rows and columns"
FORMER: Final = "two blocks, side 32"
"""What was the default for every model."""
HALF: Final = "half of it on either side"
"""1 / V^(1/4) on passages and queries: an optimizer's step has 1 / V^(1/2) in all, and TrackStar 1 / V."""
OTHER_SEED: Final = "another projection"
FEWER: Final = ("half the blocks", "one block")
VARIANTS: Final = {
    BASE: Variant(),
    "half the blocks": Variant(blocks=0.5),
    "one block": Variant(blocks=0),
    FORMER: Variant(numbers=(2, 32)),
    "side / 2": Variant(side=0.5),
    OTHER_SEED: Variant(seed=1),
    "none": Variant(moments="none"),
    f"none, {OTHER_SEED}": Variant(moments="none", seed=1),
    "weight by weight": Variant(moments="adam"),
    "estimated": Variant(moments="estimated"),
    HALF: Variant(moments="half"),
    "quarter": Variant(model="quarter"),
    "half": Variant(model="half"),
}


_TOKENS: Final = 1 << 14
"""Padded tokens of a batch on a GPU, which other steps use at the same time."""


class Fixed(TokenBudget):
    """Does not grow on a GPU."""

    def consider_growing(self) -> None:
        """Do nothing."""


class Examples(NamedTuple):
    """Everything that is encoded, in this order."""

    passages: list[Example]
    facts: list[Example]
    task: list[Example]
    otherwise: list[Example]


def run(work: Work) -> None:
    """Write an array (n, groups, s * s) float32 for every variant."""
    torch.set_num_threads(work.threads)
    work.vectors.mkdir(exist_ok=True)
    for name, variant in VARIANTS.items():
        path = vectors_path(work, name)
        if work.is_current(path, variant.model):
            continue
        checkpoint = load(work, variant.model)
        settings = variant.settings(work.size.encoder.of_layers(checkpoint.facts.n_layers))
        if name in FEWER:
            phi = joined(np.load(vectors_path(work, BASE)), settings.blocks)
        else:
            phi = _phi(Projector(checkpoint, settings, moments_of(work, checkpoint, variant)), examples_of(work))
        partial = path.with_suffix(".partial.npy")
        np.save(partial, phi)
        partial.rename(path)
        print(f"{name}: {phi.shape}", flush=True)


def vectors_path(work: Work, name: str):
    """Return where a variant's vectors are."""
    return work.vectors / f"{name.replace(' ', '_').replace('/', 'over')}.npy"


@cache
def load(work: Work, model: str) -> Checkpoint:
    """Load a checkpoint."""
    return load_checkpoint(read_facts(work.model(model)))


@cache
def examples_of(work: Work) -> Examples:
    """Tokenise everything; all checkpoints have the same tokenizer."""
    tokenizer, context = load_tokenizer(work.model(MAIN)), read_facts(work.model(MAIN)).context_length

    def asked(path) -> list[Example]:
        return [
            query_example(tokenizer, row["prompt"], row["target"], context_length=context) for row in read_rows(path)
        ]

    passages = passage_examples(tokenizer, [row["text"] for row in read_rows(work.corpus)])
    return Examples(passages, asked(work.facts), asked(work.task), asked(work.otherwise))


def moments_of(work: Work, checkpoint: Checkpoint, variant: Variant) -> Moments | None:
    """Return the second moments of a variant."""
    if variant.moments == "none":
        return None
    if variant.moments == "estimated":
        sample = examples_of(work).passages[:: 4 if len(read_rows(work.corpus)) > 1000 else 1]
        return estimate_moments(checkpoint, sample)
    layers = cover(checkpoint.model, blocks=1).layers
    path = work.model(variant.model) / "optimizer.pt"
    moments = read_moments(path, checkpoint.model, layers, elementwise=variant.moments == "adam")
    if variant.moments == "half":
        assert isinstance(moments, FactoredMoments)
        rows, columns = ({name: one.sqrt() for name, one in side.items()} for side in (moments.rows, moments.columns))
        return FactoredMoments(moments.kind, rows, columns)
    return moments


def joined(phi: np.ndarray, blocks: int) -> np.ndarray:
    """Add up the groups (n, groups, dim) of neighbouring blocks until there are so many blocks."""
    n, groups, dim = phi.shape
    return phi.reshape(n, blocks, groups // 2 // blocks, 2, dim).sum(2).reshape(n, 2 * blocks, dim)


def lengths(work: Work) -> np.ndarray:
    """Return how many tokens of every passage have a loss."""
    return np.array([one.n_loss for one in examples_of(work).passages], np.float32)


def _phi(projector: Projector, examples: Examples) -> np.ndarray:
    everything: Sequence[Example] = [one for some in examples for one in some]
    groups, size = 2 * projector.settings.blocks, projector.settings.side**2
    found = np.zeros((len(everything), groups, size), np.float32)
    budget = Fixed(_TOKENS) if projector.device.type == "cuda" else projector.budget
    for places, (phi, _) in in_batches(everything, projector.phi, budget=budget, one_by_one=False):
        found[places] = phi.cpu().numpy()
    return found
