"""What somebody asks for when they start a server, validated the same way on every path.

The Hub's form, its REST API (`user_options`) and the service's own starts all end in one of two
things: a `ReservationRequest`, or the id of a reservation that exists already. Pure functions; what
policy and capacity say is the service's business.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs

from pydantic import ValidationError

from gpudev_client import limits, words
from gpudev_client.models import GpuType, ReservationRequest

#: What a caller may set; the rest of a request is who they are and which server it is.
FIELDS = (
    "gpu_type",
    "gpus",
    "hours",
    "disk",
    "create_disk",
    "name",
    "image",
    "starts_at",
    "node_labels",
)
#: Before a type's name: the form's field for the number of its GPUs.
_COUNT = "gpus:"
#: The form's buttons that go on where one left; the value is a link's query.
AGAIN = "again"
#: The option that attaches a start to a reservation that exists.
ATTACH = "reservation"
#: The Hub's own keys beside the options: 5.x passes them through.
_HUBS_OWN = frozenset({"display_name"})

_SENTENCES: Mapping[str, str] = {
    "gpu_type": "Choose one of the GPU types.",
    "gpus": "Choose how many GPUs, as a whole number.",
    "hours": "Enter the length as a number of hours above 0, such as 2 or 0.5.",
    "disk": (
        "A disk's name begins with a letter or digit and goes on with letters, digits, “.”, “_” "
        "and “-”; 63 characters at most."
    ),
    "create_disk": "Say true or false.",
    "name": f"A name is one line of printable characters, {limits.NAME_MAX} at most.",
    "image": ("An image is named like ghcr.io/lab/torch:2.8: registry, path and tag, no spaces."),
    "starts_at": "Give the start as a date and time with its time zone.",
    "node_labels": (
        "Give labels of nodes as an object of names and values, such as "
        f'{{"topology.kubernetes.io/zone": "eu-1a"}}; {limits.NODE_LABELS_MAX} at most.'
    ),
    ATTACH: "Give the id of a reservation.",
}


class InvalidOptions(ValueError):  # noqa: N818 - an answer for a person
    """Options that cannot become a request: `message` for a person, `field` at fault; `faults` has
    a sentence for every field that is, in the form's order."""

    def __init__(
        self, message: str, field: str | None = None, faults: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.faults = dict(faults or ({field: message} if field else {}))

    @classmethod
    def of(cls, faults: Mapping[str, str]) -> InvalidOptions:
        """All of `faults` at once; there is at least one."""
        ordered = {field: faults[field] for field in sorted(faults, key=_place)}
        return cls(" ".join(ordered.values()), next(iter(ordered)), ordered)


def _place(field: str) -> int:
    return FIELDS.index(field) if field in FIELDS else len(FIELDS)


@dataclass(frozen=True, slots=True)
class Attach:
    """Start the server of a reservation that exists."""

    reservation: str


Asked = ReservationRequest | Attach | None


def parse(options: Mapping[str, Any]) -> Asked:
    """What `user_options` ask for; None where they ask for nothing.

    Raises:
        InvalidOptions: with the field and a sentence.
    """
    flat = {key: value for key, value in _flat(options).items() if value is not None}
    if ATTACH in flat:
        return _attach(flat)
    if not flat:
        return None
    unknown = sorted(set(flat) - set(FIELDS))
    if unknown:
        raise InvalidOptions(
            f"There is no option {str(unknown[0])[:100]!r}. There are: {', '.join(FIELDS)}."
        )
    try:
        return ReservationRequest.model_validate(flat)
    except ValidationError as error:
        fields = [str(fault["loc"][0]) if fault["loc"] else "" for fault in error.errors()]
        faults = {field: _SENTENCES.get(field, "Please check this.") for field in fields}
        raise InvalidOptions.of(faults) from error


def stored(request: ReservationRequest) -> dict[str, Any]:
    """A request as `user_options`, which the Hub keeps and offers again next time."""
    return request.model_dump(mode="json", exclude_none=True, exclude_defaults=True)


def _flat(options: Mapping[str, Any]) -> dict[str, Any]:
    # Hub 5 hands a nested body through as it came, Hub 6 unpacks it.
    inner = options.get("user_options")
    if isinstance(inner, Mapping) and set(options) <= {"user_options"} | _HUBS_OWN:
        options = inner
    return {str(key): value for key, value in options.items() if key not in _HUBS_OWN}


def _attach(flat: Mapping[str, Any]) -> Attach:
    reservation = flat[ATTACH]
    if not isinstance(reservation, str) or not limits.is_reservation_id(reservation):
        raise InvalidOptions(_SENTENCES[ATTACH], ATTACH)
    return Attach(reservation)


# --- the form ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FormValues:
    """What stands in the form, as text and as it was typed; what a failed try gives back.

    `hours` is a preset or "other", `disk_choice` is "existing", "new" or "none". `counts` are the
    numbers of GPUs that were chosen at the types, also at those that were not chosen in the end.
    `node_labels` are those of the last time, as "zone=a, rack=7".
    """

    gpu_type: str = ""
    gpus: str = ""
    hours: str = ""
    hours_other: str = ""
    disk_choice: str = ""
    disk: str = ""
    new_disk: str = ""
    name: str = ""
    image: str = ""
    node_labels: str = ""
    reservation: str = ""
    counts: Mapping[str, str] = field(default_factory=dict)


def form_values(form: Mapping[str, Sequence[str]]) -> FormValues:
    """The form's fields; of a field that came twice the last one, cut to a sane length."""

    def one(key: str) -> str:
        values = form.get(key) or [""]
        return str(values[-1])[:1000]

    gpu_type = one("gpu_type")
    return FormValues(
        gpu_type=gpu_type,
        # Every type has its own choice of counts, so that no script is needed to offer only valid
        # ones.
        gpus=one(f"{_COUNT}{gpu_type}") or one("gpus"),
        hours=one("hours"),
        hours_other=one("hours_other"),
        disk_choice=one("disk_choice"),
        disk=one("disk"),
        new_disk=one("new_disk"),
        name=one("name"),
        image=one("image"),
        node_labels=one("node_labels"),
        reservation=one(ATTACH),
        counts={key.removeprefix(_COUNT): one(key) for key in form if key.startswith(_COUNT)},
    )


def from_form(values: FormValues) -> ReservationRequest | Attach:
    """What a filled form asks for.

    Raises:
        InvalidOptions: with the field and a sentence.
    """
    if values.reservation:
        return _attach({ATTACH: values.reservation})
    return request_from_form(values)


def request_from_form(values: FormValues) -> ReservationRequest:
    """The new reservation that a filled form asks for; raises `InvalidOptions` as above."""
    options: dict[str, Any] = {"gpu_type": values.gpu_type or None, "gpus": values.gpus or None}
    if values.name.strip():
        options["name"] = values.name
    if values.image.strip():
        options["image"] = values.image.strip()
    if values.node_labels.strip():
        pairs = [pair.strip().partition("=") for pair in values.node_labels.split(",")]
        options["node_labels"] = {key: value for key, _, value in pairs}
    faults: dict[str, str] = {}
    for part in (_hours, _disk):
        try:
            options |= part(values)
        except InvalidOptions as error:
            faults |= error.faults
    try:
        asked = parse({"gpu_type": None, **options})
    except InvalidOptions as error:
        raise InvalidOptions.of({**error.faults, **faults}) from error
    if faults:
        raise InvalidOptions.of(faults)
    if not isinstance(asked, ReservationRequest):
        raise InvalidOptions(_SENTENCES["gpu_type"], "gpu_type")
    return asked


def mended(values: FormValues, fields: Collection[str], kind: GpuType) -> FormValues:
    """`values` with what stands in `fields` replaced by what can be asked for of `kind`, so that
    the others can be looked at."""
    good: dict[str, Any] = {}
    if "gpu_type" in fields:
        good["gpu_type"] = kind.name
    if "gpus" in fields or "gpu_type" in fields:
        good["gpus"] = ""
    if "hours" in fields:
        length = min(max(kind.default_hours, kind.min_hours), kind.max_hours)
        good |= {"hours": "other", "hours_other": f"{length:.6f}"}
    if "disk" in fields:
        good["disk_choice"] = "none"
    good |= {field: "" for field in ("name", "image", "node_labels") if field in fields}
    return replace(values, **good)


def _hours(values: FormValues) -> dict[str, Any]:
    text = values.hours_other if values.hours in ("other", "") else values.hours
    hours = parse_hours(text)
    if hours is None:
        raise InvalidOptions(_SENTENCES["hours"], "hours")
    return {"hours": hours}


def parse_hours(text: str) -> float | None:
    """A length as people type it, in hours: "2", "0.5", "1,5", "90 min"; None if it is none."""
    found = re.fullmatch(
        r"\s*([0-9]{1,6}(?:[.,][0-9]{1,6})?|[.,][0-9]{1,6})\s*(h|hours?|m|min|minutes?)?\s*",
        text,
        re.IGNORECASE,
    )
    if found is None:
        return None
    number = float(found[1].replace(",", "."))
    unit = (found[2] or "h").lower()
    hours = number / 60 if unit.startswith("m") else number
    return hours if 0 < hours <= limits.HOURS_MAX else None


def _disk(values: FormValues) -> dict[str, Any]:
    if values.disk_choice == "none":
        return {}
    if values.disk_choice == "new":
        return {"disk": values.new_disk.strip(), "create_disk": True}
    if values.disk_choice == "existing" and values.disk:
        return {"disk": values.disk}
    raise InvalidOptions("Choose a disk, a new one, or none.", "disk")


def values_of(request: ReservationRequest, presets: Sequence[float]) -> FormValues:
    """A request as the form shows it."""
    preset = next((p for p in presets if p == request.hours), None)
    disk_choice = "none"
    if request.disk is not None:
        disk_choice = "new" if request.create_disk else "existing"
    return FormValues(
        gpu_type=request.gpu_type,
        gpus="" if request.gpus is None else str(request.gpus),
        hours="other" if preset is None else f"{preset:g}",
        hours_other="" if preset is not None else f"{request.hours:g}",
        disk_choice=disk_choice,
        disk="" if request.create_disk else request.disk or "",
        new_disk=request.disk or "" if request.create_disk else "",
        name=request.name or "",
        image=request.image or "",
        node_labels=words.labels(request.node_labels or {}),
    )


def submitted(form: Mapping[str, Sequence[str]], presets: Sequence[float]) -> FormValues:
    """What was asked for by the button that was pressed: the fields, or what the button stands
    for."""
    pressed = form.get(AGAIN)
    if not pressed:
        return form_values(form)
    return prefill(parse_qs(str(pressed[-1])[:2000]), presets)


def prefill(query: Mapping[str, Sequence[str]], presets: Sequence[float]) -> FormValues:
    """The form as a link's query arguments fill it; nothing in them is checked here."""
    plain = {key.removeprefix("opt-"): values for key, values in query.items()}
    values = form_values(plain)
    hours = parse_hours(values.hours)
    preset = next((p for p in presets if p == hours), None)
    choice = values.disk_choice or ("existing" if values.disk else "")
    return FormValues(
        gpu_type=values.gpu_type,
        gpus=values.gpus,
        hours=f"{preset:g}" if preset is not None else ("other" if values.hours else ""),
        hours_other="" if preset is not None else values.hours,
        disk_choice=choice,
        disk=values.disk,
        new_disk=values.new_disk,
        name=values.name,
        image=values.image,
        node_labels=values.node_labels,
    )
