"""`turbotool fetch` as it is typed, against a server on this machine and a Sigstore of the test's own."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from command_line import Done, typed
from fake_package import BUILT, EPOCH, NEEDS, PROGRAM, TREE
from fake_tools import commit
from local_trust import COMMIT, Identity, LocalTrust, statement
from tiny_gguf import gguf, write

from turbotool import __version__
from turbotool.build.platforms import PLATFORMS, find_platform
from turbotool.build.record import BuiltFrom
from turbotool.build.targets import PACKAGED
from turbotool.errors import (
    ArchiveError,
    AttestationError,
    FetchError,
    HashMismatch,
    OlderRelease,
    PackageError,
    ToolMissing,
    UsageMistake,
    VerificationFailed,
    WrongSigner,
)
from turbotool.fetch.run import NOT_CHECKED
from turbotool.layout import Layout
from turbotool.release.pack import Member, with_sums, write_archive
from turbotool.release.record import portable_record
from turbotool.system.documents import encode
from turbotool.upstream.lock import read_lock

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake programs are scripts")
REPORTS = BUILT.reports
Answers = dict[str, "bytes | Callable[[http.server.BaseHTTPRequestHandler], None]"]


@pytest.fixture
def served() -> Iterator[tuple[str, Answers, list[str]]]:
    """A server on this machine: its address, what it answers by name, and what it was asked for."""
    answers: Answers = {}
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.split("?")[0].lstrip("/")
            asked.append(name)
            found = answers.get(name)
            if callable(found):
                found(self)
                return
            self.send_response(404 if found is None else 200)
            self.end_headers()
            self.wfile.write(found or b"")

        def log_message(self, *words: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", answers, asked
    server.shutdown()
    server.server_close()
    thread.join()


def program_of(tree: str) -> bytes:
    return PROGRAM.replace(b"ababababa", tree[:9].encode())


@dataclass
class Site:
    """A folder with releases, a trust root and a layout of its own, a server, and the command line."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    address: str
    answers: Answers
    asked: list[str]
    trust: LocalTrust = field(default_factory=LocalTrust)
    platform: str = field(default_factory=lambda: find_platform(None).name)

    @property
    def layout(self) -> Layout:
        return Layout(Path(__file__).parents[3], self.folder / "work", self.folder / "cache")

    @property
    def name(self) -> str:
        return f"llama-{REPORTS}-{self.platform}-cpu.tar.gz"

    @property
    def place(self) -> Path:
        return self.layout.builds / "fetched" / f"{self.platform}-cpu"

    def release(self, *, program: bytes = PROGRAM, name: str = "", **record: Any) -> Path:
        """An archive whose programs are scripts."""
        outputs = tuple(replace(BUILT.outputs[0], name=one, sha256=_sha256(program)) for one in PACKAGED)
        made = portable_record(replace(BUILT, outputs=outputs), NEEDS)
        files = {f"bin/{one}": Member(program, executable=True) for one in PACKAGED}
        files["build.json"] = Member(encode(replace(made, **record)))
        target = self.folder / "releases" / (name or self.name)
        write_archive(target, target.name.removesuffix(".tar.gz"), with_sums(files), EPOCH)
        return target

    def attest(self, archive: Path, who: Identity | None = None, **changes: Any) -> bytes:
        """Its attestation, written beside it."""
        data = self.trust.attestation(archive, who, **changes)
        archive.with_name(f"{archive.name}.provenance.json").write_bytes(data)
        return data

    def serve(self, archive: Path, attestation: bytes) -> str:
        self.answers[archive.name] = archive.read_bytes()
        self.answers[f"{archive.name}.provenance.json"] = attestation
        return f"{self.address}/{archive.name}"

    def fetch(self, place: str | Path, *words: str | Path, proven: bool = True) -> Done:
        root = self.trust.write(self.folder / "trusted_root.json")
        proof = ("--model", self.folder / "model.gguf", "--check", "binaries-start") if proven else ("--no-verify",)
        return typed(["fetch", place, "--trust-root", root, *proof, *words, "--json"], self.capsys)

    def refused(self, done: Done, error: type[Exception], *said: str) -> None:
        """It ended with this error, which says so; nothing was put in its place and nothing is left."""
        assert done.document["ok"] is False, done.document
        told = done.document["error"]
        assert (told["class"], done.code) == (error.__name__, error.exit_code)  # type: ignore[attr-defined]
        assert all(word in told["message"] for word in said), told
        assert not self.place.exists()
        assert not list(self.place.parent.glob(".fetch-*"))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def site(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    served: tuple[str, Answers, list[str]],
) -> Site:
    made = Site(tmp_path, capsys, *served)
    monkeypatch.setattr("turbotool.layout.find_layout", lambda: made.layout)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    commit(
        made.layout.tree, {"README.md": "A sentence of the documentation that is long enough to be prose.\n\n" * 100}
    )
    write(tmp_path, gguf())
    return made


