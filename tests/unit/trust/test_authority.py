import datetime as dt
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from costd.testing.certifier import DAY_NS, Certifier, replace
from costd.trust import Kind, Peer, Role, TlsFault, TlsFiles
from costd.trust.authority import issue, make_authority, read_authority, write_pair
from costd.trust.certificates import (
    chain_problem,
    peer_problem,
    read_certificates,
    role_named,
    subject_of,
    validity_problem,
)

NS_PER_S = 10**9


@pytest.fixture
def certifier(tmp_path):
    return Certifier(tmp_path / "ca")


def leaf(issued):
    return read_certificates(issued.certificate_pem, "it")[0]


@pytest.mark.parametrize(
    ("kind", "name", "role"),
    [
        (Kind.DAEMON, "host-7", None),
        (Kind.COORDINATOR, "c1.example.org", None),
        (Kind.OPERATOR, "ann@example.org", Role.VIEWER),
        (Kind.OPERATOR, "bob", Role.ADMIN),
        (Kind.AGENT, "ci_1", None),
    ],
)
def test_a_certificate_says_whom_it_was_issued_for(certifier, kind, name, role):
    issued = certifier.issued(kind, name, role)
    assert subject_of(leaf(issued)) == Peer(kind=kind, name=name, role=role)
    assert chain_problem([leaf(issued)], [certifier.certificate], certifier.now_ns) is None


def test_keys_and_certificates_are_readable_by_their_owner_only(certifier):
    pair = certifier.pair(Kind.DAEMON, "d")
    for path in (*pair, certifier.directory / "ca.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_is_overwritten(certifier, tmp_path):
    with pytest.raises(TlsFault, match="exists already"):
        Certifier(tmp_path / "ca")
    issued = certifier.issued(Kind.DAEMON, "d")
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with pytest.raises(TlsFault, match="exists already"):
        write_pair(issued, taken, tmp_path / "new.key")
    assert taken.read_text() == "mine"
    assert not (tmp_path / "new.key").exists()


@pytest.mark.parametrize(
    ("peer", "problem"),
    [
        (Peer(kind=Kind.DAEMON, name=""), "name"),
        (Peer(kind=Kind.DAEMON, name="a/b"), "name"),
        (Peer(kind=Kind.DAEMON, name="a?role=admin"), "name"),
        (Peer(kind=Kind.DAEMON, name="x" * 129), "name"),
        (Peer(kind=Kind.DAEMON, name="ä"), "name"),
        (Peer(kind=Kind.DAEMON, name="d\n"), "name"),
        (Peer(kind=Kind.DAEMON, name="d", role=Role.ADMIN), "role"),
        (Peer(kind=Kind.OPERATOR, name="ann"), "role"),
    ],
)
def test_what_cannot_be_certified_is_refused(certifier, peer, problem):
    assert problem in peer_problem(peer)
    with pytest.raises(ValueError, match=problem):
        issue(certifier.authority, peer, certifier.now_ns)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"days": 0}, "days"),
        ({"days": 826}, "days"),
        ({"ip": ["1.2.3"]}, "no IP address"),
        ({"dns": ["a b/c"]}, "no DNS name"),
        ({"dns": ["costd://coordinator/x"]}, "no DNS name"),
        ({"dns": ["coordinator.costd.internal"]}, "kind"),
        ({"dns": ["Coordinator.COSTD.internal."]}, "kind"),
    ],
)
def test_a_daemon_cannot_be_certified_for_more_than_it_is(certifier, more, problem):
    with pytest.raises(ValueError, match=problem):
        issue(certifier.authority, Peer(kind=Kind.DAEMON, name="d"), certifier.now_ns, **more)


def test_only_servers_have_addresses_and_may_serve(certifier):
    operator = Peer(kind=Kind.OPERATOR, name="ann", role=Role.ADMIN)
    with pytest.raises(ValueError, match="no address"):
        issue(certifier.authority, operator, certifier.now_ns, dns=["localhost"])
    uses = leaf(certifier.issued(Kind.OPERATOR, "ann", Role.ADMIN)).extensions
    assert list(uses.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH
    ]


def test_a_certificate_ends_no_later_than_its_ca(tmp_path):
    write_pair(make_authority("short", 0, days=10), tmp_path / "ca.crt", tmp_path / "ca.key")
    short = read_authority(tmp_path, 0)
    issued = leaf(issue(short, Peer(kind=Kind.DAEMON, name="d"), 0, days=90))
    assert issued.not_valid_after_utc == short.certificate.not_valid_after_utc


