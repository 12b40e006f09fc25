"""One etcd and one kube-apiserver on loopback ports, started and stopped as one thing.

They run in sessions of their own and are described by a file in their folder, so that they outlive the process that
started them and another one (`make down`) can stop them. A second start in the same folder takes the same ports, keys
and certificates: whoever was connected finds the server again, as after an outage.
"""

import json
import secrets
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil
import yaml

from demo.controlplane.build import binaries

HOST: Final = "127.0.0.1"
START_SECONDS: Final = 90.0
STOP_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.05
STATE_FILE: Final = "controlplane.json"
ACCOUNT_TOKEN: Final = "8760h"
AUDIT_POLICY: Final = """\
# What service accounts ask for, and whether they may: each request by verb and resource, without bodies.
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    userGroups: [system:serviceaccounts]
  - level: None
"""


class ControlPlaneError(RuntimeError):
    """The control plane did not start; the message ends with what its log said last."""


@dataclass(slots=True)
class _State:
    """What the state file says: ports to use again, and the command line by which a pid is known to be ours."""

    ports: dict[str, int] = field(default_factory=dict)
    pids: dict[str, int] = field(default_factory=dict)
    commands: dict[str, list[str]] = field(default_factory=dict)


def etcd_arguments(data: Path, client_port: int, peer_port: int) -> list[str]:
    """Return the arguments of a single etcd member that listens on loopback only."""
    client, peer = f"http://{HOST}:{client_port}", f"http://{HOST}:{peer_port}"
    return [
        "--name=lifeboat",
        f"--data-dir={data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=lifeboat={peer}",
        # A killed process loses nothing by it, only a machine that loses power; and every write is faster.
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def apiserver_arguments(folder: Path, port: int, etcd_port: int) -> list[str]:
    """Return the arguments of a kube-apiserver with RBAC, an audit log, token requests and certificates of its own."""
    key = folder / "service-account.key"
    return [
        f"--etcd-servers=http://{HOST}:{etcd_port}",
        f"--bind-address={HOST}",
        f"--advertise-address={HOST}",
        f"--secure-port={port}",
        f"--cert-dir={folder / 'certificates'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        f"--audit-policy-file={folder / 'audit-policy.yaml'}",
        f"--audit-log-path={folder / 'audit.log'}",
        "--audit-log-maxsize=100",
        "--audit-log-maxbackup=1",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        f"--service-account-issuer=https://{HOST}:{port}",
        f"--api-audiences=https://{HOST}:{port}",
        "--service-cluster-ip-range=10.0.0.0/24",
        # Nobody reaches this server through a service, and loopback addresses are no valid endpoints.
        "--endpoint-reconciler-type=none",
        # It waits for service accounts that a controller manager would make.
        "--disable-admission-plugins=ServiceAccount",
        "--profiling=false",
    ]


def kubeconfig(server: str, authority: Path, token: str, namespace: str, user: str = "admin") -> dict[str, object]:
    """Return a user's kubeconfig with one context, `lifeboat`."""
    cluster = {"server": server, "certificate-authority": str(authority)}
    context = {"cluster": "lifeboat", "user": user, "namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lifeboat",
        "clusters": [{"name": "lifeboat", "cluster": cluster}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "lifeboat", "context": context}],
    }


