"""The command: one JSON document, exit codes, and a rehearsal that cannot be mistaken."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

import sandbox_runner.cli as cli
from policies.errors import Invalid
from sandbox_runner import scratch
from sandbox_runner.backends import choice
from sandbox_runner.rehearse import MARK
from tests.sandbox_runner.conftest import MANIFEST

Submit = Callable[..., Path]
TRAIN = """
import glovebox
glovebox.log(1, loss=0.5)
glovebox.output("model.safetensors").write_bytes(b"weights")
print("\\x1b[31mred")
"""


def call(*words: object) -> int:
    import argparse

    parser = argparse.ArgumentParser()
    cli.register(parser.add_subparsers())
    args = parser.parse_args([str(word) for word in words])
    return int(args.run(args))


@pytest.mark.sandbox
@pytest.mark.usefixtures("bubblewrap")
def test_run_prints_the_contract_s_outcome(
    submission: Submit, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = call(
        *("sandbox", "run", submission(TRAIN), "--data", f"mini={dataset}"),
        *("--output", tmp_path / "out", "--backend", "bubblewrap", "--json", "--time", "50s"),
    )

    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert code == 0
    assert {
        "state", "reason", "exit_code", "wall_seconds", "cpu_seconds", "peak_memory_bytes",
        "backend", "artefacts", "rejected",
    } <= document.keys()  # fmt: skip
    assert (document["state"], document["reason"]) == ("finished", "exit")
    assert document["artefacts"][0].keys() == {"path", "bytes", "sha256"}
    assert "\x1b" not in printed.err, "a terminal shows the log inert"
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == b"weights"


@pytest.mark.sandbox
@pytest.mark.usefixtures("bubblewrap")
def test_a_failed_run_is_exit_code_1(
    submission: Submit, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = call(
        *("sandbox", "run", submission("\n1 / 0\n"), "--data", f"mini={dataset}"),
        *("--output", tmp_path / "out", "--backend", "bubblewrap", "--json"),
    )

    document = json.loads(capsys.readouterr().out)
    assert code == 1
    assert document["fault"] == {"type": "ZeroDivisionError", "file": "train.py", "line": 2}


@pytest.mark.parametrize(
    ("manifest", "field"),
    [
        (MANIFEST.replace("[datasets]", "[dataset]"), "dataset"),
        (MANIFEST.replace('"1Gi"', '"9999Gi"'), "resources.memory"),
        (MANIFEST.replace("train.py", "other.py"), "job.entrypoint"),
        ("not toml at all [", "glovebox.toml"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_field(
    submission: Submit, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    manifest: str, field: str,
) -> None:  # fmt: skip
    code = call(
        *("sandbox", "run", submission("pass", manifest), "--data", f"mini={dataset}"),
        *("--output", tmp_path / "out", "--json"),
    )

    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert code == 2
    assert (document["state"], document["reason"]) == ("refused", "manifest")
    assert field in printed.err


def test_a_rehearsal_runs_on_a_sample_and_is_marked(
    submission: Submit, dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    code = call(
        *("rehearse", submission(TRAIN), "--data", f"mini={dataset}"),
        *("--output", tmp_path / "out", "--json"),
    )

    printed = capfd.readouterr()
    document = json.loads(printed.out)
    assert code == 0, printed.err
    assert document["backend"] == "none" and document["rehearsal"] is True
    assert (tmp_path / "out" / MARK).exists()
    assert "network is reachable" in printed.err
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_rehearsal_refuses_what_is_no_sample(
    submission: Submit, dataset: Path, tmp_path: Path
) -> None:
    (dataset / "dataset.toml").write_text('kind = "photos"\n', encoding="utf-8")

    with pytest.raises(Invalid, match="sample"):
        call(
            *("rehearse", submission(TRAIN), "--data", f"mini={dataset}"),
            *("--output", tmp_path / "out"),
        )


@pytest.mark.sandbox
@pytest.mark.usefixtures("bubblewrap")
def test_the_doctor_says_what_holds(capsys: pytest.CaptureFixture[str]) -> None:
    code = call("sandbox", "doctor", "--json")

    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert code == 0 and document["usable"]
    held = [row for row in document["backends"]["bubblewrap"] if row["state"] == "held"]
    assert len(held) >= 15
    assert "no network" in printed.err


@pytest.mark.parametrize("value", ["mini", "=x", "Mini=/tmp", "../x=/tmp", "mini=/nowhere"])
def test_data_is_slug_and_directory(value: str) -> None:
    with pytest.raises(Invalid):
        cli.read_datasets([value])


def test_every_argument_says_what_it_means() -> None:
    import argparse

    import sandbox_runner.inspection.cli as inspection

    for room in (cli, inspection):
        parsers = argparse.ArgumentParser().add_subparsers()
        room.register(parsers)
        waiting = list(parsers.choices.items())
        while waiting:
            name, parser = waiting.pop()
            for action in parser._actions:
                if isinstance(action, argparse._SubParsersAction):
                    waiting += [(f"{name} {each}", sub) for each, sub in action.choices.items()]
                else:
                    assert action.help, f"{name}: {action.option_strings or action.dest}"


def test_a_killed_command_leaves_its_plain_data_to_the_next_one_which_removes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    command = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, tempfile, time\n"
            "tempfile.tempdir = sys.argv[1]\n"
            "from sandbox_runner import scratch\n"
            "with scratch.folder() as folder:\n"
            "    (folder / 'data').mkdir(); (folder / 'data' / 'scan').write_bytes(b'plain')\n"
            "    (folder / 'data').chmod(0o500)\n"
            "    print('ready', flush=True); time.sleep(60)\n",
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
    )
    assert command.stdout is not None and command.stdout.readline() == b"ready\n"
    assert scratch.sweep() == 0, "a living command keeps its folder"
    assert len(list(tmp_path.rglob("scan"))) == 1

    command.send_signal(signal.SIGKILL)
    command.wait()

    with scratch.folder() as mine:
        assert list(tmp_path.iterdir()) == [mine]
    assert list(tmp_path.iterdir()) == []


def test_a_link_or_a_strangers_folder_is_no_scratch_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    valuable = tmp_path / "valuable"
    valuable.mkdir()
    (valuable / "file").write_bytes(b"mine")
    (tmp_path / f"{scratch.PREFIX}link").symlink_to(valuable)
    if os.geteuid() == 0:
        strange = tmp_path / f"{scratch.PREFIX}strange"
        strange.mkdir()
        os.chown(strange, 12345, 12345)

    assert scratch.sweep() == 0
    assert (valuable / "file").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("backend", "lacks"),
    [("auto", {"gvisor", "bubblewrap"}), ("bubblewrap", {"bubblewrap"}), ("gvisor", {"gvisor"})],
)
def test_a_machine_that_lacks_a_required_line_is_exit_code_3(
    backend: str, lacks: set[str], submission: Submit, dataset: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    line = "processes and threads are bounded"
    monkeypatch.setattr(choice, "missing", lambda name: (line,) if name in lacks else ())

    code = call(
        *("sandbox", "run", submission(TRAIN), "--data", f"mini={dataset}"),
        *("--output", tmp_path / "out", "--backend", backend, "--json"),
    )

    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert code == 3
    assert (document["state"], document["reason"]) == ("refused", "isolation")
    assert line in document["detail"] and "doctor" in document["detail"]
    assert not (tmp_path / "out").exists()
