"""Who did what to which object, from where: one append-only stream with a cap.

Every call under /v1 that changes something is written, also one that was refused after its key was known. Adaptation
and prediction change nothing that others see and are counted by `service.usage` instead. Calls without a good key are
in the log alone: anybody could send them, and push the others out.
"""

from __future__ import annotations

from service import keys
from service.connection import Connections
from service.events import check_event_id
from service.tenancy import Caller
from warploom.records import AuditEntry, Page

KEPT = 100_000
BATCH = 500
LONGEST = 200


class AuditLog:
    """The audit log on the state server.

    Args:
        connections: both Redis roles.
        caller: who reads it: an admin of the default tenant (or None) sees all, any other its own tenant.
    """

    def __init__(self, connections: Connections, *, caller: Caller | None = None) -> None:
        self._state = connections.state
        self._caller = caller

    def append(self, caller: Caller, *, action: str, target: str, status: int, request_id: str, address: str) -> None:
        """Write one entry.

        Args:
            caller: who asked.
            action: method and route, `POST /v1/jobs/{job_id}/cancel`.
            target: id or name of the object.
            status: of the answer.
            request_id: of the request.
            address: that it came from.
        """
        told = {
            "key": caller.key, "tenant": caller.tenant, "action": action, "target": target, "status": str(status),
            "request_id": request_id, "address": address,
        }  # fmt: skip
        fields = [part for name, value in told.items() for part in (name, value[:LONGEST])]
        self._state.execute_command("XADD", keys.AUDIT, "MAXLEN", "~", KEPT, "*", *fields)

    def list(self, limit: int = 100, after: str | None = None) -> Page[AuditEntry]:
        """Entries, newest first.

        Args:
            limit: most entries on the page.
            after: id of the last entry of the page before.

        Raises:
            InvalidInput: `after` is no entry's id.
        """
        found: list[AuditEntry] = []
        top = "+" if after is None else f"({check_event_id(after)}"
        while len(found) <= limit:
            batch = self._state.execute_command("XREVRANGE", keys.AUDIT, top, "-", "COUNT", BATCH)
            found += [entry for entry in map(_entry, batch) if self._sees(entry)]
            if len(batch) < BATCH:
                break
            top = f"({batch[-1][0].decode()}"
        return Page[AuditEntry](data=found[:limit], has_more=len(found) > limit)

    def _sees(self, entry: AuditEntry) -> bool:
        return self._caller is None or self._caller.operator or entry.tenant == self._caller.tenant


def _entry(raw: tuple[bytes, dict[bytes, bytes]]) -> AuditEntry:
    entry_id, fields = raw
    told = {name.decode(): value.decode() for name, value in fields.items()}
    return AuditEntry.model_validate({"id": entry_id.decode(), "at": int(entry_id.split(b"-")[0]) / 1000} | told)
