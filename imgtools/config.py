"""Settings: defaults < TOML file < environment (``IMGTOOLS_*``) < flag, frozen once read.

Charter: the only reader of the configuration file and of our environment variables; knows
nothing of click.  Values are validated here, so that a typing error in a file is one clear line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from imgtools.errors import ConfigError

EngineChoice = Literal["auto", "direct", "appliance"]
ENGINES: tuple[EngineChoice, ...] = ("auto", "direct", "appliance")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings of one run.

    ``engine``: which engine reads.  ``connect``: libvirt URI, empty for libvirt's default.
    ``cache_dir``: where remembered facts and built appliances live.  ``memsize``: MiB for the
    appliance, 0 for libguestfs's default.  ``timeout``: seconds that a launch may take.
    ``jobs``: how many guests to read at the same time.  ``instant``: resume a saved appliance
    where that is valid, rather than boot one.
    """

    engine: EngineChoice = "auto"
    connect: str = ""
    cache_dir: str = ""
    memsize: int = 0
    timeout: int = 300
    jobs: int = 0
    instant: bool = True

    def cache_path(self) -> Path:
        """The cache folder (not made here)."""
        if self.cache_dir:
            return Path(self.cache_dir).expanduser()
        import platformdirs

        return platformdirs.user_cache_path("imgtools")


def config_file(environ: Mapping[str, str] | None = None) -> Path:
    """The configuration file's path: ``IMGTOOLS_CONFIG`` or ``config.toml`` in the user folder."""
    environ = os.environ if environ is None else environ
    if named := environ.get("IMGTOOLS_CONFIG"):
        return Path(named)
    import platformdirs

    return platformdirs.user_config_path("imgtools") / "config.toml"


def load(environ: Mapping[str, str] | None = None) -> Config:
    """Read the file and the environment into a Config.

    Raises ConfigError naming the file or variable, for a bad value or an unknown name.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, object] = {}
    path = config_file(environ)
    for name, value in _read_file(path, explicit="IMGTOOLS_CONFIG" in environ).items():
        values[name] = _checked(name, value, f"{path}: {name}")
    for item in fields(Config):
        variable = f"IMGTOOLS_{item.name.upper()}"
        if variable in environ:
            values[item.name] = _checked(item.name, environ[variable], variable)
    return Config(**values)  # type: ignore[arg-type]


def _read_file(path: Path, *, explicit: bool) -> dict[str, object]:
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, PermissionError) as error:
        if isinstance(error, PermissionError) and explicit:
            raise ConfigError(f"{path}: {error.strerror} (IMGTOOLS_CONFIG)") from None
        # Another user's home, as under su or sudo -u, is no configuration of ours.
        if explicit:
            raise ConfigError(f"{path}: no such configuration file (IMGTOOLS_CONFIG)") from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    import tomllib  # which takes its time to load, and hardly anybody has such a file

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from None


def _checked(name: str, value: object, where: str) -> object:
    known = {item.name: item for item in fields(Config)}
    if name not in known:
        raise ConfigError(f"{where}: unknown setting", hint=f"known: {', '.join(known)}")
    if name == "engine":
        if value not in ENGINES:
            raise ConfigError(f"{where}: {value!r} is not one of {', '.join(ENGINES)}")
        return value
    if isinstance(known[name].default, bool):
        return _yes_or_no(value, where)
    if isinstance(known[name].default, int):
        return _whole_number(value, where)
    if not isinstance(value, str):
        raise ConfigError(f"{where}: {value!r} is not text")
    return value


_SWITCH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def _yes_or_no(value: object, where: str) -> bool:
    found = _SWITCH.get(str(value).lower())
    if found is None:
        raise ConfigError(f"{where}: {value!r} is neither 1 nor 0")
    return found


def _whole_number(value: object, where: str) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConfigError(f"{where}: {value!r} is not a whole number")
    return value