# Accepted


def test_release_from_a_server_is_checked_proven_and_put_in_its_place(site: Site) -> None:
    archive = site.release()
    done = site.fetch(site.serve(archive, site.attest(archive)))
    assert done.code == 0, done.stderr
    found = done.document
    assert (found["ok"], found["verified"], found["tag"], found["commit"]) == (True, True, "v99.1.0", COMMIT)
    assert (found["repository"], found["tree"]) == ("turbotool/turbotool", TREE)
    assert found["sha256"] == _sha256(archive.read_bytes())
    assert [check["name"] for check in found["checks"]] == ["binaries-start"]
    assert Path(found["bin_dir"]) == site.place / "release" / "bin"
    assert (site.place / "release" / "bin" / "llama-cli").read_bytes() == PROGRAM
    assert json.loads((site.place / "fetched.json").read_text())["tag"] == "v99.1.0"
    assert site.asked == [archive.name, f"{archive.name}.provenance.json"]
    assert not list(site.place.parent.glob(".fetch-*"))


def test_what_was_checked_and_what_was_not_is_said_to_people_and_in_the_document(site: Site) -> None:
    archive = site.release()
    site.attest(archive)
    done = site.fetch(archive, proven=False)
    names = [one["name"] for one in done.document["held"]]
    assert names == ["signature", "log", "signer", "attestation", "archive", "age", "sums", "lock"]
    details = {one["name"]: one["detail"] for one in done.document["held"]}
    assert "trusted_root.json" in details["signature"]
    assert details["log"].startswith("entry 1 of the transparency log")
    assert details["lock"] == f"not compared: v99.1.0 has a lock of its own, this is turbotool {__version__}"
    assert f"{len(PACKAGED) + 1} files" in details["sums"]
    assert done.document["not_checked"] == list(NOT_CHECKED)
    assert (done.document["verified"], done.document["checks"]) == (False, None)
    for line in (*NOT_CHECKED, *details.values(), "what the programs compute: --no-verify"):
        assert line in done.stderr


def test_attestation_may_be_elsewhere_and_an_address_may_ask_for_something(site: Site) -> None:
    archive = site.release()
    address = site.serve(archive, site.attest(archive))
    del site.answers[f"{archive.name}.provenance.json"]
    (site.folder / "other.json").write_bytes(site.trust.attestation(archive))
    assert site.fetch(f"{address}?download=1", "--attestation", site.folder / "other.json", proven=False).code == 0
    assert site.asked == [archive.name]


def test_newer_release_replaces_the_one_that_is_here(site: Site) -> None:
    for tag, program in (("v99.1.0", PROGRAM), ("v99.2.0", PROGRAM + b"# more\n")):
        archive = site.release(program=program)
        site.attest(archive, Identity(ref=f"refs/tags/{tag}"))
        done = site.fetch(archive, proven=False)
        assert (done.code, done.document["tag"]) == (0, tag)
        assert (site.place / "release/bin/llama-cli").read_bytes() == program
    assert {path.name for path in site.place.iterdir()} == {"fetched.json", "release"}


