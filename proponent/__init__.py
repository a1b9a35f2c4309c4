"""A database of training-data attribution for language models.

    import proponent

    with proponent.open("lake") as lake:
        lake.trace("The capital of France is", " Paris").to_pandas()
        lake.sql("SELECT source, count(*) FROM influence GROUP BY source")

Importing this imports neither torch nor transformers.
"""

from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .lake import Lake, init, migrate, open, restore  # noqa: A004

__all__ = ["Lake", "__version__", "init", "migrate", "open", "restore"]


def __getattr__(name: str) -> Any:
    if name in ("Lake", "init", "migrate", "open", "restore"):
        from . import lake

        return getattr(lake, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
