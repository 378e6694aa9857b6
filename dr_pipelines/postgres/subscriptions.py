"""Subscriptions of a restored server: it must not take its publisher's changes in the place of the server that was
backed up. They are disabled in its catalog, which says nothing to the publisher."""

from __future__ import annotations

from dataclasses import replace

from dr_pipelines.errors import DrError
from dr_pipelines.postgres.server import Server, Subscription

_WAY_ON = (
    "subscriptions: where the server that was backed up is gone for good, ALTER SUBSCRIPTION … ENABLE lets this one go "
    "on in its place; what it had confirmed to the publisher after this server's recovery target is not sent again "
    "(TRUNCATE the tables and REFRESH PUBLICATION to copy them anew). In a copy, before a DROP SUBSCRIPTION: "
    "ALTER SUBSCRIPTION … SET (slot_name = NONE), or the publisher's slot goes with it"
)


def disable_subscriptions(server: Server, *, in_recovery: bool) -> list[str]:
    """Disable what is enabled, in every database, unless the server is `in_recovery` and cannot. Returns notes: each
    subscription, what was done and what a person does."""
    try:
        found = server.subscriptions()
        notes = [_quieted(server, subscription, in_recovery=in_recovery) for subscription in found]
    except DrError as error:
        return [f"subscriptions could not be looked at (ALTER SUBSCRIPTION … DISABLE them): {error.message}"]
    return [*notes, _WAY_ON] if notes else []


def _quieted(server: Server, subscription: Subscription, *, in_recovery: bool) -> str:
    named = f"subscription {subscription.name} of database {subscription.database}, slot {subscription.slot or 'none'}"
    by_hand = f'ALTER SUBSCRIPTION "{subscription.name}" DISABLE'
    if not subscription.enabled:
        return f"{named}: was not enabled"
    if in_recovery:
        return f"{named}: held by max_logical_replication_workers = 0; once the server is promoted run {by_hand}"
    try:
        # Any superuser that can log in will do: the private socket asks nobody for a password.
        connection = replace(server.connection, user=server.superuser(), dbname=subscription.database)
        Server(connection).disable_subscription(subscription.name)
    except DrError as error:
        return f"{named}: could not be disabled ({error.message}); run {by_hand} before it is let out"
    return f"{named}: disabled"
