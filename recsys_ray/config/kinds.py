"""What a place in the configuration holds, by the types of the sections: text, one of several sections, or else.

A section that is one of several kinds is told apart by one key, its discriminator: ``model.name``, ``data.source``,
``data.split.kind``. The kind alone stands for the section: ``model=als`` is ``model={name: als}``.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from recsys_ray.base.errors import ConfigError
from recsys_ray.config.text import Scalar, Words, plain

NOTHING = ("", "null")
"""What an override types to leave a key of text without one, where that is possible."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a place holds."""

    members: tuple[Any, ...]
    """The types that it may have, None aside."""
    optional: bool = False
    discriminator: str | None = None

    @classmethod
    def of(cls, annotation: Any, discriminator: str | None = None) -> Kind:
        members: list[Any] = []
        optional = False
        for part in _parts(annotation):
            if isinstance(part, FieldInfo):
                found = part.discriminator
                discriminator = found if isinstance(found, str) else discriminator
            elif part is type(None):
                optional = True
            else:
                members.append(part)
        return cls(tuple(members), optional, discriminator)

    @property
    def is_text(self) -> bool:
        return bool(self.members) and all(
            member is str or (get_origin(member) is Literal and all(isinstance(one, str) for one in get_args(member)))
            for member in self.members
        )

    @property
    def sections(self) -> dict[str, type[BaseModel]]:
        """The kinds of a section with a discriminator, by name."""
        if self.discriminator is None:
            return {}
        return {
            str(name): member
            for member in self.members
            for name in get_args(member.model_fields[self.discriminator].annotation)
        }

    def section(self, node: Any) -> type[BaseModel] | None:
        """The class of the section that stands here; None where it is none, or can't be told."""
        if self.discriminator is not None:
            name = plain(node.get(self.discriminator)) if isinstance(node, dict) else None
            known = self.sections
            return known.get(name if isinstance(name, str) else self._default(known))
        classes = [one for one in self.members if isinstance(one, type) and issubclass(one, BaseModel)]
        return classes[0] if len(classes) == 1 else None

    def _default(self, known: dict[str, type[BaseModel]]) -> str:
        """Where the key is missing, the section that names itself by default (``data.split`` has none)."""
        assert self.discriminator is not None
        own = (name for name, one in known.items() if not one.model_fields[self.discriminator].is_required())
        return next(own, "")

    def inside(self, name: str, node: Any) -> Kind:
        """What ``name`` holds inside what stands here."""
        if name == self.discriminator:
            return Kind((str,))
        section = self.section(node)
        if section is not None:
            field = section.model_fields.get(name)
            return UNKNOWN if field is None else Kind.of(field.annotation, _discriminator(field))
        for member in self.members:
            if get_origin(member) is dict:
                return Kind.of(get_args(member)[1])
        return UNKNOWN

    @property
    def element(self) -> Kind:
        """What a list that stands here holds."""
        lists = [member for member in self.members if get_origin(member) is list]
        return Kind.of(get_args(lists[0])[0]) if len(lists) == 1 else UNKNOWN


UNKNOWN = Kind(())


def _parts(annotation: Any) -> Iterator[Any]:
    """The types of a union, and what pydantic was told of them."""
    if get_origin(annotation) is Annotated:
        first, *metadata = get_args(annotation)
        yield from (one for one in metadata if isinstance(one, FieldInfo))
        yield from _parts(first)
    elif get_origin(annotation) in (Union, types.UnionType):
        for one in get_args(annotation):
            yield from _parts(one)
    else:
        yield annotation


def _discriminator(field: FieldInfo) -> str | None:
    return field.discriminator if isinstance(field.discriminator, str) else None


def kind_at(root: type[BaseModel], tree: Any, names: Sequence[str]) -> Kind:
    """What the dotted key of ``names`` holds, in a configuration with this tree."""
    kind = Kind((root,))
    for name in names:
        if isinstance(tree, list):
            kind, tree = kind.element, None
        else:
            kind = kind.inside(name, tree)
            tree = tree.get(name) if isinstance(tree, dict) else None
    return kind


def shaped(node: Any, kind: Kind, key: str = "") -> Any:
    """The tree with values as their places hold them: text where text belongs, a section where its kind was named.

    Raises:
        ConfigError: a text can't be used as one.
    """
    if kind.is_text and isinstance(node, Scalar | Words):
        absent = node.value is None if isinstance(node, Scalar) else kind.optional and node.text in NOTHING
        node = None if absent else node.text
    elif isinstance(node, Scalar | Words):
        return shaped(node.value, kind, key) if isinstance(node, Words) else node.value
    if isinstance(node, str):
        _refuse_unusable(node, key)
        return {kind.discriminator: node} if kind.discriminator is not None else node
    if isinstance(node, dict):
        inner = (f"{key}.{name}" if key else name for name in node)
        return {
            name: shaped(value, kind.inside(name, node), where)
            for where, (name, value) in zip(inner, node.items(), strict=True)
        }
    if isinstance(node, list):
        return [shaped(value, kind.element, f"{key}.{place}") for place, value in enumerate(node)]
    return node


def _refuse_unusable(text: str, key: str) -> None:
    if "\0" in text:
        raise ConfigError(f"{key}: holds a character of code 0; leave it out")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{key}: holds bytes that are not UTF-8; rename what it names") from error
