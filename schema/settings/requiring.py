"""What every setting is validated by."""

from proponent.schema.errors import SettingsError


def require(condition: bool, message: str) -> None:
    """Raise SettingsError, with a message that names the setting, unless a condition holds."""
    if not condition:
        raise SettingsError(message)
