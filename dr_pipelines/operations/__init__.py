"""One function a verb, used by the command line and Dagster alike. Nothing here prints."""

from dr_pipelines.operations.aging import AgingReport, age_storage
from dr_pipelines.operations.backups import (
    check_store,
    find_backup,
    list_backups,
    take_backup,
    verify_backup,
    wal_has_no_gap,
)
from dr_pipelines.operations.coverage import find_uncovered
from dr_pipelines.operations.equivalence import EquivalenceReport, prove_incrementals
from dr_pipelines.operations.expectations import judge_catalog
from dr_pipelines.operations.files import labelled_snapshot, list_snapshots, take_snapshot
from dr_pipelines.operations.immutability import (
    bucket_is_as_planned,
    check_immutability,
    lock_is_in_force,
    locks_hold,
)
from dr_pipelines.operations.incidents import close_incident, list_incidents, open_incident
from dr_pipelines.operations.integrity import check_backup, check_replica
from dr_pipelines.operations.last_good import LastGoodQuestion, find_last_good
from dr_pipelines.operations.objectives import Objectives, measure_objectives, objectives
from dr_pipelines.operations.recovery import preview_restore, restore
from dr_pipelines.operations.replication import (
    ReplicaState,
    ReplicationReport,
    look_at_replica,
    replica_equals,
    replica_is_current,
    replicas_equal,
    replicate,
    replicated_tiers,
    replication_lag,
    unseen_replica,
)
from dr_pipelines.operations.retention import (
    RetentionReport,
    RetentionTable,
    apply_retention,
    keep_backup,
    plan_retention,
    prove_if_stale,
    release_backup,
    undo_expiry,
)
from dr_pipelines.operations.scrub import ScrubReport, objects_match_their_digests, scrub
from dr_pipelines.operations.status import ServerState, TierState, status
from dr_pipelines.operations.validation import (
    RestoreProof,
    ValidationReport,
    restore_proofs,
    validate_backup,
)
from dr_pipelines.operations.validations_due import (
    ValidationState,
    fulls_are_proven,
    known_backups,
    look_at_validations,
    tier_to_validate,
)
from dr_pipelines.operations.wal import stream_wal
from dr_pipelines.operations.windows import TierWindows, recoverability_chart, recovery_window_is_kept, recovery_windows

__all__ = [
    "labelled_snapshot",
    "list_snapshots",
    "take_snapshot",
    "known_backups",
    "ValidationState",
    "fulls_are_proven",
    "look_at_validations",
    "tier_to_validate",
    "RestoreProof",
    "restore_proofs",
    "ValidationReport",
    "validate_backup",
    "EquivalenceReport",
    "prove_incrementals",
    "AgingReport",
    "age_storage",
    "RetentionReport",
    "RetentionTable",
    "apply_retention",
    "keep_backup",
    "plan_retention",
    "release_backup",
    "undo_expiry",
    "close_incident",
    "list_incidents",
    "open_incident",
    "Objectives",
    "measure_objectives",
    "objectives",
    "ReplicationReport",
    "ScrubReport",
    "ServerState",
    "TierState",
    "TierWindows",
    "bucket_is_as_planned",
    "check_immutability",
    "check_store",
    "ReplicaState",
    "look_at_replica",
    "unseen_replica",
    "find_backup",
    "find_uncovered",
    "LastGoodQuestion",
    "find_last_good",
    "judge_catalog",
    "list_backups",
    "lock_is_in_force",
    "locks_hold",
    "objects_match_their_digests",
    "preview_restore",
    "prove_if_stale",
    "recoverability_chart",
    "recovery_window_is_kept",
    "recovery_windows",
    "check_backup",
    "check_replica",
    "replica_equals",
    "replicas_equal",
    "replica_is_current",
    "replicate",
    "replicated_tiers",
    "replication_lag",
    "restore",
    "scrub",
    "status",
    "stream_wal",
    "take_backup",
    "verify_backup",
    "wal_has_no_gap",
]
