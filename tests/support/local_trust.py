"""A Sigstore of one's own, made anew for each test: a certificate authority, a certificate log, a transparency log, and
bundles in the format that GitHub's attestations have. Nothing of it leaves the process."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

REPOSITORY = "turbotool/turbotool"
WORKFLOW = ".github/workflows/release.yml"
ISSUER = "https://token.actions.githubusercontent.com"
COMMIT = "c0" * 20
PAYLOAD = "application/vnd.in-toto+json"
PREDICATE = "https://slsa.dev/provenance/v1"
SCT_LIST = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
START = "2020-01-01T00:00:00Z"


@dataclass(frozen=True)
class Identity:
    """What the certificate says of the workflow that signed."""

    repository: str = REPOSITORY
    workflow: str = WORKFLOW
    ref: str = "refs/tags/v99.1.0"
    issuer: str = ISSUER
    commit: str = COMMIT
    runner: str = "github-hosted"
    trigger: str = "push"

    @property
    def home(self) -> str:
        return f"https://github.com/{self.repository}"

    @property
    def signer(self) -> str:
        return f"{self.home}/{self.workflow}@{self.ref}"

    @property
    def claims(self) -> dict[int, str]:
        """By the last number of Fulcio's object identifiers."""
        return {
            8: self.issuer,
            9: self.signer,
            11: self.runner,
            12: self.home,
            13: self.commit,
            14: self.ref,
            20: self.trigger,
        }


