"""What is shown of addresses and of other people's error texts never holds a password."""

from __future__ import annotations

import logging

import pytest

from interlock.core.redaction import RedactingFormatter, redacted, redacted_url

SECRET = "s3cr3t"  # noqa: S105 - planted, to be looked for

URLS = {
    f"postgresql+psycopg://ada:{SECRET}@db:5433/shop": "postgresql+psycopg://db:5433/shop",
    f"postgresql://db/shop?user=ada&password={SECRET}&sslpassword={SECRET}": "postgresql://db/shop",
    f"postgresql://ada:{SECRET}@/shop?host=a:5432&host=b:5432": "postgresql:///shop",
    f"redis://:{SECRET}@cache:6380/2": "redis://cache:6380/2",
    f"rediss://ada:{SECRET}@[::1]:6379/0?ssl_cert_reqs=required": "rediss://[::1]:6379/0",
    f"unix://:{SECRET}@/run/redis.sock?db=1": "unix:///run/redis.sock",
    f"amqp://ada:{SECRET}@mq//": "amqp://mq//",
    f"amqp://ada:{SECRET}@a//;amqp://ada:{SECRET}@b//": "amqp://a//;amqp://b//",
    "sqlite:////srv/shop/interlock.db": "sqlite:////srv/shop/interlock.db",
    "redis://localhost": "redis://localhost",
    # Passwords that should have been escaped, and were not.
    f"redis://:{SECRET}/{SECRET}@cache/0": "redis://cache/0",
    f"redis://:{SECRET}@{SECRET}@cache/0": "redis://cache/0",
    f"redis://:{SECRET};{SECRET}@cache/0": "redis://cache/0",
    f"redis://:{SECRET}?{SECRET}@cache/0": "redis://***",
    f"redis://:{SECRET}#{SECRET}@cache/0": "redis://***",
    f"redis://cache:{SECRET}/0": "redis://***",
    f"{SECRET} is no URL": "***",
}


@pytest.mark.parametrize(("url", "shown"), URLS.items(), ids=URLS.values())
def test_of_a_url_the_place_is_shown_and_nothing_that_lets_one_in(url: str, shown: str) -> None:
    assert redacted_url(url) == shown


@pytest.mark.parametrize(
    "text",
    [
        f"cannot connect to redis://:{SECRET}@cache:6379/0 (refused)",
        f"'postgresql://ada:{SECRET}@{SECRET}@db/shop' and amqp://ada:{SECRET}@mq//",
        f"connection string: host=db user=ada password={SECRET} sslmode=require",
        f"connection string: password='{SECRET} {SECRET}' host=db",
        f"postgresql://db/shop?password={SECRET}&sslpassword={SECRET}",
        f'{{"password": "{SECRET}", "api_key": "{SECRET}", "Token": "{SECRET}"}}',
        f"PGPASSWORD={SECRET} POSTGRES_PASSWORD={SECRET}",
        f"dbpassword={SECRET} sslpassword={SECRET} mypasswd: {SECRET}",
    ],
)
def test_of_a_text_the_secrets_are_left_out(text: str) -> None:
    assert SECRET not in redacted(text)
    assert "***" in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "the broker does not answer: Error 111 connecting to 127.0.0.1:6379. Connection refused.",
        "see https://docs.celeryq.dev/en/stable and write to ada@example.org",
        "interlock_lease_s: Input should be greater than 0",
    ],
)
def test_a_text_without_secrets_stays_as_it_is(text: str) -> None:
    assert redacted(text) == text


def test_a_log_line_is_redacted_with_its_traceback() -> None:
    def fail() -> None:
        raise ValueError(f"cannot reach redis://:{SECRET}@cache/0")

    try:
        fail()
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "at %s", (f"amqp://a:{SECRET}@mq//",), None)
        record.exc_info = (type(error), error, error.__traceback__)
    text = RedactingFormatter("%(levelname)s %(message)s").format(record)
    assert text.startswith("ERROR at amqp://***@mq//\nTraceback")
    assert SECRET not in text
