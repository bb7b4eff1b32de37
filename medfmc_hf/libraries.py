"""Imports the libraries that training needs, with the garbage collector disabled.

They create a million permanent objects, which the collector would scan a thousand times, a sixth of the import time.
"""

import gc

_was_on = gc.isenabled()
gc.disable()
try:
    import accelerate  # noqa: F401
    import datasets  # noqa: F401
    import peft  # noqa: F401
    import transformers.modeling_utils  # noqa: F401
finally:
    if _was_on:
        gc.enable()
