"""What those who may view, edit or administer a namespace may do with the four kinds, as the API server judges it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from kubernetes import client

from demo.controlplane import ControlPlane
from demo.helm import CHART, helm
from lifeboat.api import names
from tests.chart.charts import NAMESPACE, RELEASE
from tests.conftest import connect

_numbers = itertools.count(1)
READ = ("get", "list", "watch")
WRITE = ("create", "update", "patch", "delete", "deletecollection")
KINDS = ("sitepairs", "protectedservers", "drills", "failovers")
STATUSES = tuple(f"{kind}/status" for kind in KINDS)


@dataclass
class Court:
    """Binds people to roles, and asks what they may do. Its people are nobody else's."""

    api: client.ApiClient
    number: int

    def bind(self, user: str, role: str) -> None:
        """Give a role to a user, and with it the roles that are added to it.

        In a cluster a controller copies the rules of these into it, by the same labels. There is none here.
        """
        rbac = client.RbacAuthorizationV1Api(self.api)
        found = {str(each.metadata.name): each for each in rbac.list_cluster_role().items if each.metadata}
        taken, waiting = set(), [role]
        while waiting:
            name = waiting.pop()
            taken.add(name)
            aggregation = found[name].aggregation_rule
            for selector in aggregation.cluster_role_selectors or () if aggregation else ():
                wanted = (selector.match_labels or {}).items()
                for other, each in found.items():
                    if other not in taken and wanted <= ((each.metadata and each.metadata.labels) or {}).items():
                        waiting.append(other)
        for name in taken:
            rbac.create_cluster_role_binding(
                client.V1ClusterRoleBinding(
                    metadata=client.V1ObjectMeta(generate_name="court-"),
                    role_ref=client.V1RoleRef(api_group="rbac.authorization.k8s.io", kind="ClusterRole", name=name),
                    subjects=[client.RbacV1Subject(kind="User", name=self._named(user))],
                )
            )

    def may(self, user: str, verb: str, resource: str) -> bool:
        plural, _, subresource = resource.partition("/")
        review = client.V1SubjectAccessReview(
            spec=client.V1SubjectAccessReviewSpec(
                user=self._named(user),
                resource_attributes=client.V1ResourceAttributes(
                    group=names.GROUP, resource=plural, subresource=subresource, verb=verb, namespace=NAMESPACE
                ),
            )
        )
        status = client.AuthorizationV1Api(self.api).create_subject_access_review(review).status
        assert status
        return bool(status.allowed)

    def _named(self, user: str) -> str:
        return f"{user}-{self.number}"

    def allowed(self, user: str) -> set[tuple[str, str]]:
        """Every verb and resource of ours that the user may use."""
        return {
            (verb, resource)
            for verb in (*READ, *WRITE)
            for resource in (*KINDS, *STATUSES)
            if self.may(user, verb, resource)
        }


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("controlplane")) as made:
        yield made


@pytest.fixture
def court(request: pytest.FixtureRequest, plane: ControlPlane) -> Iterator[Court]:
    options = [f"--namespace={NAMESPACE}", "--create-namespace", "--set", getattr(request, "param", "replicas=1")]
    helm("upgrade", "--install", RELEASE, str(CHART), *options, kubeconfig=plane.kubeconfig)
    with connect(plane) as connection:
        made = Court(connection, next(_numbers))
        for role in ("view", "edit", "admin"):
            made.bind(f"may-{role}", role)
        yield made


def every(verbs: tuple[str, ...], resources: tuple[str, ...]) -> set[tuple[str, str]]:
    return {(verb, resource) for verb in verbs for resource in resources}


def test_only_an_admin_and_whoever_is_chosen_may_fail_over(court: Court) -> None:
    court.bind("on-call", f"{RELEASE}-failover")
    reads = every(READ, KINDS)
    assert court.allowed("may-view") == reads
    assert court.allowed("may-edit") == reads | every(WRITE, KINDS[:3])
    assert court.allowed("may-admin") == reads | every(WRITE, KINDS)
    assert court.allowed("on-call") == every(WRITE, KINDS[3:])
    assert court.allowed("nobody") == set()


@pytest.mark.parametrize("court", ["roles.editMayFailOver=true"], indirect=True)
def test_whoever_may_edit_may_fail_over_where_a_value_grants_it(court: Court) -> None:
    assert court.allowed("may-edit") == every(READ, KINDS) | every(WRITE, KINDS)
    assert court.allowed("may-view") == every(READ, KINDS)


@pytest.mark.parametrize("court", ["roles.create=false"], indirect=True)
def test_without_the_roles_nobody_may_anything(court: Court) -> None:
    assert court.allowed("may-admin") == set()
