"""Rows to check a graph with, when nobody gives any: made of what the fitted model itself compares with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.optimize.conversion.marks import booster_of, marks_of, parts_within, places_of

ROWS = 4000
_SEED = 20130301
_SHARE_ODD = 0.03
_NEVER_SEEN = "(never seen)"
WHOLE = ("long", "integer", "boolean")
_MOST_WHOLE = 2**53
_MOST_EXACT_HALVES = 2.0**23
NO_TEXT = "\ufdd0null"
"""No client sends it: Unicode has no such character."""
_TOO_LARGE = 1e300
_MOST_WORDS = 2000
_OTHER_WORDS = ("I", "2", "x-y", "don't", "a_b", "naïve", "ÜBER", "мир", "中文", "👍", "e@mail.org", "3.14")
_BETWEEN = (" ", " ", ", ", "; ", "\n", "  ", "-", ". ")

Numbers = NDArray[np.float64]
Texts = NDArray[np.object_] | None


@dataclass(frozen=True, slots=True)
class Oddity:
    """A value of one column that some models refuse: none at all, a category never seen, or what no float32 holds.

    ``at`` is the column's place among the numbers, or among the texts.
    """

    column: str
    kind: str
    at: int
    value: float | str | None

    @property
    def is_absence(self) -> bool:
        """Whether it is no value."""
        return self.value is None or self.value != self.value

    @property
    def is_large(self) -> bool:
        """Whether it is a number that no float32 holds."""
        return self.value == _TOO_LARGE

    def put_into(self, numbers: Numbers, texts: Texts, rows: Any) -> None:
        """Put it into ``rows`` of a sample."""
        if self.kind == "string":
            assert texts is not None
            texts[rows, self.at] = self.value
        else:
            numbers[rows, self.at] = self.value


def sample(model: Any, columns: Sequence[tuple[str, str]], example: Any = None) -> tuple[Numbers, Texts]:
    """Numbers (rows, numeric columns) and texts (rows, texts) or None, of values that every model takes.

    They come from the example (a pandas frame, or None), the categories and thresholds of the model, and scales of
    1 to 1000. A column that an encoder knows has its categories alone.
    """
    random = np.random.default_rng(_SEED)
    marks = marks_of(model, len(columns))
    categories = categories_of(model, [name for name, _ in columns])
    numbers, texts = [], []
    for place, (name, kind) in enumerate(columns):
        seen = [] if example is None or name not in example else example[name].dropna().tolist()
        known = present(categories.get(name, ()))
        if kind == "string":
            words = [] if known else [*seen, *_words_of(model)]
            texts.append(
                _phrases(random, words) if words else random.choice(np.array(known or ["a", "b"], object), ROWS)
            )
        elif known:
            numbers.append(random.choice(np.array(_floats(known)), ROWS))
        else:
            pool = _with_neighbours(np.array([*_floats(seen), *_floats(marks.get(place, ()))]), kind in WHOLE)
            numbers.append(_numbers(random, pool, whole=kind in WHOLE, boolean=kind == "boolean"))
    matrix = np.stack(numbers, axis=1) if numbers else np.empty((ROWS, 0))
    return matrix, np.stack(texts, axis=1) if texts else None


def oddities_of(model: Any, columns: Sequence[tuple[str, str]]) -> Iterator[Oddity]:
    """What may be odd in a row: in a column no value or one too large, where an encoder knows categories one more."""
    categories = categories_of(model, [name for name, _ in columns])
    numbers = texts = 0
    for name, kind in columns:
        known = present(categories.get(name, ()))
        if kind == "string":
            yield Oddity(name, kind, texts, None)
            yield Oddity(name, kind, texts, _NEVER_SEEN)
            texts += 1
            continue
        if kind not in WHOLE:
            yield Oddity(name, kind, numbers, np.nan)
        if kind in ("double", "float") and not known:
            yield Oddity(name, kind, numbers, _TOO_LARGE)
        if known and kind != "boolean":
            yield Oddity(name, kind, numbers, max(_floats(known)) + 1)
        numbers += 1


def sprinkle(oddities: Sequence[Oddity], numbers: Numbers, texts: Texts) -> None:
    """Put each of ``oddities`` into some of a sample's rows."""
    random = np.random.default_rng(_SEED)
    for oddity in oddities:
        oddity.put_into(numbers, texts, random.random(len(numbers)) < _SHARE_ODD)


def categories_of(model: Any, names: Sequence[str]) -> dict[str, list[Any]]:
    """The categories that encoders know, by column; one of None or NaN says that no value is a category."""
    found: dict[str, list[Any]] = {}
    for column, values in _categories(model, names):
        found.setdefault(column, []).extend(values)
    return found


