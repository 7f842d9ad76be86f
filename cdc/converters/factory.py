"""Converters from configurations: ``value.converter`` and ``value.converter.<option>``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from cdc.aliases import CONVERTERS, find_converter
from cdc.config import Config, ConfigDef
from cdc.converters.contract import Converter, HeaderConverter
from cdc.errors import ConfigError
from schemas import DataError, SchemaError

# Short name → where its class is. Nothing is imported before it is asked for.
CLASSES: Final[Mapping[str, str]] = {
    "json": "cdc.converters.json.converter:JsonConverter",
    "string": "cdc.converters.string:StringConverter",
    "bytes": "cdc.converters.primitive:ByteArrayConverter",
    "simple": "cdc.converters.simple_header:SimpleHeaderConverter",
    **{
        name.lower(): f"cdc.converters.primitive:{name}Converter"
        for name in ("Boolean", "Double", "Float", "Integer", "Long", "Short")
    },
}


def make_converter(
    name: str, options: Mapping[str, Any], key: str = "value.converter"
) -> Converter:
    """The converter that ``key`` names, with its options (without prefix). Raises ConfigError."""
    found: Converter = _make(name, options, key)
    if not hasattr(found, "from_connect"):
        raise _unfit(name, key, "it is for headers only")
    return found


def make_header_converter(
    name: str, options: Mapping[str, Any], key: str = "header.converter"
) -> HeaderConverter:
    """The converter of headers that ``key`` names. Raises ConfigError."""
    found: HeaderConverter = _make(name, options, key)
    return found


def configured_converters(config: Config) -> tuple[Converter, Converter]:
    """The connector's for keys and for values; JSON where it names none. Raises ConfigError."""
    key, value = (
        make_converter(config.raw.get(name) or "json", config.subset(f"{name}."), name)
        for name in ("key.converter", "value.converter")
    )
    return key, value


def configured_header_converter(config: Config) -> HeaderConverter | None:
    """The connector's ``header.converter``; None where it names none. Raises ConfigError."""
    name = config.raw.get("header.converter")
    if not name:
        return None
    return make_header_converter(name, config.subset("header.converter."))


def java_class_of(converter: HeaderConverter) -> str:
    """A converter's Java class, for logs and dead letters."""
    path = f"{type(converter).__module__}:{type(converter).__name__}"
    name = next((name for name, own in CLASSES.items() if own == path), "")
    known = next((plugin for plugin in CONVERTERS if plugin.name == name), None)
    return known.java_classes[0] if known else path.replace(":", ".")


def converter_config(name: str, key: str = "value.converter") -> ConfigDef:
    """What the converter's options are. Raises ConfigError for a name nobody knows."""
    definition: ConfigDef = _class_of(name, key).CONFIG
    return definition


def _make(name: str, options: Mapping[str, Any], key: str) -> Any:
    class_ = _class_of(name, key)
    try:
        return class_.from_config(options)
    except ConfigError as error:
        error.key = f"{key}.{error.key}" if error.key else key
        raise
    except (DataError, SchemaError) as error:  # the text in schema.content
        raise ConfigError(str(error), key=f"{key}.schema.content") from error


def _class_of(name: str, key: str) -> Any:
    short = find_converter(name, key).name
    if short not in CLASSES:
        raise _unfit(name, key, "it is not implemented")
    module, _, class_name = CLASSES[short].partition(":")
    return getattr(import_module(module), class_name)


def _unfit(name: str, key: str, why: str) -> ConfigError:
    return ConfigError(
        f"Invalid value {name} for configuration {key}: {why}",
        key=key,
        remedy="Use org.apache.kafka.connect.json.JsonConverter",
    )
