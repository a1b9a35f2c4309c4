"""How answers come out: traces, the SQL session, reports.

This layer does not know how things got in; `ingest/` and `query/` never import each other.
"""
