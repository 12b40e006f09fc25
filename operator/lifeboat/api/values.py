"""What a Kubernetes user writes as a string (durations, quantities, times), as Python values and as schema.

The grammars are here once: the same expression guards the schema, by CEL, and the parser.
"""

import decimal
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import AwareDatetime, BeforeValidator, PlainSerializer, WithJsonSchema

from lifeboat.api import cel

DURATION: Final = r"^([0-9]{1,6}(\.[0-9]{1,3})?(h|m|s|ms))+$"
"""Go's durations without sign, nanoseconds and microseconds; with 20 characters it cannot overflow Go's 292 years."""

ID: Final = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
"""Zones, networks and servers, as clouds name them."""

DNS_LABEL: Final = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
DNS_SUBDOMAIN: Final = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$"
ATTACHMENT: Final = rf"^([a-z0-9]([a-z0-9-]{{0,61}}[a-z0-9])?/)?{DNS_SUBDOMAIN[1:]}"
ATTEMPT: Final = r"^attempt-[0-9]+$"
RFC3339: Final = (
    r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?"
    r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)

DURATION_MAX_LENGTH: Final = 20
NAME_MAX_LENGTH: Final = 253
QUANTITY_MAX: Final = 2**63 - 1

_MILLISECONDS: Final = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_DURATION_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|h|m|s)")
_QUANTITY: Final = re.compile(
    r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))([eE][+-]?[0-9]{1,9}|[KMGTPE]i|[numkMGTPE]|)", re.ASCII
)
_DECIMAL_SUFFIXES: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY_SUFFIXES: Final = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}


def parse_duration(text: str) -> timedelta:
    """Return the length of a Go-style duration such as `90s`, `1h30m` or `1.5h`.

    Raises:
        ValueError: the text is no such duration.
    """
    if len(text) > DURATION_MAX_LENGTH or not re.fullmatch(DURATION, text):
        raise ValueError(f"{text!r} is no duration: write one such as 90s, 1h30m or 24h")
    parts = _DURATION_PART.findall(text)
    total = sum(decimal.Decimal(number) * _MILLISECONDS[unit] for number, unit in parts)
    return timedelta(milliseconds=float(total))


