"""Revisions of the catalog, in order."""
