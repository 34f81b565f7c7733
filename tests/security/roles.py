"""The examples of docs/security, applied to servers of their own as their comments say."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

import psycopg
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy.engine import make_url

from interlock.migrations import upgrade
from tests.servers import HOST, ROOT, RedisServer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.servers import PostgresServer

EXAMPLES: Final = ROOT / "docs" / "security"
PASSWORDS: Final = {
    "WORKER-PASSWORD": "worker-secret",
    "RED-PASSWORD": "red-secret",
    "VIEWER-PASSWORD": "viewer-secret",
}
_ADMIN: Final = "user admin on >admin-secret ~* &* +@all\n"
_SELECTORS_SINCE: Final = 7


def make_roles(server: PostgresServer) -> None:
    """Roles, database, tables and grants, each made by whom the files name."""
    with psycopg.connect(server.databases.admin_url, autocommit=True) as superuser:
        for statement in _statements("postgresql-roles.sql"):
            superuser.execute(statement)
    upgrade(url_of(server, "interlock_owner"))
    grant(server)


def grant(server: PostgresServer) -> None:
    """The grants, as after each upgrade."""
    with psycopg.connect(plain_url_of(server, "interlock_owner"), autocommit=True) as owner:
        for statement in _statements("postgresql-grants.sql"):
            owner.execute(statement)


def url_of(server: PostgresServer, role: str) -> str:
    """SQLAlchemy's URL of the example's database, for a role."""
    url = make_url(server.databases.url("interlock")).set(username=role)
    return url.render_as_string(hide_password=False)


def plain_url_of(server: PostgresServer, role: str) -> str:
    """The same for libpq."""
    return url_of(server, role).replace("+psycopg", "", 1)


def _statements(name: str) -> list[bytes]:
    text = re.sub(r"--.*", "", (EXAMPLES / name).read_text(encoding="utf-8"))
    return [statement.strip().encode() for statement in text.split(";") if statement.strip()]


def redis_with_selectors() -> str | None:
    """A `redis-server` that knows selectors (rules per key), which came with Redis 7; None where there is none."""
    binary = shutil.which("redis-server")
    if binary is None:
        return None
    told = subprocess.run([binary, "--version"], check=False, capture_output=True, text=True).stdout
    version = re.search(r"v=(\d+)", told)
    return binary if version is not None and int(version[1]) >= _SELECTORS_SINCE else None


class FencedRedis(RedisServer):
    """A Redis that reads the example's users from a file, as `aclfile` has it, and one administrator's beside them."""

    def __init__(self, binary: str) -> None:
        super().__init__()
        self._binary = binary
        self._users: Path = self.folder / "users.acl"
        text = (EXAMPLES / "redis-users.acl").read_text(encoding="utf-8")
        for placeholder, password in PASSWORDS.items():
            text = text.replace(placeholder, password)
        self._users.write_text(text + _ADMIN, encoding="utf-8")

    def _command(self) -> Sequence[str | Path]:
        return [self._binary, *super()._command()[1:], "--aclfile", self._users]

    def url_of(self, user: str, password: str) -> str:
        """Its URL for a user."""
        return f"redis://{user}:{PASSWORDS.get(password, password)}@{HOST}:{self.port}/0"

    def admin(self) -> Redis:
        """A client that may do everything."""
        return Redis.from_url(self.url_of("admin", "admin-secret"), decode_responses=True)

    def refusals(self) -> list[str]:
        """What the server has refused since it was asked last: who, and what."""
        with self.admin() as admin:
            log = admin.acl_log()
            admin.acl_log_reset()
        return [f"{entry['username']} {entry['reason']} {entry['object']}" for entry in log]

    def _answers(self) -> bool:
        try:
            with self.admin() as admin:
                return bool(admin.ping())
        except RedisError:
            return False
