"""What the columns of somebody's tables are, guessed from names and values, each guess with its reason.

Values come first: a column of the events whose values stand in a column of another table, where each stands once, is
the item, whatever it is called. Names decide between what values leave open.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from recsys_ray.base.errors import DataError
from recsys_ray.planning.tables import Column, Table

USER = [
    "user", "customer", "client", "member", "visitor", "account", "buyer", "reviewer", "person", "patron",
    "subscriber", "shopper", "reader", "listener", "viewer", "uid", "kunde", "kunden", "nutzer", "cust",
    "household", "guest",
]  # fmt: skip
ITEM = [
    "item", "product", "sku", "article", "movie", "film", "book", "asin", "isbn", "track", "song", "video",
    "offer", "listing", "content", "game", "iid", "artikel", "produkt", "prod", "course", "recipe", "news",
    "show", "goods",
]  # fmt: skip
RATING = ["rating", "score", "star", "grade", "overall", "note", "vote", "bewertung"]
TIME = [
    "time", "timestamp", "ts", "date", "datetime", "created", "when", "day", "at", "datum", "zeit", "unix",
    "occurred",
]  # fmt: skip
EVENT = ["event", "action", "type", "kind", "behavior", "behaviour", "activity", "interaction", "verb"]
TITLE = ["title", "name", "titel", "label", "headline"]
TEXT = [
    "description", "desc", "text", "summary", "plot", "body", "about", "detail", "overview", "abstract",
    "beschreibung", "content", "blurb",
]  # fmt: skip
GENRE = [
    "genre", "category", "cat", "tag", "class", "department", "dept", "group", "topic", "subject", "kategorie", "style",
    "section", "path",
]  # fmt: skip
YEAR = ["year", "release", "released", "launch", "launched", "published", "publication", "date", "jahr", "since"]
COUNT = [
    "qty", "quantity", "count", "amount", "number", "price", "cost", "revenue", "session", "order", "menge",
    "preis", "total",
]  # fmt: skip
SEPARATORS = ("|", " > ", " / ", ";", ", ", ">", "/", ",")
WEIGHTS = (
    (r"return|refund|remov|dislik|hide|hidden|skip|unlik|downvot|cancel|storno", 0.0),
    (r"purchas|buy|bought|order|checkout|transact|sale|sold|paid|kauf|subscri|book(ed|ing)|complete|finish", 5.0),
    (r"cart|basket|wish|fav|lik|save|bookmark|add|rat|review|share|follow|warenkorb|merk|upvot|download", 3.0),
    (r".", 1.0),
)
"""What an event counts by a word in its name; the last is for all others."""
LINKED = 0.5
"""Share of the values of a column that stand in the other table."""


@dataclass
class Guess:
    """A role, the column that has it, and why."""

    role: str
    column: str
    why: str


@dataclass
class Guesses:
    """All that was guessed."""

    events: Table
    items: Table | None = None
    users: Table | None = None
    columns: dict[str, Guess] = field(default_factory=dict)
    item_columns: dict[str, Guess] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    user_id: str | None = None
    user_numbers: list[str] = field(default_factory=list)
    user_categories: list[str] = field(default_factory=list)
    event_weights: dict[str, float] = field(default_factory=dict)
    min_rating: float | None = None
    genre_separator: str | None = None
    lines: list[str] = field(default_factory=list)
    """What else there is to say."""

    def tell(self) -> list[str]:
        """The guesses in lines."""
        found = [f"interactions: {self.events.path}"]
        found += [f"  {one.role} = {one.column}: {one.why}" for one in self.columns.values()]
        if self.items is not None:
            found.append(f"catalogue: {self.items.path}")
            found += [f"  {one.role} = {one.column}: {one.why}" for one in self.item_columns.values()]
            found += [f"  text = {name}: long texts" for name in self.texts]
            found += [f"  keep = {name}: few different values, to filter by" for name in self.kept]
        if self.users is not None:
            found.append(f"users: {self.users.path}, by {self.user_id}")
        return [*found, *self.lines]


def guess(tables: list[Table]) -> Guesses:
    """What is what in these tables.

    Raises:
        DataError: no table holds events of users with items, and what was looked for.
    """
    events = _events(tables)
    found = Guesses(events)
    others = [table for table in tables if table is not events]
    item, user = _link(found, others)
    ids = [one for one in events.columns if _is_id(one)]
    user = user or _best(ids, USER, ITEM, {item})
    item = item or _best(ids, ITEM, USER, {user})
    if user is None or item is None or user == item:
        names = ", ".join(one.name for one in events.columns)
        raise DataError(
            f"{events.path}: no two columns look like a user and an item; found {names}; write a configuration "
            "with data.columns (recsys-ray describe data.columns)"
        )
    for role, name in (("user_id", user), ("item_id", item)):
        if role not in found.columns:
            one = events.column(name)
            words = " and its name" if one.words & set(USER if role == "user_id" else ITEM) else ""
            found.columns[role] = Guess(role, name, f"{one.distinct:,} different values in {one.rows:,} rows{words}")
    _times_ratings_kinds(found, [one for one in events.columns if one.name not in (user, item)])
    if found.items is not None:
        _catalogue(found, found.items)
    if found.users is not None:
        _people(found, found.users)
    return found


def _is_id(one: Column) -> bool:
    if one.is_list or one.filled < 0.9 or one.distinct < 2 or one.is_image:
        return False
    if one.numbers is not None and not one.is_whole:
        return False
    return not _is_moment(one) and one.length < 64


def _is_moment(one: Column) -> bool:
    """Times, and not numbers of another kind that could be times: those need a name, or the size of seconds today."""
    if not one.is_time or one.words & {*USER, *ITEM}:
        return False
    named = bool(one.words & set(TIME))
    return named or not one.is_whole or (one.numbers is not None and bool(one.numbers.min() > 6e8))


def _events(tables: list[Table]) -> Table:
    """The table in which two ids repeat and which leads to others, or has a time; of several, the longest."""

    def score(table: Table) -> tuple[int, int, int, int]:
        ids = [one for one in table.columns if _is_id(one) and not one.is_unique]
        pair = len(ids) >= 2
        people = any(one.words & set(USER) for one in ids) and any(one.words & set(ITEM) for one in table.columns)
        others = sum(other is not table and _leads(table, other) is not None for other in tables)
        return int(pair) + int(people), others, int(any(one.is_time for one in table.columns)), table.rows

    return max(tables, key=score)


def _leads(events: Table, other: Table) -> tuple[float, Column, Column] | None:
    """The column whose values stand in one of the other table where each stands once, with how surely that is so."""
    best: tuple[float, Column, Column] | None = None
    for key in (one for one in other.columns if not one.is_list and one.is_unique):
        known = set(key.values.astype(str))
        for one in (one for one in events.columns if _is_id(one)):
            values = one.values.drop_duplicates().astype(str)
            share = float(values.isin(known).mean()) + 0.2 * bool(one.words & key.words) - 0.1 * one.is_time
            if share >= LINKED and (best is None or share > best[0]):
                best = share, one, key
    return best


def _link(found: Guesses, others: list[Table]) -> tuple[str | None, str | None]:
    """The columns of the events that lead to a catalogue, and to a table of users."""
    ends: dict[str, str] = {}
    for table in others:
        best = _leads(found.events, table)
        if best is None:
            found.lines.append(f"not used: {table.path}, none of whose columns has the ids of the interactions")
            continue
        _, one, key = best
        people = len((one.words | key.words) & set(USER)) - len((one.words | key.words) & set(ITEM))
        texts = sum(other.length > 12 or other.is_image for other in table.columns if other is not key)
        role = "users" if people > 0 or (people == 0 and texts == 0) else "items"
        if getattr(found, role) is not None:
            found.lines.append(f"not used: {table.path}; {getattr(found, role).path} is the table of {role} already")
            continue
        setattr(found, role, table)
        ends[role] = one.name
        why = f"{one.distinct:,} different values, which stand in {key.name} of {table.path}"
        name = "user_id" if role == "users" else "item_id"
        found.columns[name] = Guess(name, one.name, why)
        if role == "items":
            found.item_columns["item_id"] = Guess("item_id", key.name, "a different value in every row")
        else:
            found.user_id = key.name
    found.columns = dict(sorted(found.columns.items(), reverse=True))
    return ends.get("items"), ends.get("users")


def _best(columns: Iterable[Column], words: list[str], others: list[str], without: set[str | None]) -> str | None:
    """A column that is called so, that of most values; without one, the first that is called nothing else."""
    listed = [one for one in columns if one.name not in without]
    if named := [one for one in listed if one.words & set(words)]:
        return max(named, key=lambda one: one.distinct).name
    known = {*COUNT, *RATING, *EVENT, *TIME, *others}
    return next((one.name for one in listed if not one.words & known and not one.is_unique and one.distinct > 9), None)


def _times_ratings_kinds(found: Guesses, columns: list[Column]) -> None:
    times = [one for one in columns if _is_moment(one)]
    if times:
        chosen = max(times, key=lambda one: (bool(one.words & set(TIME)), one.distinct))
        first, last = chosen.values.iloc[[0, -1]] if len(chosen.values) else ("", "")
        found.columns["timestamp"] = Guess("timestamp", chosen.name, f"times, such as {first} and {last}")
    else:
        unread = [one.name for one in columns if one.words & set(TIME) and one.numbers is None]
        said = f"; {unread[0]} holds none that can be read (write ISO dates)" if unread else ""
        found.lines.append(f"no times: the order of the rows is the order in time{said}")
    rest = [one for one in columns if "timestamp" not in found.columns or one.name != found.columns["timestamp"].column]
    kinds = [one for one in rest if one.numbers is None and not one.is_list and 2 <= one.distinct <= 20]
    kinds = [one for one in kinds if one.words & set(EVENT) or (one.distinct <= 12 and _weight_words(one))]
    if kinds:
        chosen = max(kinds, key=lambda one: (_weight_words(one), bool(one.words & set(EVENT))))
        listed = [str(value) for value in chosen.values.value_counts().index]
        found.columns["event"] = Guess("event", chosen.name, f"{len(listed)} kinds: {', '.join(listed)}")
        found.event_weights = {kind: _weight(kind) for kind in listed}
        if not any(found.event_weights.values()):
            found.event_weights = dict.fromkeys(listed, 1.0)
        return
    ratings = [one for one in rest if one.numbers is not None and 2 <= one.distinct <= 101 and one.words & set(RATING)]
    if ratings:
        chosen = max(ratings, key=lambda one: one.filled)
        numbers = chosen.numbers
        assert numbers is not None
        low, high = float(numbers.min()), float(numbers.max())
        found.columns["rating"] = Guess("rating", chosen.name, f"a scale from {low:g} to {high:g}")
        if low >= 0 and high > low and high > 1:
            found.min_rating = np.floor(0.7 * high * 2) / 2


def _weight(kind: str) -> float:
    return next(weight for pattern, weight in WEIGHTS if re.search(pattern, kind, re.IGNORECASE))


def _weight_words(one: Column) -> int:
    known = r"view|click|klick|visit|play|watch|impression|" + "|".join(pattern for pattern, _ in WEIGHTS[:-1])
    return sum(bool(re.search(known, str(value), re.IGNORECASE)) for value in one.values.unique())


def _catalogue(found: Guesses, table: Table) -> None:
    key = found.item_columns["item_id"].column
    rest = [one for one in table.columns if one.name != key and len(one.values)]

    def take(role: str, chosen: Column | None, why: str) -> None:
        if chosen is not None:
            found.item_columns[role] = Guess(role, chosen.name, why)
            rest.remove(chosen)

    def named(words: list[str], among: Iterable[Column]) -> list[Column]:
        return [one for one in among if one.words & set(words)]

    take("poster", next((one for one in rest if one.is_image), None), "names of image files")
    words = [one for one in rest if one.numbers is None and not one.is_list and not one.is_time]
    titles = named(TITLE, words) or [one for one in words if one.length < 100 and one.distinct > 0.7 * table.rows]
    title = max(titles, key=lambda one: (one.distinct > 0.5 * table.rows, one.distinct), default=None)
    take("title", title, "short texts, nearly all different")
    years = [one for one in rest if _is_year(one)]
    take("year", max(years, key=lambda one: len(one.words & {"year"}), default=None), "years, or dates")
    lists = [one for one in rest if one.is_list]
    words = [one for one in rest if one.numbers is None and not one.is_list and not one.is_time]
    genres = named(GENRE, lists) or named(GENRE, [one for one in words if one.distinct < 0.7 * table.rows]) or lists
    separated = [one for one in words if one.length < 80 and not one.words & set(TEXT) and _separator(one)]
    chosen = next(iter(genres or separated), None)
    if chosen is not None:
        found.genre_separator = None if chosen.is_list else _separator(chosen)
        by = f", separated by {found.genre_separator!r}" if found.genre_separator else ""
        take("genres", chosen, f"categories{by}")
    for one in [one for one in rest if one.numbers is None and not one.is_list and not one.is_time]:
        if one.length >= 30 or one.words & set(TEXT):
            found.texts.append(one.name)
        elif one.distinct <= min(500, max(2, table.rows // 3)):
            found.kept.append(one.name)


def _is_year(one: Column) -> bool:
    if not one.words & set(YEAR):
        return False
    if one.numbers is None:
        return one.is_time
    low, high = one.numbers.quantile([0.02, 0.98])
    return one.is_whole and 1400 <= low <= high <= 2100


def _separator(one: Column) -> str | None:
    for sign in SEPARATORS:
        if one.texts.str.contains(sign, regex=False).mean() > 0.3:
            return sign
    return None


def _people(found: Guesses, table: Table) -> None:
    for one in table.columns:
        if one.name == found.user_id or one.is_list or not len(one.values) or one.is_time:
            continue
        if one.numbers is not None and one.distinct > 2 and not one.words & {"zip", "code", "id", "phone"}:
            found.user_numbers.append(one.name)
        elif 2 <= one.distinct <= min(200, max(2, table.rows // 3)):
            found.user_categories.append(one.name)
