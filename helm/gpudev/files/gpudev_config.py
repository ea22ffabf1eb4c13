"""The service's configuration in a cluster: the chart's values, then the operator's own lines."""

import json
from pathlib import Path

c = get_config()  # noqa: F821 - given by whoever loads this file

_here = Path(__file__).parent
for _part, _traits in json.loads((_here / "values.json").read_text()).items():
    c[_part].update(_traits)
for _file in sorted(_here.glob("extra-*.py")):
    exec(compile(_file.read_text(), str(_file), "exec"))  # noqa: S102 - the operator's own code
