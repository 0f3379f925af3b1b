"""JupyterLab on the sockets that systemd holds for it, with a penalty for wrong passwords.

Run by JupyterLab's own Python, with JupyterLab's own arguments. systemd gives the listening sockets.
"""

from __future__ import annotations

import concurrent.futures
from typing import Any

import web_service
from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.auth.identity import IdentityProvider, PasswordIdentityProvider
from jupyter_server.auth.login import LoginFormHandler
from jupyter_server.serverapp import ServerApp
from jupyterlab.labapp import LabApp
from tornado.ioloop import IOLoop
from traitlets import Type


class LoginHandler(LoginFormHandler):  # type: ignore[misc]
    """The login page. A wrong password makes its own sender wait, and nobody else."""

    @allow_unauthenticated  # type: ignore[untyped-decorator]
    async def post(self) -> None:
        """Let in who knows the password."""
        provider = self.identity_provider
        typed = self.get_argument("password", default="")
        allowed = provider.gate.knows(typed)
        if not allowed:
            peer = self.request.connection.stream.socket
            client, server = peer.getpeername()[:2], peer.getsockname()[:2]
            who = web_service.origin(client[0], client[1], server[1])
            allowed = await IOLoop.current().run_in_executor(provider.threads, provider.gate.allows, typed, who)
        if allowed:
            user = self.current_user = provider.generate_anonymous_user(self)
            self.log.info(f"User {user.username} logged in.")
            provider.set_login_cookie(self, user)
            self._redirect_safe(self.get_argument("next", default=self.base_url))
            return
        self.set_status(401 if allowed is False else 503)
        if allowed is None:
            self.set_header("Retry-After", "5")
        self._render(message={"error": "Invalid credentials" if allowed is False else "Too many wrong passwords. Try again in a minute."})


class SlowIdentityProvider(PasswordIdentityProvider):  # type: ignore[misc]
    """One password for all, which is slow to guess."""

    def __init__(self, **named: Any) -> None:
        """Make the gate that checks passwords, and its threads."""
        super().__init__(**named)
        self.login_handler_class = LoginHandler
        self.gate = web_service.Gate(self.passwd_check)
        self.threads = concurrent.futures.ThreadPoolExecutor(web_service.CROWD, "login")


class Server(ServerApp):  # type: ignore[misc]
    """JupyterLab's server, which takes over the sockets instead of opening a port."""

    raise_config_file_errors = True  # JupyterLab would go on without what the file says: the password for one
    identity_provider_class = Type(default_value=SlowIdentityProvider, klass=IdentityProvider, config=True)

    def _find_http_port(self) -> None:
        """Do not look whether the port is free: systemd holds it, for us."""

    def _bind_http_server_tcp(self) -> bool:
        """Listen, and tell systemd."""
        self.http_server.add_sockets(web_service.inherited_sockets())
        web_service.notify("READY=1")
        return True


if __name__ == "__main__":
    LabApp.serverapp_class = Server
    LabApp.launch_instance()
