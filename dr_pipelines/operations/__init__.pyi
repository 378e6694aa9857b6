# Everything that `dr_pipelines.operations` has; each module is imported when something of it is asked for.
from .aging import (
    AgingReport as AgingReport,
)
from .aging import (
    age_storage as age_storage,
)
from .backups import (
    check_store as check_store,
)
from .backups import (
    find_backup as find_backup,
)
from .backups import (
    list_backups as list_backups,
)
from .backups import (
    take_backup as take_backup,
)
from .backups import (
    verify_backup as verify_backup,
)
from .backups import (
    wal_has_no_gap as wal_has_no_gap,
)
from .coverage import (
    find_uncovered as find_uncovered,
)
from .equivalence import (
    EquivalenceReport as EquivalenceReport,
)
from .equivalence import (
    prove_incrementals as prove_incrementals,
)
from .expectations import (
    judge_catalog as judge_catalog,
)
from .file_anomalies import (
    Accepted as Accepted,
)
from .file_anomalies import (
    accept_snapshot as accept_snapshot,
)
from .file_anomalies import (
    changes_are_usual as changes_are_usual,
)
from .file_anomalies import (
    changes_seen as changes_seen,
)
from .file_expectations import (
    judge_snapshot as judge_snapshot,
)
from .file_exposure import (
    exposure_on as exposure_on,
)
from .file_exposure import (
    file_exposure as file_exposure,
)
from .file_exposure import (
    file_exposures as file_exposures,
)
from .file_integrity import (
    check_snapshot as check_snapshot,
)
from .file_integrity import (
    check_snapshot_replica as check_snapshot_replica,
)
from .file_restores import (
    StorePlace as StorePlace,
)
from .file_restores import (
    diff_files as diff_files,
)
from .file_restores import (
    file_versions as file_versions,
)
from .file_restores import (
    preview_files as preview_files,
)
from .file_restores import (
    recalling_of as recalling_of,
)
from .file_restores import (
    restore_files as restore_files,
)
from .file_status import (
    FileSetState as FileSetState,
)
from .file_status import (
    FileTierState as FileTierState,
)
from .file_status import (
    file_status as file_status,
)
from .files import (
    labelled_snapshot as labelled_snapshot,
)
from .files import (
    list_snapshots as list_snapshots,
)
from .files import (
    take_snapshot as take_snapshot,
)
from .immutability import (
    bucket_is_as_planned as bucket_is_as_planned,
)
from .immutability import (
    check_immutability as check_immutability,
)
from .immutability import (
    lock_is_in_force as lock_is_in_force,
)
from .immutability import (
    locks_hold as locks_hold,
)
from .incidents import (
    close_incident as close_incident,
)
from .incidents import (
    list_incidents as list_incidents,
)
from .incidents import (
    open_incident as open_incident,
)
from .integrity import (
    check_backup as check_backup,
)
from .integrity import (
    check_replica as check_replica,
)
from .last_good import (
    LastGoodQuestion as LastGoodQuestion,
)
from .last_good import (
    find_last_good as find_last_good,
)
from .objectives import (
    Objectives as Objectives,
)
from .objectives import (
    measure_objectives as measure_objectives,
)
from .objectives import (
    objectives as objectives,
)
from .poll import (
    Looked as Looked,
)
from .poll import (
    Polled as Polled,
)
from .poll import (
    look_at_rows as look_at_rows,
)
from .poll import (
    poll as poll,
)
from .polls import (
    check_polls as check_polls,
)
from .polls import (
    note_waiting as note_waiting,
)
from .polls import (
    polls_of as polls_of,
)
from .recalls import (
    recall_stored as recall_stored,
)
from .reconcile import (
    SETTLED as SETTLED,
)
from .reconcile import (
    Reconciliation as Reconciliation,
)
from .reconcile import (
    reconcile as reconcile,
)
from .recovery import (
    preview_restore as preview_restore,
)
from .recovery import (
    restore as restore,
)
from .recovery_point import (
    FilesRestored as FilesRestored,
)
from .recovery_point import (
    RecoveryPoint as RecoveryPoint,
)
from .recovery_point import (
    restore_with_files as restore_with_files,
)
from .repair import (
    Planned as Planned,
)
from .repair import (
    Repaired as Repaired,
)
from .replica_sides import (
    replicated_tiers as replicated_tiers,
)
from .replication import (
    ReplicaState as ReplicaState,
)
from .replication import (
    ReplicationReport as ReplicationReport,
)
from .replication import (
    look_at_replica as look_at_replica,
)
from .replication import (
    replica_equals as replica_equals,
)
from .replication import (
    replica_is_current as replica_is_current,
)
from .replication import (
    replicas_equal as replicas_equal,
)
from .replication import (
    replicate as replicate,
)
from .replication import (
    replication_lag as replication_lag,
)
from .replication import (
    unseen_replica as unseen_replica,
)
from .retention import (
    RetentionReport as RetentionReport,
)
from .retention import (
    apply_retention as apply_retention,
)
from .retention import (
    find_label as find_label,
)
from .retention import (
    is_snapshot as is_snapshot,
)
from .retention import (
    keep_backup as keep_backup,
)
from .retention import (
    plan_retention as plan_retention,
)
from .retention import (
    prove_if_stale as prove_if_stale,
)
from .retention import (
    release_backup as release_backup,
)
from .retention import (
    undo_expiry as undo_expiry,
)
from .retention_look import (
    RetentionTable as RetentionTable,
)
from .scrub import (
    ScrubReport as ScrubReport,
)
from .scrub import (
    objects_match_their_digests as objects_match_their_digests,
)
from .scrub import (
    scrub as scrub,
)
from .status import (
    ServerState as ServerState,
)
from .status import (
    TierState as TierState,
)
from .status import (
    status as status,
)
from .validation import (
    RestoreProof as RestoreProof,
)
from .validation import (
    ValidationReport as ValidationReport,
)
from .validation import (
    restore_proofs as restore_proofs,
)
from .validation import (
    validate_backup as validate_backup,
)
from .validations_due import (
    ValidationState as ValidationState,
)
from .validations_due import (
    fulls_are_proven as fulls_are_proven,
)
from .validations_due import (
    known_backups as known_backups,
)
from .validations_due import (
    look_at_validations as look_at_validations,
)
from .validations_due import (
    tier_to_validate as tier_to_validate,
)
from .wal import (
    stream_wal as stream_wal,
)
from .windows import (
    TierWindows as TierWindows,
)
from .windows import (
    recoverability_chart as recoverability_chart,
)
from .windows import (
    recovery_window_is_kept as recovery_window_is_kept,
)
from .windows import (
    recovery_windows as recovery_windows,
)
