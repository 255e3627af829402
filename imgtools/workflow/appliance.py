"""The instant appliance: make it, look at it, remove it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imgtools.config import Config
from imgtools.errors import NoTemplateError

if TYPE_CHECKING:
    from imgtools.appliance.instant import TemplateStatus
    from imgtools.appliance.instant.template import Template

BUILD = "imgtools appliance build"


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """A template that was removed, and the bytes that this freed."""

    name: str
    freed: int


def build(config: Config, *, force: bool, talk: Callable[[str], None]) -> TemplateStatus:
    """Make this host's template, unless it is there already (``force`` makes a new one).

    ``talk`` is told each step.  Raises ApplianceError and its kin, MissingError, RefusedError.
    """
    from imgtools.appliance import instant

    made = instant.build_template(config, force=force, talk=talk)
    return next(one for one in instant.status(config) if one.path == str(made.folder))


def status(config: Config) -> list[TemplateStatus]:
    """Every template in the cache folder."""
    from imgtools.appliance import instant

    return instant.status(config)


def verify(config: Config) -> list[str]:
    """The files of this host's template whose content is not what was built; reads all of it.

    Raises NoTemplateError if there is no template.
    """
    from imgtools.appliance.instant import build

    return build.content_faults(_current(config))


def path(config: Config) -> Path:
    """The folder of the template that a launch would use.  Raises NoTemplateError without one."""
    return _current(config).folder


def clean(config: Config, *, everything: bool) -> list[Removed]:
    """Remove the templates that no launch would use, or all of them."""
    from imgtools.appliance import instant

    found = instant.clean(config, everything=everything)
    return [Removed(name=name, freed=freed) for name, freed in found]


def _current(config: Config) -> Template:
    from imgtools.appliance import instant

    try:
        return instant.current(config)
    except NoTemplateError as error:
        raise NoTemplateError(error.message, hint=error.hint or BUILD) from error
