"""What is made under a umask of 077 serves those whom it is for."""

from __future__ import annotations

from typing import Any

JUPYTER = "runuser -u jupyter -- /opt/trainyard/envs/jupyterlab/bin/jupyter"


def test_sudo_has_that_umask(host: Any) -> None:
    assert host.check_output("sudo sh -c umask") == "0077"


def test_the_service_answers(host: Any) -> None:
    ask = "curl --silent --cacert /etc/trainyard/jupyter/tls.pem --output /dev/null --write-out '%{http_code}' https://localhost:8888/login"
    assert host.check_output(ask) == "200"


def test_the_account_of_notebooks_finds_the_kernels(host: Any) -> None:
    assert " lab " in host.check_output(f"{JUPYTER} kernelspec list")


def test_no_folder_is_closed_to_users(host: Any) -> None:
    places = "/etc/trainyard /opt/trainyard /var/lib/trainyard /usr/local /etc/systemd/system /etc/apt /usr/local/share/ca-certificates"
    assert host.check_output(f"find {places} -type d ! -perm -055") == ""


def test_only_secrets_are_closed_to_users(host: Any) -> None:
    found = host.check_output("find /etc/trainyard /opt/trainyard /usr/local /etc/systemd/system /etc/apt -type f ! -perm -044").split()
    assert {path for path in found if not path.endswith("/.lock")} == {"/etc/trainyard/jupyter/password", "/etc/trainyard/jupyter/tls.pem"}
