import pytest

from bench.rivals import limits_absence, redis_absence


def having(*names):
    return lambda name: name in names


def test_nothing_is_absent_where_everything_is_there():
    packages = having("redis", "hiredis", "limits")
    assert redis_absence(installed=packages, which=having("redis-server")) == ""
    assert limits_absence(installed=packages) == ""


@pytest.mark.parametrize("missing", ["redis", "hiredis"])
def test_a_missing_package_is_named_with_the_way_to_get_it(missing):
    left = {"redis", "hiredis"} - {missing}
    line = redis_absence(installed=having(*left), which=having("redis-server"))
    assert line.startswith(f"no {missing} here")
    assert ".[rivals]" in line
    assert "\n" not in line


def test_a_missing_server_is_named_with_the_way_to_get_it():
    line = redis_absence(installed=having("redis", "hiredis"), which=having())
    assert "apt-get install -y redis-server" in line


def test_packages_are_asked_for_before_the_server():
    assert "redis and hiredis" in redis_absence(installed=having(), which=having())


def test_absent_limits_are_named_with_the_way_to_get_them():
    assert ".[rivals]" in limits_absence(installed=having("redis"))
