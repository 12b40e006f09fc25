"""What an engine is given of Secrets: those labelled for it, in the namespace of the pair that names them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from lifeboat import kube
from lifeboat.engines.contract import Refused, Retry


class Source(Protocol):
    """What is needed of the API server."""

    async def engine_secret(self, namespace: str, name: str) -> Mapping[str, str]:
        """The texts of a Secret that is labelled for engines."""
        ...


class EngineSecrets:
    """Secrets as engines read them. The API server is known once the operator is connected."""

    def __init__(self, source: Source) -> None:
        self._source = source

    async def read(self, namespace: str, name: str) -> Mapping[str, str]:
        """The texts in a Secret.

        Raises:
            Refused: it is not meant for engines, or the operator may not read it.
            Retry: it is not there, or cannot be read now.
        """
        try:
            return await self._source.engine_secret(namespace, name)
        except kube.NotFound as error:
            raise Retry(f"Secret {name} does not exist in namespace {namespace}; create it") from error
        except kube.Unusable as error:
            raise Refused(str(error)) from error
        except kube.Rejected as error:
            raise Refused(f"Secret {name} may not be read by the operator: {error}") from error
        except kube.KubeError as error:
            raise Retry(f"Secret {name} cannot be read now: {error}") from error
