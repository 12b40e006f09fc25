"""What `lifeboat inventory` shows, from a recorded pair."""

import io
from typing import Any

import pytest

from lifeboat.api.sitepair import MAX_TAKEN, SiteNetwork, SitePair
from lifeboat.cli import paint
from lifeboat.cli.client import Failure
from lifeboat.cli.inventory import free_addresses, inventory
from tests.unit import cli_world as day

PRIMARY: dict[str, Any] = {
    "servers": ["db-1", "mail-1", "nas-3", "web-1"],
    "serverCount": 4,
    "networks": [
        {
            "name": "net",
            "cidr": "10.0.0.0/24",
            "taken": [
                {"address": "10.0.0.0", "by": "network the network's own address"},
                {"address": "10.0.0.2", "by": "network the gateway"},
                {"address": "10.0.0.10", "by": "web-1"},
                {"address": "10.0.0.20", "by": "db-1"},
            ],
        }
    ],
    "elasticIPs": [],
    "cpu": 8,
    "memory": "16Gi",
    "ssd": False,
}
RECOVERY: dict[str, Any] = {
    "servers": [],
    "serverCount": 0,
    "networks": [
        {"name": "net", "cidr": "10.1.0.0/24", "taken": []},
        {"name": "rescue", "cidr": "10.2.0.0/24", "taken": [{"address": "10.2.0.20", "by": "db-1/failover"}]},
    ],
    "elasticIPs": [{"address": "127.0.10.5", "usedBy": "db-1/failover"}, {"address": "127.0.10.6"}],
    "cpu": 8,
    "memory": "16Gi",
    "ssd": True,
}
SHOWN = """\
north  site pair  namespace shop  ok

Primary site  zone zone-a
  at most 8 CPUs, 16.0 GiB memory, no SSD storage, 4 servers

  NETWORK  CIDR         USED FOR  TAKEN  NEXT FREE
  net      10.0.0.0/24  workload  2      10.0.0.1, 10.0.0.3, 10.0.0.4
      10.0.0.10 web-1   10.0.0.20 db-1

  SERVER  PROTECTION
  db-1    protected as db
  mail-1  may be protected
  nas-3   may be protected
  web-1   protected as web

Recovery site  zone zone-b
  at most 8 CPUs, 16.0 GiB memory, SSD storage, 0 servers

  NETWORK  CIDR         USED FOR  TAKEN  NEXT FREE
  net      10.1.0.0/24  workload  0      10.1.0.1, 10.1.0.2, 10.1.0.3
  rescue   10.2.0.0/24  recovery  1      10.2.0.1, 10.2.0.2, 10.2.0.3
      10.2.0.20 db-1/failover

  ELASTIC IP  1 OF 2 FREE
  127.0.10.5  used by db-1/failover
  127.0.10.6  free
"""


def shown(pair: SitePair) -> str:
    stream = io.StringIO()
    paint.show(paint.console_for(stream), inventory(pair, [day.WEB, day.DB]))
    return stream.getvalue()


def test_what_there_is_to_choose_from() -> None:
    assert shown(day.pair(inventory={"primary": PRIMARY, "recovery": RECOVERY})) == SHOWN


def test_a_site_of_which_nothing_is_known() -> None:
    text = shown(day.pair(inventory={"recovery": RECOVERY}))
    assert "nothing is known of it: it has not answered yet, or this namespace may not use it" in text
    assert "PROTECTION" not in text


def test_a_silent_site_is_shown_as_it_was() -> None:
    pair = day.pair(inventory={"primary": PRIMARY}, conditions=day.SILENT_PAIR.as_dict()["status"]["conditions"])
    assert "SiteSilent: zone zone-a" in shown(pair)
    assert "as it was last seen" in shown(pair)


def test_more_servers_than_are_told() -> None:
    pair = day.pair(inventory={"primary": {**PRIMARY, "serverCount": 700}})
    assert "and 696 more: ask whoever runs the zone" in shown(pair)


def test_a_zone_without_servers() -> None:
    assert "zone zone-a has no servers" in shown(day.pair(inventory={"primary": {**RECOVERY}}))


def test_before_the_operator_has_looked_it_says_why() -> None:
    pair = day.pair(conditions=day.stalled("NamespaceNotAllowed", "zone zone-a does not allow namespace shop"))
    with pytest.raises(Failure, match="NamespaceNotAllowed: zone zone-a does not allow"):
        inventory(pair, [])


def test_a_full_network_has_no_next_address() -> None:
    taken = [{"address": f"10.0.0.{last}", "by": "x"} for last in range(16)]
    network = SiteNetwork.model_validate({"name": "net", "cidr": "10.0.0.0/28", "taken": taken})
    assert list(free_addresses(network)) == []


def test_nothing_is_promised_beyond_what_is_told() -> None:
    taken = [{"address": f"10.0.{n // 256}.{n % 256}", "by": "x"} for n in range(MAX_TAKEN + 1) if n != 7]
    network = SiteNetwork.model_validate({"name": "net", "cidr": "10.0.0.0/16", "taken": taken})
    assert list(free_addresses(network)) == ["10.0.0.7"]
