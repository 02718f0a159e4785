"""Conformance checks for scenes, renderers and worlds of one's own.

Each takes the thing itself and returns nothing, or raises an ``AssertionError`` that says what was wanted and what
was found:

    from air_env.testing import check_environment, check_renderer, check_scene

    check_scene(MyScene())
    check_renderer(MyRenderer(), image_size=50)
    check_environment(make_world(MyScene(), model=my_model))
"""

from air_env.testing.environments import check_environment
from air_env.testing.renderers import check_renderer
from air_env.testing.scenes import check_scene

__all__ = ["check_environment", "check_renderer", "check_scene"]
