"""Unwhitened encodings phi in float32 of passages and queries, for ablations in memory; nothing is quantised here.

Notable: a matrix's projections depend on its name and not on its group, so that encodings of fewer blocks are sums of
those of more.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from work import MAIN, Work, read_rows

from proponent.encode.batches import in_batches
from proponent.encode.checkpoint import Checkpoint, load_checkpoint, read_facts
from proponent.encode.encoder import Projector, estimate_moments
from proponent.encode.gradients import Example
from proponent.encode.layers import cover
from proponent.encode.moments import FactoredMoments, Moments, read_moments
from proponent.encode.tokens import passage_examples, query_example
from proponent.schema.settings import EncoderSettings


class Variant(NamedTuple):
    """An encoder; `side` as a share of the study's own."""

    model: str = MAIN
    moments: str = "file"
    blocks: int = 2
    share: float = 1.0
    seed: int = 0

    def side(self, of_study: int) -> int:
        """Return the side of its projections, a multiple of 8."""
        return max(8, 8 * round(of_study * self.share / 8))


BASE: Final = "by rows and columns"
HALF: Final = "half of it on either side"
"""1 / V^(1/4) on passages and queries: an optimizer's step has 1 / V^(1/2) in all, and TrackStar 1 / V."""
FINEST: Final = "four blocks"
LARGER: Final = "four blocks, side x 1.25"
OTHER_SEED: Final = "four blocks, another seed"
VARIANTS: Final = {
    FINEST: Variant(blocks=4),
    BASE: Variant(),
    "one block": Variant(blocks=1),
    "none": Variant(moments="none"),
    "weight by weight": Variant(moments="adam"),
    "estimated": Variant(moments="estimated"),
    HALF: Variant(moments="half"),
    "side / 2": Variant(share=0.5),
    OTHER_SEED: Variant(blocks=4, seed=1),
    LARGER: Variant(blocks=4, share=1.25),
    f"none, {FINEST}": Variant(moments="none", blocks=4),
    f"none, {OTHER_SEED}": Variant(moments="none", blocks=4, seed=1),
    "quarter": Variant(model="quarter"),
    "half": Variant(model="half"),
}


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
    finest = vectors_path(work, FINEST)
    for name, variant in VARIANTS.items():
        path = vectors_path(work, name)
        if work.is_current(path, variant.model):
            continue
        checkpoint = load(work, variant.model)
        examples = examples_of(work, checkpoint)
        side = variant.side(work.size.side)
        blocks = min(variant.blocks, checkpoint.facts.n_layers)
        kind = "file" if variant.moments == "half" else variant.moments
        settings = EncoderSettings(moments=kind, blocks=blocks, side=side, seed=variant.seed)
        if name in (BASE, "one block") and work.is_current(finest, MAIN):
            phi = joined(np.load(finest), blocks)
        else:
            phi = _phi(Projector(checkpoint, settings, moments_of(work, checkpoint, variant, settings)), examples)
        partial = path.with_suffix(".partial.npy")
        np.save(partial, phi)
        partial.rename(path)
        print(f"{name}: {phi.shape}", flush=True)


def vectors_path(work: Work, name: str):
    """Return where a variant's vectors are."""
    return work.vectors / f"{name.replace(' ', '_').replace('/', 'over')}.npy"


def load(work: Work, model: str) -> Checkpoint:
    """Load a checkpoint."""
    return load_checkpoint(read_facts(work.model(model)))


def examples_of(work: Work, checkpoint: Checkpoint) -> Examples:
    """Tokenise everything."""
    texts = [row["text"] for row in read_rows(work.corpus)]
    context = checkpoint.facts.context_length

    def asked(path) -> list[Example]:
        return [
            query_example(checkpoint.tokenizer, row["prompt"], row["target"], context_length=context)
            for row in read_rows(path)
        ]

    passages = passage_examples(checkpoint.tokenizer, texts)
    return Examples(passages, asked(work.facts), asked(work.task), asked(work.otherwise))


def moments_of(work: Work, checkpoint: Checkpoint, variant: Variant, settings: EncoderSettings) -> Moments | None:
    """Return the second moments of a variant."""
    if variant.moments == "none":
        return None
    if variant.moments == "estimated":
        sample = examples_of(work, checkpoint).passages[:: 4 if len(read_rows(work.corpus)) > 1000 else 1]
        return estimate_moments(checkpoint, settings, sample)
    layers = cover(checkpoint.model, blocks=settings.blocks).layers
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
    examples = examples_of(work, load(work, MAIN))
    return np.array([one.n_loss for one in examples.passages], np.float32)


def _phi(projector: Projector, examples: Examples) -> np.ndarray:
    everything: Sequence[Example] = [one for some in examples for one in some]
    groups, size = 2 * projector.settings.blocks, projector.settings.side**2
    found = np.zeros((len(everything), groups, size), np.float32)
    for places, (phi, _) in in_batches(everything, projector.phi, budget=projector.budget, one_by_one=False):
        found[places] = phi.cpu().numpy()
    return found
