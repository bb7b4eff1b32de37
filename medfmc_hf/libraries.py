"""Imports the libraries that training needs, with the garbage collector at rest.

They make a million objects that all stay. The collector would look through them a thousand times, a sixth of the time they take.
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
