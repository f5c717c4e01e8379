"""What preflight says of a Mac: whether it stays awake, how its Thunderbolt ports are connected, whether RDMA works.

Untested on a Mac.
"""

import re
from typing import Any

from thunder_train import ThunderError
from thunder_train.config.project import Cluster, is_local
from thunder_train.core.hostfiles import cables
from thunder_train.core.mac_memory import METAL_SHARE

Facts = dict[str, Any]
"""A host's answer to the question `facts`."""
RDMA_GBIT = 80
"""Least speed of a Thunderbolt 5 port."""
RDMA_MACOS = (26, 2)
"""First macOS with RDMA over Thunderbolt."""
RING = 'or use backend = "ring"'
APART = (
    "take the ports out of the bridge (System Settings > Network > Thunderbolt Bridge) and give each cable a subnet of "
    "its own"
)


def system(facts: Facts) -> str:
    """What a host runs, for people: as "macOS 26.2, Apple M4"; its platform if it is no Mac."""
    mac = facts["mac"]
    return ", ".join(filter(None, (f"macOS {mac['macos']}", mac["chip"]))) if mac else str(facts["platform"])


def usable_memory(facts: Facts) -> int:
    """Bytes that a training may use on a host: of a Mac what Metal recommends for one process."""
    mac, memory = facts["mac"], int(facts["usable_memory_bytes"])
    return (mac["working_set_bytes"] or round(METAL_SHARE * memory)) if mac else memory


def warnings(host: str, facts: Facts) -> list[ThunderError]:
    """What may end or slow a training on a Mac and is its user's to decide. Untested on a Mac."""
    mac, where = facts["mac"], f"host {host}"
    if not mac:
        return []
    texts = []
    if mac["is_on_battery"]:
        texts.append(("runs on battery, where macOS may sleep in spite of caffeinate", "connect its power adapter"))
    if mac["is_lid_closed"]:
        what = "its lid is closed; it sleeps unless a display and power are connected"
        texts.append((what, "open the lid, and let the display sleep"))
    if mac["sleep_minutes"] and not is_local(host):  # this machine is in use, and caffeinate runs while it trains
        what = f"sleeps after {mac['sleep_minutes']} idle minutes, and does not answer then"
        texts.append((what, f"`ssh -t {host} sudo pmset -c sleep 0`; while it trains, caffeinate keeps it awake"))
    texts += [
        (
            f"{name} joins {', '.join(members)}: in a ring of Macs its packets circle without end",
            f"{APART}, or use a chain",
        )
        for name, members in mac["bridges"].items()
        if len(members) > 1
    ]
    return [ThunderError(what, where, hint) for what, hint in texts]


def problems(host: str, facts: Facts, cluster: Cluster) -> list[ThunderError]:
    """Why jaccl cannot use the RDMA devices of its matrix on a host. Untested on a Mac."""
    slots = [slot for each in cluster.hosts if each.machine == host for slot in each.rdma]
    listed = sorted({device for slot in slots for device in cables(slot)})
    if not cluster.backend.startswith("jaccl") or not listed:
        return []
    where, existing, mac = f"host {host}", facts["rdma"], facts["mac"]
    if not existing:
        return [_without_rdma(where, facts)]
    absent = [device for device in listed if device not in existing]
    hint = "correct rdma in thunder.toml: the names change when a Mac starts"
    errors = [ThunderError(f"has no {', '.join(absent)}; it has {', '.join(existing)}", where, hint)] if absent else []
    if not mac:
        return errors
    down = {device: mac["rdma_ports"].get(device, "PORT_ACTIVE") for device in listed if device in existing}
    hint = f"check the cable, a Thunderbolt 5 one, and `rdma_ctl status` at its other end; {RING}"
    errors += [
        ThunderError(f"{device} is {state}", where, hint) for device, state in down.items() if state != "PORT_ACTIVE"
    ]
    errors += [
        ThunderError(
            f"{name} joins {', '.join(members)}, which jaccl cannot use in a bridge", where, f"{APART}; {RING}"
        )
        for name, members in mac["bridges"].items()
        if len(members) > 1
    ]
    return errors


def _without_rdma(where: str, facts: Facts) -> ThunderError:
    """The first reason why a host has no RDMA device."""
    mac, gbit = facts["mac"], (facts["mac"] or {}).get("thunderbolt_gbit")
    if gbit and gbit < RDMA_GBIT:
        what = f"its Thunderbolt ports run at {gbit} Gbit/s at most, and RDMA needs Thunderbolt 5"
        return ThunderError(what, where, 'use backend = "ring"')
    if mac and (number := _version(mac["macos"])) and number < RDMA_MACOS:
        return ThunderError(f"has macOS {mac['macos']}, and RDMA needs 26.2", where, f"update it; {RING}")
    what = "has no RDMA device" if facts["rdma"] is not None else "has no `ibv_devices`, so no RDMA"
    return ThunderError(what, where, f"RDMA needs Thunderbolt 5, macOS 26.2 and `rdma_ctl enable` in Recovery; {RING}")


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)[:2]))