def test_validity_begins_and_ends_to_the_second(certifier):
    found = leaf(certifier.issued(Kind.DAEMON, "d", days=1))
    begins = int(found.not_valid_before_utc.timestamp()) * NS_PER_S
    ends = int(found.not_valid_after_utc.timestamp() + 1) * NS_PER_S
    assert "not valid before" in validity_problem(found, begins - 1)
    assert validity_problem(found, begins) is None
    assert validity_problem(found, ends - 1) is None
    assert "expired at" in validity_problem(found, ends)


def test_another_ca_of_the_same_name_stands_behind_nothing(certifier, tmp_path):
    other = Certifier(tmp_path / "other")
    problem = chain_problem(
        [leaf(certifier.issued(Kind.DAEMON, "d"))], [other.certificate], certifier.now_ns
    )
    assert "not issued by the trusted CA" in problem


def test_a_certificate_that_is_no_ca_issues_nothing(certifier):
    """A daemon could sign with its own key; nobody believes it."""
    issued = certifier.issued(Kind.DAEMON, "d")
    key = serialization.load_pem_private_key(issued.key_pem, None)
    forged = signed(key, leaf(issued).subject, [x509.UniformResourceIdentifier("costd://daemon/x")])
    assert chain_problem([forged, leaf(issued)], [certifier.certificate], certifier.now_ns)
    assert chain_problem([forged], [leaf(issued)], certifier.now_ns)


def signed(key, issuer, names):
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "forged")]))
        .issuer_name(issuer)
        .public_key(ec.generate_private_key(ec.SECP256R1()).public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256())


URI = x509.UniformResourceIdentifier


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ([], "no costd:// name"),
        ([x509.DNSName("costd://operator/eve?role=admin")], "no costd:// name"),
        ([URI("https://example.org/")], "no costd:// name"),
        ([URI("costd://daemon/a"), URI("costd://operator/b?role=admin")], "2 costd:// names"),
        ([URI("costd://emperor/a")], "not sound"),
        ([URI("costd://operator/a")], "not sound"),
        ([URI("costd://operator/a?role=king")], "not sound"),
        ([URI("costd://daemon/a?role=admin")], "not sound"),
        ([URI("costd://daemon/a/b")], "not sound"),
        ([URI("costd:daemon")], "not sound"),
    ],
)
def test_a_certificate_of_another_make_says_what_is_missing(certifier, names, problem):
    forged = signed(certifier.authority.key, certifier.certificate.subject, names)
    with pytest.raises(TlsFault, match=problem):
        subject_of(forged)


def test_roles_are_known_by_name():
    assert [role_named(role.label) for role in Role] == list(Role)
    with pytest.raises(ValueError, match="viewer, operator, admin"):
        role_named("root")


# ---- files ----


def test_a_ca_that_is_not_there_or_not_whole_is_named(tmp_path, certifier):
    with pytest.raises(TlsFault, match="costctl ca init"):
        read_authority(tmp_path / "none", certifier.now_ns)
    (certifier.directory / "ca.key").unlink()
    with pytest.raises(TlsFault, match=r"ca\.key cannot be read: No such file"):
        read_authority(certifier.directory, certifier.now_ns)


def test_a_ca_that_has_expired_signs_nothing(certifier):
    with pytest.raises(TlsFault, match="expired at"):
        read_authority(certifier.directory, certifier.now_ns + 5_000 * DAY_NS)


def test_a_ca_with_another_ones_key_signs_nothing(certifier, tmp_path):
    other = Certifier(tmp_path / "other")
    (certifier.directory / "ca.key").write_bytes((other.directory / "ca.key").read_bytes())
    with pytest.raises(TlsFault, match="is not the key of"):
        read_authority(certifier.directory, certifier.now_ns)


def test_a_daemons_certificate_is_no_ca(certifier, tmp_path):
    write_pair(certifier.issued(Kind.DAEMON, "d"), tmp_path / "ca.crt", tmp_path / "ca.key")
    with pytest.raises(TlsFault, match="no CA's certificate"):
        read_authority(tmp_path, certifier.now_ns)