def format_duration(length: timedelta) -> str:
    """Return the shortest Go-style duration of this length, to the millisecond; `0s` when there is none.

    Raises:
        ValueError: the length is negative.
    """
    rest = round(length / timedelta(milliseconds=1))
    if rest < 0:
        raise ValueError(f"a duration is not negative: {length}")
    text = ""
    for unit, size in _MILLISECONDS.items():
        count, rest = divmod(rest, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def parse_quantity(text: str | int) -> int:
    """Return a Kubernetes quantity such as `4Gi`, `1.5G` or `500` as a whole number, rounded up as Kubernetes does.

    A value beyond 63 bits becomes the largest of 63 bits, as in Kubernetes.

    Raises:
        ValueError: the text is no quantity.
    """
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise ValueError(f"{text!r} is no quantity: write one such as 512Mi, 4Gi or 2G")
    digits, suffix = match.groups()
    number = decimal.Decimal(digits)
    if suffix in _BINARY_SUFFIXES:
        number *= _BINARY_SUFFIXES[suffix]
    elif suffix in _DECIMAL_SUFFIXES:
        number = number.scaleb(_DECIMAL_SUFFIXES[suffix])
    else:
        number = decimal.Decimal(f"{digits}{suffix}")
    if number and number.adjusted() > len(str(QUANTITY_MAX)):
        return QUANTITY_MAX if number > 0 else -QUANTITY_MAX
    whole = int(number.to_integral_value(rounding=decimal.ROUND_CEILING))
    return max(-QUANTITY_MAX, min(whole, QUANTITY_MAX))


def format_quantity(number: int) -> str:
    """Return the number with the largest binary suffix that divides it, so `4Gi` and not `4294967296`."""
    for suffix, size in reversed(_BINARY_SUFFIXES.items()):
        if number and number % size == 0:
            return f"{number // size}{suffix}"
    return str(number)


def parse_time(text: str) -> datetime:
    """Return an RFC 3339 time, in UTC.

    Raises:
        ValueError: the text is no such time.
    """
    if not re.fullmatch(RFC3339, text):
        raise ValueError(f"{text!r} is no RFC 3339 time: write one such as 2026-01-31T12:00:00Z")
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{text!r} is outside the years 1 to 9999 of UTC") from error


def format_time(time: datetime) -> str:
    """Return the time in RFC 3339, UTC, whole seconds, as `metav1.Time`."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_micro_time(time: datetime) -> str:
    """Return the time in RFC 3339 and UTC with the fraction of its second, where it has one."""
    fraction = f".{time.microsecond:06d}".rstrip("0") if time.microsecond else ""
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%S}{fraction}Z"


def is_duration(expression: str) -> str:
    """Return a CEL expression that is true when the expression is a string that `duration()` takes."""
    return f"{expression}.matches(r'{DURATION}')"


def _duration_of(value: Any) -> Any:  # noqa: ANN401 - before validation it may be anything
    return parse_duration(value) if isinstance(value, str) else value


def _quantity_of(value: Any) -> Any:  # noqa: ANN401 - before validation it may be anything
    return parse_quantity(value) if isinstance(value, str) else value


def _text(maximum: int, *rules: cel.Rule) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "maxLength": maximum, **cel.rules(*rules)})


def _named(grammar: str, maximum: int, message: str) -> WithJsonSchema:
    return _text(maximum, cel.rule(f"self.matches(r'{grammar}')", message))


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration_of),
    PlainSerializer(format_duration, return_type=str),
    _text(
        DURATION_MAX_LENGTH,
        cel.rule(
            f"{is_duration('self')} && duration(self) > duration('0s')",
            "write a duration longer than zero, such as 90s, 1h30m or 24h",
        ),
    ),
]
"""A Go-style duration, longer than zero."""

Quantity = Annotated[
    int,
    BeforeValidator(_quantity_of),
    PlainSerializer(format_quantity, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "maxLength": 32,
            **cel.rules(
                cel.rule(
                    "isQuantity(string(self)) && quantity(string(self)).isGreaterThan(quantity('0'))",
                    "write a positive quantity, such as 512Mi, 4Gi or 2G",
                )
            ),
        }
    ),
]
"""A positive Kubernetes quantity, as a whole number."""

_TIME_SCHEMA: Final = WithJsonSchema({"type": "string", "format": "date-time"})

Time = Annotated[AwareDatetime, PlainSerializer(format_time, return_type=str), _TIME_SCHEMA]
"""A moment in whole seconds, as `metav1.Time`."""

MicroTime = Annotated[AwareDatetime, PlainSerializer(format_micro_time, return_type=str), _TIME_SCHEMA]
"""A moment that keeps its fraction: a recovery point's time, cut short, would no longer find that point."""

Id = Annotated[
    str,
    _text(
        63,
        cel.rule(
            f"self.matches(r'{ID}') && !self.contains('..')",
            "write 1 to 63 letters, digits, dots, underscores or hyphens, beginning and ending with a letter or digit, "
            "without two dots in a row",
        ),
    ),
]
"""The name of a zone, a network or a server at a site."""

ObjectName = Annotated[
    str,
    _named(DNS_SUBDOMAIN, NAME_MAX_LENGTH, "write the name of an object: lower-case letters, digits, hyphens and dots"),
]
DataKey = Annotated[
    str, _named("^[-._a-zA-Z0-9]+$", NAME_MAX_LENGTH, "write a key: letters, digits, hyphens, underscores and dots")
]
Label = Annotated[
    str, _named(DNS_LABEL, 63, "write a DNS label: 1 to 63 lower-case letters, digits or hyphens, such as web-1")
]
IPv4 = Annotated[
    str,
    _text(
        39,
        cel.rule(
            "isIP(self) && ip(self).family() == 4",
            "write an IPv4 address such as 192.168.0.10, or leave the field out for DHCP",
        ),
    ),
]
Cidr = Annotated[
    str,
    _text(
        43,
        cel.rule(
            "isCIDR(self) && cidr(self).ip().family() == 4 && cidr(self) == cidr(self).masked()",
            "write a range of IPv4 addresses such as 192.168.0.0/24, without bits of a host",
        ),
    ),
]
NetworkAttachment = Annotated[
    str,
    _named(
        ATTACHMENT, 317, "write a NetworkAttachmentDefinition: its name, or namespace/name, such as production/vlan-20"
    ),
]
"""A NetworkAttachmentDefinition, with or without its namespace."""
ElasticIP = Annotated[
    str,
    _text(39, cel.rule("self == 'auto' || isIP(self)", "write auto, or an address of the site's pool")),
]

_IS_TIME: Final = f"(self.matches(r'{RFC3339}') && !format.datetime().validate(self).hasValue())"

DrillPoint = Annotated[
    str,
    _text(
        63,
        cel.rule(
            f"self != 'current' && !self.matches(r'{ATTEMPT}') && (self.matches(r'{DNS_LABEL}') || {_IS_TIME})",
            "write latest, latest-application-consistent, the name of a recovery point, or an RFC 3339 time such as "
            "2026-01-31T12:00:00Z (current and attempt-<n> are for a Failover only)",
        ),
    ),
]
"""A Drill's recovery point."""

FailoverPoint = Annotated[
    str,
    _text(
        63,
        cel.rule(
            f"self.matches(r'{DNS_LABEL}') || {_IS_TIME}",
            "write current, latest, latest-application-consistent, the name of a recovery point, attempt-<n>, "
            "or an RFC 3339 time such as 2026-01-31T12:00:00Z",
        ),
    ),
]
"""A Failover's recovery point."""
