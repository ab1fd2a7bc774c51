import inspect
import os
from pathlib import Path

import pytest

from costd.cli.coordinator import coordinator
from costd.cli.serve import serve
from costd.coordinator import settings as coordinator_settings
from costd.daemon.settings import Settings, SettingsError, load_settings
from costd.endpoint import Endpoint, parse_endpoint
from costd.grants import keygen
from costd.injector import settings as injector_settings


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    for variable in [name for name in os.environ if name.startswith("COSTD_")]:
        monkeypatch.delenv(variable)


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "costd.yaml"
        path.write_text(text)
        return path

    return write


def test_a_policy_is_all_that_must_be_said():
    settings = load_settings({"policy": "p.yaml"})
    assert settings.durability == "process"
    assert settings.claims == ()
    assert settings.labels_fixed == {}
    assert settings.listen_endpoint is None
    assert settings.metrics_endpoint == Endpoint("127.0.0.1", 9464)
    assert settings.socket_mode_bits == 0o660
    assert settings.socket.name == "costd.sock"
    assert settings.control_socket == settings.socket.with_name("control.sock")


def test_operators_sockets_stand_beside_the_agents_unless_said_otherwise():
    beside = load_settings({"policy": "p", "socket": "/srv/a/agents.sock"})
    assert str(beside.control_socket) == "/srv/a/control.sock"
    apart = load_settings({"policy": "p", "socket": "/srv/a/x", "control_socket": "/srv/b/y"})
    assert str(apart.control_socket) == "/srv/b/y"


def test_flags_beat_the_environment_which_beats_the_file_which_beats_defaults(write, monkeypatch):
    path = write("policy: file.yaml\ndrain_s: 1\nname: of-file\nlog_level: debug\n")
    monkeypatch.setenv("COSTD_DRAIN_S", "2")
    monkeypatch.setenv("COSTD_NAME", "of-environment")
    settings = load_settings({"config": path, "name": "of-flag"})
    assert settings.name == "of-flag"
    assert settings.drain_s == 2
    assert settings.log_level == "debug"
    assert str(settings.policy) == "file.yaml"
    assert settings.usage_retention_s == 35 * 86_400


def test_the_environment_can_name_the_file(write, monkeypatch):
    monkeypatch.setenv("COSTD_CONFIG", str(write("policy: a.yaml\n")))
    assert str(load_settings({}).policy) == "a.yaml"


def test_an_empty_variable_says_nothing(monkeypatch):
    monkeypatch.setenv("COSTD_LOG_LEVEL", "")
    assert load_settings({"policy": "p.yaml"}).log_level == "info"


@pytest.mark.parametrize(
    "text", ["project=api, team=x", '{"project": "api", "team": "x"}', "project=api,team=x,"]
)
def test_fixed_labels_are_pairs_or_json(text, monkeypatch):
    expected = {"project": "api", "team": "x"}
    assert load_settings({"policy": "p", "labels_fixed": text}).labels_fixed == expected
    monkeypatch.setenv("COSTD_LABELS_FIXED", text)
    assert load_settings({"policy": "p"}).labels_fixed == expected


def test_fixed_labels_and_claims_are_plain_yaml_in_a_file(write):
    path = write("policy: p\nlabels_fixed:\n  team: x\nclaims: [security_review, testing]\n")
    settings = load_settings({"config": path})
    assert settings.labels_fixed == {"team": "x"}
    assert settings.claims == ("security_review", "testing")


