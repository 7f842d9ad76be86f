r"""Java's regular expressions: compared with ``java.util.regex`` through RegexRouter."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cdc import javaregex
from cdc.record import Record
from tests.connect.judge import Judge
from tests.connect.seeded import generated
from tests.transforms.compare import Refusal, compare, ours, theirs

ROUTER = "org.apache.kafka.connect.transforms.RegexRouter"
ATOMS = st.sampled_from(
    [
        "a", "b", "A", ".", r"\d", r"\w+", r"\s", r"\W", "[a-c]", "[^a-c]", "[a-z&&[^b]]",
        "[a[b-c]]", r"[\w&&[^\d]]", r"\p{Alpha}", r"\p{L}", r"\P{Lu}", r"\p{Punct}", r"\.",
        r"\Qa.\E", "(a|ab)", "(?:a|b)", "(?i)A", "(?i:B)", "(?-i)", "(?<n>a)", r"\k<n>", r"\1",
        "^", "$", r"\b", r"\B", r"\A", r"\z", r"\Z", r"\h", r"\R", "(?=a)", "(?!b)", "(?<=a)",
        "(?<!a)", "(?>a+)", "é", r"\x41", r"\u0061", r"\x{1F600}", r"\t", r"\cA", r"\0101",
        "(?s).", "(?x) a #c\n", "[]a]", "[^]a]", "[a-]", "[.]", "(", ")", "[", "]", "}", "{",
        "*", r"\e", r"\q", "|", "&&", "[a&&]", "[&&a]", "(?i)[^a]", "(?i)[a-c&&[^b]]",
        r"(?i)\p{Lower}", r"(?iu)É", r"[\p{Lu}\d]", "(?m)^", "(?m)$", "-", "_",
    ]
)  # fmt: skip
QUANTIFIERS = st.sampled_from(
    ["", "", "", "", "*", "+", "?", "*?", "++", "?+", "{2}", "{1,}", "{0,2}"]
)
EXPRESSIONS = st.lists(st.tuples(ATOMS, QUANTIFIERS), min_size=1, max_size=4).map(
    lambda parts: "".join(atom + quantifier for atom, quantifier in parts)
)
TEXTS = st.one_of(
    st.text(st.sampled_from(list("abcABC12.-_ é\n\r\tÉ")), max_size=5),
    st.sampled_from(["", "ab", "a.b", "AB", "aa", "a\r\n", "😀", "\x01", "a\u2028", "b\n"]),
)


def route(judge: Judge, regex: str, replacement: str, topic: str) -> object:
    config = {"regex": regex, "replacement": replacement}
    return compare(judge, "RegexRouter", config, Record(topic, None, None, None, None, None))


def refused_here(regex: str) -> bool:
    """Whether an expression is one that we name as not supported."""
    try:
        javaregex.compile(regex)
    except javaregex.PatternSyntax as error:
        return "not supported here" in str(error) or "Not supported here" in str(error)
    return False


@generated(500)
@given(regex=EXPRESSIONS)
@example(regex="(?:=a)b")
@example(regex="a(?:b|c+|)a|(a|b)+c")
def test_what_matches_begins_as_was_foretold(regex: str) -> None:
    texts = ["".join(chars) for n in range(5) for chars in product("ab=.", repeat=n)]
    try:
        pattern = javaregex.compile(regex)
    except javaregex.PatternSyntax:
        return
    heads = tuple(javaregex.heads(regex))
    assert [text for text in texts if pattern.matches(text) and not text.startswith(heads)] == []


@pytest.mark.parametrize(
    ("regex", "heads"),
    [
        (r"shop\..*", {"shop."}),
        (r"(crm|shop2?)\.a|^b", {"crm.a", "shop", "b"}),
        (r"(?!x)a{2}b|[ab|]c", {""}),
        (r"(?i)shop", {""}),
    ],
)
def test_how_matches_begin(regex: str, heads: set[str]) -> None:
    assert javaregex.heads(regex) == heads


@generated(250)
@given(regex=EXPRESSIONS, topic=TEXTS)
def test_an_expression_matches_what_it_matches_in_java(
    judge: Judge, regex: str, topic: str
) -> None:
    config = {"regex": regex, "replacement": "<$0>"}
    record = Record(topic, None, None, None, None, None)
    found, wanted = ours(ROUTER, config, record), theirs(judge, ROUTER, config, record)
    if isinstance(found, Refusal):
        assert refused_here(regex.strip()) or isinstance(wanted, Refusal), f"{found}\n{wanted}"
    else:
        assert found == wanted, f"{regex!r} on {topic!r}: {found.topic!r}, {wanted}"


@pytest.mark.parametrize(
    ("regex", "replacement", "topic", "found"),
    [
        (r"(\w+)\.(\w+)", "$2_$1", "a.b", "b_a"),
        (r"(?<left>\w+)-(?<right>\w+)", "${right}${left}", "a-b", "ba"),
        ("(.*)", r"\$1", "a", "$1"),
        ("(.*)", "$12", "a", "a2"),
        ("(a)(b)?", "[$2]", "a", "[]"),
        ("a|ab", "x", "ab", "xb"),  # the whole matches, but the first match is shorter
        ("a", "x", "ba", "ba"),
        ("(?m).^*", "x", "a", "x"),
        ("(?m)^{0,2}a$+", "x", "a", "x"),
    ],
)
def test_a_replacement_reads_as_in_java(
    judge: Judge, regex: str, replacement: str, topic: str, found: str
) -> None:
    assert route(judge, regex, replacement, topic).topic == found  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "replacement", ["$9", "$x", "$", "\\", "${none}", "${1a}", "${", "${n", "${}", "$(", "${é}"]
)
def test_a_wrong_replacement_is_refused_with_javas_text(judge: Judge, replacement: str) -> None:
    assert isinstance(route(judge, "(.*)", replacement, "t"), Refusal)


@pytest.mark.parametrize(
    ("regex", "reason"),
    [
        (r"\Ga", "\\G is not supported here"),
        (r"\X", "\\X is not supported here"),
        ("(?U)a", "(?U) is not supported here"),
        (r"\p{InGreek}", "Character property {InGreek} is not supported here"),
        ("(?<=a+)b", "Look-behind of varying width is not supported here"),
    ],
)
def test_what_pythons_engine_lacks_is_named_with_its_place(regex: str, reason: str) -> None:
    with pytest.raises(javaregex.PatternSyntax, match=r"near index \d+") as caught:
        javaregex.compile(regex)
    assert str(caught.value).startswith(reason)
