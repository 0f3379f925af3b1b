"""A stand-in for NVIDIA's installer, the runfile: its options, exit status, list of files, log and uninstaller; its module drives nothing.

DKMS really builds the module. The stand-in refuses an option that it does not know, so that a misspelt one is seen. Where the file
/run/runfile-stops-here is there, it is killed in the middle of its work, as by a power cut.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from tests import vendor_stand_in

SCRIPT = r"""#!/bin/sh
# Stand-in of Trainyard's tests.
version_string=@VERSION@
flavour=proprietary dkms=n kernel=$(uname -r) uninstall=n
for word in "$@"; do
    case "$word" in
        --silent|--ui=none|--no-questions|--no-x-check|--no-nouveau-check|--skip-module-load) ;;
        --dkms) dkms=y ;;
        --kernel-module-type=open|--kernel-module-type=proprietary) flavour=${word#*=} ;;
        --kernel-name=*) kernel=${word#*=} ;;
        --uninstall) uninstall=y ;;
        *) echo "ERROR: unrecognized option '$word'" >&2; exit 1 ;;
    esac
done
list=/var/lib/nvidia/log
log() { echo "$*" >> /var/log/nvidia-installer.log; }
remove() {
    [ -f $list ] || { echo "There is no driver to uninstall." >&2; exit 1; }
    version=$(head -n 1 $list)
    if [ -d /var/lib/dkms/nvidia/$version ]; then dkms remove -m nvidia -v $version --all > /dev/null; fi
    sed -n 's/^0: //p' $list | xargs -r rm -f
    rm -rf /usr/src/nvidia-$version /var/lib/nvidia
}
if [ $uninstall = y ]; then remove; exit 0; fi
: > /var/log/nvidia-installer.log
log "creation time: $(date)"
[ -f $list ] && remove
if [ ! -d /lib/modules/$kernel/build ]; then
    log "ERROR: Unable to find the kernel source tree for the currently running kernel."
    echo "ERROR: Unable to find the kernel source tree for the currently running kernel." >&2; exit 1
fi
mkdir -p /var/lib/nvidia; chmod 0700 /var/lib/nvidia
printf '%s\n%s\n' $version_string "NVIDIA Accelerated Graphics Driver for Linux-x86_64" > $list
put() { printf '0: %s\n0\n' "$1" >> $list; cat > "$1"; }
put /usr/lib/x86_64-linux-gnu/libcuda.so.$version_string < /dev/null
[ -e /run/runfile-stops-here ] && kill -KILL $$
put /usr/bin/nvidia-smi << 'END'
@SMI@END
put /usr/bin/nvidia-uninstall << 'END'
@UNINSTALL@END
put /usr/bin/nvidia-persistenced << 'END'
#!/bin/sh
echo "nvidia-persistenced failed to initialize. Check syslog for more details." >&2
exit 1
END
chmod 0755 /usr/bin/nvidia-smi /usr/bin/nvidia-uninstall /usr/bin/nvidia-persistenced
mkdir -p /usr/src/nvidia-$version_string
cd /usr/src/nvidia-$version_string
cat > dkms.conf << 'END'
@DKMS@END
echo 'obj-m := nvidia.o' > Makefile
if [ $flavour = open ]; then
cat > nvidia.c << 'END'
@OPEN@END
else
cat > nvidia.c << 'END'
@PROPRIETARY@END
fi
if [ $dkms = y ]; then
    dkms add -m nvidia -v $version_string > /dev/null
    dkms install -m nvidia -v $version_string -k $kernel > /dev/null || { log "ERROR: DKMS failed"; exit 1; }
fi
log "Installation of the driver is now complete."
"""
UNINSTALL = r"""#!/bin/sh
[ "$*" = --silent ] || { echo "ERROR: unrecognized option" >&2; exit 1; }
list=/var/lib/nvidia/log
version=$(head -n 1 $list)
if [ -d /var/lib/dkms/nvidia/$version ]; then dkms remove -m nvidia -v $version --all > /dev/null; fi
files=$(sed -n 's/^0: //p' $list)
rm -rf /usr/src/nvidia-$version /var/lib/nvidia
rm -f $files
"""


def make(folder: Path, version: str) -> tuple[Path, str]:
    """Write the installer of a version into a folder; return its path and its SHA-256."""
    text = SCRIPT
    for mark, part in (
        ("@VERSION@", version),
        ("@SMI@", vendor_stand_in.SMI),
        ("@UNINSTALL@", UNINSTALL),
        ("@DKMS@", vendor_stand_in.DKMS.format(version=version)),
        ("@OPEN@", vendor_stand_in.module_source(version, "open")["nvidia.c"]),
        ("@PROPRIETARY@", vendor_stand_in.module_source(version, "proprietary")["nvidia.c"]),
    ):
        text = text.replace(mark, part)
    path = folder / f"NVIDIA-Linux-x86_64-{version}.run"
    path.write_text(text)
    return path, hashlib.sha256(text.encode()).hexdigest()