@pytest.mark.parametrize(
    ("text", "claims"), [("*", ("*",)), ("a, b", ("a", "b")), ('["a"]', ("a",))]
)
def test_claims_are_words_or_json(text, claims):
    assert load_settings({"policy": "p", "claims": text}).claims == claims


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({}, "policy: needed; give --policy, COSTD_POLICY or --config"),
        ({"policy": "p", "drain_s": "-3"}, "--drain-s: input should be greater than or equal to 0"),
        ({"policy": "p", "drain_s": "soon"}, "--drain-s: input should be a valid number"),
        (
            {"policy": "p", "durability": "tape"},
            "--durability: input should be 'process' or 'disk'",
        ),
        ({"policy": "p", "labels_fixed": "api"}, "--labels-fixed: write it as key=value"),
        ({"policy": "p", "labels_fixed": "{1"}, "--labels-fixed"),
        (
            {"policy": "p", "labels_fixed": "pod=web-1,team=$(POD_LABEL_team)"},
            "--labels-fixed: team is '$(POD_LABEL_team)', a variable that nobody filled in",
        ),
        ({"policy": "p", "labels_fixed": "pod=web-1,team="}, "--labels-fixed: team is empty"),
        (
            {"policy": "p", "labels_fixed": "team=a,b=1,team=core"},
            "--labels-fixed: team is there twice; a value with a comma goes into a JSON object",
        ),
        ({"policy": "p", "labels_fixed": "model=x"}, "--labels-fixed: labels[model]: model has a"),
        ({"policy": "p", "labels_fixed": '{"a": "b\\n"}'}, "--labels-fixed: labels['a'] has char"),
        ({"policy": "p", "labels_fixed": "team=(none)"}, "--labels-fixed: labels[team] is"),
        ({"policy": "p", "listen": "50051"}, "--listen: '50051' is not host:port"),
        ({"policy": "p", "listen": "127.0.0.1:70000"}, "--listen: '127.0.0.1:70000' is not host"),
        ({"policy": "p", "socket_mode": "0888"}, "--socket-mode"),
        (
            {"policy": "p", "socket": "/s", "control_socket": "/s"},
            "--control-socket: /s is the agents' socket",
        ),
    ],
)
def test_a_bad_flag_is_named_with_what_is_wrong(flags, said):
    with pytest.raises(SettingsError) as caught:
        load_settings(flags)
    assert str(caught.value).startswith(said)


def test_a_bad_variable_is_named(monkeypatch):
    monkeypatch.setenv("COSTD_LOG_FORMAT", "xml")
    with pytest.raises(SettingsError, match=r"^environment COSTD_LOG_FORMAT: .* not 'xml'"):
        load_settings({"policy": "p"})


def test_a_bad_line_of_the_file_is_named(write):
    path = write("policy: p\n\nname: ''\n")
    with pytest.raises(SettingsError) as caught:
        load_settings({"config": path})
    assert str(caught.value).startswith(f"{path}:3: name: ")


def test_a_setting_that_does_not_exist_is_refused_with_its_line(write):
    path = write("policy: p\nquota: 3\n")
    with pytest.raises(SettingsError) as caught:
        load_settings({"config": path})
    assert str(caught.value) == f"{path}:2: quota: no such setting"


def test_every_fault_is_told_at_once(monkeypatch):
    monkeypatch.setenv("COSTD_DURABILITY", "tape")
    with pytest.raises(SettingsError) as caught:
        load_settings({"policy": "p", "log_level": "loud"})
    assert len(str(caught.value).splitlines()) == 2


def test_every_fault_between_settings_is_told_at_once(write):
    path = write("listen: 0.0.0.0:1\nmetrics_listen: nowhere\ntls_key: d.key\n")
    with pytest.raises(SettingsError) as caught:
        load_settings({"config": path, "control_keys": "ops=AAAA", "control_listen": "7443"})
    faults = str(caught.value).splitlines()
    assert [fault.partition(": ")[0] for fault in faults] == [
        f"{path}:1",
        f"{path}:2",
        f"{path}:3",
        "--control-keys",
        "--control-listen",
        "policy",
    ]
    assert faults[1].endswith("'nowhere' is not host:port, such as 127.0.0.1:50051")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            {"coordinator": "db:9466,off", "policy": "p"},
            [
                "--coordinator: write it as host:port,host:port",
                "--policy: the coordinator publishes it",
                "--coordinator: it wants to know who this is",
            ],
        ),
        ({"coordinator": "db", "coordinator_insecure": True}, ["--coordinator: 'db' is not host"]),
    ],
)
def test_every_fault_of_who_joins_a_coordinator_is_told_at_once(flags, said):
    with pytest.raises(SettingsError) as caught:
        load_settings(flags)
    faults = str(caught.value).splitlines()
    assert [fault.startswith(each) for fault, each in zip(faults, said, strict=True)] == [
        True for _ in said
    ]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            {"tls_cert": "c.crt", "listen_insecure": True, "control_keys": "ops=AAAA"},
            [
                "tls_key (default): a certificate and its key go together",
                "tls_ca (default): daemons show certificates",
                "--listen-insecure: there is a certificate",
                "--control-keys: ops: public key 'AAAA' has 3 bytes",
            ],
        ),
        (
            {"listen": "0.0.0.0:9466", "metrics_listen": "0.0.0.0:9467"},
            [
                "--listen: 0.0.0.0:9466 can be reached by others",
                "--metrics-listen: 0.0.0.0:9467 can be reached by others",
            ],
        ),
        (
            {"listen": "off", "metrics_listen": "9467"},
            ["--listen: daemons need an address", "--metrics-listen: '9467' is not host:port"],
        ),
        ({"listen": "9466"}, ["--listen: '9466' is not host:port"]),
    ],
)
def test_every_fault_of_a_coordinators_settings_is_told_at_once(flags, said):
    with pytest.raises(SettingsError) as caught:
        coordinator_settings.load_settings(flags)
    faults = str(caught.value).splitlines()
    assert [fault.startswith(each) for fault, each in zip(faults, said, strict=True)] == [
        True for _ in said
    ]


