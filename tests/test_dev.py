"""./dev sets itself up once, says what is missing, and costs nothing the second time.

The real file runs in a repository of its own, with a Python that only takes notes.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

NOTING_PYTHON = """#!/bin/sh
case "$*" in
*print\\(sys.executable\\)*) echo "$0" ;;
*version_info*) exit {too_old} ;;
*ensurepip*) exit {no_venv} ;;
"-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo "version = 3.11.7" >"$3/pyvenv.cfg" ;;
"- "*) cat >/dev/null ;;
esac
echo "$*" >>"$NOTES"
{then}
"""


class Clone:
    """A fresh clone, and a machine with nothing but the Python given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "a clone"  # with a blank, as people have them
        self.bin = folder / "bin"
        self.notes = folder / "notes"
        self.folder.mkdir()
        self.bin.mkdir()
        for name in ("dev", "pyproject.toml"):
            shutil.copy(ROOT / name, self.folder)
        for tool in ("cat", "cksum", "cp", "dirname", "mkdir", "sh"):
            found = shutil.which(tool)
            assert found
            (self.bin / tool).symlink_to(found)
        self.script("id", "#!/bin/sh\necho 1000\n")

    def script(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def python(self, *, too_old: int = 0, no_venv: int = 0, then: str = "exit 0") -> None:
        self.script("python3", NOTING_PYTHON.format(too_old=too_old, no_venv=no_venv, then=then))

    def dev(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        self.notes.write_text("")
        environment = {"PATH": os.fspath(self.bin), "NOTES": os.fspath(self.notes), "HOME": "/nonexistent"}
        return subprocess.run(
            [self.folder / "dev", *arguments], env=environment, capture_output=True, text=True, check=False
        )


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_the_second_time_nothing_is_installed(clone: Clone) -> None:
    clone.python()
    assert clone.dev("test", "-k", "log").returncode == 0
    assert "-m pip install" in clone.notes.read_text()
    assert clone.dev("test", "-k", "log").returncode == 0
    assert clone.notes.read_text() == "-m pytest -n 3 -k log\n"


def test_the_site_is_built_and_looked_at(clone: Clone) -> None:
    clone.python()
    assert clone.dev("docs").returncode == 0
    assert clone.notes.read_text().endswith("-m zensical build --clean --strict\ntests/docs/built.py site\n")


def test_a_changed_requirement_is_installed(clone: Clone) -> None:
    clone.python()
    clone.dev("test")
    with (clone.folder / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    clone.dev("test")
    assert "-m pip install" in clone.notes.read_text()


def test_what_pip_says_is_shown_only_when_it_fails(clone: Clone) -> None:
    clone.python(then="case $* in *pip\\ install*) echo 'pip is talking' ;; esac")
    quiet = clone.dev("test")
    assert "-m pip install" in clone.notes.read_text()
    assert "pip is talking" not in quiet.stdout + quiet.stderr
    clone.python(then="case $* in *pip\\ install*) echo 'no such package'; exit 1 ;; esac")
    shutil.rmtree(clone.folder / ".venv")
    failed = clone.dev("test")
    assert failed.returncode == 1
    assert "no such package" in failed.stderr
    assert "dev: failed:" in failed.stderr
    again = clone.dev("test")  # a set-up that failed does not count as done
    assert "no such package" in again.stderr


def test_without_a_new_enough_python_it_says_so(clone: Clone) -> None:
    clone.python(too_old=1)
    refused = clone.dev("test")
    assert refused.returncode == 1
    assert "no Python 3.11 or newer found" in refused.stderr


def test_without_the_venv_module_it_says_what_to_install(clone: Clone) -> None:
    clone.python(no_venv=1)
    refused = clone.dev("test")
    assert refused.returncode == 1
    assert "has no venv module; install it (Debian, Ubuntu: apt install" in refused.stderr


def test_root_on_debian_gets_the_venv_module(clone: Clone) -> None:
    clone.python(no_venv=1)
    clone.script("id", "#!/bin/sh\necho 0\n")
    clone.script("apt-get", '#!/bin/sh\necho "apt-get $*" >>"$NOTES"\n')
    assert clone.dev("test").returncode == 0
    assert "apt-get install -y -qq" in clone.notes.read_text()


def test_an_unknown_command_shows_the_known_ones(clone: Clone) -> None:
    refused = clone.dev("tset")
    assert refused.returncode == 1
    assert "no command tset" in refused.stderr
    assert "bench [args]" in refused.stderr
    assert clone.dev().stdout == clone.dev("help").stdout != ""
