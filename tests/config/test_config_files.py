"""Files of all four forms, their escapes, and what a broken one is told."""

from pathlib import Path

import pytest

from cdc.configfile import ConfigFile, load_properties, parse, read_file, sniff
from cdc.errors import ConfigError

# What java.util.Properties (17) makes of this text, printed by a small Java program.
JAVA = rb"""# comment
! another
a=b
spaced = value with trailing \

colon:v
blank v w
empty=
nokey
cont=one,\
     two,\
   three
uni=\u00e9\u20ac
sur=\ud83d\ude00
esc=\t\n\\ \q \= \: \# \!
k\=e\:y\ x=v
win=C\:\\tmp
regex=public\\.t.*
dup=1
dup=2
hash=a#b!c
   lead=x
eq==v
""" + b"latin=\xe9\ntab\tv\ncrlf=x\r\nlast=z\\\n"  # fmt: skip
JAVA_VALUES = {
    "a": "b",
    "spaced": "value with trailing ",
    "colon": "v",
    "blank": "v w",
    "empty": "",
    "nokey": "",
    "cont": "one,two,three",
    "uni": "é€",
    "sur": "\U0001f600",
    "esc": "\t\n\\ q = : # !",
    "k=e:y x": "v",
    "win": "C:\\tmp",
    "regex": "public\\.t.*",
    "dup": "2",
    "hash": "a#b!c",
    "lead": "x",
    "eq": "=v",
    "latin": "é",
    "tab": "v",
    "crlf": "x",
    "last": "z",
}


def test_properties_are_read_as_java_reads_them() -> None:
    assert load_properties(JAVA, "x.properties") == JAVA_VALUES


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".json", '{"name": "s", "tasks.max": 1, "on": true, "off": null, "l": ["a", "b"]}'),
        (".properties", "name=s\ntasks.max=1\non=true\nl=a,b\n"),
        (".yaml", "name: s\ntasks.max: 1\non: true\noff: ~\nl: [a, b]\n"),
        (".yml", "name: s\ntasks.max: 1\non: true\noff:\nl:\n  - a\n  - b\n"),
        (".toml", 'name = "s"\ntasks.max = 1\non = true\nl = ["a", "b"]\n'),
        ("", '{"name": "s", "tasks.max": 1, "on": true, "l": ["a", "b"]}'),
        ("", "# a comment\nname=s\ntasks.max=1\non=true\nl=a,b\n"),
        ("", "---\nname: s\ntasks.max: 1\non: true\nl: [a, b]\n"),
        ("", "name: s\ntasks.max: 1\non: true\nl: [a, b]\n"),
        (".conf", 'name = "s"\non = true\nl = "a,b"\n[tasks]\nmax = 1\n'),
    ],
)
def test_every_form_gives_the_same_texts(tmp_path: Path, suffix: str, text: str) -> None:
    path = tmp_path / f"connector{suffix}"
    path.write_text(text)
    file = read_file(path)
    assert file.config == {"name": "s", "tasks.max": "1", "on": "true", "l": "a,b"}
    assert (file.name, file.is_connector, file.initial_state) == ("s", True, "RUNNING")


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("json", '{"name": "s", "config": {"a": "1"}, "initial_state": "paused", "more": [{}]}'),
        ("yaml", "name: s\ninitial_state: PAUSED\nconfig:\n  a: 1\n"),
        ("toml", 'name = "s"\ninitial_state = "PAUSED"\n[config]\na = 1\n'),
    ],
)
def test_the_shape_of_a_post_is_taken_too(form: str, text: str) -> None:
    file = parse(text.encode(), "f", form)
    assert file == ConfigFile("f", file.config, "s", "PAUSED")
    assert file.config == {"a": "1", "name": "s"}


def test_a_file_without_a_name_is_the_workers() -> None:
    assert not parse(b"listeners=http://:8083\n", "w.properties").is_connector
    assert not parse(b"", "empty").is_connector


def test_nothing_in_yaml_or_json_is_guessed() -> None:
    yaml = parse(b"a: no\nb: 1_0\nc: 010\nd: 2020-01-01\ne: 10:30\n", "f", "yaml")
    assert yaml.config == {"a": "no", "b": "1_0", "c": "010", "d": "2020-01-01", "e": "10:30"}
    assert parse(b'{"a": 1e3, "b": 1.0}', "f", "json").config == {"a": "1e3", "b": "1.0"}