@pytest.mark.parametrize("meant", ["metrics_insecure", "listen_insecure"])
def test_a_coordinator_serves_metrics_to_others_if_it_is_told_to(meant):
    found = coordinator_settings.load_settings({"metrics_listen": "0.0.0.0:9467", meant: True})
    assert found.metrics_endpoint.port == 9467


def test_a_coordinator_with_a_certificate_can_serve_metrics_to_others():
    tls = {"tls_cert": "c.crt", "tls_key": "c.key", "tls_ca": "ca.crt"}
    flags = tls | {"listen": "0.0.0.0:9466", "metrics_listen": "0.0.0.0:9467"}
    assert coordinator_settings.load_settings(flags | {"metrics_insecure": True}).endpoint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("policy: [", ":"),
        ("- a\n- b\n", ":1: must be"),
        ("a: 1\na: 2\n", ":2: not YAML"),
    ],
)
def test_a_file_that_is_no_settings_file_is_named_with_its_line(write, text, said):
    path = write(text)
    with pytest.raises(SettingsError) as caught:
        load_settings({"config": path})
    assert str(caught.value).startswith(f"{path}{said}")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"absent\.yaml: No such file"):
        load_settings({"config": tmp_path / "absent.yaml"})


@pytest.mark.parametrize("name", ["listen", "metrics_listen"])
def test_an_address_others_can_reach_needs_an_explicit_word(name):
    with pytest.raises(SettingsError, match=r"0\.0\.0\.0:9000 can be reached by others"):
        load_settings({"policy": "p", name: "0.0.0.0:9000"})
    accepted = load_settings({"policy": "p", name: "0.0.0.0:9000", "listen_insecure": True})
    assert getattr(accepted, name) == "0.0.0.0:9000"


@pytest.mark.parametrize(
    ("text", "endpoint", "is_loopback"),
    [
        ("127.0.0.1:1", Endpoint("127.0.0.1", 1), True),
        ("localhost:50051", Endpoint("localhost", 50051), True),
        ("[::1]:0", Endpoint("::1", 0), True),
        ("10.0.0.7:80", Endpoint("10.0.0.7", 80), False),
        ("[::]:80", Endpoint("::", 80), False),
        ("db.example:80", Endpoint("db.example", 80), False),
    ],
)
def test_addresses_are_host_and_port(text, endpoint, is_loopback):
    parsed = parse_endpoint("listen", text)
    assert parsed == endpoint
    assert parsed.is_loopback is is_loopback
    assert str(parsed) == text


@pytest.mark.parametrize("text", ["", "0", "off", "None"])
def test_an_address_can_be_switched_off(text):
    assert parse_endpoint("metrics_listen", text) is None


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_every_setting_says_what_it_does(name):
    assert Settings.model_fields[name].description


