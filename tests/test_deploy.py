"""What deploy/ says is what the program takes: the image, the unit, the compose file, what Prometheus asks for."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from gainrag.cli.main import build_parser
from gainrag.serving import _DRAIN, serve
from gainrag.serving.keys import OPEN, VARIABLE
from gainrag.serving.metrics import Metrics
from gainrag.settings import settings_of

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
UNIT = (DEPLOY / "gainrag.service").read_text(encoding="utf-8")
# How long it may take until begun requests are finished, in seconds.
DRAIN = settings_of(serve, {})["deadline"] + _DRAIN


def read_yaml(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


def served(command: Sequence[str]) -> dict[str, Any]:
    """What the program makes of a command that begins with its own name."""
    found = vars(build_parser().parse_args(list(command[1:])))
    assert found["command"] == "serve"
    return found


def entrypoint() -> list[str]:
    found = re.search(r"^ENTRYPOINT (\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert found
    return list(json.loads(found[1]))


def checked(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_holds_what_is_installed_and_starts_the_server() -> None:
    checked(str(Path(sys.executable).with_name("hadolint")), str(DEPLOY / "Dockerfile"))
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    sources = [name for line in re.findall(r"^COPY (?!--)(.*) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()]
    assert "src" in sources
    for name in sources:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in allowed, name
    found = served(entrypoint())
    assert found["host"] == "0.0.0.0"
    assert f"EXPOSE {found['port']}\n" in DOCKERFILE
    asked = re.search(rf"http://127.0.0.1:{found['port']}(/\w+)", DOCKERFILE)
    assert asked
    assert asked[1] in OPEN, "the check of health has no key"


def test_the_unit_starts_the_server_and_lets_it_finish(tmp_path: Path) -> None:
    command = re.search(r"^ExecStart=(.*)$", UNIT, re.MULTILINE)
    assert command
    served(shlex.split(command[1]))
    stop = re.search(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)
    assert stop
    assert int(stop[1]) >= DRAIN
    if analyze := shutil.which("systemd-analyze"):
        # It wants a program that is there.
        unit = tmp_path / "gainrag.service"
        unit.write_text(UNIT.replace(command[1], sys.executable))
        checked(analyze, "verify", str(unit))


def test_the_compose_file_fits_its_schema_the_program_and_the_files_beside_it() -> None:
    schema = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    checked(*schema, "vendor.compose-spec", str(DEPLOY / "compose.yaml"))
    services = read_yaml("compose.yaml")["services"]
    own = services["gainrag"]
    port = served([*entrypoint(), *own["command"]])["port"]
    assert own["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert list(own["environment"]) == [VARIABLE]
    assert int(own["stop_grace_period"].removesuffix("s")) >= DRAIN
    assert (DEPLOY / own["build"]["context"] / own["build"]["dockerfile"]).is_file()
    for volume in services["prometheus"]["volumes"]:
        if volume.startswith("./"):
            assert (DEPLOY / volume.partition(":")[0]).is_file()
    (asked,) = read_yaml("prometheus.yml")["scrape_configs"]
    assert asked["static_configs"] == [{"targets": [f"gainrag:{port}"]}]
    assert asked["authorization"]["credentials_file"] == "/run/secrets/gainrag_key"


def test_alerts_are_about_figures_that_there_are() -> None:
    metrics = Metrics(lambda: 0.0)
    known = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    known |= {f"{family.name}_total" for family in metrics.registry.collect() if family.type == "counter"}
    known |= {f"{family.name}_bucket" for family in metrics.registry.collect() if family.type == "histogram"}
    rules = [rule for group in read_yaml("alerts.yml")["groups"] for rule in group["rules"]]
    assert rules
    for rule in rules:
        named = set(re.findall(r"gainrag_\w+", rule["expr"]))
        assert named
        assert named <= known, rule["alert"]
