"""The pages on systemd and Kubernetes: their examples are valid, and their commands run."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from tests.docs.pages import ROOT, Page, every_page
from tests.support.commands import EMITTER, KILLED, emit, stored, wait_for
from tests.support.platforms import needs_spool_files
from tests.support.tools import find

from sidelight import Store

pytestmark = needs_spool_files

SERVICE = Page(ROOT / "docs/how-to/relay-as-a-service.md")
KUBERNETES = Page(ROOT / "docs/how-to/kubernetes.md")
COMMANDS = {"sidelight": [sys.executable, "-m", "sidelight"], "python": [sys.executable]}


# -- systemd ---------------------------------------------------------------------------------


def unit():
    (block,) = (block.text for block in SERVICE.blocks if block.language == "ini")
    return block


def settings_of(text, section):
    """Return the settings of a section, each with all its values."""
    found = {}
    within = re.search(rf"^\[{section}\]\n(.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL)[1]
    for name, value in re.findall(r"^(\w+)=(.*)$", within, re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def analyze(*arguments):
    program = find("systemd-analyze")
    if program is None:
        pytest.skip("there is no systemd-analyze")
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)


def test_systemd_accepts_the_unit(tmp_path):
    file = tmp_path / "sidelight-relay.service"
    text = unit().replace("/opt/shop/bin/sidelight", sys.executable + " -m sidelight")
    file.write_text(text.replace("User=shop", "User=daemon").replace("Group=shop", "Group=root"))
    said = analyze("verify", "--man=no", file)
    if "Failed to initialize path lookup" in said.stderr or "D-Bus" in said.stderr:
        pytest.skip(said.stderr)
    ours = [line for line in said.stderr.splitlines() if file.name in line]
    assert (said.returncode, ours) == (0, []), said.stderr


def test_systemd_rates_the_unit_as_well_confined(tmp_path):
    file = tmp_path / "sidelight-relay.service"
    file.write_text(unit())
    said = analyze("security", "--offline=true", "--threshold=25", file)
    assert said.returncode == 0, said.stdout[-2000:] + said.stderr


def test_the_service_delivers_and_stops_at_sigterm(tmp_path):
    service = settings_of(unit(), "Service")
    assert (service["Restart"], service["KillSignal"]) == (["always"], ["SIGTERM"])
    (directory,) = service["StateDirectory"]
    store = tmp_path / directory / "events.db"
    given = dict(pair.split("=", 1) for pair in service["Environment"])
    given = {name: value.replace("%S", str(tmp_path)) for name, value in given.items()}
    given |= {"SIDELIGHT_STORE": f"sqlite:///{store}", "OTEL_EXPORTER_OTLP_ENDPOINT": ""}
    store.parent.mkdir(mode=int(service["StateDirectoryMode"][0], 8))
    emit(KILLED, store, ends=signal.SIGKILL, SIDELIGHT_SPOOL=given["SIDELIGHT_SPOOL"])
    program, *arguments = shlex.split(service["ExecStart"][0])
    assert Path(program).name == "sidelight"
    for turn in range(2):  # as systemd restarts it
        process = subprocess.Popen(
            [*COMMANDS["sidelight"], *arguments],
            env={**os.environ, **given},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            umask=int(service["UMask"][0], 8),
        )
        try:
            assert b"relaying" in process.stderr.readline()
            wait_for(lambda: stored(store) == 500, 30)
            process.send_signal(signal.SIGKILL if turn == 0 else signal.SIGTERM)
            process.communicate(timeout=float(service["TimeoutStopSec"][0]))
        finally:
            process.kill()
            process.communicate()
    assert process.returncode == 0
    assert store.stat().st_mode & 0o077 == 0


# -- Kubernetes ------------------------------------------------------------------------------


def manifests(page):
    for block in page.blocks:
        if block.language == "yaml":
            found = yaml.safe_load_all(block.text)
            yield from (each for each in found if "kind" in each)


@pytest.mark.parametrize("version", ["1.29.0", kubernetes_validate.latest_version()])
def test_kubernetes_accepts_the_manifests(version):
    found = [each for page in every_page() for each in manifests(page)]
    assert found
    for each in found:
        kubernetes_validate.validate(each, version, strict=True)


@pytest.fixture(scope="module")
def pod():
    return {each["kind"]: each for each in manifests(KUBERNETES)}["Deployment"]["spec"]["template"]


def test_the_pod_is_as_the_page_says(pod):
    spec = pod["spec"]
    (relay,), (shop,) = spec["initContainers"], spec["containers"]
    assert relay["restartPolicy"] == "Always"
    assert relay["envFrom"] == shop["envFrom"]
    assert relay["volumeMounts"] == shop["volumeMounts"]
    for container in (relay, shop):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    hook = relay["lifecycle"]["preStop"]["exec"]["command"]
    assert float(hook[-1]) < spec["terminationGracePeriodSeconds"]
    assert spec["volumes"] == [{"name": "spool", "emptyDir": {"sizeLimit": "2Gi"}}]


APPLICATION = """
sidelight.configure(relay="external")
signal.signal(signal.SIGTERM, lambda *_: (receive("the last one"), sys.exit(0)))
n = 0
while True:
    receive(f"order-{n}")
    n += 1
    time.sleep(0.01)
