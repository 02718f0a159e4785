"""What shells, terminals and schedulers expect: exit statuses of signals, one line, streams that nobody reads."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from air_agents.commands import shell
from air_agents.commands.main import COMMANDS

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
MAIN = "import sys; from air_agents.commands.main import main; sys.exit(main())"


def python(code: str, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
    """Runs code in a process of its own, which does not import torch."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60, check=False, **options)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_signal_stops_every_command_with_a_line_and_its_status(name, air_env_command, monkeypatch):
    for number, expected in SIGNALS.items():
        before = signal.getsignal(number)
        monkeypatch.setattr("tyro.cli", lambda *_, n=number, **__: signal.raise_signal(n))
        status, out, err = air_env_command(name)
        assert (status, out, err) == (expected, "", "\nstopped; what was written is whole\n")
        assert signal.getsignal(number) is before


def test_a_second_signal_changes_nothing_while_the_line_is_printed(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.print", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    assert shell.guarded(interrupt) == 130


def test_patience_waits_for_one_signal_but_not_for_the_second():
    waited = []

    def work(*numbers: int):
        with shell.continued_by("do this"), shell.patient() as stopped:
            for number in numbers:
                signal.raise_signal(number)
            waited.append(stopped())
        return 7

    assert shell.guarded(lambda: work(signal.SIGTERM)) == 7, "what is done is done"
    assert shell.guarded(lambda: work(signal.SIGHUP, signal.SIGHUP)) == 7, "shell and kernel both send it"
    assert shell.guarded(lambda: work()) == 7
    assert waited == [True, True, False]
    assert shell.guarded(lambda: work(signal.SIGTERM, signal.SIGINT)) == 143


def test_how_to_continue_is_said(capsys):
    def work(*messages: str):
        with shell.continued_by("continue: this way"):
            raise KeyboardInterrupt(*messages)

    shell.guarded(work)
    shell.guarded(lambda: work("stopped at once"))
    assert capsys.readouterr().err == "\nstopped; continue: this way\n\nstopped at once; continue: this way\n"


def test_commands_run_in_threads_which_get_no_signals():
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(shell.guarded(lambda: 3)))
    thread.start()
    thread.join()
    assert statuses == [3]


@pytest.mark.parametrize("number", SIGNALS)
def test_what_starts_up_is_not_interrupted_but_left(number, tmp_path):
    # A library that aborts, or makes another error of what comes when it starts.
    (tmp_path / "library.py").write_text(
        f"import os, signal\ntry:\n    signal.raise_signal({int(number)})\nexcept BaseException:\n    os.abort()\n"
    )
    code = "import sys; from air_agents.commands import shell; sys.exit(shell.guarded(lambda: __import__('library')))"
    result = python(code, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert (result.returncode, result.stderr) == (SIGNALS[number], "\nstopped; what was written is whole\n")


def test_a_reader_that_has_left_is_no_error():
    read, write = os.pipe()
    os.close(read)
    try:
        result = python(MAIN, "--help", stdout=write)
    finally:
        os.close(write)
    assert (result.returncode, result.stderr) == (0, "")


def test_work_goes_on_where_nobody_reads(tmp_path):
    code = f"""if True:
        import sys
        from air_agents.commands import main
        def work(*_):
            for _ in range(10_000):
                print("a line that nobody reads", flush=True)
                print("an error that nobody reads", file=sys.stderr)
            open({str(tmp_path / "done")!r}, "w").close()
            return 0
        main._run = work
        sys.exit(main.main())
    """
    command = f"{sys.executable} -c '{code.replace(chr(39), chr(34))}' 2>&1 | head -1; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "a line that nobody reads\n", "")
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams_are_quiet_and_are_not_taken_for_files(closed, tmp_path):
    code = f"""if True:
        import os, sys
        from air_agents.commands import main
        def work(*_):
            print(1), print(2, file=sys.stderr), os.write(2, b'x')
            return open('{tmp_path}/file', 'w').fileno()
        main._run = work
        sys.exit(main.main())
    """
    command = f'{sys.executable} -c "{code}" {closed}'
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode > 2, "the number of the file"
    assert result.stdout == ("" if "1>&-" in closed else "1\n")
    assert result.stderr == ("" if "2>&-" in closed else "2\nx")
    assert Path(tmp_path, "file").read_text() == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_what_cannot_be_written_is_one_error():
    with open("/dev/full", "w") as full:
        result = python(MAIN, "--help", stdout=full)
    assert (result.returncode, result.stderr) == (1, "error: [Errno 28] No space left on device\n")