def test_release_of_another_repository_is_taken_where_it_is_named(site: Site) -> None:
    archive = site.release()
    site.attest(archive, Identity(repository="fork/turbotool"))
    done = site.fetch(archive, "--repository", "fork/turbotool", proven=False)
    assert (done.code, done.document["repository"]) == (0, "fork/turbotool")


def test_release_of_this_version_must_have_this_lock(site: Site) -> None:
    lock, this = read_lock(site.layout), Identity(ref=f"refs/tags/v{__version__}")
    up = lock.upstream
    same: dict[str, Any] = {"tree": lock.series.tree, "lock": BuiltFrom(up.commit, up.source, up.tag, up.tree)}
    archive = site.release(tree=lock.series.tree)
    site.attest(archive, this)
    site.refused(site.fetch(archive, proven=False), HashMismatch, lock.series.tree, BUILT.lock.known_as)
    archive = site.release()
    site.attest(archive, this)
    site.refused(site.fetch(archive, proven=False), HashMismatch, TREE, lock.series.tree)
    archive = site.release(**same)
    site.attest(archive, this)
    done = site.fetch(archive, proven=False)
    assert done.code == 0, done.stderr
    assert f"ok    lock         tree {lock.series.tree}" in done.stderr


# Refused: another signer


@pytest.mark.parametrize(
    ("who", "said"),
    [
        (Identity(repository="mallory/turbotool"), "https://github.com/mallory/turbotool/"),
        (Identity(workflow=".github/workflows/pull-request.yml"), "pull-request.yml"),
        (Identity(ref="refs/heads/main"), "refs/heads/main"),
        (Identity(ref="refs/tags/v1/../x"), "refs/tags/v1/../x"),
        (Identity(issuer="https://issuer.invalid"), "https://issuer.invalid"),
        (Identity(runner="self-hosted"), "self-hosted"),
        (Identity(trigger="pull_request"), "pull_request"),
    ],
    ids=lambda value: value.split("/")[-1] if isinstance(value, str) else "",
)
def test_another_signer_is_refused_before_anything_is_unpacked(
    site: Site, monkeypatch: pytest.MonkeyPatch, who: Identity, said: str
) -> None:
    monkeypatch.setattr("turbotool.fetch.run.unpack_package", lambda *_: pytest.fail("unpacked"))
    archive = site.release()
    site.refused(site.fetch(site.serve(archive, site.attest(archive, who))), WrongSigner, said)


def test_same_name_by_another_authority_is_refused(site: Site) -> None:
    archive = site.release()
    address = site.serve(archive, LocalTrust().attestation(archive))
    site.refused(site.fetch(address), AttestationError, "does not hold")


@pytest.mark.parametrize("key", ["root", "certificates", "log"])
def test_each_key_of_the_trust_root_is_needed(site: Site, key: str) -> None:
    archive = site.release()
    other = replace(site.trust, **{key: getattr(LocalTrust(), key)})
    site.refused(site.fetch(site.serve(archive, other.attestation(archive))), AttestationError, "does not hold")


def test_signature_of_a_certificate_that_had_expired_is_refused(site: Site) -> None:
    archive = site.release()
    late = json.loads(site.trust.attestation(archive))
    entry = site.trust.later(hours=1)  # the log has it an hour later than the certificate allows
    data = json.loads(entry.attestation(archive))
    late["verificationMaterial"]["tlogEntries"] = data["verificationMaterial"]["tlogEntries"]
    site.refused(site.fetch(site.serve(archive, json.dumps(late).encode())), AttestationError, "does not hold")


# Refused: an older release


