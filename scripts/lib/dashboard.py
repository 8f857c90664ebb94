"""Checks a Grafana dashboard against Grafana's schema, and prints promtool's test that each of its queries returns something.

python3 scripts/lib/dashboard.py FILE
"""

import json
import sys

from grafana_foundation_sdk.cog import plugins, runtime
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

# As the service reports them; a test of src/metrics.rs checks the names. Each grows by 60 a minute.
SERIES = [
    "backup_last_success",
    "http_request_duration_seconds_bucket{route='/api/events/{event}/scans',le='0.5'}",
    "http_request_duration_seconds_bucket{route='/api/events/{event}/scans',le='+Inf'}",
    "http_requests_total{method='POST',route='/api/events/{event}/scans',status='200'}",
    "migrations_ok",
    "process_start_time_seconds",
    "scans_total{result='accepted'}",
    "scans_total{result='already_used'}",
    "ticket_secret_set",
]


def lost(sent, kept, path):
    """Lists what of `sent` is missing or different in `kept`."""
    if isinstance(sent, dict) and isinstance(kept, dict):
        return [found for key, value in sent.items() for found in lost(value, kept.get(key), f"{path}.{key}")]
    if isinstance(sent, list) and isinstance(kept, list) and len(sent) == len(kept):
        return [found for place, (one, other) in enumerate(zip(sent, kept)) for found in lost(one, other, f"{path}[{place}]")]
    return [] if sent == kept else [f"{path}: not in Grafana's schema, which keeps {kept!r} of {sent!r}"]


def faults(dashboard):
    plugins.register_default_plugins()
    # The schema's types drop what they do not know.
    found = lost(dashboard, json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard))), "dashboard")
    known = {value for value in vars(units).values() if isinstance(value, str)}
    for panel in dashboard["panels"]:
        if runtime.panelcfg_config(panel["type"]) is None:
            found.append(f"panel {panel['title']!r}: Grafana has no panels of the type {panel['type']!r}")
        unit = panel["fieldConfig"]["defaults"]["unit"]
        if unit not in known:
            found.append(f"panel {panel['title']!r}: Grafana has no unit {unit!r}")
    ids = [panel["id"] for panel in dashboard["panels"]]
    return found + [f"two panels have the id {one}" for one in sorted(set(ids)) if ids.count(one) > 1]


def queries(dashboard):
    """Returns the test; promtool reads JSON as YAML."""
    exprs = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    label = "job='register-ticket-api',instance='a'"
    series = [one.replace("{", "{" + label + ",", 1) if "{" in one else one + "{" + label + "}" for one in SERIES]
    # What is not a number is not shown, and >= drops it.
    tests = [
        {"expr": f"count(({expr.replace('$instance', '.*')}) >= -Inf) > bool 0", "eval_time": "20m", "exp_samples": [{"labels": "{}", "value": 1}]}
        for expr in exprs
    ]
    return {"tests": [{"interval": "1m", "input_series": [{"series": one, "values": "0+60x20"} for one in series], "promql_expr_test": tests}]}


def main():
    file = sys.argv[1]
    with open(file, encoding="utf-8") as opened:
        dashboard = json.load(opened)
    found = faults(dashboard)
    if found:
        sys.exit("\n".join(f"{file}: {one}" for one in found))
    print(json.dumps(queries(dashboard)))


main()
