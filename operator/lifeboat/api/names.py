"""The words that this API puts on the cluster, here once, because a finalizer or a label spelled twice is a bug."""

from typing import Final

GROUP: Final = "lifeboat.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

CATEGORY: Final = "lifeboat"
"""`kubectl get lifeboat` lists all four kinds."""

FINALIZER: Final = "lifeboat.dev/cleanup"
FIELD_MANAGER: Final = "lifeboat"
"""The field manager under which the operator applies status."""

RESTARTED_AT: Final = "lifeboat.dev/restartedAt"
"""Annotation of a ProtectedServer, an RFC 3339 time: restart the server if it booted before it."""

DISCARD: Final = "lifeboat.dev/discard"
"""Annotation of a ProtectedServer, its server's id: delete the replica although the source is not known to be alive."""

SCRIPT_LABEL: Final = "lifeboat.dev/script"
"""Label that a Secret must carry, with the value "true", before a script is read from it."""

SCRIPT_LABEL_VALUE: Final = "true"

ENGINE_LABEL: Final = "lifeboat.dev/engine"
"""Label that a Secret must carry, with the value "true", before an engine is given what it holds."""

ENGINE_LABEL_VALUE: Final = "true"

LATEST: Final = "latest"
LATEST_APPLICATION_CONSISTENT: Final = "latest-application-consistent"
CURRENT: Final = "current"
"""The replica as it stands now; a Failover takes it, a Drill does not."""

ATTEMPT_PREFIX: Final = "attempt-"
"""`attempt-<n>` are the kept disks of an earlier attempt of the same failover."""

AUTO: Final = "auto"
"""The elastic IP that the site chooses from its pool."""
