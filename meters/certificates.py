"""A market's own certificate authority: who may speak to its broker, and as whom.

A client certificate's CN is the name that the broker's access list knows: a meter's id, or the market's. The
TLS keys (P-256) are others than those that sign messages (secp256k1): a stolen connection forges nothing.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from grid.errors import InputError
from meters.identity import write_private

AUTHORITY_DAYS = 3650
_CLOCKS_DIFFER = dt.timedelta(minutes=5)

PrivateKey = ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Period:
    """When a certificate is valid; ``start`` in UTC."""

    start: dt.datetime
    days: float

    @property
    def end(self) -> dt.datetime:
        return self.start + dt.timedelta(days=self.days)


@dataclass(frozen=True)
class ClientCertificate:
    """Who a certificate is for, its number, and until when it is valid (UTC)."""

    name: str
    serial: int
    end: dt.datetime


def client_certificate(path: Path) -> ClientCertificate:
    """What a certificate file says; :class:`InputError` where it is none."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise InputError.single(str(path), "", error.strerror, "so it cannot be read") from None
    except ValueError:
        raise InputError.single(str(path), "", "…", "is no certificate") from None
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return ClientCertificate(str(name.value), certificate.serial_number, certificate.not_valid_after_utc)


class Authority:
    """A key and certificate in a folder (``ca.key``, ``ca.crt``) that others are signed with."""

    def __init__(self, folder: Path) -> None:
        """Opens an existing one; :class:`InputError` where there is none."""
        self.certificate_path = folder / "ca.crt"
        try:
            key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
            self._certificate = x509.load_pem_x509_certificate(self.certificate_path.read_bytes())
        except OSError as error:
            raise InputError.single(
                str(folder), "", error.strerror, "so it holds no authority: peergrid broker config makes one"
            ) from None
        except ValueError as error:
            raise InputError.single(str(folder), "ca.key", str(error), "is no key or certificate") from None
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key

    @classmethod
    def create(cls, folder: Path, name: str, now: dt.datetime) -> Authority:
        """A new one that signs for ten years. Its key is readable by its owner only."""
        key = ec.generate_private_key(ec.SECP256R1())
        period = Period(now, AUTHORITY_DAYS)
        subject = _name(f"Peergrid market {name}")
        certificate = (
            _builder(subject, subject, key, period)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        folder.mkdir(parents=True, exist_ok=True)
        write_private(folder / "ca.key", _key_pem(key))
        (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return cls(folder)

    def issue_client(self, folder: Path, file: str, name: str, period: Period) -> None:
        """Writes ``file``.key and ``file``.crt of a client whose CN is ``name``, at most 64 characters."""
        self._issue(folder, file, name, period, ExtendedKeyUsageOID.CLIENT_AUTH, ())

    def issue_server(self, folder: Path, file: str, hosts: Sequence[str], period: Period) -> None:
        """Writes ``file``.key and ``file``.crt of a broker that is reached under these names or addresses."""
        self._issue(folder, file, hosts[0], period, ExtendedKeyUsageOID.SERVER_AUTH, hosts)

    @property
    def revocations_path(self) -> Path:
        """The list of the certificates that are no longer valid."""
        return self.certificate_path.with_name("revoked.pem")

    @property
    def _issued_path(self) -> Path:
        return self.certificate_path.with_name("issued.txt")

    def revoke(self, name: str, now: dt.datetime) -> int:
        """Puts all certificates given out to ``name`` on the list; how many were not on it yet.

        Raises :class:`InputError` where none was ever given out.
        """
        lines = self._issued_path.read_text("utf-8").splitlines() if self._issued_path.exists() else []
        serials = [int(line.split()[0], 16) for line in lines if line.split()[2] == name]
        if not serials:
            raise InputError.single(str(self._issued_path), "", name, "never got a certificate here")
        return self.write_revocations(now, serials)

    def write_revocations(self, now: dt.datetime, serials: Sequence[int] = ()) -> int:
        """Writes the list with what is on it and ``serials``; how many of them are new.

        It is valid as long as the authority itself: with one that has expired, a broker lets nobody in.
        """
        revoked = {entry.serial_number: entry.revocation_date_utc for entry in self._revoked()}
        new = [serial for serial in serials if serial not in revoked]
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(now - _CLOCKS_DIFFER)
            .next_update(self._certificate.not_valid_after_utc)
        )
        for serial, since in (revoked | dict.fromkeys(new, now)).items():
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since).build()
            builder = builder.add_revoked_certificate(entry)
        text = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        beside = self.revocations_path.with_suffix(".new")
        beside.write_bytes(text)
        beside.replace(self.revocations_path)  # a broker that starts just then finds the old list or the new
        return len(new)

    def _revoked(self) -> Iterable[x509.RevokedCertificate]:
        if not self.revocations_path.exists():
            return ()
        try:
            return x509.load_pem_x509_crl(self.revocations_path.read_bytes())
        except ValueError:
            raise InputError.single(
                str(self.revocations_path), "", "…", "is no list of revocations"
            ) from None

    def _issue(
        self,
        folder: Path,
        file: str,
        name: str,
        period: Period,
        purpose: x509.ObjectIdentifier,
        hosts: Sequence[str],
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = (
            _builder(_name(name), self._certificate.subject, key, period)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False
            )
        )
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False
            )
        certificate = builder.sign(self._key, hashes.SHA256())
        folder.mkdir(parents=True, exist_ok=True)
        write_private(folder / f"{file}.key", _key_pem(key))
        with self._issued_path.open(
            "a", encoding="utf-8"
        ) as issued:  # first: what is not there is not revoked
            issued.write(f"{certificate.serial_number:x} {period.end:%Y-%m-%d} {name}\n")
        (folder / f"{file}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PrivateKey, period: Period
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(period.start - _CLOCKS_DIFFER)
        .not_valid_after(period.end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
