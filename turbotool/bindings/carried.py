"""What a wheel carries beside libraries: our package, told where they lie, for the bindings that they fit."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from turbotool.bindings import environment, wiring
from turbotool.bindings.releases import FITTING, NAME, RELEASES, BindingsRelease
from turbotool.errors import BindingsDiffer, ToolFailed
from turbotool.system.session import Session

SELF = Path(__file__)


@dataclass(frozen=True)
class CarriedPackage:
    """Our package with libraries in its `folder`: those that the bindings load by name, and what these need."""

    release: BindingsRelease = FITTING
    name: str = wiring.PACKAGE
    folder: str = "lib"
    loaded: tuple[str, ...] = ("llama",)

    @property
    def extra(self) -> str:
        """The name of the extra that brings the bindings."""
        return NAME

    @property
    def requirement(self) -> str:
        return f"{NAME}=={self.release.version}"

    @property
    def description(self) -> str:
        """A page about it in Markdown."""
        return SELF.with_name("wheel.md").read_text(encoding="utf-8")

    def files(self, tree: str, sources: Path) -> dict[str, bytes]:
        """The package, as it lies in a folder of packages, for libraries of this git tree, which is in `sources`.

        Raises SourceError if its headers are not as they are read.
        """
        return wiring.files(wiring.describe(self.folder, tree, sources, self.requirement))

    def try_out(self, session: Session, wheel: Path) -> None:
        """Install the wheel with the bindings in a new environment, and import them there, which compares them.

        Raises BindingsDiffer if that fails, and what making the environment raises.
        """
        session.out.say(f"trying {wheel.name} with {self.requirement}")
        with tempfile.TemporaryDirectory(prefix="turbotool wheel ") as scratch:
            folder = Path(scratch) / "env"
            environment.make(session, folder)
            environment.install(session, environment.look(folder), self.release)
            found = environment.look(folder)
            environment.install_wheel(session, found, wheel, self.extra)
            try:
                environment.report(found)
            except ToolFailed as error:
                message = error.message.removeprefix("ImportError: ")
                raise BindingsDiffer(
                    f"{self.requirement} does not run on the libraries of {wheel.name}: {message}",
                    hint=f"look for a release that fits, and name it in {RELEASES.name}",
                ) from error