def test_an_ed25519_key_is_no_cas(certifier):
    key = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (certifier.directory / "ca.key").write_bytes(key)
    with pytest.raises(TlsFault, match="no elliptic-curve key"):
        read_authority(certifier.directory, certifier.now_ns)


def test_files_that_cannot_be_used_say_why(certifier, tmp_path):
    good = certifier.pair(Kind.DAEMON, "d")
    other = certifier.pair(Kind.DAEMON, "e")
    stranger = Certifier(tmp_path / "other").pair(Kind.DAEMON, "d")
    text = tmp_path / "text"
    text.write_text("no PEM")
    text.chmod(0o600)
    large = tmp_path / "large"
    large.write_bytes(b"x" * (1024 * 1024 + 1))
    for changed, problem in (
        ({"certificate": tmp_path / "none"}, "none cannot be read: No such file"),
        ({"certificate": text}, "holds no certificate in PEM"),
        ({"certificate": large}, "is larger than"),
        ({"key": text}, "no unencrypted private key"),
        ({"key": other.key}, "is not the key of"),
        ({"key": tmp_path}, "cannot be read: Is a directory"),
        ({"ca": stranger.ca}, "do not belong together"),
        ({"ca": good.key}, "holds no certificate in PEM"),
        ({"key": None}, "name both"),
    ):
        with pytest.raises(TlsFault, match=problem):
            TlsFiles(**(good._asdict() | changed))


@pytest.mark.parametrize(("age_days", "problem"), [(8, "expired at"), (-2, "not valid before")])
def test_a_certificate_out_of_its_time_is_refused(certifier, age_days, problem):
    pair = certifier.pair(Kind.DAEMON, "d", age_days=age_days)
    with pytest.raises(TlsFault, match=problem):
        pair.files()


def test_a_ca_out_of_its_time_is_refused(tmp_path):
    certifier = Certifier(tmp_path / "ca")
    write_pair(make_authority("old", 0, days=1), tmp_path / "old.crt", tmp_path / "old.key")
    with pytest.raises(TlsFault, match="expired at 1970-01-02"):
        certifier.pair(Kind.DAEMON, "d")._replace(ca=tmp_path / "old.crt").files()


def test_a_certificate_that_is_not_valid_yet_is_taken_once_it_is(certifier):
    """The clock of whoever issued it is ahead of ours, and its file does not change again."""
    pair = certifier.pair(Kind.DAEMON, "d")
    clock, told = [certifier.now_ns], []
    files = TlsFiles(**pair._asdict(), tell=told.append, wall_ns=lambda: clock[0])
    first = files.current()
    again = certifier.issued(Kind.DAEMON, "d", age_days=-1)
    replace(pair, again)
    for minute in range(5):
        clock[0] = certifier.now_ns + minute * 60 * NS_PER_S
        assert files.current() == first
    assert len(told) == 1
    assert "not valid before" in told[0]
    clock[0] = certifier.now_ns + DAY_NS
    assert files.current().certificate_pem == again.certificate_pem
    assert files.problem == ""


@pytest.mark.parametrize("mode", [0o640, 0o644, 0o660, 0o602])
def test_a_key_that_others_can_read_or_write_is_refused(certifier, mode):
    pair = certifier.pair(Kind.DAEMON, "d")
    pair.key.chmod(mode)
    if mode == 0o640 and pair.key.stat().st_uid == 0:
        pair.files()  # as secrets are mounted for a service
        return
    with pytest.raises(TlsFault, match=rf"mode {mode:04o}.*chmod 600"):
        pair.files()


def test_files_are_read_again_when_they_change_and_only_if_they_make_sense(certifier):
    pair = certifier.pair(Kind.DAEMON, "d")
    told = []
    files = TlsFiles(**pair._asdict(), tell=told.append)
    first = files.current()
    assert files.current() is first
    again = certifier.issued(Kind.DAEMON, "d")
    pair.certificate.write_bytes(again.certificate_pem)
    assert files.current() == first  # the key is not there yet
    assert files.current() == first
    assert len(told) == 1
    assert "is not the key of" in told[0]
    assert files.problem == told[0]
    pair.key.write_bytes(again.key_pem)
    assert files.current().certificate_pem == again.certificate_pem
    assert files.current().version == first.version + 1
    assert files.problem == ""
    pair.key.unlink()
    assert files.current().key_pem == again.key_pem
    assert "cannot be read" in told[1]
