"""Programs for people who work on gpudev: the demo, and what generates or checks files.

Nothing here is part of the product: it is not in the wheel, and no package imports it.
"""
