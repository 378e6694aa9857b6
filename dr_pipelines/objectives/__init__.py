"""RPO and RTO: what the plan promises, held against what was measured. Pure: it reads no store and asks no server."""
