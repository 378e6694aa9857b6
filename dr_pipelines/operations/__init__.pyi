# Everything that `dr_pipelines.operations` has; each module is imported when something of it is asked for.
from .aging import (
    AgingReport as AgingReport,
    age_storage as age_storage,
)
from .backups import (
    check_store as check_store,
    find_backup as find_backup,
    list_backups as list_backups,
    take_backup as take_backup,
    verify_backup as verify_backup,
    wal_has_no_gap as wal_has_no_gap,
)
from .coverage import (
    find_uncovered as find_uncovered,
)
from .equivalence import (
    EquivalenceReport as EquivalenceReport,
    prove_incrementals as prove_incrementals,
)
from .expectations import (
    judge_catalog as judge_catalog,
)
from .files import (
    labelled_snapshot as labelled_snapshot,
    list_snapshots as list_snapshots,
    take_snapshot as take_snapshot,
)
from .immutability import (
    bucket_is_as_planned as bucket_is_as_planned,
    check_immutability as check_immutability,
    lock_is_in_force as lock_is_in_force,
    locks_hold as locks_hold,
)
from .incidents import (
    close_incident as close_incident,
    list_incidents as list_incidents,
    open_incident as open_incident,
)
from .integrity import (
    check_backup as check_backup,
    check_replica as check_replica,
)
from .last_good import (
    LastGoodQuestion as LastGoodQuestion,
    find_last_good as find_last_good,
)
from .objectives import (
    Objectives as Objectives,
    measure_objectives as measure_objectives,
    objectives as objectives,
)
from .recovery import (
    preview_restore as preview_restore,
    restore as restore,
)
from .replica_sides import (
    replicated_tiers as replicated_tiers,
)
from .replication import (
    ReplicaState as ReplicaState,
    ReplicationReport as ReplicationReport,
    look_at_replica as look_at_replica,
    replica_equals as replica_equals,
    replica_is_current as replica_is_current,
    replicas_equal as replicas_equal,
    replicate as replicate,
    replication_lag as replication_lag,
    unseen_replica as unseen_replica,
)
from .retention import (
    RetentionReport as RetentionReport,
    apply_retention as apply_retention,
    keep_backup as keep_backup,
    plan_retention as plan_retention,
    prove_if_stale as prove_if_stale,
    release_backup as release_backup,
    undo_expiry as undo_expiry,
)
from .retention_look import (
    RetentionTable as RetentionTable,
)
from .scrub import (
    ScrubReport as ScrubReport,
    objects_match_their_digests as objects_match_their_digests,
    scrub as scrub,
)
from .status import (
    ServerState as ServerState,
    TierState as TierState,
    status as status,
)
from .validation import (
    RestoreProof as RestoreProof,
    ValidationReport as ValidationReport,
    restore_proofs as restore_proofs,
    validate_backup as validate_backup,
)
from .validations_due import (
    ValidationState as ValidationState,
    fulls_are_proven as fulls_are_proven,
    known_backups as known_backups,
    look_at_validations as look_at_validations,
    tier_to_validate as tier_to_validate,
)
from .wal import (
    stream_wal as stream_wal,
)
from .windows import (
    TierWindows as TierWindows,
    recoverability_chart as recoverability_chart,
    recovery_window_is_kept as recovery_window_is_kept,
    recovery_windows as recovery_windows,
)
