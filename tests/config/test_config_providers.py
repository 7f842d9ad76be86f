"""Placeholders in values: resolved late, within limits, and secret from then on."""

from pathlib import Path

import pytest

from cdc.config import ConfigDef, Key
from cdc.errors import ConfigError
from cdc.providers import Providers

KAFKA = "org.apache.kafka.common.config.provider."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secrets.properties").write_text("pw=ge\\u0068eim\nuser=me\n")
    (tmp_path / "dbpass").write_text("geheim\n")
    return tmp_path


def test_each_provider_fills_in_its_values(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDC_TEST_PW", "geheim")
    raw = {
        "a": f"${{file:{folder}/secrets.properties:pw}}",
        "b": f"${{dir:{folder}:dbpass}}",
        "c": "${env:CDC_TEST_PW}",
        "d": f"x-${{file:{folder}/secrets.properties:user}}-${{env:CDC_TEST_PW}}",
        "e": "plain",
    }
    resolved = Providers.all().resolve(raw)
    assert resolved.values == {
        "a": "geheim",
        "b": "geheim\n",
        "c": "geheim",
        "d": "x-me-geheim",
        "e": "plain",
    }
    assert resolved.secrets == {"a", "b", "c", "d"}
    assert "geheim" not in repr(resolved)
    config = ConfigDef([Key("b")]).parse(resolved.values, secrets=resolved.secrets)
    assert config["b"] == "geheim"
    assert "geheim" not in repr(config)


def test_a_file_is_utf_8_as_for_kafkas_provider(tmp_path: Path) -> None:
    """Other than a configuration's file, which Java reads as ISO-8859-1."""
    file, raw = tmp_path / "s.properties", {"k": f"${{file:{tmp_path}/s.properties:pw}}"}
    file.write_bytes("pw=grün".encode())
    assert Providers.all().resolve(raw).values == {"k": "grün"}
    file.write_bytes("pw=grün".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"this is not UTF-8. Write other characters as \\uXXXX"):
        Providers.all().resolve(raw)


def test_a_secret_of_its_own_file_is_its_bytes_as_utf_8(tmp_path: Path) -> None:
    (tmp_path / "pw").write_bytes("grün\r\n".encode())
    resolved = Providers.all().resolve({"k": f"${{dir:{tmp_path}:pw}}"})
    assert resolved.values == {"k": "grün\r\n"}  # what trims values is the key they are for
    (tmp_path / "pw").write_bytes(b"gr\xfcn")
    with pytest.raises(ConfigError, match=r"Could not read .*/pw: UnicodeDecodeError"):
        Providers.all().resolve({"k": f"${{dir:{tmp_path}:pw}}"})


def test_kafkas_class_names_and_names_of_ones_own_are_understood(folder: Path) -> None:
    worker = {
        "config.providers": "f, e",
        "config.providers.f.class": f"{KAFKA}FileConfigProvider",
        "config.providers.f.param.allowed.paths": str(folder),
        "config.providers.e.class": f"{KAFKA}EnvVarConfigProvider",
    }
    raw = {"a": f"${{f:{folder}/secrets.properties:user}}"}
    assert Providers.from_worker(worker).resolve(raw).values == {"a": "me"}


def test_without_a_declaration_every_provider_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDC_SECRET", "x")
    resolved = Providers.from_worker({}).resolve({"a": "${env:CDC_SECRET}", "b": "${topic}"})
    assert resolved.values == {"a": "x", "b": "${topic}"}
    assert resolved.secrets == {"a"}


def test_an_empty_declaration_turns_them_off_with_a_warning() -> None:
    resolved = Providers.from_worker({"config.providers": ""}).resolve({"a": "${env:HOME}"})
    assert resolved.values == {"a": "${env:HOME}"}
    assert "no config provider 'env'" in resolved.warnings[0]


def test_a_missing_name_stays_with_a_warning(folder: Path) -> None:
    raw = {
        "a": "${env:CDC_NO_SUCH_NAME}",
        "b": f"${{dir:{folder}:none}}",
        "c": f"${{file:{folder}/secrets.properties:none}}",
    }
    resolved = Providers.all().resolve(raw)
    assert resolved.values == raw
    assert len(resolved.warnings) == 3


def test_what_a_provider_gives_is_not_resolved_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDC_TEST_A", "${env:CDC_TEST_B}")
    monkeypatch.setenv("CDC_TEST_B", "x")
    assert Providers.all().resolve({"a": "${env:CDC_TEST_A}"}).values["a"] == "${env:CDC_TEST_B}"


def limited(folder: Path) -> Providers:
    return Providers.from_worker(
        {
            "config.providers": "file,dir,env",
            "config.providers.file.param.allowed.paths": f"{folder}",
            "config.providers.dir.param.allowed.paths": f"{folder}",
            "config.providers.env.param.allowlist.pattern": "CDC_.*",
        }
    )


@pytest.mark.parametrize(
    ("placeholder", "problem"),
    [
        ("${file:/etc/passwd:root}", "outside of the config provider's allowed.paths"),
        ("${file:%s/../x:root}", "outside of the config provider's allowed.paths"),
        ("${file:%s-evil/x:root}", "outside of the config provider's allowed.paths"),
        ("${dir:/etc:hostname}", "outside of the config provider's allowed.paths"),
        ("${dir:%s:../x}", "not the name of a file"),
        ("${dir:%s:}", "not the name of a file"),
        ("${file:%s/none:x}", "Could not read properties from file"),
        ("${file::x}", "names no path"),
        ("${env:path:HOME}", "Path is not supported"),
        ("${file:%s/secrets.properties\0/x:pw}", "holds a NUL"),
        ("${dir:%s:dbpass\0}", "not the name of a file"),
        ("${env:CDC_\ud800}", "half of a character"),
        ("${file:%s/\ud800:x}", "half of a character"),
    ],
)
def test_what_is_not_allowed_or_not_there_is_an_error_that_names_the_key(
    folder: Path, placeholder: str, problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        limited(folder).resolve({"database.password": placeholder.replace("%s", str(folder))})
    assert caught.value.key == "database.password"


def test_only_listed_variables_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDC_TEST_PW", "a")
    monkeypatch.setenv("HOME", "/home")
    raw = {"a": "${env:CDC_TEST_PW}", "b": "${env:HOME}"}
    assert limited(folder).resolve(raw).values == {"a": "a", "b": "${env:HOME}"}
    key = "config.providers.env.param.allowlist.pattern"  # in Java's syntax, as in Connect
    java = Providers.from_worker({"config.providers": "env", key: r"\p{Upper}[A-Z_&&[^Q]]++"})
    assert java.resolve(raw).values == {"a": "a", "b": "/home"}


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("config.providers.env.class", "x.Vault", "no config provider 'x.Vault'"),
        ("config.providers.env.param.allowlist.pattern", "(", "not a regular expression"),
        ("config.providers.env.param.allowlist.pattern", r"\X", r"\\X is not supported here"),
        ("config.providers.file.param.allowed.paths", "relative", "not an absolute path"),
        ("config.providers.file.param.allowed.paths", "/no/such", "path that exists"),
    ],
)  # fmt: skip
def test_a_wrong_declaration_is_refused(key: str, value: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Providers.from_worker({"config.providers": "env,file", key: value})


def test_no_cycle_can_arise_since_nothing_is_resolved_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CDC_TEST_A", "<${env:CDC_TEST_B}>")
    monkeypatch.setenv("CDC_TEST_B", "<${env:CDC_TEST_A}>")
    resolved = Providers.all().resolve({"a": "${env:CDC_TEST_A}", "b": "${env:CDC_TEST_B}"})
    assert resolved.values == {"a": "<${env:CDC_TEST_B}>", "b": "<${env:CDC_TEST_A}>"}


def test_several_placeholders_of_one_value_are_resolved_and_unknown_ones_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CDC_TEST_A", "x")
    text = "${env:CDC_TEST_A}/${env:CDC_TEST_A}/${a:b:c}/${a:c}/${topic}/$1"
    resolved = Providers.all().resolve({"k": text})
    assert resolved.values["k"] == "x/x/${a:b:c}/${a:c}/${topic}/$1"
    assert resolved.secrets == {"k"}
    assert len(resolved.warnings) == 2


def test_a_text_of_many_colons_is_looked_through_at_once() -> None:
    """Connect's own expression would need hours for it: the worker is to answer others."""
    text = "${" + ":" * 100_000
    assert Providers.all().resolve({"k": text}).values["k"] == text
