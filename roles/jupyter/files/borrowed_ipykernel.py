"""Starts a kernel in an environment without ipykernel, which is borrowed from JupyterLab's own environment.

Run by the environment's Python: FILE FOLDER ARGUMENTS, with the folder of packages that ipykernel lies in and what ipykernel is told.
The folder stands last on the module path, so that what the environment has itself comes first.
"""

import sys

if __name__ == "__main__":
    del sys.path[0]  # this file's own folder
    sys.path.append(sys.argv.pop(1))
    try:
        from ipykernel import kernelapp
    except ImportError as error:
        sys.exit(f"JupyterLab's ipykernel does not work here ({error}). Remedy: {sys.executable} -m pip install ipykernel")
    kernelapp.launch_new_instance()
