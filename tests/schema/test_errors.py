"""The error tree: one root, each error also the built-in that people would catch, drawn as it is."""

import re

import pytest

from proponent.schema import errors

ERRORS = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]


def test_every_error_is_a_proponent_error() -> None:
    assert all(issubclass(error, errors.ProponentError) for error in ERRORS)


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    drawn = re.findall(r"^    ([│├└─ ]*)(\w+Error)(?: +\((\w+)\))?", errors.__doc__ or "", re.MULTILINE)
    assert {name for _, name, _ in drawn} == {error.__name__ for error in ERRORS}
    above: list[str] = []
    for branch, name, builtin in drawn:
        depth = len(branch) // 4
        above = [*above[:depth], name]
        bases = [base.__name__ for base in getattr(errors, name).__bases__]
        assert bases == [above[depth - 1] if depth else "Exception", *([builtin] if builtin else [])]


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.LakeNotFoundError, FileNotFoundError),
        (errors.LakeBusyError, TimeoutError),
        (errors.DamagedLakeError, RuntimeError),
        (errors.SettingsError, ValueError),
        (errors.FilterError, ValueError),
        (errors.SqlError, ValueError),
        (errors.CorpusError, ValueError),
        (errors.NotFoundError, LookupError),
        (errors.MomentsError, ValueError),
        (errors.EncodingError, RuntimeError),
    ],
)
def test_errors_are_also_built_ins(error: type[Exception], builtin: type[Exception]) -> None:
    with pytest.raises(builtin, match="what is wrong"):
        raise error("what is wrong")
