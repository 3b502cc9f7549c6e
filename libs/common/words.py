"""What people read: written in English where it is said, and put into Vietnamese at the edge.

`say("{number} is {status}", number=..., status=...)` is an English string wherever one is wanted,
in logs above all, and remembers what it was made of. Its Vietnamese stands in the `vi.toml` of the
package that says it, and is looked up when a text leaves for somebody who asked for that language.
"""

import tomllib
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from functools import cache, reduce
from importlib.resources import files

from libs.common.language import ENGLISH, Language


class Words(str):
    """An English sentence that can be said in another language, too."""

    __slots__ = ("_key", "_package", "_values")
    _key: str
    _package: str
    _values: Mapping[str, object]

    def __new__(
        cls, english: str, package: str, key: str, values: Mapping[str, object] | None = None
    ) -> "Words":
        """Take the sentence, and where and by what key its other forms are found."""
        words = super().__new__(cls, english)
        words._package, words._key, words._values = package, key, values or {}
        return words

    def vietnamese(self) -> str:
        """Say it in Vietnamese; what has no Vietnamese stays English."""
        sentence = vietnamese_of(self._package).get(self._key)
        if sentence is None:
            return str(self)
        return sentence.format_map({k: _in_vietnamese(v) for k, v in self._values.items()})


class Speaker:
    """What a package says; each has one, called `say`."""

    def __init__(self, package: str) -> None:
        """Take the package beside whose code the other languages stand."""
        self._package = package

    def __call__(self, sentence: str, /, **values: object) -> Words:
        """Say a sentence; what it names in braces comes as values.

        Instants, dates and other sentences come as such: each language writes them its own way.
        """
        english = sentence.format_map({k: _in_english(v) for k, v in values.items()})
        return Words(english, self._package, sentence, values)


say = Speaker("libs.common")


def said(text: str, language: Language) -> str:
    """Say a text in a language; what is no `Words` has only its own."""
    if language != ENGLISH and isinstance(text, Words):
        return text.vietnamese()
    return str(text)


def title_of(kind: type) -> Words:
    """Name a kind of problem: the first line of its docstring."""
    title = (kind.__doc__ or kind.__name__).strip().splitlines()[0]
    return Words(title, package_of(kind.__module__), title)


def either(names: Iterable[str]) -> str:
    """List what there is to choose from."""
    return reduce(lambda some, one: say("{some} or {one}", some=some, one=one), names)


def package_of(module: str) -> str:
    """Name the package whose Vietnamese a module's words stand in: a library, or a service."""
    return ".".join(module.split(".")[:2])


@cache
def vietnamese_of(package: str) -> Mapping[str, str]:
    """Read what a package says in Vietnamese, by the English of it."""
    catalogue = files(package) / "vi.toml"
    return tomllib.loads(catalogue.read_text("utf-8")) if catalogue.is_file() else {}


# Values -----------------------------------------------------------------------------------------


def _in_english(value: object) -> object:
    """Write instants and dates as programs do: English is also what stands in logs."""
    from libs.common.worktime import local

    return local(value).isoformat() if isinstance(value, datetime) else value


def _in_vietnamese(value: object) -> object:
    from libs.common.worktime import local

    match value:
        case Words():
            return value.vietnamese()
        case datetime():
            at = local(value)
            return at.strftime("%H:%M:%S" if at.second else "%H:%M") + f" ngày {at:%d/%m/%Y}"
        case date():
            return f"{value:%d/%m/%Y}"
        case float():
            return str(value).replace(".", ",")
        case _:
            return value
