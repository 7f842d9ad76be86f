"""Java's regular expressions (``java.util.regex``, JDK 17) on Python's engine.

What Python's engine lacks is refused by name, with its place.
"""

from cdc.javaregex.heads import heads
from cdc.javaregex.pattern import JavaPattern, compile  # noqa: A004 - the name the field knows
from cdc.javaregex.syntax import PatternSyntax

__all__ = ["JavaPattern", "PatternSyntax", "compile", "heads"]
