"""`turbotool package`: a release archive, proven after it was unpacked elsewhere."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import click

from turbotool.cli.options import build_options, fail, output_options, wrapper_option
from turbotool.system.output import Output


@click.command()
@build_options
@click.option("--platform", "platform_name", help="Such as linux-arm64, cross-compiled  [default: this one]")
@click.option("--max-glibc", help="The newest glibc that may be needed  [default: 2.36, that of Debian 12]")
@click.option("--out", "folder", type=click.Path(path_type=Path), help="Where to write  [default: build/packages]")
@click.option("--model", "model_path", type=click.Path(path_type=Path), help="A GGUF file to verify with.")
@wrapper_option
@click.option("--check", "names", multiple=True, metavar="NAME", help="Run only this check; may be repeated.")
@click.option("--no-verify", is_flag=True, help="Do not run what is in the archive.")
@click.option("--sign", "signed", is_flag=True, help="Sign the archive with sigstore.")
@output_options
def package(
    backend: str,
    platform_name: str | None,
    archs: tuple[str, ...],
    options: tuple[tuple[str, str], ...],
    jobs: int | None,
    max_glibc: str | None,
    folder: Path | None,
    model_path: Path | None,
    wrapper: tuple[str, ...],
    names: tuple[str, ...],
    no_verify: bool,
    signed: bool,
    out: Output,
) -> None:
    """Build for any CPU, pack binaries, licences, records and sums, and run verify --quick on the unpacked archive."""
    from turbotool.build.backends import find_backend
    from turbotool.build.host import Choices
    from turbotool.build.installers import installer
    from turbotool.build.platforms import find_platform
    from turbotool.build.request import BuildRequest
    from turbotool.errors import VerificationFailed
    from turbotool.inputs.default_model import choose_model
    from turbotool.layout import find_layout
    from turbotool.release import package as packages
    from turbotool.release.unpacked import prove, require_wrapper
    from turbotool.verify.verification import select, table

    started = time.monotonic()
    platform = find_platform(platform_name)
    request = BuildRequest(find_backend(backend), Choices(True, archs), options, jobs=jobs or 0, platform=platform)
    packages.require_libraries(sign=signed)
    layout = find_layout()
    words = wrapper or (() if platform.native else platform.emulator)
    model = None
    if not no_verify:
        require_wrapper(words, f"{installer(os.environ).hint('qemu-user')}, or --no-verify")
        select(names, quick=True)
        model = choose_model(layout, model_path, out)
    made = packages.collect(layout, request, platform, max_glibc or packages.MAX_GLIBC, out, os.environ)
    target = (folder or layout.builds / "packages").absolute() / made.file_name
    target.parent.mkdir(parents=True, exist_ok=True)
    document: dict[str, object] = {"checks": None}
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".package-") as scratch:
        archive = made.write(Path(scratch))
        out.say(f"{archive.stat().st_size / 2**20:.1f} MiB, {len(made.members)} members, {made.needs}")
        if model:
            result = prove(layout, archive, model, words, names, out)
            out.say(table(result))
            document["checks"] = [check.as_json() for check in result.checks]
            if not result.ok:
                failed = VerificationFailed(
                    f"{len(result.failed)} checks of the unpacked archive failed: {', '.join(result.failed)}",
                    hint=f"read {layout.builds / 'verify'}",
                )
                fail(failed, out, {"ok": False, **document, "error": failed.as_json()})
        digest = packages.publish(archive, target)
    signature = packages.sign(target, out) if signed else None
    out.say(f"{target}\nsha256 {digest}{'' if model else ' (not verified)'}")
    out.document(
        {
            "ok": True,
            "archive": str(target),
            "sha256": digest,
            "bytes": target.stat().st_size,
            "platform": platform.name,
            "backend": backend,
            "tree": made.tree,
            "needs": made.needs.as_json(),
            "verified": model is not None,
            **document,
            "signature": str(signature) if signature else None,
            "seconds": round(time.monotonic() - started, 1),
        }
    )
