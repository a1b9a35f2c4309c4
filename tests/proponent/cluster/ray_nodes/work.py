"""The whole job in small units, by one engine or the other: `work.py LAKE CORPUS CHECKPOINT ENGINE`."""

import sys
import time

import proponent
from proponent.ingest import encoding, pieces
from proponent.schema.settings import EncoderSettings

pieces.PIECE_BYTES = 2000  # type: ignore[misc]
encoding.ENCODE_AT_ONCE = 20  # type: ignore[misc]

place, corpus, checkpoint, engine = sys.argv[1:]
began = time.monotonic()


def tell(what: str) -> None:
    print(f"{what} {time.monotonic() - began:.1f}", flush=True)


with proponent.open(place, engine=engine) as lake:
    tell("open")
    lake.add_model(checkpoint, name="model")
    lake.ingest(corpus, corpus="c")
    tell("ingested")
    lake.encode("model", settings=EncoderSettings(blocks=1, side=8))
    tell("encoded")
    asked = [(f"The capital of country {n} lies", " on a river") for n in range(40)]
    lake.trace_all(asked, k=20)
    lake.trace_all(asked[:2], k=30, filter="source = 'a'")
    tell("traced")
    facts = [{"prompt": prompt, "target": target, "doc_keys": [prompt.split()[4]]} for prompt, target in asked]
    found = lake.evaluate(facts, methods=("trackstar",))
    print("evaluation", [section.rows for section in found.sections if section.title != "Cost"])
    tell("evaluated")
