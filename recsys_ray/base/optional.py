"""Libraries that only some runs need: each belongs to an extra of the package, which the error names."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from recsys_ray.base.errors import ConfigError


def require(module: str, *, extra: str, what: str) -> Any:
    """Import a module that an extra installs.

    Args:
        module: its name, dots allowed.
        extra: of ``recsys_ray``, as ``pyproject.toml`` has it.
        what: what needs it: a setting or a command.

    Raises:
        ConfigError: it is not installed, or it can't be imported.
    """
    try:
        return import_module(module)
    except ImportError as error:
        missing = module.partition(".")[0]
        is_absent = isinstance(error, ModuleNotFoundError) and error.name == missing
        found = "is not installed" if is_absent else f"can't be imported ({str(error).splitlines()[0]})"
        raise ConfigError(f"{what} needs {missing}, which {found}: {how_to_install(extra)}") from error


def how_to_install(extra: str) -> str:
    return f'pip install "recsys_ray[{extra}]"'
