"""A GPU gives what the CPU gives, to the last digits of float32; skipped where there is none."""

import copy
from dataclasses import replace

import pytest
import torch

from proponent.encode.checkpoint import Checkpoint
from proponent.encode.encoder import Projector, fit
from proponent.encode.gradients import Example
from proponent.encode.layers import cover
from proponent.encode.moments import ElementwiseMoments
from proponent.encode.tail_patch import TailPatch
from proponent.schema.settings import EncoderSettings

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.fixture(scope="module")
def both(checkpoint: Checkpoint) -> tuple[Checkpoint, Checkpoint]:
    """The checkpoint on the GPU, where it was loaded, and on the CPU."""
    assert next(checkpoint.model.parameters()).is_cuda
    return checkpoint, replace(checkpoint, model=copy.deepcopy(checkpoint.model).to("cpu"))


@pytest.mark.parametrize("elementwise", [False, True])
def test_encodings_are_those_of_the_cpu(
    both: tuple[Checkpoint, Checkpoint], settings: EncoderSettings, examples: list[Example], elementwise: bool
) -> None:
    draw = torch.Generator().manual_seed(0)
    layers = cover(both[1].model, blocks=1).layers
    values = {layer.name: 1e-4 + torch.rand(layer.shape, generator=draw) for layer in layers}
    moments = ElementwiseMoments(values) if elementwise else None
    here, there = (fit(Projector(one, settings, moments), examples)[0].encode(examples) for one in both)
    apart = (here.vectors - there.vectors).norm(dim=1) / there.vectors.norm(dim=1)
    print(f"largest difference to the CPU: {float(apart.max()):.1e} of a vector's length")
    assert apart.max() < 1e-3
    assert torch.allclose(here.losses, there.losses, rtol=1e-4)


def test_a_tail_patch_is_that_of_the_cpu(both: tuple[Checkpoint, Checkpoint], examples: list[Example]) -> None:
    found = []
    for one in both:
        with TailPatch(one.model, lr=0.05) as patch:
            found.append([change.log_probability for change in patch.changes(examples[0], examples[-1:])])
    assert found[0] == pytest.approx(found[1], rel=1e-3, abs=1e-5)
