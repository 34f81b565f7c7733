"""The file system of a SQLite file; what a server says is in test_deployments."""

from __future__ import annotations

from pathlib import Path

from interlock.cli.doctor.ask_database import filesystem_of


def test_the_file_system_is_that_of_the_longest_mount_point(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 0:21 / / rw - ext4 /dev/sda rw\n"
        "30 22 0:40 / /srv rw shared:1 - nfs4 host:/x rw\n"
        "31 22 0:41 / /srv/my\\040disk rw - xfs /dev/sdb rw\n"
    )
    assert filesystem_of(Path("/srv/a.db"), mounts) == "nfs4"
    assert filesystem_of(Path("/srv/my disk/a.db"), mounts) == "xfs"
    assert filesystem_of(Path("/srvother/a.db"), mounts) == "ext4"
    assert filesystem_of(Path("/a.db"), tmp_path / "none") == ""
    assert filesystem_of(tmp_path / "a.db") != "", "this machine tells"