def test_older_release_than_the_one_here_is_refused_unless_that_is_allowed(site: Site) -> None:
    new, old = Identity(ref="refs/tags/v99.10.0"), Identity(ref="refs/tags/v99.9.0")
    archive = site.release()
    site.attest(archive, new)
    assert site.fetch(archive, proven=False).code == 0
    site.attest(archive, old)
    done = site.fetch(archive, proven=False)
    assert (done.code, done.document["error"]["class"]) == (OlderRelease.exit_code, "OlderRelease")
    assert "v99.9.0 is older than v99.10.0, which is here" in done.document["error"]["message"]
    assert "--allow-older" in done.document["error"]["hint"]
    assert json.loads((site.place / "fetched.json").read_text())["tag"] == "v99.10.0"
    done = site.fetch(archive, "--allow-older", proven=False)
    assert (done.code, done.document["tag"]) == (0, "v99.9.0")


def test_older_release_than_turbotool_itself_is_refused(site: Site) -> None:
    archive = site.release()
    address = site.serve(archive, site.attest(archive, Identity(ref="refs/tags/v0.0.1")))
    site.refused(site.fetch(address), OlderRelease, f"v0.0.1 is older than turbotool {__version__}")


def test_tag_that_is_no_version_is_refused(site: Site) -> None:
    archive = site.release()
    address = site.serve(archive, site.attest(archive, Identity(ref="refs/tags/v1-what-ever")))
    site.refused(site.fetch(address), AttestationError, "v1-what-ever is no version")


# Refused: a changed byte


