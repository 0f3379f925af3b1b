"""A stand-in for the installers of conda's distributions, and a server that has them; both misbehave when they are told to.

The installer has the real ones' options, exit statuses and refusals, and leaves files where they leave them: bin, condabin, conda-meta,
etc/profile.d, pkgs, a .condarc of its own, an entry in the caller's home, files of other owners that their group may write to. The folder
that it was told stands in its files, so that a moved one does not work. Its conda can make an empty environment and activate it, and
nothing else; its python is the node's. Where the file /run/conda-installer-stops is there, it comes to a halt halfway; where
/run/conda-installer-fails is, it fails there.

    python3 -m tests.conda_installer_stand_in FOLDER VERSION...
"""

from __future__ import annotations

import hashlib
import random
import sys
from pathlib import Path

PADDING = 3_000_000  # bytes behind a script, which take their time to download

SCRIPT = r"""#!/bin/sh
# Stand-in of Trainyard's tests for an installer of @NAME@ @VERSION@.
case "$0" in *.sh) ;; *) echo 'Please run using "bash" or "sh", but not "." or "source"' >&2; exit 1 ;; esac
PREFIX=$HOME/conda BATCH=0 FORCE=0
while getopts bfhp:sut option; do
    case $option in
    b) BATCH=1 ;;
    f | u) FORCE=1 ;;
    p) PREFIX=$OPTARG ;;
    s | t) ;;
    h) echo "usage: $0 [options]"; exit 2 ;;
    *) echo "ERROR: did not recognize option, please try -h" >&2; exit 1 ;;
    esac
done
[ $BATCH = 1 ] || { echo "The license agreement wasn't approved, aborting installation."; exit 2; }
case "$PREFIX" in *" "*) echo "ERROR: Cannot install into directories with spaces" >&2; exit 1 ;; esac
if [ $FORCE = 0 ] && [ -e "$PREFIX" ]; then
    echo "ERROR: File or directory already exists: '$PREFIX'" >&2
    exit 1
fi
mkdir -p "$PREFIX" || { echo "ERROR: Could not create directory: '$PREFIX'" >&2; exit 1; }
echo "PREFIX=$PREFIX"
echo "Unpacking payload ..."
mkdir -p "$PREFIX/bin" "$PREFIX/pkgs" "$HOME/.conda"
echo "$PREFIX" >>"$HOME/.conda/environments.txt"
echo payload >"$PREFIX/pkgs/payload"
[ ! -e /run/conda-installer-fails ] || { echo "ERROR: no space left, said the stand-in" >&2; exit 1; }
if [ -e /run/conda-installer-stops ]; then
    # No other program is needed to wait: a pipe that nobody writes to.
    mkfifo "$PREFIX/pkgs/never" && read -r _line <>"$PREFIX/pkgs/never"
fi
cp -L /usr/bin/python3 "$PREFIX/bin/python"
mkdir -p "$PREFIX/condabin" "$PREFIX/conda-meta" "$PREFIX/envs" "$PREFIX/etc/profile.d"
echo "==> made by a stand-in <==" >"$PREFIX/conda-meta/history"
printf 'channels:\n  - conda-forge\n' >"$PREFIX/.condarc"
cat >"$PREFIX/bin/conda" <<END
#!$PREFIX/bin/python
PREFIX, VERSION = "$PREFIX", "@VERSION@"
END
cat >>"$PREFIX/bin/conda" <<'END'
@CONDA@END
cat >"$PREFIX/bin/mamba" <<'END'
#!/bin/sh
[ "$1 $2" = "shell hook" ] || { echo "mamba @VERSION@"; exit; }
echo "mamba() { echo 'hooked mamba'; }"
END
chmod 755 "$PREFIX/bin/conda" "$PREFIX/bin/mamba"
ln -s ../bin/conda "$PREFIX/condabin/conda"
ln -s ../bin/mamba "$PREFIX/condabin/mamba"
cat >"$PREFIX/etc/profile.d/conda.sh" <<END
export CONDA_EXE='$PREFIX/bin/conda'
END
cat >>"$PREFIX/etc/profile.d/conda.sh" <<'END'
@HOOK@END
chmod 664 "$PREFIX/pkgs/payload" && chown -R 4321:4321 "$PREFIX/pkgs" 2>/dev/null
echo "installation finished."
exit 0
"""
CONDA = """\
import os, pathlib, sys

words = sys.argv[1:]
rows = [line.strip("- ") for line in pathlib.Path("/etc/conda/.condarc").read_text().splitlines()] if os.path.exists("/etc/conda") else []
places = [pathlib.Path(row).expanduser() for row in rows if row.endswith("/envs")]
if words == ["--version"]:
    print("conda", VERSION)
elif words == ["info", "--base"]:
    print(PREFIX)
elif words[:2] == ["create", "-n"]:
    made = places[0] / words[2]
    (made / "conda-meta").mkdir(parents=True)
    (made / "conda-meta" / "history").touch()
    (made / "bin").mkdir()
    (made / "bin" / "greet").write_text("#!/bin/sh\\necho hello from " + words[2] + "\\n")
    (made / "bin" / "greet").chmod(0o755)
elif words[:2] == ["shell.posix", "activate"]:
    found = next((place / words[2] for place in places if (place / words[2]).is_dir()), PREFIX if words[2:] == ["base"] else None)
    if found is None:
        sys.exit("EnvironmentNameNotFound: Could not find conda environment: " + words[2])
    print(f"PATH='{found}/bin:{os.environ['PATH']}'; export CONDA_PREFIX='{found}' CONDA_SHLVL=1")
elif words[:2] == ["shell.posix", "deactivate"]:
    path = os.environ["PATH"].replace(os.environ["CONDA_PREFIX"] + "/bin:", "", 1)
    print(f"PATH='{path}'; unset CONDA_PREFIX; export CONDA_SHLVL=0")
else:
    sys.exit("the stand-in does not know: " + " ".join(words))
"""
HOOK = """\
__conda_exe() (
    "$CONDA_EXE" "$@"
)
conda() {
    case "${1-}" in
    activate | deactivate) __conda_said=$(PS1="${PS1:-}" __conda_exe shell.posix "$@") && eval "$__conda_said" ;;
    *) __conda_exe "$@" ;;
    esac
}
if [ -z "${CONDA_SHLVL+x}" ]; then
    export CONDA_SHLVL=0
    PATH="$(dirname "$(dirname "$CONDA_EXE")")/condabin:$PATH"
fi
"""

