"""The bill of materials of a package: CycloneDX, with nothing in it but what the package's contents decide."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from turbotool import __version__
from turbotool.build.record import BuiltFrom
from turbotool.release.parts import GITHUB, PARTS, PUBLIC, Part, version_of
from turbotool.system.extras import require_library

if TYPE_CHECKING:  # the command line imports this module to print its help
    from cyclonedx.model.component import Component

NAME = "sbom.cdx.json"


def require() -> None:
    """Raise ToolMissing unless the library is installed."""
    require_library("cyclonedx-python-lib>=8", "package", "the bill of materials needs", module="cyclonedx")


def bill(
    package: str,
    version: str,
    upstream: BuiltFrom,
    hashes: Mapping[str, str],
    tree: Path,
    epoch: int,
    parts: Iterable[Part] = PARTS,
) -> bytes:
    """The document: the package, its files by name with their sha256, and the parts that are compiled into them.

    `version` is what the programs report, or a wheel's own, `tree` the vendored sources, `epoch` a time in seconds. An
    upstream of which only git's tree id is known has that as its version, but not in its address, where it would name
    nothing.
    """
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    root = Component(name=package, version=version, type=ComponentType.APPLICATION, bom_ref=package)
    compiled = [component(part, upstream, tree) for part in parts]
    files = [
        Component(
            name=name,
            type=ComponentType.FILE,
            bom_ref=f"file:{name}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        )
        for name, digest in sorted(hashes.items())
    ]
    document = Bom(components=[*compiled, *files])
    document.metadata.component = root
    document.metadata.timestamp = datetime.fromtimestamp(epoch, tz=timezone.utc)
    document.metadata.tools.components.add(
        Component(name="turbotool", version=__version__, type=ComponentType.APPLICATION, bom_ref="turbotool")
    )
    document.register_dependency(root, compiled)
    document.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, "\n".join([package, version, *sorted(hashes.values())]))
    return f"{JsonV1Dot6(document).output_as_string(indent=2)}\n".encode()


def component(part: Part, upstream: BuiltFrom, tree: Path) -> Component:
    """A part as CycloneDX names it."""
    from cyclonedx.model import ExternalReference, ExternalReferenceType, XsUri
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
    from packageurl import PackageURL

    version = upstream.known_as if part.name == "llama.cpp" else version_of(part, tree)
    address = version if version != upstream.tree else ""  # git's id of files is nothing that a home knows
    owner, _, name = part.home.removeprefix(f"{GITHUB}/").partition("/")
    references = [ExternalReference(type=ExternalReferenceType.VCS, url=XsUri(part.home))] if part.home else []
    return Component(
        name=part.name,
        version=version or None,
        type=ComponentType.LIBRARY,
        bom_ref=part.name,
        licenses=[LicenseExpression(part.licence) if part.licence != PUBLIC else DisjunctiveLicense(name=PUBLIC)],
        purl=PackageURL("github", owner, name, address or None) if part.home else None,
        external_references=references,
    )