def pandas_categories_of(model: Any) -> list[str]:
    """The columns that a booster was given as categories of pandas."""
    kind = type(model).__module__.split(".")[0]
    if kind not in ("lightgbm", "xgboost"):
        return []
    booster = booster_of(model)
    if kind == "xgboost":
        types = zip(booster.feature_names or (), booster.feature_types or (), strict=False)
        return [name for name, feature_type in types if feature_type == "c"]
    if not booster.pandas_categorical:
        return []
    told, names = booster.params, booster.feature_name()
    return [names[place] for place in told.get("categorical_column") or told.get("categorical_feature") or ()]


def present(categories: Sequence[Any]) -> list[Any]:
    """Those of ``categories`` that are a value."""
    return [one for one in categories if one is not None and one == one]


def rounded_in(model: Any, columns: Sequence[tuple[str, str]]) -> list[str]:
    """The columns with categories that no double tells apart, as which all numbers travel."""
    categories = categories_of(model, [name for name, _ in columns])
    whole = [name for name, kind in columns if kind in WHOLE]
    return [name for name in whole if any(abs(one) > _MOST_WHOLE for one in _floats(categories.get(name, ())))]


def null_text_of(categories: Mapping[str, Sequence[Any]]) -> str:
    """What a graph is given in place of a null: what its converter calls a category of None, or what is no text."""
    return "None" if any(None in known for known in categories.values()) else NO_TEXT


def own_thresholds(model: Any) -> list[float]:
    """The probabilities above which parts of a model say the second class, where they were told or found out."""
    found = [getattr(part, "best_threshold_", getattr(part, "threshold", None)) for part in _parts(model)]
    return [float(np.nextafter(one, 0)) for one in found if isinstance(one, int | float) and 0 < one < 1]  # from on


def _categories(model: Any, names: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
    for part in _parts(model):
        for _, transformer, chosen in getattr(part, "transformers_", ()):
            places = places_of(chosen, list(getattr(part, "feature_names_in_", names)))
            for encoder in _parts(transformer):
                listed = getattr(encoder, "categories_", None)
                if listed is not None and len(listed) == len(places):
                    yield from ((names[place], list(values)) for place, values in zip(places, listed, strict=True))
        if hasattr(part, "categories_") and len(part.categories_) == len(names):
            yield from ((name, list(values)) for name, values in zip(names, part.categories_, strict=True))


def _words_of(model: Any) -> list[str]:
    """Words that the model's vectorizers count, and others; none where it has no vectorizer."""
    found: list[str] = []
    for part in deep_parts(model):
        found += list(getattr(part, "vocabulary_", ()))
    return [*found[:: max(len(found) // _MOST_WORDS, 1)], *_OTHER_WORDS] if found else []


def deep_parts(model: Any) -> Iterator[Any]:
    """The estimators within a model, those for its columns too."""
    for part in _parts(model):
        yield part
        for _, transformer, _ in getattr(part, "transformers_", ()):
            yield from deep_parts(transformer)


def _phrases(random: np.random.Generator, words: Sequence[str]) -> NDArray[np.object_]:
    """Texts of up to eight of ``words``, some in capitals, with what is between words."""
    counts = random.integers(0, 9, ROWS)
    drawn = random.choice(np.array(words, dtype=object), counts.sum())
    between = random.choice(np.array(_BETWEEN, dtype=object), counts.sum())
    pieces = [
        (word.upper() if loud else word) + space
        for word, loud, space in zip(map(str, drawn), random.random(len(drawn)) < _SHARE_ODD, between, strict=True)
    ]
    ends = np.cumsum(counts)
    phrases = ["".join(pieces[end - count : end]) for end, count in zip(ends, counts, strict=True)]
    return np.array(phrases, dtype=object)


def _parts(model: Any) -> Iterator[Any]:
    """The model and the estimators within it."""
    yield model
    for one in parts_within(model):
        yield from _parts(one)


def _numbers(random: np.random.Generator, pool: Numbers, *, whole: bool, boolean: bool) -> Numbers:
    """A column: most of it near values that matter to the model, where there are some."""
    if boolean:
        return random.integers(0, 2, ROWS).astype(np.float64)
    found: Numbers = random.normal(size=ROWS) * random.choice([1.0, 10.0, 100.0, 1000.0], ROWS)
    if len(pool):
        spread = float(np.std(pool)) or 1.0
        near = random.choice(pool, ROWS) + random.choice([0.0, 0.0, 1e-3, -1e-3, 0.3, -0.3], ROWS) * spread
        found = np.where(random.random(ROWS) < 0.9, near, found)
    return np.round(found) if whole else found


def _with_neighbours(pool: Numbers, whole: bool) -> Numbers:
    """Numbers, and the whole ones next to those that are none, or so large that a float32 may not tell them apart."""
    between = pool if whole else pool[(np.abs(pool) > _MOST_EXACT_HALVES) & (np.round(2 * pool) == 2 * pool)]
    return np.concatenate([pool, np.floor(between), np.ceil(between)])


def _floats(values: Any) -> list[float]:
    numbers = [value for value in values if isinstance(value, int | float | np.number | np.bool_)]
    return [float(number) for number in numbers if np.isfinite(number)]
