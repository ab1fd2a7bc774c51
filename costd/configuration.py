"""Settings of a program: flags, then environment, then file, then defaults."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Self, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

ENV_PREFIX: Final = "COSTD_"


class SettingsError(Exception):
    """The program cannot start with these settings; names source and field of each."""


def _pairs(value: object) -> object:
    """Read `project=api,team=x`, or a JSON object, where text stands for a mapping."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("{"):
        return json.loads(value)
    pairs = [part.partition("=") for part in value.split(",") if part.strip()]
    for key, equals, _ in pairs:
        if not equals or not key.strip():
            raise ValueError("write it as key=value,key=value or as a JSON object")
    keys = [key.strip() for key, _, _ in pairs]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} is there twice; a value with a comma goes into a JSON object")
    return {key.strip(): text.strip() for key, _, text in pairs}


def _words(value: object) -> object:
    """Read `a,b`, or a JSON array, where text stands for a list."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


Pairs = Annotated[dict[str, str], NoDecode, BeforeValidator(_pairs)]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]


class Configured(BaseSettings):
    """What every program's settings have in common."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

    config: Path | None = Field(None, description="YAML file with any of these settings.")

    def faults(self) -> Iterator[str]:
        """Yield what is wrong between settings, a line each, that begins with the one to change."""
        yield from ()

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        faults = list(self.faults())
        if faults:
            raise ValueError("\n".join(faults))
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: flags, environment, YAML file."""
        del dotenv_settings, file_secret_settings
        path = _config_path(init_settings()) or _config_path(env_settings())
        written = {} if path is None else read_config(path)
        return init_settings, env_settings, InitSettingsSource(settings_cls, dict(written))


Program = TypeVar("Program", bound=Configured)


def load(program: type[Program], flags: Mapping[str, Any]) -> Program:
    """Put the settings together from flags, `COSTD_*`, the `config` file and defaults.

    Errors: SettingsError with one line per fault: source, field, what is wrong.
    """
    try:
        return program(**flags)
    except ValidationError as error:
        config = _config_path(flags) or _config_path({"config": os.environ.get("COSTD_CONFIG")})
        faults = [
            _fault(each, flags, config)
            for detail in error.errors(include_url=False)
            for each in _apart(detail)
            # A default that depends on another setting is no fault of its own.
            if detail["type"] != "default_factory_not_called"
        ]
        raise SettingsError("\n".join(faults)) from error


def read_config(path: Path) -> Mapping[str, Any]:
    """Read a settings file; the mapping knows the line of each key.

    Errors: SettingsError naming the file, and the line where YAML knows it.
    """
    try:
        written = YAML(typ="rt").load(path)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror or error}") from error
    except (YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise SettingsError(f"{where}: not YAML: {reason}") from error
    if written is None:
        return {}
    if not isinstance(written, Mapping):
        raise SettingsError(f"{path}:1: must be `setting: value` lines")
    return written


def _config_path(values: Mapping[str, Any]) -> Path | None:
    value = values.get("config")
    return Path(value) if value else None


def _apart(detail: Any) -> Iterator[Any]:
    """Take apart what `Configured.faults` said in one breath."""
    if detail["loc"]:
        yield detail
        return
    for line in detail["msg"].splitlines():
        yield {**detail, "msg": line}


def _fault(detail: Any, flags: Mapping[str, Any], config: Path | None) -> str:
    """Write one line: where the setting came from, its name, and what is wrong with it."""
    message = detail["msg"].removeprefix("Value error, ")
    location = detail["loc"]
    if not location:
        # Rules over several settings begin with the one to change.
        field, _, message = message.partition(": ")
        if message.startswith("needed;"):
            return f"{field}: {message}"
    else:
        field = str(location[0])
        if detail["type"] == "missing":
            return (
                f"{field}: needed; give --{_kebab(field)}, {ENV_PREFIX}{field.upper()} or --config"
            )
        if detail["type"] == "extra_forbidden":
            message = "no such setting"
        else:
            message = f"{message[0].lower()}{message[1:]}, not {detail['input']!r}"
    return f"{_source(field, flags, config)}: {message}"


def _source(field: str, flags: Mapping[str, Any], config: Path | None) -> str:
    if field in flags:
        return f"--{_kebab(field)}"
    variable = f"{ENV_PREFIX}{field.upper()}"
    if os.environ.get(variable):
        return f"environment {variable}"
    if config is not None:
        written = read_config(config)
        if field in written:
            line = written.lc.key(field)[0] + 1  # type: ignore[attr-defined]  # ruamel's mapping
            return f"{config}:{line}: {field}"
    return f"{field} (default)"


def _kebab(field: str) -> str:
    return field.replace("_", "-")