class ControlPlane:
    """An API server and its etcd in a folder, which keeps logs, keys, data and the admin's kubeconfig.

    Args:
        folder: Made if missing. Starting there again finds the same objects.
        etcd_data: Where etcd keeps its data, if not in the folder.
        namespace: The namespace of the kubeconfig's context, made if missing.
    """

    def __init__(self, folder: Path, *, etcd_data: Path | None = None, namespace: str = "default") -> None:
        self.folder = folder.absolute()
        self.kubeconfig = self.folder / "kubeconfig"
        self.audit_log = self.folder / "audit.log"
        self._etcd_data = (etcd_data or self.folder / "etcd").absolute()
        self._namespace = namespace
        self._state = self._load()
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    @classmethod
    def attach(cls, folder: Path) -> Self:
        """Return the control plane that some process started in the folder, to stop it or to ask about it."""
        return cls(folder)

    @property
    def running(self) -> bool:
        """Whether both processes live."""
        return all(self._process(name) is not None for name in ("etcd", "kube-apiserver"))

    @property
    def server(self) -> str:
        """The API server's URL, known once it was started."""
        return f"https://{HOST}:{self._state.ports['kube-apiserver']}"

    def start(self) -> None:
        """Start both processes and return when the API server is ready and the namespace exists.

        Raises:
            ControlPlaneError: Something runs in the folder already, or a process ended or was not ready in time.
            BuildError: The programs are missing and cannot be built.
        """
        if any(self._process(name) is not None for name in self._state.pids):
            raise ControlPlaneError(f"a control plane runs in {self.folder} already")
        programs = binaries()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._etcd_data.mkdir(mode=0o700, parents=True, exist_ok=True)
        token = self._secrets()
        (self.folder / "audit-policy.yaml").write_text(AUDIT_POLICY)
        ports = {name: _free_port(self._state.ports.get(name)) for name in ("etcd", "etcd-peer", "kube-apiserver")}
        self._state = _State(ports)
        deadline = time.monotonic() + START_SECONDS
        try:
            etcd = etcd_arguments(self._etcd_data, ports["etcd"], ports["etcd-peer"])
            self._launch("etcd", [str(programs / "etcd"), *etcd])
            apiserver = apiserver_arguments(self.folder, ports["kube-apiserver"], ports["etcd"])
            self._launch("kube-apiserver", [str(programs / "kube-apiserver"), *apiserver])
            config = kubeconfig(self.server, self._authority, token, self._namespace)
            _write_private(self.kubeconfig, yaml.safe_dump(config, sort_keys=False))
            self._await(lambda: self._answers(self._authority, token), deadline)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop both processes, the API server first; doing it twice, or after a crash, does no harm."""
        for name in ("kube-apiserver", "etcd"):
            process = self._process(name)
            if process is not None:
                process.terminate()
                try:
                    process.wait(STOP_SECONDS)
                except psutil.TimeoutExpired:  # it grants open requests a minute
                    process.kill()
                    process.wait(STOP_SECONDS)
            child = self._children.pop(name, None)
            if child is not None:
                child.wait(STOP_SECONDS)
        self._state.pids.clear()
        self._save()

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 60.0) -> str:
        """Run kubectl as the admin and return what it printed; a failure raises with its message."""
        command = [str(binaries() / "kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode != 0:
            raise ControlPlaneError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def write_account_kubeconfig(self, path: Path, account: str, namespace: str) -> None:
        """Write a kubeconfig with a token of a ServiceAccount, by which a process speaks as a pod of it would."""
        token = self.kubectl("create", "token", account, f"--namespace={namespace}", f"--duration={ACCOUNT_TOKEN}")
        config = kubeconfig(self.server, self._authority, token.strip(), namespace, account)
        _write_private(path, yaml.safe_dump(config, sort_keys=False))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _authority(self) -> Path:
        """The certificate that the API server has signed itself."""
        return self.folder / "certificates" / "apiserver.crt"

    def _secrets(self) -> str:
        """Make the admin's token and the service accounts' key, unless a former start did."""
        key, tokens = self.folder / "service-account.key", self.folder / "tokens.csv"
        if not key.exists():
            command = ["openssl", "genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]
            made = subprocess.run(command, capture_output=True, text=True, check=False)
            if made.returncode != 0:  # before OpenSSL 3 there was no -quiet
                command.remove("-quiet")
                made = subprocess.run(command, capture_output=True, text=True, check=True)
            _write_private(key, made.stdout)
        if not tokens.exists():
            _write_private(tokens, f'{secrets.token_hex(16)},admin,admin,"system:masters"\n')
        return tokens.read_text().split(",", 1)[0]

    def _launch(self, name: str, command: list[str]) -> None:
        with self._log(name).open("ab") as log:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        self._children[name] = child
        self._state.pids[name] = child.pid
        self._state.commands[name] = command
        self._save()

    def _await(self, ready: Callable[[], bool], deadline: float) -> None:
        while not ready():
            for name, child in self._children.items():
                if child.poll() is not None:
                    raise ControlPlaneError(f"{name} ended with code {child.returncode}:\n{self._tail(name)}")
            if time.monotonic() > deadline:
                tail = self._tail("kube-apiserver")
                raise ControlPlaneError(f"the API server was not ready after {START_SECONDS:.0f} s:\n{tail}")
            time.sleep(POLL_SECONDS)

    def _answers(self, authority: Path, token: str) -> bool:
        """Whether the server is ready and the namespace exists, which is made if it is not one of the server's own."""
        if not authority.exists():
            return False
        url = f"{self.server}/api/v1/namespaces"
        try:
            context = ssl.create_default_context(cafile=str(authority))
            if _request(context, token, f"{self.server}/readyz") != HTTPStatus.OK:
                return False
            if _request(context, token, f"{url}/{self._namespace}") == HTTPStatus.OK:
                return True
            if self._namespace != "default":
                made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self._namespace}}
                return _request(context, token, url, made) == HTTPStatus.CREATED
        except OSError:  # not listening yet, or the certificate is half written
            return False
        return False

    def _process(self, name: str) -> psutil.Process | None:
        """Return the live process of that name, unless its pid belongs to a stranger by now."""
        try:
            process = psutil.Process(self._state.pids[name])
            if process.status() == psutil.STATUS_ZOMBIE or process.cmdline() != self._state.commands[name]:
                return None
        except (KeyError, psutil.NoSuchProcess):
            return None
        return process

    def _load(self) -> _State:
        try:
            return _State(**json.loads((self.folder / STATE_FILE).read_text()))
        except FileNotFoundError:
            return _State()

    def _save(self) -> None:
        if self.folder.is_dir():
            _write_private(self.folder / STATE_FILE, json.dumps(asdict(self._state), indent=2))

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _tail(self, name: str) -> str:
        return "\n".join(self._log(name).read_text(errors="replace").splitlines()[-15:])


def _request(context: ssl.SSLContext, token: str, url: str, body: Mapping[str, object] | None = None) -> int:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers)
    # A proxy in the environment is not for a loopback address.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def _free_port(wanted: int | None) -> int:
    """Return a loopback port that nobody listens on, the wanted one if it is such."""
    for port in (wanted, 0):
        if port is None:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ControlPlaneError("no free loopback port")


def _write_private(path: Path, text: str) -> None:
    """Replace a file at once, readable by its owner only."""
    scratch = path.with_name(f".{path.name}.new")
    scratch.touch(mode=0o600)
    scratch.write_text(text)
    scratch.replace(path)
