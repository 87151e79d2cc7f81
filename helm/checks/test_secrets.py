"""Checks that generated secrets are strong and unique. test_install.py checks that upgrades keep them."""

from chart import CHART, contents, fresh

DEFAULT = CHART / "ci/default-values.yaml"
TWO_APPS = "apps: [{id: one, key: one}, {id: two, key: two}]"


def test_generated_secrets_are_long_random_and_unique():
    first, again = fresh(DEFAULT, TWO_APPS), fresh(DEFAULT, TWO_APPS)
    generated = [
        *contents(first.one("Secret", "shop-carillon-apps")).values(),
        contents(first.one("Secret", "shop-carillon-redis"))["password"],
    ]
    generated += [
        *contents(again.one("Secret", "shop-carillon-apps")).values(),
        contents(again.one("Secret", "shop-carillon-redis"))["password"],
    ]
    assert len(set(generated)) == 6
    for secret in generated:
        # 40 of 62 characters: 238 bits.
        assert len(secret) == 40 and secret.isalnum()


def test_the_parts_of_the_secret_of_redis_agree():
    secret = contents(fresh(DEFAULT).one("Secret", "shop-carillon-redis"))
    assert secret["url"] == f"redis://:{secret['password']}@shop-carillon-redis:6379/0"
    assert secret["auth.conf"] == f"requirepass {secret['password']}\n"


def test_a_given_or_existing_secret_is_not_generated():
    chart = fresh(
        DEFAULT, "apps: [{id: one, key: one, secret: given}, {id: two, key: two, existingSecret: {name: mine}}]"
    )
    assert contents(chart.one("Secret", "shop-carillon-apps")) == {"one": "given"}
    chart = fresh(CHART / "ci/redis-tls-values.yaml", "apps: [{id: two, key: two, existingSecret: {name: mine}}]")
    assert chart.all("Secret") == []