def test_changed_byte_of_the_archive_is_refused_before_it_is_unpacked(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turbotool.fetch.run.unpack_package", lambda *_: pytest.fail("unpacked"))
    archive = site.release()
    good, attested = archive.read_bytes(), site.attest(archive)
    address = site.serve(archive, attested)
    changed = bytes([*good[:-9], good[-9] ^ 1, *good[-8:]])
    site.answers[archive.name] = changed
    site.refused(site.fetch(address), HashMismatch, _sha256(good), _sha256(changed))


@pytest.mark.parametrize(
    "path",
    [
        ("dsseEnvelope", "payload"),
        ("dsseEnvelope", "signatures", 0, "sig"),
        ("verificationMaterial", "certificate", "rawBytes"),
        ("verificationMaterial", "tlogEntries", 0, "canonicalizedBody"),
        ("verificationMaterial", "tlogEntries", 0, "inclusionPromise", "signedEntryTimestamp"),
        ("verificationMaterial", "tlogEntries", 0, "inclusionProof", "rootHash"),
        ("verificationMaterial", "tlogEntries", 0, "inclusionProof", "hashes", 0),
        ("verificationMaterial", "tlogEntries", 0, "integratedTime"),
    ],
    ids=lambda path: str(path[-1]),
)
def test_changed_byte_of_the_attestation_is_refused(site: Site, path: tuple[str | int, ...]) -> None:
    archive = site.release()
    bundle = json.loads(site.attest(archive))
    holder: Any = bundle
    for step in path[:-1]:
        holder = holder[step]
    text = holder[path[-1]]
    at = len(text) // 2
    holder[path[-1]] = text[:at] + ("1" if text[at] != "1" else "2") + text[at + 1 :]
    site.refused(site.fetch(site.serve(archive, json.dumps(bundle).encode())), AttestationError, "does not hold")


def test_changed_byte_in_an_attested_archive_differs_from_its_own_sums(site: Site) -> None:
    archive = site.release()
    files = {"bin/x": Member(b"1"), "build.json": Member(encode(portable_record(BUILT, NEEDS)))}
    changed = {**with_sums(files), "bin/x": Member(b"2")}
    write_archive(archive, archive.name.removesuffix(".tar.gz"), changed, EPOCH)
    site.refused(site.fetch(site.serve(archive, site.attest(archive))), HashMismatch, "SHA256SUMS", "bin/x")


def test_program_that_its_record_does_not_have_is_refused(site: Site) -> None:
    archive = site.release(outputs=portable_record(BUILT, NEEDS).outputs)
    site.refused(site.fetch(site.serve(archive, site.attest(archive))), HashMismatch, "bin/llama-cli", "build.json")


# Refused: what an attestation says


def predicate_with(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = statement("x", "0", Identity())["predicate"]
    for path, value in changes.items():
        holder = made
        *steps, last = path.split("__")
        for step in steps:
            holder = holder[int(step)] if step.isdigit() else holder[step]  # type: ignore[index]
        holder[last] = value
    return made


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"subject": [{"name": "another.zip", "digest": {"sha256": "0" * 64}}]}, HashMismatch, "does not name it"),
        ({"predicateType": "https://example.invalid/x"}, AttestationError, "https://example.invalid/x"),
        ({"predicate": {}}, AttestationError, "no SLSA provenance"),
        ({"subject": "all"}, AttestationError, "no SLSA provenance"),
        (
            {"predicate": predicate_with(runDetails__builder__id="https://builder.invalid")},
            AttestationError,
            "tells of another run",
        ),
        (
            {"predicate": predicate_with(buildDefinition__externalParameters__workflow__ref="refs/tags/v98.0.0")},
            AttestationError,
            "tells of another run",
        ),
        (
            {"predicate": predicate_with(buildDefinition__resolvedDependencies=[])},
            AttestationError,
            "names 0 commits",
        ),
        (
            {"predicate": predicate_with(buildDefinition__resolvedDependencies__0__digest={"gitCommit": "d1" * 20})},
            AttestationError,
            "provenance and certificate differ",
        ),
    ],
)
def test_statement_about_something_else_is_refused(
    site: Site, changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    archive = site.release()
    site.refused(site.fetch(site.serve(archive, site.attest(archive, **changes))), error, said)


def test_envelope_of_another_kind_is_refused(site: Site) -> None:
    archive = site.release()
    said = statement(archive.name, _sha256(archive.read_bytes()), Identity())
    bundle = site.trust.bundle(said, Identity(), kind="text/plain")
    address = site.serve(archive, json.dumps(bundle).encode())
    site.refused(site.fetch(address), AttestationError, "'text/plain' instead of an in-toto statement")


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b"[" * 100_000, b"\xff"], ids=["empty", "list", "bare", "deep", "raw"]
)
def test_attestation_that_is_none_is_refused(site: Site, data: bytes) -> None:
    archive = site.release()
    site.refused(
        site.fetch(site.serve(archive, data)), AttestationError, f"{archive.name}.provenance.json does not hold"
    )


# Refused: archives and addresses


def test_archive_whose_record_says_another_build_is_refused(site: Site) -> None:
    archive = site.release(reports="another")
    site.refused(site.fetch(site.serve(archive, site.attest(archive))), ArchiveError, REPORTS, "another")


def test_attested_archive_that_leaves_its_folder_writes_nothing_there(site: Site) -> None:
    archive = site.release()
    write_archive(archive, "..", {"escaped": Member(b"1")}, EPOCH)
    site.refused(site.fetch(site.serve(archive, site.attest(archive))), ArchiveError, "escapes its folder")
    assert not list(site.folder.rglob("escaped"))


def test_programs_that_fail_the_proof_are_not_put_in_place(site: Site) -> None:
    archive = site.release(program=program_of("cd" * 20))
    done = site.fetch(site.serve(archive, site.attest(archive)))
    site.refused(done, VerificationFailed, "binaries-start")
    assert [check["ok"] for check in done.document["checks"]] == [False]


def test_missing_attestation_is_told_with_its_address(site: Site) -> None:
    archive = site.release()
    site.answers[archive.name] = archive.read_bytes()
    site.refused(site.fetch(f"{site.address}/{archive.name}"), FetchError, "404", f"{archive.name}.provenance.json")


