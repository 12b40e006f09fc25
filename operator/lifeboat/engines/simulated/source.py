"""The verbs of the source server, and what happens to it by itself."""

from __future__ import annotations

from lifeboat.engines.contract import Refused
from lifeboat.engines.simulated import replication
from lifeboat.engines.simulated.state import CRASHED, Model, SourceRecord, Track, ZoneRecord


def restart(model: Model, track: Track) -> None:
    """Restart the source; one that is booting anyway is left to it."""
    source = track.source()
    if not source.running:
        raise Refused(f"{source.server_id} does not run")
    if source.server_id not in model.booting:
        boot(model, source)


def fence(model: Model, track: Track) -> None:
    """Stop the source for good: an orderly stop, so what is replicated is complete."""
    source = track.source()
    if source.fenced:
        return
    source.fenced, source.stopped_by_fence = True, source.running
    stop(model, track.primary, source, "the source is fenced: a new copy starts from the beginning")


def unfence(model: Model, track: Track) -> None:
    """Let the source start again, and start it if the fence was what stopped it."""
    source = track.source()
    if source.fenced and source.stopped_by_fence:
        boot(model, source)
    source.fenced = source.stopped_by_fence = False


def boot(model: Model, source: SourceRecord) -> None:
    """Begin a boot at the model's time; the client comes up later, where it comes up at all."""
    source.running, source.agent, source.boot_time = True, False, model.now
    source.agent_due = model.now + model.boot
    model.booting[source.server_id] = source


def stop(model: Model, zone: ZoneRecord, source: SourceRecord, reason: str = CRASHED) -> None:
    """End the source's process, and every copy that ran in it."""
    source.running, source.agent, source.agent_due = False, False, None
    model.booting.pop(source.server_id, None)
    for copy in model.copies(zone.name, source.server_id):
        replication.interrupt(model, copy, reason, resumable=False)


def progress(model: Model) -> list[SourceRecord]:
    """Finish the boots that are over by now, and tell which."""
    done = [source for source in model.booting.values() if source.agent_due and source.agent_due <= model.now]
    for source in done:
        source.agent, source.agent_due = source.agent_starts, None
        del model.booting[source.server_id]
    return done
