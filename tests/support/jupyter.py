"""A JupyterLab with Notebook 7: loopback, a token, nothing shared with the user."""

import json
import os
import secrets
import sys
import urllib.request
from pathlib import Path

import nbformat
from serving import Serving, free_port

ROOT = Path(__file__).parents[2]


class Server(Serving):
    """A server on a free port; leaving the block ends it and its kernels."""

    def __init__(self, folder):
        port = free_port()
        self.kind, self.token = "jupyterlab", secrets.token_hex(16)
        self.home = f"http://127.0.0.1:{port}"
        self.work = folder / "work"
        self.work.mkdir(parents=True)
        own = {f"JUPYTER_{part}_DIR": folder / part for part in ("CONFIG", "DATA", "RUNTIME")}
        own |= {f"JUPYTERLAB_{part}_DIR": folder / part for part in ("SETTINGS", "WORKSPACES")}
        # The kernel imports the checkout that is being tested.
        self.environment = {
            **os.environ, **{key: str(path) for key, path in own.items()},
            "IPYTHONDIR": str(folder / "ipython"), "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        self.command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}"]
        self.command += ["--ip=127.0.0.1", f"--IdentityProvider.token={self.token}"]
        self.command += [f"--ServerApp.root_dir={self.work}", "--allow-root"]
        self.command += ["--LabApp.expose_app_in_browser=True"]
        self.command += ["--JupyterNotebookApp.expose_app_in_browser=True"]
        self.alive = f"{self.home}/api/status?token={self.token}"
        self.log = folder / "log.txt"
        quiet = folder / "SETTINGS" / "@jupyterlab" / "apputils-extension"
        quiet.mkdir(parents=True)
        (quiet / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')

    def url(self, name, app="lab"):
        """Return the address of a notebook in JupyterLab or, as ``notebook``, in Notebook 7."""
        # A workspace of its own, so that no other notebook is open beside it.
        own = f"lab/workspaces/{secrets.token_hex(4)}/tree"
        place = {"lab": own, "notebook": "notebooks"}[app]
        return f"{self.home}/{place}/{name}?token={self.token}"

    def share_kernel(self, running, name):
        """Let a notebook that is not open yet run in the kernel of one that is."""
        (kernel,) = (s["kernel"]["id"] for s in self._sessions() if s["path"] == running)
        self._sessions({"path": name, "name": name, "type": "notebook", "kernel": {"id": kernel}})

    def _sessions(self, added=None):
        request = urllib.request.Request(
            f"{self.home}/api/sessions", data=added and json.dumps(added).encode(),
            headers={"Authorization": f"token {self.token}"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def write(self, name, *cells):
        """Save a notebook of code cells where the server sees it."""
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
            metadata={
                "kernelspec": {
                    "name": "python3", "display_name": "Python 3", "language": "python",
                }
            },
        )  # fmt: skip
        path = self.work / name
        nbformat.write(notebook, path)
        return path


def run_all(page):
    """Run the notebook in view, once its kernel is there."""
    page.wait_for_function(
        """() => {
            const context = window.jupyterapp?.shell?.currentWidget?.sessionContext;
            return context?.session?.kernel?.connectionStatus === 'connected';
        }""",
        timeout=90_000,
    )
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
