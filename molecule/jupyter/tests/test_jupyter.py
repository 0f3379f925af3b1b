"""JupyterLab as people and attackers find it."""

from __future__ import annotations

import json
import ssl
import time
from typing import Any

import pytest

from tests.web_service import WebService

PASSWORD = "Feigen-im-Februar-77"
FOLDER = "/etc/trainyard/jupyter"

# Runs on the node: logs in over TLS that trusts the service's own certificate and nothing else, then asks the server's interface.
CLIENT = """
import http.cookiejar, json, re, ssl, sys, urllib.error, urllib.parse, urllib.request
password, path = sys.argv[1:]
context = ssl.create_default_context(cafile="/etc/trainyard/jupyter/tls.pem")
cookies = http.cookiejar.CookieJar()
ask = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), urllib.request.HTTPCookieProcessor(cookies)).open
site = "https://localhost:8888"
ask(site + "/login").read()
key = next(cookie.value for cookie in cookies if cookie.name == "_xsrf")
try:
    ask(site + "/login", urllib.parse.urlencode({"password": password, "_xsrf": key}).encode()).read()
    answer = ask(site + path)
    print(json.dumps({"status": answer.status, "body": json.load(answer)}))
except urllib.error.HTTPError as error:
    print(json.dumps({"status": error.code, "body": None}))
"""
PLAIN_CLIENT = """
import http.client
connection = http.client.HTTPConnection("localhost", 8888, timeout=5)
connection.request("GET", "/login")
print(connection.getresponse().status)
"""


def ask(host: Any, password: str, path: str) -> dict[str, Any]:
    """Log in on the node and return status and body of an answer."""
    done = host.run("python3 -c %s %s %s", CLIENT, password, path)
    assert done.rc == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


class TestService(WebService):
    name = "jupyter"
    password = PASSWORD
    process = "trainyard/jupyter"
    port = 8888

    def answers(self, host: Any) -> bool:
        return bool(ask(host, PASSWORD, "/api/status")["status"] == 200)

    def test_its_account_has_no_password(self, host: Any) -> None:
        assert host.check_output("ps -o user= -p %s", self.main_pid(host)).strip() == "jupyter"
        assert host.check_output("passwd --status jupyter").split()[1] == "L"

    def test_nobody_logs_in_as_its_account(self, host: Any) -> None:
        assert "Jan 02, 1970" in host.check_output("LC_ALL=C chage --list jupyter")
        assert "account has expired" in host.run("su -s /bin/sh jupyter -c true").stderr
        assert host.check_output("runuser -u jupyter -- id -un") == "jupyter"

    def test_it_outlives_a_logout(self, host: Any) -> None:
        before = self.main_pid(host)
        host.check_output("loginctl terminate-user jupyter || true")
        host.check_output("systemctl restart systemd-logind")
        assert self.main_pid(host) == before
        assert "/system.slice/" in host.check_output("cat /proc/%s/cgroup", before)


def test_it_listens_on_loopback_alone(host: Any) -> None:
    lines = host.check_output("ss -Htln").splitlines()
    assert [line.split()[3] for line in lines if line.split()[3].endswith(":8888")] == ["127.0.0.1:8888", "[::1]:8888"]


def test_plain_http_is_not_answered(host: Any) -> None:
    assert host.run("python3 -c %s", PLAIN_CLIENT).rc != 0


def test_the_right_password_lets_in(host: Any) -> None:
    assert ask(host, PASSWORD, "/api/status")["status"] == 200
    assert ask(host, PASSWORD, "/api/me")["body"]["identity"]["username"]


@pytest.mark.parametrize("password", ["", "wrong", PASSWORD.lower()])
def test_another_password_does_not(host: Any, password: str) -> None:
    assert ask(host, password, "/api/status")["status"] in {401, 403}


def test_no_token_lets_in(host: Any) -> None:
    token = json.loads(host.check_output("sh -c 'cat /run/trainyard-jupyter/jpserver-*.json'"))["token"]
    assert token == ""


def test_the_environment_is_a_kernel(host: Any) -> None:
    kernels = ask(host, PASSWORD, "/api/kernelspecs")["body"]
    assert kernels["default"] == "lab"
    spec = kernels["kernelspecs"]["lab"]["spec"]
    assert (spec["display_name"], spec["argv"][0]) == ("The lab's own", "/opt/trainyard/envs/jupyterlab/bin/python")


def test_jupyterlabs_own_kernel_is_not_offered_and_notebooks_that_name_it_get_the_default(host: Any) -> None:
    assert list(ask(host, PASSWORD, "/api/kernelspecs")["body"]["kernelspecs"]) == ["lab"]
    assert host.file("/opt/trainyard/envs/jupyterlab/share/jupyter/kernels/python3/kernel.json").exists, "the one that is hidden"
    assert ask(host, PASSWORD, "/api/kernelspecs/python3")["body"]["spec"]["display_name"] == "The lab's own"


def test_a_kernel_has_a_logo(host: Any) -> None:
    resources = ask(host, PASSWORD, "/api/kernelspecs")["body"]["kernelspecs"]["lab"]["resources"]
    assert resources == {"logo-svg": "/kernelspecs/lab/logo-svg.svg"}
    assert ">T</text>" in host.file("/usr/local/share/jupyter/kernels/lab/logo-svg.svg").content_string


def test_the_login_page_names_the_lab_and_says_where_the_password_is(host: Any) -> None:
    page = host.check_output("curl --silent --cacert %s/tls.pem https://localhost:8888/login", FOLDER)
    assert "JupyterLab of Test lab, on " in page
    assert "<code>jupyter_password</code>" in page
    assert PASSWORD not in page


def test_the_certificate_is_for_this_node_and_for_long(host: Any) -> None:
    shown = host.check_output("openssl x509 -in %s/tls.pem -noout -enddate -ext subjectAltName", FOLDER)
    assert all(name in shown for name in ("DNS:localhost", "IP Address:127.0.0.1", f"DNS:{host.check_output('hostname')}"))
    ends = ssl.cert_time_to_seconds(shown.split("notAfter=")[1].splitlines()[0])
    assert 90 < (ends - time.time()) / 86400 <= 826


def test_others_cannot_read_what_it_made(host: Any) -> None:
    for name in ("", "/password", "/tls.pem"):
        for folder in ("/run/trainyard-jupyter", "/run/credentials/trainyard-jupyter.service"):
            assert host.run("su -s /bin/sh nobody -c 'cat %s%s'", folder, name).rc != 0


def test_kernels_talk_where_nobody_can_listen(host: Any) -> None:
    assert host.file(f"{FOLDER}/jupyter_server_config.py").contains('"transport": "ipc"')
