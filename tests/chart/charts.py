"""The chart as Helm renders it, and the sets of values that the tests render it with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from demo.helm import CHART, helm

Values = Mapping[str, Any]
Stored = dict[str, Any]

RELEASE = "lifeboat"
NAMESPACE = "ops"
SERVED = ("shop", "bank")

EVALUATION: Values = yaml.safe_load((CHART / "examples" / "evaluation.yaml").read_text(encoding="utf-8"))
ZONES: Values = EVALUATION["evaluation"]["zones"]

SETS: Mapping[str, Values] = {
    "nothing": {},
    "everything": {
        "fullnameOverride": "dr",
        "commonLabels": {"example.org/cost-centre": "recovery"},
        "image": {"repository": "registry.example:5000/dr/lifeboat", "tag": "0.1.0", "digest": f"sha256:{'a1' * 32}"},
        "imagePullSecrets": [{"name": "registry"}],
        "replicas": 2,
        "poll": 0.5,
        "logLevel": "DEBUG",
        "logFormat": "text",
        "leaseName": "dr",
        "extraArgs": ["--http=[::]:8080"],
        "extraEnv": [{"name": "LIFEBOAT_ACCEL", "value": "tcg"}],
        "extraEnvFrom": [{"configMapRef": {"name": "operator", "optional": True}}],
        "extraVolumes": [{"name": "authorities", "configMap": {"name": "authorities"}}],
        "extraVolumeMounts": [{"name": "authorities", "mountPath": "/etc/ssl/certs", "readOnly": True}],
        "serviceAccount": {"name": "captain", "annotations": {"example.org/team": "platform"}},
        "engineSecrets": ["ceph-zone-a", "ceph-zone-b"],
        "scripts": {"secrets": {"enabled": True, "names": ["script"]}},
        "roles": {"editMayFailOver": True},
        "annotations": {"example.org/team": "platform"},
        "revisionHistoryLimit": 1,
        "podAnnotations": {"example.org/team": "platform"},
        "podLabels": {"team": "platform"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "infra", "operator": "Exists"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "infra", "operator": "Exists"}]}]
                }
            }
        },
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
        ],
        "priorityClassName": "recovery",
        "service": {"port": 80, "annotations": {"example.org/team": "platform"}},
        "serviceMonitor": {
            "enabled": True,
            "interval": "1m",
            "scrapeTimeout": "20s",
            "labels": {"release": "prometheus"},
            "annotations": {"example.org/team": "platform"},
            "relabelings": [{"targetLabel": "cluster", "replacement": "west"}],
            "metricRelabelings": [{"action": "labeldrop", "regex": "pod"}],
        },
        "prometheusRule": {
            "enabled": True,
            "labels": {"release": "prometheus"},
            "annotations": {"example.org/team": "platform"},
        },
        "dashboard": {"enabled": True, "annotations": {"grafana_folder": "Recovery"}},
        "networkPolicy": {
            "enabled": True,
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "extraEgress": [{"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}],
        },
        "podDisruptionBudget": {"enabled": True},
    },
    "two namespaces": {"namespaces": list(SERVED)},
    "nothing beyond two namespaces": {
        "namespaces": list(SERVED),
        "crds": {"enabled": False},
        "roles": {"create": False},
    },
    "evaluation": EVALUATION,
    "evaluation on a volume that is there": {
        "namespaces": ["shop"],
        "evaluation": {"enabled": True, "volume": {"existingClaim": "zones"}},
    },
    "rights and kinds by somebody else": {
        "crds": {"enabled": False},
        "rbac": {"create": False},
        "roles": {"create": False},
        "serviceAccount": {"create": False, "name": "there-already"},
        "service": {"enabled": False},
        "scripts": {"configMaps": False},
    },
}


def render(values: Values, folder: Path, *options: str) -> list[Stored]:
    """Every object that Helm makes of the chart with these values; `folder` is for the file with them."""
    path = folder / "values.yaml"
    path.write_text(yaml.safe_dump(dict(values)), encoding="utf-8")
    text = helm("template", RELEASE, str(CHART), f"--namespace={NAMESPACE}", f"--values={path}", *options)
    return [found for found in yaml.safe_load_all(text) if found is not None]


def one(objects: list[Stored], kind: str, suffix: str = "") -> Stored:
    """The one object of a kind whose name ends so."""
    [found] = [each for each in objects if each["kind"] == kind and each["metadata"]["name"].endswith(suffix)]
    return found
