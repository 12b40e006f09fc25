"""Who holds a lease, and when it is certain that nobody does any more: with processes that really end."""

import os
import subprocess
import sys

from lifeboat import identity

TELL = "from lifeboat import identity; print(identity.own(), flush=True); input()"


def start() -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", TELL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": "operator"},
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_a_process_is_gone_once_it_has_ended_buried_or_not() -> None:
    process, holder = start()
    with process:
        assert not identity.gone(holder)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert identity.gone(holder), "it is not buried yet, and does nothing any more"
    assert identity.gone(holder)


def test_nobody_is_gone_who_may_be_somewhere_else() -> None:
    process, holder = start()
    with process:
        process.kill()
    host, place, pid, started, unique = holder.rsplit("_", 4)
    assert not identity.gone(f"{host}_000000000000_{pid}_{started}_{unique}"), "another machine, boot or container"
    assert not identity.gone(f"{host}_nowhere_{pid}_{started}_{unique}"), "it did not know where it was"
    assert not identity.gone(f"{host}_{place}_{pid}_unknown_{unique}")
    for other in ("", "somebody", "a_b_c_d_e", f"{host}-{pid}-{unique}"):
        assert not identity.gone(other)


def test_a_process_id_that_is_used_again_is_somebody_else() -> None:
    host, place, pid, started, unique = identity.own().rsplit("_", 4)
    assert not identity.gone(f"{host}_{place}_{pid}_{started}_{unique}")
    assert identity.gone(f"{host}_{place}_{pid}_{int(started) - 1}_{unique}")


def test_no_two_names_are_alike() -> None:
    assert identity.own() != identity.own()
