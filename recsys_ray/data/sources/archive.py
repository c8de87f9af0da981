"""A published archive, fetched once, checked against its published checksum, unpacked beside others."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
import urllib.request
import zipfile
from pathlib import Path

from recsys_ray.base.errors import DataError
from recsys_ray.base.storage import Location

TIMEOUT_SECONDS = 60
MD5 = r"\b[0-9a-fA-F]{32}\b"


def download_and_unpack(url: str, directory: Location, setting: str) -> None:
    """Fetch ``url`` and ``url``.md5, compare, unpack into ``directory``; its folder appears complete or not at all.

    Raises:
        DataError: no network, a wrong checksum, a broken archive; the message says to set ``setting`` instead.
    """
    advice = f"download it by hand and set {setting} to the unpacked directory"
    if not directory.is_local:
        raise DataError(f"{directory}: downloads go to a local directory; set data.cache_dir")
    target = Path(directory.url)
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target) as scratch:
            archive = Path(scratch) / "archive.zip"
            found = _fetch(url, archive)
            expected = _published_md5(f"{url}.md5")
            if found != expected:
                raise DataError(f"{url}: checksum is {found}, published is {expected}; try again, or {advice}")
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(Path(scratch) / "unpacked")
            for folder in sorted((Path(scratch) / "unpacked").iterdir()):
                if not (target / folder.name).exists():
                    folder.replace(target / folder.name)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{url}: can't download ({str(error).splitlines()[0]}); {advice}") from error


def _fetch(url: str, file: Path) -> str:
    """Stream to a file; the MD5 of what came."""
    digest = hashlib.md5(usedforsecurity=False)
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer, file.open("wb") as out:
        shutil.copyfileobj(answer, out)
    with file.open("rb") as data:
        while block := data.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _published_md5(url: str) -> str:
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
        text = answer.read(4096).decode("ascii", "replace")
    found = re.search(MD5, text)
    if found is None:
        raise DataError(f"{url}: holds no MD5 checksum")
    return found.group().lower()
