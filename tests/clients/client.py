"""What the author of a client does in Python, with nothing but what openapi-python-client made of the document.

Needs SERVICE_URL and ORGANIZER_KEY in the environment.
"""

import base64
import datetime
import hmac
import os
import struct
import time
import uuid
from typing import TypeVar

from register_ticket_api_client import AuthenticatedClient
from register_ticket_api_client.api.events import change_event, create_event
from register_ticket_api_client.api.gate import record_attendance, scan_ticket, undo_scan
from register_ticket_api_client.api.tickets import create_tickets, revoke_ticket
from register_ticket_api_client.api.users import create_user, register_ticket
from register_ticket_api_client.models import (
    AttendanceRequestForm,
    Direction,
    Event,
    EventChange,
    ImportCounts,
    NewEvent,
    NewTicket,
    NewUser,
    NewUserForm,
    Problem,
    ProblemCode,
    Registration,
    RegistrationForm,
    Scan,
    ScanBySeat,
    ScanResult,
    Ticket,
    TicketStatus,
    TicketWithProvisioning,
    User,
)
from register_ticket_api_client.types import Response

EVENT = "python"
client = AuthenticatedClient(
    base_url=os.environ["SERVICE_URL"], token=os.environ["ORGANIZER_KEY"], raise_on_unexpected_status=True
)
gate = {"event": EVENT, "client": client}
seen = set()
T = TypeVar("T")


def answered(kind: type[T], status: int, response: Response) -> T:
    """What an answer holds, when it has this status and this type."""
    assert response.status_code == status, (response.status_code, response.content)
    assert type(response.parsed) is kind, response.parsed
    return response.parsed


def code(ticket: TicketWithProvisioning, seconds: int = 0) -> str:
    """The code of a ticket (RFC 6238), so many seconds from now."""
    step = int(time.time() + seconds) // ticket.provisioning.period
    digest = hmac.digest(base64.b32decode(ticket.provisioning.secret), struct.pack(">Q", step), "sha1")
    offset = digest[-1] & 15
    number = struct.unpack(">I", digest[offset : offset + 4])[0] & 0x7FFFFFFF
    return f"{number % 10**ticket.provisioning.digits:0{ticket.provisioning.digits}}"


def scans(result: ScanResult, status: int, seat: str, totp_code: str, **more) -> Scan:
    """Scans a ticket, which is answered so."""
    more = {"scan_id": uuid.uuid4(), **more}
    body = ScanBySeat(seat=seat, gate="North", totp_code=totp_code, **more)
    scan = answered(Scan, status, scan_ticket.sync_detailed(**gate, body=body))
    assert scan.result is result, scan
    assert scan.scan_id == body.scan_id
    seen.add(result)
    return scan


def register(seat: str) -> TicketWithProvisioning:
    body = Registration(seat=seat, gate="North", event=EVENT)
    return answered(TicketWithProvisioning, 201, register_ticket.sync_detailed("pia", client=client, body=body))


# An event with tickets, some of them held by a person. Fields with a default are omitted.
event = answered(Event, 201, create_event.sync_detailed(client=client, body=NewEvent(slug=EVENT, name="Python")))
assert event.time_zone == "UTC"
seats = [NewTicket(seat=seat, gate="North") for seat in ["A-1", "A-2", "A-3", "A-4"]]
assert answered(ImportCounts, 201, create_tickets.sync_detailed(EVENT, client=client, body=seats)).created == 4
one = NewTicket(seat="B-1", gate="South")
assert answered(ImportCounts, 201, create_tickets.sync_detailed(EVENT, client=client, body=one)).created == 1
user = answered(User, 201, create_user.sync_detailed(client=client, body=NewUser(username="pia", full_name="Pía")))
assert user.full_name == "Pía"
ticket = register("A-1")
assert ticket.status is TicketStatus.VALID and ticket.username == "pia"
other, revoked = register("A-2"), register("A-4")
answered(Ticket, 200, revoke_ticket.sync_detailed(revoked.ticket_id, client=client))

# It admits once. Every decision is a scan, whatever its status.
admitted = scans(ScanResult.ACCEPTED, 200, "A-1", code(ticket))
assert admitted.ticket.status is TicketStatus.USED
assert scans(ScanResult.ALREADY_USED, 409, "A-1", code(ticket)).first_used_gate is not None
undone = answered(Scan, 200, undo_scan.sync_detailed(admitted.scan_id, client=client))
assert undone.undone_at is not None
scans(ScanResult.UNDONE, 409, "A-1", code(ticket), scan_id=admitted.scan_id)
scans(ScanResult.NOT_REGISTERED, 409, "A-3", "000000")
scans(ScanResult.REVOKED, 410, "A-4", code(revoked))
scans(ScanResult.UNKNOWN_TICKET, 404, "A-9", "000000")
assert scans(ScanResult.WRONG_GATE, 409, "A-2", code(other), at_gate="South").right_gate == "North"
scans(ScanResult.NOT_INSIDE, 409, "A-2", code(other), direction=Direction.EXIT)
assert scans(ScanResult.STALE_CODE, 422, "A-2", code(other, -300)).seconds_off < 0
now = datetime.datetime.now(datetime.UTC)
hour = datetime.timedelta(hours=1)
for result, doors in [
    (ScanResult.TOO_EARLY, EventChange(opens_at=now + hour)),
    (ScanResult.TOO_LATE, EventChange(opens_at=None, closes_at=now - hour)),
]:
    answered(Event, 200, change_event.sync_detailed(EVENT, client=client, body=doors))
    scan = scans(result, 409, "A-2", code(other))
    assert (scan.opens_at or scan.closed_at) is not None
answered(Event, 200, change_event.sync_detailed(EVENT, client=client, body=EventChange(closes_at=None)))
wrong = next(digits for digits in ("000000", "111111") if digits not in [code(other, 30 * step) for step in range(-20, 21)])
for _ in range(10):
    assert scans(ScanResult.WRONG_CODE, 422, "A-2", wrong).ticket.status is None
scans(ScanResult.TOO_MANY_ATTEMPTS, 429, "A-2", wrong)
assert seen == set(ScanResult), set(ScanResult) - seen

# A refusal is a problem, even where a decision may be returned.
invalid = ScanBySeat(scan_id=uuid.uuid4(), seat=" ", gate="North", totp_code="000000")
problem = answered(Problem, 422, scan_ticket.sync_detailed(**gate, body=invalid))
assert problem.code is ProblemCode.INVALID_PAYLOAD
assert [error.field for error in problem.errors] == ["seat"], problem
body = NewEvent(slug="Not a slug", name="")
problem = answered(Problem, 422, create_event.sync_detailed(client=client, body=body))
assert problem.errors[0].field == "slug", problem
problem = answered(Problem, 409, create_event.sync_detailed(client=client, body=NewEvent(slug=EVENT, name="Again")))
assert problem.code is ProblemCode.EVENT_EXISTS

# The same as a form.
answered(User, 201, create_user.sync_detailed(client=client, body=NewUserForm(username="paz")))
body = RegistrationForm(seat="A-3", gate="North", event=EVENT)
ticket = answered(TicketWithProvisioning, 201, register_ticket.sync_detailed("paz", client=client, body=body))
body = AttendanceRequestForm(seat="A-3", gate="North", totp_code=code(ticket), event=EVENT)
assert answered(Scan, 200, record_attendance.sync_detailed(client=client, body=body)).result is ScanResult.ACCEPTED
print("Python: registered, admitted, and refused in every way")
