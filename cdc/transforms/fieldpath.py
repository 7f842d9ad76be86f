"""Field paths of the syntax V2: ``a.b``, and `` `a.b`.c `` where a name has dots (KIP-821)."""

from __future__ import annotations

TICK, DOT, BACKSLASH = "`", ".", "\\"


def field_path(text: str) -> list[str]:
    """The steps of a path; none for "". Raises ValueError for an open backtick."""
    steps = []
    at = 0
    while at < len(text):
        if text[at] == TICK:
            step, at = _quoted(text, at)
        else:
            end = text.find(DOT, at)
            step, at = (text[at:], len(text)) if end < 0 else (text[at:end], end + 1)
        steps.append(step)
    return [*steps, ""] if text.endswith(DOT) else steps


def _quoted(text: str, opened: int) -> tuple[str, int]:
    """The step in backticks from ``opened`` on, and where the next one begins."""
    step = ""
    start = at = opened + 1
    while True:
        at = text.find(TICK, at)
        if at < 0:
            raise _incomplete(text, opened)
        escaped = text[at - 1] == BACKSLASH
        if at == len(text) - 1:
            if escaped:
                raise _incomplete(text, opened)
            return step + text[start:at], at + 1
        if text[at + 1] != DOT:  # not followed by a dot, so part of the name
            at += 1
        elif escaped:
            step += text[start : at - 1] + TICK
            at += 1
            start = at
        else:
            return step + text[start:at], at + 2


def _incomplete(text: str, opened: int) -> ValueError:
    return ValueError(
        f"Incomplete backtick pair in path: [{text}], consider adding a backslash before "
        f"backtick at position {opened} to escape it"
    )
