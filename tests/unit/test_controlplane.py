from pathlib import Path

import pytest
import yaml

from demo import cache, go
from demo.controlplane import ControlPlane, binaries, build, plane

MODULE = Path(build.__file__).parent


def test_the_fingerprint_follows_both_files(tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text("module a")
    (tmp_path / "go.sum").write_text("sum")
    first = go.fingerprint(tmp_path)
    assert first == go.fingerprint(tmp_path)
    assert len(first) == 16
    (tmp_path / "go.mod").write_text("module b")
    second = go.fingerprint(tmp_path)
    (tmp_path / "go.sum").write_text("other")
    assert len({first, second, go.fingerprint(tmp_path)}) == 3


def test_every_program_is_a_tool_of_the_committed_module() -> None:
    go_mod = (MODULE / "go.mod").read_text()
    tools = go_mod.split("tool (", 1)[1].split(")", 1)[0].split()
    assert set(build.PROGRAMS.values()) <= set(tools)
    assert build.kubernetes_version(go_mod).startswith("v1.")


def test_kubernetes_is_linked_with_its_version_and_etcd_is_not() -> None:
    command = build.build_command(Path("/go"), "kube-apiserver", Path("/out"), "v1.37.2")
    assert command[:2] == ["/go", "build"]
    assert command[-3:] == ["-o", "/out", "k8s.io/kubernetes/cmd/kube-apiserver"]
    assert "-mod=readonly" in command
    assert "-X k8s.io/component-base/version.gitVersion=v1.37.2" in command[command.index("-ldflags") + 1]
    assert "component-base" not in " ".join(build.build_command(Path("/go"), "etcd", Path("/out"), "v1.37.2"))


def test_a_go_mod_without_kubernetes_is_refused() -> None:
    with pytest.raises(cache.BuildError, match="does not require"):
        build.kubernetes_version("module x\nrequire k8s.io/api v0.1.0\n")


@pytest.mark.parametrize(
    ("text", "version"),
    [("go1.26.8\n", (1, 26)), ("go1.27rc1", (1, 27)), ("devel +abc", None), ("", None)],
)
def test_go_versions(text: str, version: tuple[int, int] | None) -> None:
    assert go.parse_go_version(text) == version


def test_kubebuilder_assets_are_used_when_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    with pytest.raises(cache.BuildError, match="lacks etcd, kube-apiserver, kubectl"):
        binaries()
    for name in build.PROGRAMS:
        (tmp_path / name).touch(mode=0o755)
    assert binaries() == tmp_path


def test_the_cache_follows_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_root() == tmp_path / "lifeboat"


def test_a_failed_build_says_what_failed() -> None:
    with pytest.raises(cache.BuildError, match=r"ended with code 3:\nno luck"):
        cache.run_with_progress("trying", ["sh", "-c", "echo no luck; exit 3"])


def test_both_servers_listen_on_loopback_and_meet() -> None:
    etcd = plane.etcd_arguments(Path("/data"), 1001, 1002)
    apiserver = plane.apiserver_arguments(Path("/cp"), 1003, 1001)
    assert "--listen-client-urls=http://127.0.0.1:1001" in etcd
    assert "--etcd-servers=http://127.0.0.1:1001" in apiserver
    assert {"--bind-address=127.0.0.1", "--secure-port=1003", "--authorization-mode=RBAC"} <= set(apiserver)


def test_the_kubeconfig_names_the_namespace() -> None:
    config = plane.kubeconfig("https://127.0.0.1:1003", Path("/cp/ca.crt"), "secret", "boats")
    loaded = yaml.safe_load(yaml.safe_dump(config))
    assert loaded["contexts"][0]["context"]["namespace"] == "boats"
    assert loaded["current-context"] == loaded["contexts"][0]["name"]


def test_attaching_to_nothing_is_harmless(tmp_path: Path) -> None:
    control_plane = ControlPlane.attach(tmp_path / "nothing")
    assert not control_plane.running
    control_plane.stop()
    assert not (tmp_path / "nothing").exists()


def test_a_pid_that_now_belongs_to_a_stranger_is_left_alone(tmp_path: Path) -> None:
    control_plane = ControlPlane(tmp_path)
    control_plane._state.pids["etcd"] = 1
    control_plane._state.commands["etcd"] = ["/bin/etcd", "--data-dir=/somewhere"]
    control_plane._save()
    assert not ControlPlane.attach(tmp_path).running
