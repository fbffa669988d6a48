"""A JupyterLab, Notebook or Voilà of its own: loopback, a token, nothing shared with the user."""

import os
import secrets
import sys
from pathlib import Path

import nbformat
from serving import Serving, free_port

ROOT = Path(__file__).parents[2]
MODULES = {"lab": "jupyterlab", "notebook": "notebook", "voila": "voila"}


class Server(Serving):
    """A server on a free port; leaving the block ends it and its kernels."""

    def __init__(self, folder, kind="lab", notebook=None):
        self.port = free_port()
        self.kind, self.token = kind, secrets.token_hex(16)
        self.home = f"http://127.0.0.1:{self.port}"
        self.work = folder / "work"
        self.work.mkdir(parents=True)
        own = {f"JUPYTER_{part}_DIR": folder / part for part in ("CONFIG", "DATA", "RUNTIME")}
        own |= {f"JUPYTERLAB_{part}_DIR": folder / part for part in ("SETTINGS", "WORKSPACES")}
        # The kernel imports the checkout that is being tested.
        self.environment = {
            **os.environ,
            **{key: str(path) for key, path in own.items()},
            "IPYTHONDIR": str(folder / "ipython"),
            "PYTHONPATH": str(ROOT),
        }
        self.command = [sys.executable, "-m", MODULES[kind], "--no-browser"]
        self.command += [f"--port={self.port}"]
        if kind == "voila":
            self.command += ["--Voila.ip=127.0.0.1", str(notebook)]
            self.alive = self.home
        else:
            self.command += ["--ip=127.0.0.1", f"--IdentityProvider.token={self.token}"]
            self.command += [f"--ServerApp.root_dir={self.work}", "--allow-root"]
            self.command += ["--expose-app-in-browser"]
            self.alive = f"{self.home}/api/status?token={self.token}"
        self.log = folder / "log.txt"
        quiet = folder / "SETTINGS" / "@jupyterlab" / "apputils-extension"
        quiet.mkdir(parents=True)
        (quiet / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')

    def url(self, name):
        # A workspace of its own, so that no other notebook is open beside it.
        own = f"lab/workspaces/{secrets.token_hex(4)}/tree"
        place = {"lab": own, "notebook": "notebooks"}[self.kind]
        return f"{self.home}/{place}/{name}?token={self.token}"

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
