"""How things get in: corpus readers, documents, passages, registered models, encoding runs.

This layer knows no questions; `ingest/` and `query/` never import each other.
"""
