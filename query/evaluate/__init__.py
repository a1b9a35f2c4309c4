"""Evaluation: whether a method finds the passages that state a fact, and those that move the model.

- `facts`: what is asked, and which passages state it.
- `texts`, `gold`: the texts that are searched, those that state a fact, and those that name its entities.
- `methods`, `rankings`, `trec`, `dense`: what is compared, and how each orders the texts.
- `metrics`, `statistics`, `kinds`, `tail`, `says`, `cost`: what is measured.
- `retraining`, `lds`, `scores`: what models say that are trained anew; `retrained`, `trainer`: the processes for it.
- `guarded`: how nothing stays of what they start.
- `nodes`: what the nodes of a cluster do.
- `study`: the whole of it, resumable; `summary`, `results`, `sections`, `charts`: what people read.
"""
