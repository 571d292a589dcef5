"""DVC's configuration: remotes, the cache's folder and its kinds of links, from DVC's own files."""

from __future__ import annotations

import configparser
import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from noria.data.dvc.links import LinkKind
from noria.errors import InvalidConfig, NotFound

_REMOTE = re.compile(r"""['"]?\s*remote\s+"(.*)"\s*['"]?""")


@dataclass(frozen=True, slots=True)
class RemoteConfig:
    """Where objects are shared: ``url`` as in the configuration, ``options`` its other keys.

    ``base`` is the folder of the file that named the url, from which a relative one starts.
    """

    name: str
    url: str
    base: Path
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DvcConfig:
    """The keys that matter here, merged over all of DVC's files. Relative paths were made absolute."""

    cache: Path
    link_kinds: tuple[LinkKind, ...]
    uses_git: bool
    default_remote: str
    remotes: Mapping[str, RemoteConfig]

    def remote(self, name: str) -> RemoteConfig:
        """The remote of that name, or the default one for "". Raises NotFound, InvalidConfig without a default."""
        if not (name or self.default_remote):
            raise InvalidConfig(
                "no remote is named, and .dvc/config has no default one",
                remedy="Name one with --remote, or write [core] remote = NAME into .dvc/config.",
            )
        wanted = name or self.default_remote
        if wanted not in self.remotes:
            near = difflib.get_close_matches(wanted, self.remotes, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(self.remotes) or 'none'}."
            raise NotFound(
                f"no remote {wanted!r} in DVC's configuration",
                remedy=f"{hint[0].upper()}{hint[1:]} Remotes are sections ['remote \"{wanted}\"'] of .dvc/config.",
            )
        return self.remotes[wanted]


def read_config(dvc_folder: Path) -> DvcConfig:
    """What system, user, project and local configuration say, the later over the earlier.

    Raises InvalidConfig for a file that cannot be read as DVC's.
    """
    cache, uses_git, default = dvc_folder / "cache", True, ""
    kinds: tuple[LinkKind, ...] = (LinkKind.REFLINK, LinkKind.COPY)
    keys: dict[str, dict[str, str]] = {}
    bases: dict[str, Path] = {}
    for file in _files(dvc_folder):
        for section, values in _read(file).items():
            if section == "core":
                default = values.get("remote", default).lower()
                uses_git = values.get("no_scm", str(not uses_git)).lower() != "true"
            elif section == "cache":
                cache = _resolved(values["dir"], file.parent) if "dir" in values else cache
                kinds = _link_kinds(file, values["type"]) if "type" in values else kinds
            elif found := _REMOTE.fullmatch(section):
                name = found[1].lower()
                keys[name] = keys.get(name, {}) | values
                bases[name] = file.parent if "url" in values else bases.get(name, file.parent)
    remotes = {name: _remote(name, values, bases[name]) for name, values in keys.items()}
    return DvcConfig(cache, kinds, uses_git, default, remotes)


def _files(dvc_folder: Path) -> list[Path]:
    user = os.environ.get("DVC_GLOBAL_CONFIG_DIR") or os.environ.get("XDG_CONFIG_HOME")
    system = os.environ.get("DVC_SYSTEM_CONFIG_DIR") or "/etc/xdg/dvc"
    home = Path(user) if user else Path("~/.config").expanduser()
    if "DVC_GLOBAL_CONFIG_DIR" not in os.environ:
        home /= "dvc"
    return [Path(system) / "config", home / "config", dvc_folder / "config", dvc_folder / "config.local"]


def _read(file: Path) -> dict[str, dict[str, str]]:
    """Sections and their keys in lower case; values without quotes."""
    parser = configparser.RawConfigParser(
        delimiters=("=",), comment_prefixes=("#",), strict=False, default_section="\0", empty_lines_in_values=False
    )
    try:
        text = file.read_text(encoding="utf-8")
        parser.read_string("\n".join(line.strip() for line in text.splitlines()), str(file))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InvalidConfig(
            f"{file} cannot be read: {error.strerror}", remedy="Check its permissions: DVC's settings are there."
        ) from None
    except (configparser.Error, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())
        raise InvalidConfig(f"{file} is no configuration of DVC: {why}", remedy="Mend it, or restore it.") from None
    return {
        section.strip(): {key: _unquoted(value) for key, value in parser.items(section)}
        for section in parser.sections()
    }


def _unquoted(value: str) -> str:
    quoted = re.fullmatch(r"""\s*(?:"([^"]*)"|'([^']*)')\s*(?:\#.*)?""", value)
    if quoted:
        return quoted[1] if quoted[1] is not None else quoted[2]
    return re.sub(r"\s+#.*$", "", value).strip()


def _link_kinds(file: Path, value: str) -> tuple[LinkKind, ...]:
    names = [name.strip().strip("\"'").lower() for name in value.split(",") if name.strip()]
    unknown = [name for name in names if name not in set(LinkKind)]
    if unknown or not names:
        raise InvalidConfig(
            f"{file}: cache.type is {value!r}", remedy=f"Write some of {', '.join(LinkKind)}, parted by commas."
        )
    return tuple(LinkKind(name) for name in names)


def _remote(name: str, values: Mapping[str, str], base: Path) -> RemoteConfig:
    if not values.get("url"):
        raise InvalidConfig(f"remote {name!r} has no url", remedy="Write url = ... into its section of .dvc/config.")
    return RemoteConfig(name, values["url"], base, {key: value for key, value in values.items() if key != "url"})


def _resolved(path: str, base: Path) -> Path:
    return Path(os.path.normpath(base / Path(path).expanduser()))