def test_nested_keys_are_joined_with_dots() -> None:
    file = parse(b"database:\n  hostname: h\n  port: 1\n", "f", "yaml")
    assert file.config == {"database.hostname": "h", "database.port": "1"}


@pytest.mark.parametrize(
    ("form", "content", "place", "problem"),
    [
        ("json", b'{\n"a": 1,\n}', "f, line 3", "invalid JSON"),
        ("json", b"[1]", "f:", "no keys"),
        ("json", b"[" * 100_000, "f:", "nested too deeply"),
        ("json", b'{"a": 1, "a": 2}', "f:", "a is there twice"),
        ("json", b'{"a": [[1]]}', "f:", "a is a list of lists"),
        ("json", b'{"a": "\xff"}', "f, line 1", "not UTF-8"),
        ("json", b'{"name": " "}', "f:", "name is empty"),
        ("json", b'{"config": {"a": 1}}', "f:", "a config but no name"),
        ("json", b'{"connector.class": "console"}', "f:", "a connector.class but no name"),
        ("json", b'{"name": "a\\ud800b"}', "f:", "name is not Unicode text"),
        ("json", b'{"name": "x", "config": {"a\\udfff": ""}}', "f:", "a\\udfff is not Unicode"),
        ("json", b'{"name": "x", "config": {"name": "y"}}', "f:", "named x outside and y"),
        ("json", b'{"name": "x", "config": {}, "initial_state": "ON"}', "f:", "initial_state is"),
        ("yaml", b"a: 1\nb: [", "f, line 2", "invalid YAML"),
        ("yaml", b"a: 1\na: 2\n", "f, line 1", "a is there twice"),
        ("yaml", b"a: \x01\n", "f:", "invalid YAML"),
        ("yaml", b"a: !!python/object:os.system x\n", "f, line 1", "invalid YAML"),
        ("yaml", b"a.b: 1\na:\n  b: 2\n", "f:", "a.b is there twice"),
        ("toml", b"a = 1\nb = geheim\n", "f, line 2", "invalid TOML"),
        ("toml", b'snapshot.mode = "a"\nsnapshot.mode.custom.name = "b"\n', "f, line 2", "TOML"),
        ("properties", b"a=1\nb=\\uZZZZ geheim\n", "f, line 2", "not a Java properties file"),
    ],
)
def test_a_broken_file_is_told_where_what_and_how_to_mend_it(
    form: str, content: bytes, place: str, problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(content, "f", form)
    text = str(caught.value)
    assert text.startswith(place)
    assert problem in text
    assert caught.value.remedy
    assert "geheim" not in text


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json cannot be read: No such file"):
        read_file(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_file(tmp_path)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ('  {"a": 1}', "json"),
        ("# c\n---\na: 1", "yaml"),
        ("a.b: 1", "yaml"),
        ('a = "b"', "toml"),
        ("[t]\na = 1", "toml"),
        ("[t]\na = b", "toml"),
        ("a=b", "properties"),
        ("a b", "properties"),
        ("a:b", "properties"),
        ("", "properties"),
    ],
)
def test_the_form_is_found_out_where_the_name_does_not_tell(text: str, form: str) -> None:
    assert sniff(text) == form


def test_a_byte_order_mark_is_no_part_of_the_first_key() -> None:
    for form, text in (("properties", "name=s"), ("json", '{"name":"s"}'), ("yaml", "name: s")):
        for given in (form, ""):
            assert parse(b"\xef\xbb\xbf" + text.encode(), "f", given).name == "s"


def test_blanks_around_a_name_are_no_part_of_it() -> None:
    for text in (b"name = s \n", b'{"name": " s ", "config": {"name": "s\\t"}}'):
        file = parse(text, "f")
        assert (file.name, file.config["name"]) == ("s", "s")


def test_a_file_shows_no_secret() -> None:
    assert "geheim" not in repr(parse(b"name=s\ndatabase.password=geheim\n", "f"))
