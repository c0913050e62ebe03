# SPDX-License-Identifier: Apache-2.0
"""packaging/kubernetes/daemonset.yaml, read."""

from typing import Any, Final

import yaml

from running import ROOT

DAEMONSET: Final[dict[str, Any]] = yaml.safe_load(
    (ROOT / "packaging/kubernetes/daemonset.yaml").read_text()
)
POD: Final = DAEMONSET["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
CAPABILITIES: Final[list[str]] = CONTAINER["securityContext"]["capabilities"]["add"]