"""

#: The filesystem of a container is read-only, except for the volumes. It has no capabilities.
CONTAINER = """
set -e
mount --make-rprivate /
mkdir -p "$STORE_DIRECTORY"
mount -t tmpfs tmpfs /var/spool
mkdir -p "$VOLUME"
mount --bind "$STORE_DIRECTORY" "$STORE_DIRECTORY"
mount --bind "$VOLUME" "$VOLUME"
mount -o remount,bind,ro /
awk '{print $2}' /proc/self/mounts | while read -r place; do
    case "$place" in
        /|/proc*|/sys*|/dev*|"$STORE_DIRECTORY"|"$VOLUME") ;;
        *) mount -o remount,bind,ro "$place" 2>/dev/null || true ;;
    esac
done
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""


def confined(tmp_path, volume, *command, **options):
    return subprocess.Popen(
        ["unshare", "--mount", "bash", "-c", CONTAINER, "container", *command],
        env={
            **os.environ,
            "STORE_DIRECTORY": str(tmp_path / "store"),
            "VOLUME": volume,
            **options.pop("environment"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


#: Does what kubelet does: starts relay, probe and application, restarts the relay, ends both.
KUBELET = """
import json, signal, subprocess, sys, time
told = json.loads(sys.argv[1])

def run(command, **options):
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)

def say(**what):
    print(json.dumps(what), flush=True)

try:
    open("/etc/written", "w").close()
    say(read_only=False)
except OSError as error:
    say(read_only=True, why=error.strerror)
relay = run(told["relay"])
probe = run(told["probe"])
say(probe=probe.wait(60), said=probe.stdout.read().decode())
shop = run(told["shop"])
time.sleep(2)
say(shop=shop.poll(), relay=relay.poll())
relay.kill()  # the container restarts
relay.wait()
relay = run(told["relay"])
time.sleep(2)
began = time.monotonic()
hook = run(told["hook"])
time.sleep(1)
say(waits=hook.poll() is None)
shop.send_signal(signal.SIGTERM)
say(shop=shop.wait(30))
say(hook=hook.wait(30), said=hook.stdout.read().decode())
relay.send_signal(signal.SIGTERM)
say(relay=relay.wait(30), said=relay.stdout.read().decode(), seconds=time.monotonic() - began)
"""


def test_the_commands_of_the_pod_run_on_a_read_only_root(pod, tmp_path):
    if os.geteuid() or not all(map(find, ("unshare", "setpriv", "awk"))):
        pytest.skip("a read-only root needs a mount namespace, and root to make one")
    relay = pod["spec"]["initContainers"][0]
    (volume,) = (each["mountPath"] for each in relay["volumeMounts"])

    def real(command):
        return [*COMMANDS[command[0]], *command[1:]]

    told = {
        "relay": real(relay["command"]),
        "probe": real(relay["readinessProbe"]["exec"]["command"]),
        "hook": real(relay["lifecycle"]["preStop"]["exec"]["command"]),
        "shop": [sys.executable, "-c", EMITTER + APPLICATION],
    }
    store = tmp_path / "store" / "events.db"
    process = confined(
        tmp_path,
        volume,
        sys.executable,
        "-c",
        KUBELET,
        json.dumps(told),
        environment={"SIDELIGHT_SPOOL": volume, "SIDELIGHT_STORE": f"sqlite:///{store}"},
    )
    try:
        out, err = process.communicate(timeout=150)
    finally:
        process.kill()
        with contextlib.suppress(ValueError):
            process.communicate()
    if "mount" in err and not out:
        pytest.skip(f"nothing can be mounted here: {err}")
    said = [json.loads(line) for line in out.splitlines()]
    assert process.returncode == 0, out + err
    assert said[0] == {"read_only": True, "why": "Read-only file system"}
    assert said[1]["probe"] == 0, said
    assert "ready" in said[1]["said"]
    assert said[2] == {"shop": None, "relay": None}
    assert said[3] == {"waits": True}
    assert said[4] == {"shop": 0}
    assert said[5]["hook"] == 0, said
    assert said[6]["relay"] == 0, said
    assert said[6]["seconds"] < pod["spec"]["terminationGracePeriodSeconds"]
    with Store(f"sqlite:///{store}") as opened:
        artifacts = {each.artifact_id: each.events for each in opened.artifacts(limit=100_000)}
    assert "the last one" in artifacts, said
    assert artifacts == {f"order-{n}": 1 for n in range(len(artifacts) - 1)} | {"the last one": 1}
