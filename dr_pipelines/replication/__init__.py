"""Copies on other tiers: what is due there, and bringing it there, store to store, with no key and no local disk."""
