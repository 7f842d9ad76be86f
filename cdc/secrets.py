"""What must not be seen in logs, errors and answers, and how it is kept out of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

HIDDEN: Final = "[hidden]"


class Secret:
    """A text that shows itself only when asked: ``reveal()``.

    No ``str``, on purpose: joining, formatting or serialising a ``str`` subclass would leak
    its content past ``__str__``; here it fails, or gives the stars.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one place that needs it."""
        return self._text

    def __str__(self) -> str:
        return "***"

    __repr__ = __str__

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


_SECRET_NAME = re.compile(
    r"password|passwd|passphrase|secret|token|credential|connection\.?string$|sasl\.jaas\.config"
    r"|basic\.auth\.user\.info|api\.?key|(access|private|account)\.?key",
    re.IGNORECASE,
)
_SECRET_IN_URL = re.compile(
    r"(://[^/@\s:]*:)\S*(?=@)|((?:^|[?&;\s])(?:ssl)?(?:password|passwd|pwd)=)[^&;\s]*",
    re.IGNORECASE,
)
_SALT = re.compile(r"(?<=\.with\.salt\.).+")


def mask_url(text: str) -> str:
    """``text`` with the passwords of the URLs in it replaced."""
    return _SECRET_IN_URL.sub(lambda m: f"{m[1] or m[2]}***", text)


def show_name(name: str) -> str:
    """A key's name for display: a hash's salt is part of the name, and a secret."""
    return _SALT.sub("***", name)


def hide(error: BaseException, secrets: Iterable[str]) -> None:
    """Take ``secrets`` out of what an error, its causes and what it followed say."""
    secrets, seen = tuple(secrets), set[int]()
    following: list[BaseException | None] = [error]
    while following:
        found = following.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        for secret in secrets:
            found.args = tuple(
                part.replace(secret, HIDDEN) if isinstance(part, str) else part
                for part in found.args
            )
            if isinstance(problem := getattr(found, "problem", None), str):
                found.problem = problem.replace(secret, HIDDEN)  # type: ignore[attr-defined]
        following += [found.__cause__, found.__context__]


class RawConfig(dict[str, str]):
    """What the user wrote, as texts. Shows no secret when printed."""

    def __init__(self, values: Mapping[str, str] | None = None, secrets: Collection[str] = ()):
        super().__init__(values or {})
        self.secrets = frozenset(secrets)

    def show(self, name: str) -> str:
        """One value for display."""
        if name in self.secrets or _SECRET_NAME.search(name):
            return HIDDEN
        return mask_url(self[name])

    def safe(self) -> dict[str, str]:
        """All values for display."""
        return {show_name(name): self.show(name) for name in self}

    def __repr__(self) -> str:
        return repr(self.safe())

    def __reduce__(self) -> tuple[Any, ...]:
        return (RawConfig, (dict(self), self.secrets))
