# SPDX-License-Identifier: Apache-2.0
"""MITRE ATT&CK, as far as rules name it: techniques and tactics behind Sigma's tags.

The ids are those of version 19, in which T1562 became T1685 and defense evasion became two
tactics. MITRE publishes the names at attack.mitre.org.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

_PREFIX: Final = "attack."


class Technique(NamedTuple):
    id: str
    """``T1014``, ``T1036.005``."""
    name: str
    """Of a technique that we have no name of, its id."""


def techniques(tags: Iterable[str]) -> list[Technique]:
    """Those among the tags of a rule: ``attack.t1014``."""
    ids = (tag.upper() for tag in _attack(tags) if _is_technique(tag))
    return [Technique(id_, TECHNIQUES.get(id_, id_)) for id_ in dict.fromkeys(ids)]


def above(found: Iterable[Technique]) -> list[Technique]:
    """The same, but of a subtechnique the technique that it is one of."""
    ids = dict.fromkeys(technique.id.partition(".")[0] for technique in found)
    return [Technique(id_, TECHNIQUES.get(id_, id_)) for id_ in ids]


def tactics(tags: Iterable[str]) -> list[str]:
    """The names of those among the tags of a rule: ``attack.defense-impairment``."""
    names = (tag.replace("_", "-") for tag in _attack(tags))
    return [TACTICS[name] for name in dict.fromkeys(names) if name in TACTICS]


def _attack(tags: Iterable[str]) -> Iterator[str]:
    lower = (tag.lower() for tag in tags)
    return (tag.removeprefix(_PREFIX) for tag in lower if tag.startswith(_PREFIX))


def _is_technique(tag: str) -> bool:
    return tag[:1] == "t" and tag[1:2].isdigit()


TACTICS: Final[Mapping[str, str]] = {
    "reconnaissance": "Reconnaissance",
    "resource-development": "Resource Development",
    "initial-access": "Initial Access",
    "execution": "Execution",
    "persistence": "Persistence",
    "privilege-escalation": "Privilege Escalation",
    "defense-evasion": "Defense Evasion",  # until version 18
    "stealth": "Stealth",
    "defense-impairment": "Defense Impairment",
    "credential-access": "Credential Access",
    "discovery": "Discovery",
    "lateral-movement": "Lateral Movement",
    "collection": "Collection",
    "command-and-control": "Command and Control",
    "exfiltration": "Exfiltration",
    "impact": "Impact",
}

TECHNIQUES: Final[Mapping[str, str]] = {
    "T1003": "OS Credential Dumping",
    "T1003.007": "Proc Filesystem",
    "T1003.008": "/etc/passwd and /etc/shadow",
    "T1005": "Data from Local System",
    "T1014": "Rootkit",
    "T1016": "System Network Configuration Discovery",
    "T1018": "Remote System Discovery",
    "T1021": "Remote Services",
    "T1021.004": "SSH",
    "T1027": "Obfuscated Files or Information",
    "T1033": "System Owner/User Discovery",
    "T1036": "Masquerading",
    "T1036.004": "Masquerade Task or Service",
    "T1036.005": "Match Legitimate Resource Name or Location",
    "T1037": "Boot or Logon Initialization Scripts",
    "T1040": "Network Sniffing",
    "T1041": "Exfiltration Over C2 Channel",
    "T1046": "Network Service Discovery",
    "T1049": "System Network Connections Discovery",
    "T1053": "Scheduled Task/Job",
    "T1053.003": "Cron",
    "T1055": "Process Injection",
    "T1055.008": "Ptrace System Calls",
    "T1055.009": "Proc Memory",
    "T1056": "Input Capture",
    "T1056.001": "Keylogging",
    "T1057": "Process Discovery",
    "T1059": "Command and Scripting Interpreter",
    "T1059.004": "Unix Shell",
    "T1059.006": "Python",
    "T1068": "Exploitation for Privilege Escalation",
    "T1070": "Indicator Removal",
    "T1070.004": "File Deletion",
    "T1071": "Application Layer Protocol",
    "T1078": "Valid Accounts",
    "T1082": "System Information Discovery",
    "T1083": "File and Directory Discovery",
    "T1090": "Proxy",
    "T1095": "Non-Application Layer Protocol",
    "T1098": "Account Manipulation",
    "T1105": "Ingress Tool Transfer",
    "T1190": "Exploit Public-Facing Application",
    "T1203": "Exploitation for Client Execution",
    "T1205": "Traffic Signaling",
    "T1205.001": "Port Knocking",
    "T1205.002": "Socket Filters",
    "T1212": "Exploitation for Credential Access",
    "T1489": "Service Stop",
    "T1496": "Resource Hijacking",
    "T1498": "Network Denial of Service",
    "T1499": "Endpoint Denial of Service",
    "T1518": "Software Discovery",
    "T1518.001": "Security Software Discovery",
    "T1529": "System Shutdown/Reboot",
    "T1543": "Create or Modify System Process",
    "T1543.002": "Systemd Service",
    "T1546": "Event Triggered Execution",
    "T1547": "Boot or Logon Autostart Execution",
    "T1547.006": "Kernel Modules and Extensions",
    "T1548": "Abuse Elevation Control Mechanism",
    "T1552": "Unsecured Credentials",
    "T1554": "Compromise Host Software Binary",
    "T1556": "Modify Authentication Process",
    "T1556.003": "Pluggable Authentication Modules",
    "T1557": "Adversary-in-the-Middle",
    "T1562": "Impair Defenses",  # until version 18
    "T1562.001": "Disable or Modify Tools",
    "T1564": "Hide Artifacts",
    "T1564.001": "Hidden Files and Directories",
    "T1565": "Data Manipulation",
    "T1565.002": "Transmitted Data Manipulation",
    "T1565.003": "Runtime Data Manipulation",
    "T1572": "Protocol Tunneling",
    "T1574": "Hijack Execution Flow",
    "T1574.006": "Dynamic Linker Hijacking",
    "T1610": "Deploy Container",
    "T1611": "Escape to Host",
    "T1613": "Container and Resource Discovery",
    "T1620": "Reflective Code Loading",
    "T1622": "Debugger Evasion",
    "T1685": "Disable or Modify Tools",
    "T1685.004": "Disable or Modify Linux Audit System Log",
    "T1686": "Disable or Modify System Firewall",
}