def test_the_documentation_lists_every_setting_as_the_settings_describe_themselves():
    text = (Path(__file__).parents[3] / "docs" / "operating" / "settings.md").read_text()
    daemons, _, rest = text.partition("# Settings of a coordinator")
    coordinators, _, rest = rest.partition("# Settings of an injector")
    injectors, _, _ = rest.partition("# One machine")
    for part, settings in (
        (daemons, Settings),
        (coordinators, coordinator_settings.Settings),
        (injectors, injector_settings.Settings),
    ):
        rows = [line.split(" | ") for line in part.splitlines() if line.startswith("| `")]
        documented = {
            row[0].strip("| `"): row[2].removesuffix(" |").replace("\\|", "|") for row in rows
        }
        fields = settings.model_fields.items()
        assert documented == {name: field.description for name, field in fields}


def test_every_setting_is_a_flag_of_serve():
    flags = set(inspect.signature(serve).parameters) - {"print_settings"}
    assert flags == set(Settings.model_fields)
    of_coordinator = set(inspect.signature(coordinator).parameters) - {"print_settings", "check"}
    assert of_coordinator == set(coordinator_settings.Settings.model_fields)


PUBLIC = keygen().public_key
TLS = {"policy": "p", "tls_cert": "d.crt", "tls_key": "d.key"}


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        ({"policy": "p", "tls_cert": "d.crt"}, "--tls-cert: .* give tls_key too"),
        ({"policy": "p", "tls_key": "d.key"}, "--tls-key: .* give tls_cert too"),
        (TLS | {"tls_verify_clients": "true"}, "--tls-verify-clients: certificates are held"),
        ({"policy": "p", "listen_tls": "true"}, "--listen-tls: TLS needs tls_cert and tls_key"),
        ({"policy": "p", "control_listen": "127.0.0.1:1"}, "--control-listen: .* over TLS only"),
        (
            TLS | {"control_listen": "127.0.0.1:1"},
            "--control-listen: nobody could say who they are",
        ),
        (TLS | {"control_listen": "7443"}, "--control-listen: '7443' is not host:port"),
        ({"policy": "p", "control_keys": "ops=AAAA"}, "--control-keys: ops: .* has 3 bytes"),
        ({"policy": "p", "control_keys": "ops"}, "--control-keys: write it as key=value"),
        (TLS | {"listen": "0.0.0.0:1"}, "--listen: .* nothing authenticates it"),
        (
            TLS | {"tls_ca": "ca.crt", "listen": "0.0.0.0:1", "listen_tls": "false"},
            "--listen: .* nothing encrypts or authenticates it",
        ),
        (
            TLS | {"tls_ca": "ca.crt", "metrics_listen": "0.0.0.0:1"},
            "--metrics-listen: .* nothing encrypts or authenticates it",
        ),
    ],
)
def test_tls_settings_that_do_not_go_together_say_which(flags, fault):
    with pytest.raises(SettingsError, match=fault):
        load_settings({name.replace("-", "_"): value for name, value in flags.items()})


def test_a_certificate_turns_tls_on_and_a_ca_asks_for_clients_certificates():
    plain = load_settings({"policy": "p"})
    assert (plain.listen_tls, plain.tls_verify_clients, plain.control_endpoint) == (
        False,
        False,
        None,
    )
    secured = load_settings(TLS)
    assert (secured.listen_tls, secured.tls_verify_clients) == (True, False)
    mutual = load_settings(TLS | {"tls_ca": "ca.crt", "listen": "0.0.0.0:1"})
    assert (mutual.listen_tls, mutual.tls_verify_clients) == (True, True)
    tokens = TLS | {"control_listen": "0.0.0.0:1", "control_keys": f"ops={PUBLIC}"}
    assert load_settings(tokens).control_endpoint == Endpoint("0.0.0.0", 1)


def test_fixed_labels_may_be_what_kubernetes_calls_things(monkeypatch):
    named = {
        "namespace": "team-a",
        "pod": "web-7d4b9c-x2x9z",
        "service_account": "system:serviceaccount.web",
        "node": "ip-10-0-0-1.eu-west-1.compute.internal",
        "team": "Search_and.Rescue-2",
        "link": "https://example.org/?q=a=b",
        "city": "Zürich 東京",
    }
    monkeypatch.setenv("COSTD_LABELS_FIXED", ",".join(f"{k}={v}" for k, v in named.items()))
    assert load_settings({"policy": "p"}).labels_fixed == named
