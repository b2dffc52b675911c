"""detectron2 v0.5 as a pure-Python wheel: found on the package index, edited for today's libraries, installed by path.

None of it imports torch or detectron2, so that it runs before they are installed (`extension` is copied, not imported).
"""
