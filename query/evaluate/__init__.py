"""Evaluation: does a method find the passages that state a fact, and those that move the model?

- `facts`: what is asked, and which passages state it.
- `texts`, `gold`: the texts that are searched, those that state a fact, and those that name its entities.
- `methods`, `rankings`, `trec`: what is compared, and how each orders the texts.
- `metrics`, `statistics`, `kinds`, `tail`: what is measured.
- `study`: the whole of it, resumable; `summary` and `render`: what people read.
"""
