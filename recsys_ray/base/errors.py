"""Every error this package raises on purpose.

RecsysError
  ConfigError        a setting is unknown, of the wrong type, or impossible together with another
  DataError          the input tables break their contract
  ModelError         a fit or a scorer produced something unusable
    SizeError        predicted memory is above the limit: refused before the fit
  EncoderError       an encoder can't be had (weights missing, of the wrong checksum, no such model)
  BundleError        a model directory is missing, incomplete, corrupt, or of another version
  StorageError       a path can't be read or written
  PublishError       a finished run failed the publish gate, or there is nothing to publish or to roll back to

Messages are one line: what was found, and what to set. They are shown to users as they are.
"""

from __future__ import annotations


class RecsysError(Exception):
    """Base of all errors a user can cause; the command line prints its message alone."""


class ConfigError(RecsysError):
    """A setting is unknown, mistyped, or impossible in combination."""


class DataError(RecsysError):
    """Input data breaks its contract."""

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


class ModelError(RecsysError):
    """A model can't be fitted or can't score."""


class SizeError(ModelError):
    """The predicted memory of a fit is above the limit."""


class EncoderError(RecsysError):
    """An encoder of texts or images can't be had, or its weights are not the published ones."""


class BundleError(RecsysError):
    """A bundle directory is not usable."""


class StorageError(RecsysError):
    """A path can't be read or written."""


class PublishError(RecsysError):
    """A run must not be published, or no run can be rolled back to."""


LONGEST = 1000
"""Characters of a message that quotes what was found in a file."""


def one_line(message: str) -> str:
    """What a terminal can show in a line: control characters written out, the middle of a long text left out."""
    shown = message if message.isprintable() else "".join(map(_shown, message))
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST // 2]} ... {shown[-LONGEST // 2 :]}"


def _shown(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