def statement(name: str, digest: str, who: Identity, **changes: Any) -> dict[str, Any]:
    """An in-toto statement with SLSA provenance, as GitHub writes it."""
    workflow = {"ref": who.ref, "repository": who.home, "path": who.workflow}
    source = {"uri": f"git+{who.home}@{who.ref}", "digest": {"gitCommit": who.commit}}
    made = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": "another.zip", "digest": {"sha256": "0" * 64}},
            {"name": name, "digest": {"sha256": digest}},
        ],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": "https://actions.github.io/buildtypes/workflow/v1",
                "externalParameters": {"workflow": workflow},
                "internalParameters": {"github": {"event_name": "push"}},
                "resolvedDependencies": [source],
            },
            "runDetails": {
                "builder": {"id": who.signer},
                "metadata": {"invocationId": f"{who.home}/actions/runs/7/attempts/1"},
            },
        },
    }
    return {**made, **changes}


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _der(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def _utf8(text: str) -> bytes:
    """DER's UTF8String."""
    data = text.encode()
    length = bytes([len(data)]) if len(data) < 128 else bytes([0x81, len(data)])
    return b"\x0c" + length + data


def _octets(data: bytes) -> bytes:
    """DER's OCTET STRING of less than 256 bytes."""
    return b"\x04" + (bytes([len(data)]) if len(data) < 128 else bytes([0x81, len(data)])) + data


@dataclass(frozen=True)
class LocalTrust:
    """The keys of the authority and of the two logs, and since when and how long certificates are good."""

    root: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    certificates: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    log: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    signed: datetime = field(default_factory=lambda: datetime.now(timezone.utc).replace(microsecond=0))
    valid: timedelta = timedelta(minutes=10)

    @property
    def name(self) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "local authority")])

    def authority(self) -> x509.Certificate:
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        identifier = x509.SubjectKeyIdentifier.from_public_key(self.root.public_key())
        return (
            x509.CertificateBuilder(self.name, self.name, self.root.public_key(), 1)
            .not_valid_before(datetime(2020, 1, 1, tzinfo=timezone.utc))
            .not_valid_after(datetime(2120, 1, 1, tzinfo=timezone.utc))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(identifier, critical=False)
            .sign(self.root, hashes.SHA256())
        )

    def write(self, file: Path) -> Path:
        """The trust root, as `trusted_root.json` has it."""
        chain = {"certificates": [{"rawBytes": _text(self.authority().public_bytes(Encoding.DER))}]}
        authority = {
            "subject": {"organization": "local", "commonName": "local authority"},
            "uri": "https://authority.invalid",
            "certChain": chain,
            "validFor": {"start": START},
        }
        root = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [self._log(self.log)],
            "certificateAuthorities": [authority],
            "ctlogs": [self._log(self.certificates)],
            "timestampAuthorities": [],
        }
        file.write_text(json.dumps(root), encoding="utf-8")
        return file

    def _log(self, key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
        public = {"rawBytes": _text(_der(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": {"start": START}}
        identifier = {"keyId": _text(hashlib.sha256(_der(key)).digest())}
        return {
            "baseUrl": "https://log.invalid",
            "hashAlgorithm": "SHA2_256",
            "publicKey": public,
            "logId": identifier,
        }

    def certificate(self, key: ec.EllipticCurvePrivateKey, who: Identity) -> x509.Certificate:
        """A short-lived certificate that the log of certificates has promised to hold."""
        usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(who.signer)])
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.root.public_key())
        builder = (
            x509.CertificateBuilder(self.name, x509.Name([]), key.public_key(), x509.random_serial_number())
            .not_valid_before(self.signed - timedelta(seconds=5))
            .not_valid_after(self.signed + self.valid)
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(issuer, critical=False)
            .add_extension(names, critical=True)
        )
        for number, value in who.claims.items():
            identifier = x509.ObjectIdentifier(f"1.3.6.1.4.1.57264.1.{number}")
            builder = builder.add_extension(x509.UnrecognizedExtension(identifier, _utf8(value)), critical=False)
        promise = self._promise(builder.sign(self.root, hashes.SHA256()).tbs_certificate_bytes)
        listed = x509.UnrecognizedExtension(
            SCT_LIST, _octets(struct.pack("!HH", len(promise) + 2, len(promise)) + promise)
        )
        return builder.add_extension(listed, critical=False).sign(self.root, hashes.SHA256())

    def _promise(self, precertificate: bytes) -> bytes:
        """A signed certificate timestamp, as RFC 6962 has it."""
        time = struct.pack("!Q", int(self.signed.timestamp() * 1000))
        entry = hashlib.sha256(_der(self.root)).digest() + len(precertificate).to_bytes(3, "big") + precertificate
        signature = _sign(self.certificates, b"\0\0" + time + struct.pack("!H", 1) + entry + b"\0\0")
        algorithm = b"\x04\x03"  # SHA-256, ECDSA
        head = b"\0" + hashlib.sha256(_der(self.certificates)).digest() + time + b"\0\0"
        return head + algorithm + struct.pack("!H", len(signature)) + signature

    def bundle(self, said: dict[str, Any], who: Identity, *, kind: str = PAYLOAD) -> dict[str, Any]:
        """What GitHub's attestation writes: a signed statement with certificate and entry of the transparency log."""
        key = _key()
        certificate = self.certificate(key, who)
        payload = json.dumps(said).encode()
        signature = _sign(key, f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload)
        return {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "tlogEntries": [self._entry(payload, signature, certificate)],
                "certificate": {"rawBytes": _text(certificate.public_bytes(Encoding.DER))},
            },
            "dsseEnvelope": {
                "payload": _text(payload),
                "payloadType": kind,
                "signatures": [{"sig": _text(signature)}],
            },
        }

    def _entry(self, payload: bytes, signature: bytes, certificate: x509.Certificate) -> dict[str, Any]:
        """The second of two entries, with the proof that it is one, and the log's promise."""
        signed = {"signature": _text(signature), "verifier": _text(certificate.public_bytes(Encoding.PEM))}
        hashed = {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()}
        spec = {"envelopeHash": hashed, "payloadHash": hashed, "signatures": [signed]}
        body = json.dumps({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec}).encode()
        other = hashlib.sha256(b"\0another entry").digest()
        root = hashlib.sha256(b"\1" + other + hashlib.sha256(b"\0" + body).digest()).digest()
        identifier = hashlib.sha256(_der(self.log)).digest()
        time = int(self.signed.timestamp())
        promised = {"body": _text(body), "integratedTime": time, "logID": identifier.hex(), "logIndex": 1}
        promise = _sign(self.log, json.dumps(promised, separators=(",", ":"), sort_keys=True).encode())
        note = f"log.invalid - 1\n2\n{_text(root)}\n"
        checkpoint = f"{note}\n\u2014 log.invalid {_text(identifier[:4] + _sign(self.log, note.encode()))}\n"
        return {
            "logIndex": "1",
            "logId": {"keyId": _text(identifier)},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(time),
            "inclusionPromise": {"signedEntryTimestamp": _text(promise)},
            "inclusionProof": {
                "logIndex": "1",
                "rootHash": _text(root),
                "treeSize": "2",
                "hashes": [_text(other)],
                "checkpoint": {"envelope": checkpoint},
            },
            "canonicalizedBody": _text(body),
        }

    def attestation(self, archive: Path, who: Identity | None = None, **changes: Any) -> bytes:
        """The bundle for an archive as it is now."""
        who = who or Identity()
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        return json.dumps(self.bundle(statement(archive.name, digest, who, **changes), who)).encode()

    def later(self, **time: float) -> LocalTrust:
        """The same authority at another time."""
        return replace(self, signed=self.signed + timedelta(**time))