def test_file_that_is_not_there_is_told(site: Site) -> None:
    site.refused(site.fetch(site.folder / site.name), FetchError, "No such file")


def test_more_bytes_than_an_archive_may_have_are_not_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turbotool.fetch.run.LARGEST", 1000)
    archive = site.release()
    sent = []

    def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            for _ in range(1000):
                handler.wfile.write(b"0" * (1 << 20))
                sent.append(1)
        except OSError:
            pass

    site.answers[archive.name] = endless
    site.refused(site.fetch(f"{site.address}/{archive.name}"), FetchError, "is larger than 1000 bytes")
    assert len(sent) < 1000


def test_archive_that_ends_early_is_refused(site: Site) -> None:
    archive = site.release()
    address = site.serve(archive, site.attest(archive))

    def cut(handler: http.server.BaseHTTPRequestHandler) -> None:
        data = archive.read_bytes()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:-10])

    site.answers[archive.name] = cut
    site.refused(site.fetch(address), FetchError, "cannot get")


@pytest.mark.parametrize("elsewhere", ["http://localhost:{port}/x", "file:///etc/passwd", "ftp://x.invalid/x"])
def test_redirection_to_anything_but_https_is_not_followed(site: Site, elsewhere: str) -> None:
    archive = site.release()
    address = site.serve(archive, site.attest(archive))
    target = elsewhere.format(port=address.split(":")[2].split("/")[0])

    def moved(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.end_headers()

    site.answers[archive.name] = moved
    site.refused(site.fetch(address), FetchError, "not https")
    assert "x" not in site.asked


@pytest.mark.parametrize(
    "host",
    ["http://example.invalid", "http://127.0.0.1.example.invalid:80", "http://127.0.0.1:80@example.invalid", "ftp://x"],
)
def test_address_that_is_not_encrypted_is_not_asked(site: Site, host: str) -> None:
    site.refused(site.fetch(f"{host}/{site.name}"), UsageMistake, "is not taken")


@pytest.mark.parametrize(
    "name", ["x.tar.gz", "llama-x-plan9-cpu.tar.gz", "..", "", "llama-%2e%2e%2fx-linux-x64-cpu.tar.gz"]
)
def test_name_that_no_archive_of_a_release_has_is_refused(site: Site, name: str) -> None:
    site.refused(site.fetch(f"{site.address}/{name}"), UsageMistake)
    assert site.asked == []


def test_archive_of_another_platform_is_refused_unless_it_is_not_to_run(site: Site) -> None:
    site.platform = next(name for name, one in PLATFORMS.items() if not one.native)
    archive = site.release()
    site.attest(archive)
    site.refused(site.fetch(archive), PackageError, "does not run on this machine")
    assert site.fetch(archive, proven=False).code == 0


def test_file_that_is_no_trust_root_and_a_name_that_is_no_repository_are_refused(site: Site) -> None:
    archive = site.release()
    site.attest(archive)
    (site.folder / "bad.json").write_text("{}")
    done = typed(["fetch", archive, "--no-verify", "--trust-root", site.folder / "bad.json", "--json"], site.capsys)
    site.refused(done, UsageMistake, "bad.json is no trust root")
    site.refused(site.fetch(archive, "--repository", "../x"), UsageMistake, "no repository on GitHub")


def test_without_sigstore_the_extra_is_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "turbotool.system.extras.importlib.util.find_spec", lambda name: None if name == "sigstore" else object()
    )
    done = site.fetch(site.folder / site.name)
    site.refused(done, ToolMissing, "sigstore, which is not installed")
    assert "turbotool[fetch]" in done.document["error"]["hint"]


def test_what_a_killed_run_left_is_removed(site: Site) -> None:
    left = site.place.parent / ".fetch-killed"
    left.mkdir(parents=True)
    archive = site.release()
    site.attest(archive)
    assert site.fetch(archive, proven=False).code == 0
    assert not left.exists()
