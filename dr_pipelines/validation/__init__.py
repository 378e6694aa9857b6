"""Is the data right? Restored copies and stored objects, judged. Each check is a function that gives one `CheckResult`;
a pass needs evidence of what was seen, and what could not be looked at is not proven."""