SERVER = r"""
# Serves a folder, and does as the file `mode` in it says: slow, broken (503), whole (ignores Range) or cut:N (ends after N bytes).
import http.server, pathlib, sys, time
folder, port = pathlib.Path(sys.argv[1]), int(sys.argv[2])
class Files(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        mode = (folder / "mode").read_text().strip() if (folder / "mode").exists() else ""
        with open(folder / "asked", "a") as log:
            log.write(f"{self.path} {self.headers.get('Range', '')} {self.headers.get('Authorization', '')}".strip() + "\n")
        path = folder / self.path.rpartition("/")[2]
        if mode == "broken" or not path.is_file():
            return self.send_error(503 if mode == "broken" else 404)
        data = path.read_bytes()
        asked = "" if mode == "whole" else self.headers.get("Range", "")
        start, end = 0, len(data)
        if asked:
            first, _dash, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last) + 1, len(data)) if last else len(data)
            if start >= len(data):
                return self.send_error(416)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if mode.startswith("cut:"):
            end = min(end, start + int(mode[4:]))
        for at in range(start, end, 100_000):
            self.wfile.write(data[at:min(at + 100_000, end)])
            if mode == "slow": time.sleep(0.2)
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer(("127.0.0.1", port), Files).serve_forever()
"""


def make(folder: Path, version: str, name: str = "Miniforge3") -> tuple[Path, str]:
    """Write the installer of a version into a folder; return its path and its SHA-256."""
    text = SCRIPT
    for mark, part in (("@NAME@", name), ("@VERSION@", version), ("@CONDA@", CONDA), ("@HOOK@", HOOK)):
        text = text.replace(mark, part)
    data = text.encode() + random.Random(version).randbytes(PADDING)
    path = folder / f"{name}-{version}-Linux-x86_64.sh"
    path.write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    made = Path(sys.argv[1])
    made.mkdir(parents=True, exist_ok=True)
    for one in sys.argv[2:]:
        (made / f"{one}.sha256").write_text(make(made, one)[1])
    (made / "server.py").write_text(SERVER)
