"""One function a verb, used by the command line and Dagster alike. Nothing here prints.

What there is stands in `__init__.pyi`. A module is imported when something of it is first asked for: a command at a
terminal, or a snapshot every hour, should not wait for engines that it does not use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
