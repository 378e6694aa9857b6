import os

# Arrow asks for its allocator while it is loaded. Its own keeps what was freed; tables come and go here.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
