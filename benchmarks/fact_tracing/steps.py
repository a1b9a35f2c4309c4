"""A step of the optimizer on every passage, and what it does to the targets of some facts: influence, whole.

The harness takes steps on what methods list. Here every passage is stepped on, so that the mean change of any list of
passages is looked up, the best list that there could be is known, and settings can be compared without a model.
The facts are those that the harness draws for its own tail-patches, by the same seed.
"""

import numpy as np
import torch
from torch.nn import functional
from vectors import examples_of, load
from work import MAIN, Work, read_rows

from proponent.encode.gradients import Example
from proponent.encode.layers import cover
from proponent.encode.moments import read_moments
from proponent.encode.tail_patch import ADAM, DEFAULT_LR, TailPatch
from proponent.query.evaluate.tail import sampled


def run(work: Work) -> None:
    """Write `steps.npy`: changes of log-probabilities (passages, facts) float32."""
    torch.set_num_threads(work.threads)
    checkpoint = load(work, MAIN)
    examples = examples_of(work, checkpoint)
    places = places_of(work)
    model, layers = checkpoint.model, cover(checkpoint.model, blocks=1).layers
    moments = read_moments(work.model(MAIN) / "optimizer.pt", model, layers, elementwise=True)
    targets = _Targets([examples.facts[place] for place in places], next(model.parameters()).device)
    changes = np.zeros((len(examples.passages), len(places)), np.float32)
    with TailPatch(model, lr=DEFAULT_LR[ADAM], moments=moments) as stepping:
        before = targets.log_probabilities(model)
        for row, passage in enumerate(examples.passages):
            with stepping.stepped(passage):
                changes[row] = (targets.log_probabilities(model) - before).cpu().numpy()
            if row % 500 == 499:
                print(f"{row + 1} of {len(changes)} passages stepped on", flush=True)
    np.save(work.folder / "steps.npy", changes)
    work.write("steps", {"lr": DEFAULT_LR[ADAM], "log_probability": before.tolist(), "places": places})


def places_of(work: Work) -> list[int]:
    """Return the facts that the harness measures influence on."""
    return sampled(len(read_rows(work.facts)), work.size.tail_patch, seed=0)


class _Targets:
    """Queries in one batch; always the same one, so that the same weights give the same bits."""

    def __init__(self, queries: list[Example], device: torch.device) -> None:
        width = max(len(one.token_ids) for one in queries)
        ids = torch.zeros(len(queries), width, dtype=torch.long)
        self._wanted = torch.zeros(len(queries), width - 1, dtype=torch.bool)
        for row, one in enumerate(queries):
            n = len(one.token_ids)
            ids[row, :n] = torch.tensor(one.token_ids)
            self._wanted[row, n - 1 - one.n_loss : n - 1] = True
        self._ids, self._wanted = ids.to(device), self._wanted.to(device)
        self._rows = torch.arange(len(queries), device=device)[:, None].expand_as(self._wanted)[self._wanted]

    @torch.no_grad()
    def log_probabilities(self, model) -> torch.Tensor:
        """Return the summed log-probabilities of the targets, (queries,) float64."""
        states = model.model(input_ids=self._ids[:, :-1], use_cache=False).last_hidden_state[self._wanted]
        losses = functional.cross_entropy(model.lm_head(states), self._ids[:, 1:][self._wanted], reduction="none")
        total = torch.zeros(len(self._ids), dtype=torch.float64, device=losses.device)
        return total.index_add_(0, self._rows, -losses.double())
