"""The written pages, and the code in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
WRITTEN = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


def read(name: str) -> str:
    """A page below ``docs``."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def code_of(text: str, language: str = r"[^\n]*") -> list[str]:
    """Blocks of code in one language, by default in any, without their fences."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
