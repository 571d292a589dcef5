"""noria.toml: what is wrong with it is told by name, all at once."""

from __future__ import annotations

import pytest

from noria.config import load_server_settings, load_settings
from noria.errors import InvalidConfig
from noria.lifecycle.plans import planned
from noria.rollout import Strategy

GOOD = '[project]\nname = "shop"\n[model]\nname = "demand"\ntask = "regression"\n'


def load(tmp_path, text, environment=None):
    (tmp_path / "noria.toml").write_text(text)
    return load_settings(tmp_path, environment or {})


def test_defaults_fill_what_is_left_out(tmp_path):
    settings = load(tmp_path, GOOD)
    assert (settings.server.port, settings.rollout.steps) == (5000, [5, 10, 25, 50, 100])


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("[serverr]\nport = 1", "serverr: unknown key; did you mean 'server'?"),
        ("[server]\nxyz = 1", "server.xyz: unknown key; there are host, port, allowed_hosts"),
        ('[server]\nport = "x"', "parse string as an integer (TCP port; 0 takes a free one)"),
        ("[rollout]\nmin_row = 1", "rollout.min_row: unknown key; did you mean 'min_rows'?"),
        ("[canary]\nsteps = [100]", "canary: unknown key; did you mean 'rollout'?"),
        ('[policies."*".stages.Production]\nrequired_tag = ["x"]', "unknown key; did you mean 'required_tags'?"),
        ("[gateway]\nport = 70000", "gateway.port: Input should be less than or equal to 65535"),
        ("[rollout]\nsteps = [5, 200]", "rollout.steps: Value error, 5, 200: no steps. Give rising percents above 0"),
        ("[gateway]\nport = 'many'", "gateway.port: Input should be a valid integer"),
    ],
)
def test_a_fault_is_told_by_the_key_it_is_at(tmp_path, text, finding):
    with pytest.raises(InvalidConfig) as caught:
        load(tmp_path, GOOD + text)
    assert any(finding in detail for detail in caught.value.details), caught.value.details


def test_all_faults_are_told_at_once(tmp_path):
    with pytest.raises(InvalidConfig) as caught:
        load(tmp_path, '[project]\nname = "a b"\n[model]\nname = "m"\ntask = "guessing"\n')
    assert [detail.split(":")[0] for detail in caught.value.details] == ["project.name", "model.task"]


def test_the_environment_overrides_the_file(tmp_path):
    settings = load(tmp_path, GOOD, {"NORIA_ROLLOUT__STEPS": "[10, 100]", "NORIA_SERVER__PORT": "5001", "NORIA_X": "y"})
    assert (settings.rollout.steps, settings.server.port) == ([10, 100], 5001)


def test_a_whole_section_may_come_from_the_environment_and_a_server_needs_no_file(tmp_path):
    policies = '{"churn*": {"stages": {"Production": {"approvals": 2}}}}'
    settings = load_server_settings(tmp_path, {"store": {"artifacts": "s3://b"}}, {"NORIA_POLICIES": policies})
    assert settings.policies["churn*"].stages["Production"].approvals == 2
    assert settings.store.artifacts == "s3://b"


def test_what_goes_by_the_rest_of_a_rollouts_settings_still_does_as_the_server_reads_them(tmp_path):
    said = '[rollout]\nguards = ["errors"]\nmax_error_increase = 0.03\n[registry]\npolicy_file = "policy.yaml"\n'
    (tmp_path / "noria.toml").write_text(GOOD + said)
    (tmp_path / "policy.yaml").write_text("model_registry: {}\n")
    plan = planned(load_server_settings(tmp_path, {"store": {"artifacts": "s3://b"}}, {}).rollout, Strategy.CANARY)
    assert (plan.required, plan.errors_to_see) == (("errors",), 0.06)


@pytest.mark.parametrize("text", ["[project", "\x00", "a = 1 2"])
def test_what_is_no_toml_is_told_with_the_line(tmp_path, text):
    with pytest.raises(InvalidConfig, match="is not valid TOML"):
        load(tmp_path, text)


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(InvalidConfig, match="noria init"):
        load_settings(tmp_path, {})


def test_a_server_of_its_own_needs_no_project_in_its_file(tmp_path):
    (tmp_path / "noria.toml").write_text('[store]\ndatabase = ""\n[gateway]\nport = 9000\n')
    settings = load_server_settings(tmp_path, None, {"NORIA_GATEWAY__HOST": "0.0.0.0"})
    assert (settings.store.database, settings.gateway.port, settings.gateway.host) == ("", 9000, "0.0.0.0")
    with pytest.raises(InvalidConfig, match="cannot be used"):
        load_settings(tmp_path, {})


def test_a_typo_in_a_servers_file_is_told(tmp_path):
    (tmp_path / "noria.toml").write_text("[gateway]\nprot = 9000\n")
    with pytest.raises(InvalidConfig) as caught:
        load_server_settings(tmp_path, None, {})
    assert caught.value.details == ("gateway.prot: unknown key; did you mean 'port'?",)


@pytest.mark.parametrize("name", ["NORIA_GATEWAY__PORT", "NORIA_GATEWAY"])
def test_what_a_variable_says_wrongly_is_told_of_the_variable_and_not_of_the_file(tmp_path, name):
    value = "abc" if name.endswith("PORT") else '{"port": "abc"}'
    with pytest.raises(InvalidConfig) as caught:
        load(tmp_path, GOOD, {name: value})
    assert caught.value.message == f"{name} cannot be used"
    assert caught.value.details[0].startswith("gateway.port: ")
    with pytest.raises(InvalidConfig) as caught:
        load(tmp_path, GOOD + "[server]\nport = 'many'", {name: value})
    assert caught.value.message == f"{tmp_path / 'noria.toml'}, {name} cannot be used"


@pytest.mark.parametrize(("name", "place"), [("NORIA_GATWAY__PORT", "gatway"), ("NORIA_GATEWAY__PROT", "gateway.prot")])
def test_a_typo_in_a_variables_name_is_told_of_the_variable(tmp_path, name, place):
    with pytest.raises(InvalidConfig) as caught:
        load(tmp_path, GOOD, {name: "1"})
    assert caught.value.message == f"{name} cannot be used"
    assert caught.value.details[0].startswith(f"{place}: unknown key; did you mean")


def test_a_file_is_utf8_in_any_locale_with_or_without_a_byte_order_mark(tmp_path):
    (tmp_path / "noria.toml").write_bytes(
        "\ufeff[access.oidc]\nissuer = 'https://läden.example'\nclient_id = 'n'".encode()
    )
    read = load_server_settings(tmp_path, environment={}).access.oidc
    assert read is not None and read.issuer == "https://läden.example"
    with pytest.raises(InvalidConfig, match=r"server: Input should be a valid"):
        load(tmp_path, f"server = 'x'\n{GOOD}", {"NORIA_SERVER__PORT": "1"})


@pytest.mark.parametrize("url", ["mongodb://x", "features.db", "sqlite:///", "redis://"])
def test_what_names_no_online_store_is_told_before_anybody_looks_something_up(tmp_path, url):
    with pytest.raises(InvalidConfig) as caught:
        load(tmp_path, f'{GOOD}[features]\nonline = "{url}"')
    assert caught.value.details[0].startswith("features.online: ")


@pytest.mark.parametrize(
    "url", ["", "sqlite:///on.db?immutable=1", "lmdb:////var/on", "rediss://:secret@h:6379/0", "postgresql://u@h/n"]
)
def test_every_kind_of_online_store_may_be_named(tmp_path, url):
    assert load(tmp_path, f'{GOOD}[features]\nonline = "{url}"').features.online == url
