"""Every reason that a condition, an Event or a refusal can carry.

Reasons are part of the API: people and alerts match on them. Each has one meaning, said in the comment above it; the
reference in docs/ is generated from here. The message beside a reason says what to do.
"""

from __future__ import annotations

from typing import Final

# --- All is well, or on its way ---------------------------------------------------------------------------------

# What spec asks holds.
AS_ASKED: Final = "AsAsked"
# The client in the server is awaited.
INSTALLING_AGENT: Final = "InstallingAgent"
# Registered, and not replicated, as asked.
INITIALIZED: Final = "Initialized"
# The first copy of the disks is under way.
COPYING: Final = "Copying"
# Every write reaches the replica as it happens.
REPLICATING: Final = "Replicating"
# Only what changed during an interruption is being copied.
RESYNCING: Final = "Resyncing"
# Replication was switched off; replica and points are kept.
STOPPED: Final = "Stopped"
# The workload is served from the recovery site.
SERVED_FROM_RECOVERY: Final = "ServedFromRecovery"
# A step is under way.
IN_PROGRESS: Final = "InProgress"
# The drill's server runs and its checks passed.
RUNNING: Final = "Running"
# The drill's environment was cleared as asked.
CLEANED_UP: Final = "CleanedUp"
# The recovered server runs; confirm the failover, change the point, or roll back.
AWAITING_COMMIT: Final = "AwaitingCommit"
# The failover is confirmed.
COMMITTED: Final = "Committed"
# The failback is over; the workload is served from the primary site.
COMPLETED: Final = "Completed"
# The workload is served from the primary site again, and not protected yet.
SERVED_FROM_PRIMARY: Final = "ServedFromPrimary"
# Registered for reverse replication, which is not enabled.
REVERSE_REGISTERED: Final = "ReverseRegistered"
# The failover was given up; the source serves again.
ROLLED_BACK: Final = "RolledBack"
# The object is being deleted.
DELETING: Final = "Deleting"
# Both sites and their networks answer.
SITES_ANSWER: Final = "SitesAnswer"
# The source is stopped and cannot be started in its zone.
FENCED: Final = "Fenced"
# Nothing was fenced, since nothing failed over.
NOT_FENCED: Final = "NotFenced"
# The client in the server answers.
AGENT_ANSWERS: Final = "AgentAnswers"
# Points are taken in time.
POINTS_CURRENT: Final = "PointsCurrent"
# The declared checks passed.
CHECKS_PASSED: Final = "ChecksPassed"
# No checks were declared, so nothing was proved.
NO_CHECKS: Final = "NoChecks"
# Nothing has happened yet.
NOT_YET: Final = "NotYet"

# --- It waits by itself -----------------------------------------------------------------------------------------

# A site does not answer, or its inventory cannot be read; what is known of it is old.
SITE_SILENT: Final = "SiteSilent"
# The client in the server does not answer; restart the server to complete its installation.
AGENT_SILENT: Final = "AgentSilent"
# The source server is not running.
SOURCE_DOWN: Final = "SourceDown"
# Replication was interrupted and is being retried.
INTERRUPTED: Final = "Interrupted"
# A zone's disk is full.
NO_SPACE: Final = "NoSpace"
# There is no recovery point yet, or none that was asked for.
NO_RECOVERY_POINT: Final = "NoRecoveryPoint"
# The newest point is older than the policy asks for.
POINTS_LATE: Final = "PointsLate"
# The source could not be fenced yet and may still be serving.
FENCE_PENDING: Final = "FencePending"
# The referenced ProtectedServer does not exist, or is not accepted.
SERVER_NOT_FOUND: Final = "ServerNotFound"
# The referenced SitePair does not exist.
SITE_PAIR_NOT_FOUND: Final = "SitePairNotFound"
# The engine could not do a step and tries again.
ENGINE_ERROR: Final = "EngineError"
# Something still uses what is to be deleted.
IN_USE: Final = "InUse"

# --- It needs a person ------------------------------------------------------------------------------------------

# The zone's inventory has no such server.
UNKNOWN_SERVER: Final = "UnknownServer"
# The site has no such network.
UNKNOWN_NETWORK: Final = "UnknownNetwork"
# No network was named, and the site names none.
NETWORK_MISSING: Final = "NetworkMissing"
# The address is not one of the network's.
ADDRESS_OUTSIDE_NETWORK: Final = "AddressOutsideNetwork"
# Somebody else has the address.
ADDRESS_TAKEN: Final = "AddressTaken"
# The site's pool has no such elastic IP, or none free.
ELASTIC_IP_UNAVAILABLE: Final = "ElasticIPUnavailable"
# More CPU or memory than the site has.
TOO_LARGE: Final = "TooLarge"
# The site has no SSD tier.
NO_SSD: Final = "NoSSD"
# The zone's inventory does not allow this namespace.
NAMESPACE_NOT_ALLOWED: Final = "NamespaceNotAllowed"
# Another ProtectedServer has this server.
SERVER_CLAIMED: Final = "ServerClaimed"
# No such recovery point.
UNKNOWN_POINT: Final = "UnknownPoint"
# The point exists and cannot be used.
POINT_UNUSABLE: Final = "PointUnusable"
# The replica is not consistent now, so that `current` would be broken data.
NOT_CONSISTENT: Final = "NotConsistent"
# `current` was used in this failover already.
CURRENT_USED: Final = "CurrentUsed"
# No attempt of that number, or its disks are gone.
UNKNOWN_ATTEMPT: Final = "UnknownAttempt"
# The server is in a phase that does not allow this.
PHASE_DOES_NOT_ALLOW: Final = "PhaseDoesNotAllow"
# Another Failover of this server is not committed yet.
FAILOVER_EXISTS: Final = "FailoverExists"
# The Failover could not start before its deadline.
NOT_ACCEPTED: Final = "NotAccepted"
# A Failover asks to be committed before anybody saw what it recovered.
COMMIT_TOO_EARLY: Final = "CommitTooEarly"
# The original machine cannot be wiped now: consent or a known fact is missing.
WIPE_REFUSED: Final = "WipeRefused"
# The engine cannot do this.
NOT_SUPPORTED: Final = "NotSupported"
# The script's ConfigMap, Secret, key or label is missing.
SCRIPT_UNAVAILABLE: Final = "ScriptUnavailable"
# A declared check failed.
CHECKS_FAILED: Final = "ChecksFailed"
# The started machine stopped.
MACHINE_STOPPED: Final = "MachineStopped"
# The drill was ended for a Failover while it was being launched.
YIELDED: Final = "YieldedToFailover"
# The machine could not be started.
LAUNCH_FAILED: Final = "LaunchFailed"
# An annotation or field holds something that cannot be read.
INVALID_VALUE: Final = "InvalidValue"
