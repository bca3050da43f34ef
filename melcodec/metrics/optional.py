"""Packages of ``melcodec[eval]``: imported without warnings, or reported with the command that installs them."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from typing import Any

from melcodec.errors import MelcodecError

INSTALL = "pip install 'melcodec[eval]'"


def is_installed(package: str) -> bool:
    """Whether ``package`` is there, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # a parent that is missing; a package that was blocked
        return False


def optional(package: str) -> Any:
    """Import ``package``, ignoring its deprecation warnings.

    Raises:
        MelcodecError: it is not installed, or it does not import.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(package)
        except Exception as error:  # a wheel that does not fit raises what it likes: AttributeError, OSError ...
            if is_installed(package.partition(".")[0]):
                hint = f"pip install --force-reinstall --no-deps {package}, or see what it misses"
                raise MelcodecError(
                    f"needs the package '{package}', which is installed but does not import: {error}", hint
                ) from None
            raise MelcodecError(f"needs the package '{package}', which is not installed", INSTALL) from None
