"""What runs inside the Hub: the form, `user_options`, and the spawners.

Belongs here: the mixin (reserve, wait, start, release), the spawner classes over it, the form and
the Hub pages that gpudev adds.
Never here: decisions about capacity, policy or reservation state. The spawner asks the service over
its REST API and carries the answers out; it never opens the service's database.
"""

from pathlib import Path

#: For `JupyterHub.template_paths`.
HUB_TEMPLATES = Path(__file__).parent / "hub_templates"
#: Served by `handlers` to the Hub's pages.
STATIC = Path(__file__).parent / "static"
